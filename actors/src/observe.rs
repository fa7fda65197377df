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

/// A fact worth counting.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Observation<'a> {
    /// A client asked for a session.
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
        /// `done`, `failed`, `abandoned`, `lingered_out` or `superseded`.
        outcome: &'static str,
        /// Audio it heard.
        audio: Duration,
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
        /// Time since its first audio came in.
        after: Duration,
    },
    /// A segment was committed.
    FinalCommitted {
        /// The model.
        model: &'a str,
        /// Why the segment ended.
        cause: CutCause,
        /// From the arrival of its last audio.
        latency: Duration,
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
