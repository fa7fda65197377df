//! What the actors tell whoever counts: facts, as they happen.

use std::time::Duration;

use starling_core::pool::HostEnd;
use starling_core::session::LossCause;
use starling_protocol::control::SessionReport;
use starling_protocol::native::ErrorCode;
use starling_protocol::{CutCause, NodeName, SessionId};

use crate::session::Dialect;

/// Takes observations. Called on the hot path: it must not block.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, observation: &Observation<'_>);
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SilentObserver;

impl Observer for SilentObserver {
    fn observe(&self, _: &Observation<'_>) {}
}

/// How a session stands with its client and its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionPhase {
    /// No decoder was found for it yet; its client waits.
    Opening,
    /// Its client is there, and so is a decoder.
    Connected,
    /// Its decoder is lost, and the next one has not caught up.
    Recovering,
    /// Its client is gone and may come back.
    Away,
}

impl SessionPhase {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Opening, Self::Connected, Self::Recovering, Self::Away];

    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Connected => "connected",
            Self::Recovering => "recovering",
            Self::Away => "away",
        }
    }
}

/// What of a session is counted while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionStanding {
    /// See there.
    pub phase: SessionPhase,
    /// It should have a copy on another node and has none.
    pub lacks_copy: bool,
}

/// Every way a session ends, as [`Observation::SessionEnded`] has it.
pub const SESSION_OUTCOMES: [&str; 11] = [
    "done",
    "abandoned",
    "lingered_out",
    "superseded",
    "slow_reader",
    "idle_timeout",
    "options_refused",
    "shut_down",
    "failed",
    CRASHED,
    OWNER_LOST,
];

/// How a session ended whose actor failed: its supervisor tells of it.
pub(crate) const CRASHED: &str = "crashed";

/// How a session ended whose node was lost and whose client did not come back, as a node tells of it that had a copy.
pub(crate) const OWNER_LOST: &str = "owner_lost";

/// What a session lost when another node went on with it, where a lost decoder's cause stands otherwise.
pub const TAKEN_OVER: &str = "taken_over";

/// A fact worth counting.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A client asked for a new session. Told once for each, also when it has to wait for something before it is begun; never for
    /// one that is open already.
    SessionRequested {
        /// How it came in.
        dialect: Dialect,
    },
    /// It got one.
    SessionAdmitted {
        /// How it came in.
        dialect: Dialect,
        /// The model.
        model: &'a str,
        /// How long it waited for a slot.
        queue_wait: Duration,
    },
    /// It got none.
    SessionRefused {
        /// How it came in.
        dialect: Dialect,
        /// Why.
        reason: ErrorCode,
    },
    /// A client came back.
    SessionResumed {
        /// How it came in.
        dialect: Dialect,
    },
    /// A session that lived on another node goes on here.
    SessionTakenOver {
        /// How it came in.
        dialect: Dialect,
    },
    /// A session's last copy is gone, and no other was made in time.
    SessionLeftAlone {
        /// How it came in.
        dialect: Dialect,
    },
    /// A session is over.
    SessionEnded {
        /// How it came in.
        dialect: Dialect,
        /// The model.
        model: &'a str,
        /// One of [`SESSION_OUTCOMES`]: `failed` and `crashed` are the node's own fault.
        outcome: &'static str,
    },
    /// A session stands otherwise than before; `None` before its first and after its last.
    SessionChanged {
        /// How it came in.
        dialect: Dialect,
        /// How it stood.
        was: Option<SessionStanding>,
        /// How it stands.
        is: Option<SessionStanding>,
    },
    /// A session ended with finals that its client may not have and can get from nobody.
    WordsLost {
        /// The model.
        model: &'a str,
        /// Words in them.
        words: usize,
    },
    /// Audio came in.
    AudioReceived {
        /// How.
        dialect: Dialect,
        /// How much.
        audio: Duration,
    },
    /// A session's first partial went out.
    FirstPartial {
        /// The model.
        model: &'a str,
        /// Whether its audio comes as it is spoken, and not as a recording.
        live: bool,
        /// Time since its first audio came in.
        after: Duration,
    },
    /// A segment was committed.
    FinalCommitted {
        /// The model.
        model: &'a str,
        /// Whether the session's audio comes as it is spoken, and not as a recording.
        live: bool,
        /// Why the segment ended.
        cause: CutCause,
        /// From the arrival of its last audio.
        latency: Duration,
        /// From the arrival of its last word's end; `None` if its words have no times.
        since_speech: Option<Duration>,
    },
    /// A final may be told: as many copies have it as there should be.
    FinalReleased {
        /// The model.
        model: &'a str,
        /// From its being made.
        took: Duration,
    },
    /// A session lost its decoder.
    DecoderLost {
        /// The model.
        model: &'a str,
        /// Why.
        cause: LossCause,
    },
    /// A session's standby is its decoder now.
    StandbyPromoted {
        /// The model.
        model: &'a str,
    },
    /// A session lost its standby, which its client does not notice.
    StandbyLost {
        /// The model.
        model: &'a str,
        /// Why: a loss's label, or `differed` when it cut otherwise than the other decoder.
        cause: &'static str,
    },
    /// Its replacement has caught up.
    Replayed {
        /// The model.
        model: &'a str,
        /// What was lost: a loss's label, or [`TAKEN_OVER`].
        cause: &'static str,
        /// How much was decoded again.
        audio: Duration,
        /// From the loss.
        took: Duration,
    },
    /// Something became of a session, for whoever follows single ones.
    SessionNews {
        /// Which session.
        session: SessionId,
        /// Its model.
        model: &'a str,
        /// What.
        news: SessionNews<'a>,
    },
    /// A segment could not be decoded.
    SegmentGivenUp {
        /// The model.
        model: &'a str,
    },
    /// A host is ready.
    HostStarted {
        /// The model.
        model: &'a str,
        /// Time to load it.
        load: Duration,
        /// Time to warm recognizers.
        prewarm: Duration,
    },
    /// A host is gone.
    HostExited {
        /// The model.
        model: &'a str,
        /// How.
        end: HostEnd,
    },
    /// A gossip packet was not used.
    GossipRefused {
        /// One of [`GOSSIP_REFUSALS`](crate::GOSSIP_REFUSALS).
        reason: &'static str,
    },
    /// A node answered a probe.
    GossipAnswered {
        /// From the probe to its answer.
        took: Duration,
    },
    /// This process stood still: suspended, frozen or starved.
    StoodStill {
        /// For how long.
        pause: Duration,
    },
    /// A host could not load its model.
    HostLoadFailed {
        /// The model.
        model: &'a str,
        /// Why, in its own words.
        message: &'a str,
    },
}

/// What became of a session.
#[derive(Debug, Clone, Copy)]
pub enum SessionNews<'a> {
    /// It has its first decoder.
    Began,
    /// It lives here now; it lived on another node before.
    TakenOver,
    /// It lost its decoder.
    DecoderLost {
        /// The node that decoded.
        decoder: Option<&'a NodeName>,
        /// Why.
        cause: LossCause,
    },
    /// Another decoder has caught up.
    CaughtUp {
        /// The node that decodes.
        decoder: Option<&'a NodeName>,
        /// How much was decoded again.
        audio: Duration,
        /// From the loss.
        took: Duration,
    },
    /// It is over.
    Over {
        /// As [`Observation::SessionEnded`] has it.
        outcome: &'static str,
        /// How it was then.
        report: &'a SessionReport,
    },
}
