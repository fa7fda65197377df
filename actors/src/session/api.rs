//! What a gateway holds of a session: requests in, events out. No gateway sees an actor.

use std::time::Duration;

use starling_protocol::lease::TraceContext;
use starling_protocol::native::{ErrorBody, Final, Resume, SessionOptions, WarningCode};
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};

/// Which way a client came in. A label for metrics and logs; it never decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// The native protocol over WebSocket.
    Native,
    /// vosk-server's protocol.
    Vosk,
    /// A whole recording over HTTP.
    Http,
    /// kaldi-gstreamer-server's protocol.
    Gstreamer,
    /// `OpenAI`'s interface for recordings.
    OpenAi,
    /// Deepgram's interface.
    Deepgram,
    /// `OpenAI`'s interface for live speech.
    Realtime,
    /// Asterisk's `AudioSocket`.
    AudioSocket,
    /// Wyoming, of Home Assistant's voice services.
    Wyoming,
}

impl Dialect {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::Native,
        Self::Vosk,
        Self::Http,
        Self::Gstreamer,
        Self::OpenAi,
        Self::Deepgram,
        Self::Realtime,
        Self::AudioSocket,
        Self::Wyoming,
    ];

    /// The one that has this label.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dialect| dialect.label() == label)
    }

    /// Whether its clients hear which audio was acknowledged, and send the rest again when they come back.
    #[must_use]
    pub const fn sends_again(self) -> bool {
        matches!(self, Self::Native)
    }

    /// Whether its clients are answered for each message of audio once that is decoded.
    #[must_use]
    pub const fn is_in_lockstep(self) -> bool {
        matches!(self, Self::Vosk)
    }

    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Vosk => "vosk",
            Self::Http => "http",
            Self::Gstreamer => "gstreamer",
            Self::OpenAi => "openai",
            Self::Deepgram => "deepgram",
            Self::Realtime => "openai_realtime",
            Self::AudioSocket => "audiosocket",
            Self::Wyoming => "wyoming",
        }
    }
}

/// A session that is to be opened.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The client's id, or one made for a client whose dialect has none.
    pub session: SessionId,
    /// Number of the connection that opens it: higher than 1 if the client has asked before and got no answer.
    pub epoch: Epoch,
    /// Whose it is; empty where nobody has a name. Nobody else can come back to it.
    pub tenant: String,
    /// Which way it came in.
    pub dialect: Dialect,
    /// A model by name; `None` for the node's default.
    pub model: Option<String>,
    /// Frames a second in the client's audio (mono PCM16, little endian).
    pub sample_rate: u32,
    /// What the client wants.
    pub options: SessionOptions,
    /// How long the session outlives its connection; zero for dialects that can't come back.
    pub linger: Duration,
    /// The id is what the client comes back by, and all it has: if a session of that id lives on any node, it goes on here,
    /// and the client gets the finals first that it has not read.
    pub by_id: bool,
    /// The client's trace.
    pub trace: Option<TraceContext>,
}

impl OpenRequest {
    /// A session of the default model and options, that begins with this connection and ends with it. Whose it is, and of which
    /// trace, is filled in on its way.
    #[must_use]
    pub fn new(session: SessionId, dialect: Dialect, sample_rate: u32) -> Self {
        Self {
            session,
            epoch: Epoch(1),
            tenant: String::new(),
            dialect,
            model: None,
            sample_rate,
            options: SessionOptions::default(),
            linger: Duration::ZERO,
            by_id: false,
            trace: None,
        }
    }
}

/// What a client is told when its session is open or goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Ready {
    /// The session.
    pub session: SessionId,
    /// The connection's number.
    pub epoch: Epoch,
    /// To be shown at a resume.
    pub token: String,
    /// The model that was chosen.
    pub model: String,
    /// Frames a second of its audio, whatever the client says when it comes back.
    pub sample_rate: u32,
    /// Audio before this is held.
    pub have_until: SourceOffset,
    /// Number of the next final; finals that the client lacks follow as events.
    pub next_segment: Segment,
    /// Whether the session existed before.
    pub resumed: bool,
    /// Whether acknowledged audio is in two copies.
    pub durable: bool,
    /// How long the session is kept for a client that has gone.
    pub linger: Duration,
    /// Options that the model can't serve and that were left out.
    pub warnings: Vec<(WarningCode, String)>,
    /// What lines of the log about it are to be within.
    pub log: tracing::Span,
}

/// A client that goes on with a session.
#[derive(Debug, Clone)]
pub struct ResumeRequest {
    /// The session.
    pub session: SessionId,
    /// Who the client is; empty where nobody has a name.
    pub tenant: String,
    /// What the client holds.
    pub resume: Resume,
    /// The client's trace.
    pub trace: Option<TraceContext>,
}

/// Something a client is to be told, in this order. Partials, acks and progress that were overtaken are left out, so what
/// waits for a slow reader is bounded; finals never are.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionEvent {
    /// Where copies of the session are now.
    View {
        /// Which set of copies.
        view: u64,
        /// To be shown at a resume from now on.
        token: String,
        /// Whether what is acknowledged is in two copies.
        durable: bool,
        /// Where clients reach nodes with copies, `HOST:PORT`.
        resume_at: Vec<String>,
    },
    /// Audio before this is held, by the nodes with copies too.
    Ack(SourceOffset),
    /// The text so far.
    Partial {
        /// The open segment.
        segment: Segment,
        /// Its first frame.
        from: SourceOffset,
        /// How far the text reaches.
        until: SourceOffset,
        /// The text so far.
        text: String,
    },
    /// A committed segment. The gateway confirms it (see `SessionInput::confirm`) once the client has it.
    Final(Final),
    /// All audio before `until` has been decoded, and what it gave came before this. Native clients aren't told.
    Progress {
        /// Source frames decoded.
        until: SourceOffset,
        /// A decoder was lost and its replacement has not caught up yet.
        recovering: bool,
    },
    /// The session goes on, but the client should know.
    Warning(WarningCode, String),
    /// The session is over.
    Failed(ErrorBody),
    /// The session is over and every final was sent.
    Done {
        /// How many segments.
        segments: u64,
        /// How many source frames.
        frames: SourceOffset,
    },
}
