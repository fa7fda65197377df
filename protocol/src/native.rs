//! The native client protocol. Over WebSocket: JSON text messages for control, binary messages for audio. Over QUIC and
//! WebTransport: frames with the same messages, see [`stream`].
//!
//! A client opens with [`ClientMessage::Hello`] and waits for [`ServerMessage::Ready`]; from then on its binary messages
//! are audio, contiguous from `ready.have_until`. Offsets count source frames: what the client itself sent, whatever the
//! model's rate. The whole exchange, with a state diagram and a worked resume, is in `docs/protocol.md`.

use serde::{Deserialize, Serialize};

use crate::limits::{ENDPOINT_SILENCE_MS, MAX_SEGMENT_MS};
use crate::{CutCause, Epoch, Segment, SessionId, SourceOffset};

mod close;
mod format;
mod key;
mod parse;
pub mod stream;

pub use close::{CLOSES, Close, webtransport_code};
pub use format::{AudioFormat, Encoding};
pub use key::ApiKey;
pub use parse::{ParseError, parse_client};

/// Version of the native protocol that this build speaks.
pub const NATIVE_PROTOCOL: u16 = 1;

/// From a client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// First message: open a session, or go on with one.
    Hello(Box<Hello>),
    /// Every final up to this segment has been received; the server may forget them.
    Confirm {
        /// The last segment received.
        segment: Segment,
    },
    /// End the open segment here and give its final now.
    Finalize {},
    /// No more audio will come. Answered by the last finals and `done`.
    End {},
}

/// What a session is to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`NATIVE_PROTOCOL`] of the client; absent means 1.
    #[serde(default = "first_protocol")]
    pub protocol: u16,
    /// Made by the client; absent means that the server is to make one (and that a lost `ready` can't be resumed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// This connection's number where no `ready` has come yet: higher than that of any `hello` for the session before, which may
    /// have been heard by another node. Absent means 1. A `resume` has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// A model by name; absent means the node's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The language that is spoken, by its tag (BCP 47), for which a model is chosen; absent means the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How the audio is encoded.
    #[serde(default)]
    pub format: AudioFormat,
    /// What the client wants to get.
    #[serde(default)]
    pub options: SessionOptions,
    /// Present when this goes on with a session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// A key, where one is asked for and no header could carry it. What the transport carried comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// W3C trace context of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// See `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

const fn first_protocol() -> u16 {
    1
}

impl Hello {
    /// A hello for a new session with everything else at its default.
    #[must_use]
    pub fn new(session: SessionId) -> Self {
        Self {
            protocol: NATIVE_PROTOCOL,
            session: Some(session),
            epoch: None,
            model: None,
            language: None,
            format: AudioFormat::default(),
            options: SessionOptions::default(),
            resume: None,
            api_key: None,
            traceparent: None,
            tracestate: None,
        }
    }
}

/// What a client wants to get. Fields that affect text are fixed for the session's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionOptions {
    /// Words with times and confidences in finals.
    #[serde(default)]
    pub words: bool,
    /// Readings in finals; 0 for one plain text.
    #[serde(default)]
    pub alternatives: u8,
    /// Words and phrases to listen for, where the engine can.
    #[serde(default)]
    pub phrases: Vec<String>,
    /// Send partials.
    #[serde(default = "yes")]
    pub partials: bool,
    /// Least audio between two partials, in milliseconds.
    #[serde(default = "default_partial_interval_ms")]
    pub partial_interval_ms: u32,
    /// The audio is a file and may wait for live speech.
    #[serde(default)]
    pub batch: bool,
    /// Where segments end, if not where the node's settings say.
    #[serde(default, skip_serializing_if = "Endpointing::is_default")]
    pub endpointing: Endpointing,
}

/// Where a client wants segments to end. What is absent is as the node has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpointing {
    /// So much silence after speech ends a segment, in milliseconds. An engine with an endpoint of its own may end it sooner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u32>,
    /// No segment is longer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_segment_ms: Option<u32>,
}

impl Endpointing {
    /// Whether the lengths can be.
    ///
    /// # Errors
    /// One is out of its range; the error names it, with what stands before its name.
    pub fn check(&self, before: &str) -> Result<(), ErrorBody> {
        for (name, value, allowed) in [
            ("silence_ms", self.silence_ms, ENDPOINT_SILENCE_MS),
            ("max_segment_ms", self.max_segment_ms, MAX_SEGMENT_MS),
        ] {
            if let Some(value) = value
                && !allowed.contains(&value)
            {
                let allowed = format!("{} to {}", allowed.start(), allowed.end());
                return Err(ErrorBody::field(&format!("{before}{name}"), value.to_string(), allowed));
            }
        }
        Ok(())
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

const fn yes() -> bool {
    true
}

/// A reader takes in a few words at a time; five texts a second look continuous.
const fn default_partial_interval_ms() -> u32 {
    200
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            words: false,
            alternatives: 0,
            phrases: Vec::new(),
            partials: true,
            partial_interval_ms: default_partial_interval_ms(),
            batch: false,
            endpointing: Endpointing::default(),
        }
    }
}

/// What the client still holds of a session it goes on with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The last `ready.token`.
    pub token: String,
    /// Higher than any epoch this session has used.
    pub epoch: Epoch,
    /// The last final that arrived; absent when none has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_final: Option<Segment>,
    /// Where that final ended: its `to`. A server whose copy of the session is older than what the client has goes on from
    /// there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_to: Option<SourceOffset>,
    /// The earliest source frame that the client can still send.
    #[serde(default)]
    pub have_from: SourceOffset,
}

/// From the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ServerMessage {
    /// The session is open.
    Ready {
        /// The session.
        session: SessionId,
        /// The connection's number in the session's life.
        epoch: Epoch,
        /// To be shown at a resume. Opaque.
        token: String,
        /// The model that was chosen.
        model: String,
        /// The server has all audio before this; send from here. It is not acknowledged by that: `ack` is what counts.
        have_until: SourceOffset,
        /// The next final's number; finals that the client lacks follow at once.
        next_segment: Segment,
        /// Whether this goes on with an earlier connection's session.
        resumed: bool,
        /// Whether acknowledged audio is in two copies.
        durable: bool,
        /// How long the session is kept for a client that has gone, in milliseconds.
        linger_ms: u64,
        /// The name of the node that the session lives on from now on; empty where it has none.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        node: String,
    },
    /// Where copies of the session are now. Takes the place of what `ready` or an earlier `view` said; what is acknowledged
    /// from here on counts on it.
    View {
        /// Which set of copies, counted over the session's life.
        view: u64,
        /// To be shown at a resume from now on. Opaque.
        token: String,
        /// Whether what is acknowledged is in two copies. While it is not, the loss of the node loses what the client no
        /// longer holds.
        durable: bool,
        /// `HOST:PORT` of nodes that hold a copy, where a resume is quickest; any other node will do too.
        resume_at: Vec<String>,
    },
    /// All audio before `until` is held by the server, and by the nodes with copies when the session is durable.
    Ack {
        /// The first frame that is not yet held.
        until: SourceOffset,
    },
    /// The text so far of the open segment. Replaced by the next partial or the final.
    Partial {
        /// The segment.
        segment: Segment,
        /// Its first frame.
        from: SourceOffset,
        /// How far the text reaches.
        until: SourceOffset,
        /// The text so far.
        text: String,
    },
    /// A segment's committed text. Never changed, never sent with other content.
    Final(Final),
    /// Something the client should know; the session goes on.
    Warning {
        /// What kind.
        code: WarningCode,
        /// In a sentence.
        message: String,
    },
    /// Something is wrong with what the client did or asked, or can't be served.
    Error(ErrorBody),
    /// Every final has been sent; the server closes.
    Done {
        /// How many segments there were.
        segments: u64,
        /// How many source frames were heard.
        frames: SourceOffset,
    },
    /// This node is about to stop: open the next connection elsewhere, then leave this one.
    GoAway {
        /// How long this connection will be served, in milliseconds.
        deadline_ms: u64,
    },
}

/// A committed segment, in the client's terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// Its number; finals come in order without a hole.
    pub segment: Segment,
    /// First source frame; equals the previous final's `to`.
    pub from: SourceOffset,
    /// Source frame after the last.
    pub to: SourceOffset,
    /// Start in seconds from the session's first frame.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// Why it ended.
    pub cause: CutCause,
    /// The text; empty when nothing was said.
    pub text: String,
    /// Words, when asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<TimedWord>,
    /// 0 to 1, where the engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Further readings, when asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<TimedAlternative>,
    /// Set when the segment could not be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A word with times in seconds from the session's first frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedWord {
    /// The word.
    pub word: String,
    /// Start in seconds.
    pub start: f64,
    /// End in seconds.
    pub end: f64,
    /// 0 to 1, where the engine says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
}

/// Another reading of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedAlternative {
    /// The text.
    pub text: String,
    /// The engine's own score.
    pub confidence: f32,
    /// Words, when asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<TimedWord>,
}

/// Kinds of warnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WarningCode {
    /// An option was taken but can't be served by this model.
    OptionIgnored,
    /// The session moved to a decoder of another determinism class.
    Determinism,
    /// The audio is most likely not what it was said to be.
    SuspectAudio,
}

/// An error in the client's terms.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What kind.
    pub code: ErrorCode,
    /// In a sentence.
    pub message: String,
    /// The field it is about, as the client wrote its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What would have been right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    /// When to try again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl ErrorBody {
    /// An error with a sentence and nothing else.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, value: None, allowed: None, retry_after_ms: None }
    }

    /// An error about one field.
    #[must_use]
    pub fn field(field: &str, value: impl Into<String>, allowed: impl Into<String>) -> Self {
        let (value, allowed) = (value.into(), allowed.into());
        Self {
            code: ErrorCode::BadRequest,
            message: format!("{field} is {value}; it must be {allowed}"),
            field: Some(field.to_owned()),
            value: Some(value),
            allowed: Some(allowed),
            retry_after_ms: None,
        }
    }
}

/// Kinds of errors. All but [`ErrorCode::BadMessage`] end the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// A message after `hello` was no message of this protocol; it was ignored and the session goes on.
    BadMessage,
    /// The hello can't be served as it is.
    BadRequest,
    /// No such model.
    UnknownModel,
    /// No decoder is free; try again after `retry_after_ms`.
    Busy,
    /// No such session here: it has ended, or never was.
    UnknownSession,
    /// The token is not this session's.
    BadToken,
    /// A later connection speaks for this session.
    Superseded,
    /// The client can't send audio that the server still needs.
    Gap,
    /// The client does not read its finals.
    SlowReader,
    /// Nothing came for too long.
    IdleTimeout,
    /// The node is stopping.
    ShuttingDown,
    /// The server's fault.
    Internal,
    /// No key was shown, or one that is nobody's.
    Unauthorized,
    /// The key is not good for this.
    Forbidden,
    /// The key's owner has taken what it may take for now; try again after `retry_after_ms`.
    OverQuota,
    /// The session has had as much audio as one may have. Its finals have been told; what follows takes a new one.
    SessionTooLong,
}

#[cfg(test)]
mod tests;
