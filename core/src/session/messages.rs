//! What a session machine is told and what it asks for.

use starling_protocol::data::LeaseLost;
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment, SourceOffset};

use crate::journal::Entry;

/// What kind of decoder a session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeaseKind {
    /// A slot in a host that others use too.
    Shared,
    /// A host of its own: this segment may kill what decodes it.
    Quarantine,
}

/// Why a decoder is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossCause {
    /// The host died by itself; `suspect` when it was working on this session at that moment.
    Crashed {
        /// See above.
        suspect: bool,
    },
    /// The host was killed from outside.
    Killed,
    /// The host's heartbeats stopped.
    Silent,
    /// A native call did not return; `suspect` when it worked on this session.
    Stuck {
        /// See above.
        suspect: bool,
    },
    /// The engine answered with an error; its host lives on.
    EngineFailed,
    /// The host said something that can't be.
    Protocol,
    /// The node that had the host is gone, or the way there.
    NodeLost,
}

impl From<LossCause> for LeaseLost {
    fn from(cause: LossCause) -> Self {
        match cause {
            LossCause::Crashed { suspect } => Self::Crashed { suspect },
            LossCause::Killed => Self::Killed,
            LossCause::Silent => Self::Silent,
            LossCause::Stuck { suspect } => Self::Stuck { suspect },
            LossCause::EngineFailed => Self::EngineFailed,
            LossCause::Protocol => Self::Protocol,
            LossCause::NodeLost => Self::NodeLost,
        }
    }
}

impl From<LeaseLost> for LossCause {
    /// A cause that only a newer node knows blames nobody.
    fn from(cause: LeaseLost) -> Self {
        match cause {
            LeaseLost::Crashed { suspect } => Self::Crashed { suspect },
            LeaseLost::Silent => Self::Silent,
            LeaseLost::Stuck { suspect } => Self::Stuck { suspect },
            LeaseLost::EngineFailed => Self::EngineFailed,
            LeaseLost::Protocol => Self::Protocol,
            LeaseLost::NodeLost => Self::NodeLost,
            _ => Self::Killed,
        }
    }
}

impl LossCause {
    /// Every label there is, for series that begin at nothing.
    pub const LABELS: [&str; 7] =
        ["crashed", "killed", "silent", "stuck", "engine_failed", "protocol", "node_lost"];

    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Crashed { .. } => "crashed",
            Self::Killed => "killed",
            Self::Silent => "silent",
            Self::Stuck { .. } => "stuck",
            Self::EngineFailed => "engine_failed",
            Self::Protocol => "protocol",
            Self::NodeLost => "node_lost",
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionEvent {
    /// A connection wants to speak for the session.
    Attach {
        /// Its number; has to be higher than any before.
        epoch: Epoch,
        /// The last final the client has.
        last_final: Option<Segment>,
        /// The earliest frame the client can send.
        have_from: SourceOffset,
    },
    /// A connection is gone.
    Detached {
        /// Which.
        epoch: Epoch,
    },
    /// More audio lies in the store.
    AudioReceived {
        /// How much.
        frames: u64,
    },
    /// The client wants a final now.
    FinalizeRequested,
    /// The client's audio is over.
    EndRequested,
    /// The client has all finals up to this one.
    Confirmed {
        /// The last it has.
        segment: Segment,
    },
    /// The client will never come back.
    Abandoned,
    /// The node is stopping and can wait no longer.
    ShutDown,
    /// Another node speaks for the session.
    Superseded,
    /// A slot was found.
    LeaseGranted {
        /// For which request.
        attempt: Attempt,
    },
    /// The engine can't serve these options.
    OptionsRefused {
        /// Which attempt was told so.
        attempt: Attempt,
    },
    /// The decoder is gone.
    LeaseLost {
        /// Which.
        attempt: Attempt,
        /// Why.
        cause: LossCause,
    },
    /// The decoder's host is to be replaced: move at the next cut.
    LeaseRetiring {
        /// Which.
        attempt: Attempt,
    },
    /// The decoder has heard everything before `until`.
    Decoded {
        /// Which.
        attempt: Attempt,
        /// How far.
        until: DecodeOffset,
    },
    /// The decoder has a text for the open segment.
    PartialHeard {
        /// Which.
        attempt: Attempt,
        /// Of which segment.
        segment: Segment,
        /// How far the text reaches.
        until: DecodeOffset,
    },
    /// The decoder ended a segment.
    SegmentCut {
        /// Which decoder.
        attempt: Attempt,
        /// Which segment.
        segment: Segment,
        /// Its first sample.
        from: DecodeOffset,
        /// The sample after its last.
        to: DecodeOffset,
        /// Why there.
        cause: CutCause,
    },
    /// `next_timeout` has come.
    TimedOut,
}

/// Why a connection can't speak for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttachRefusal {
    /// Another with this epoch or a higher one does already.
    Superseded,
    /// The client can't send the audio that comes next.
    Gap,
    /// The client claims a final that was never made.
    UnknownFinal,
}

/// Why a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailReason {
    /// The client does not read its finals.
    SlowReader,
    /// The client sends nothing.
    Idle,
    /// The engine can't serve the session's options.
    OptionsRefused,
    /// The node is stopping.
    ShuttingDown,
    /// Decoders die before they hear anything.
    DecodersFail,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every final was made, and the client has them or has gone.
    Done,
    /// It can't go on.
    Failed(FailReason),
    /// The client did not come back in time.
    LingeredOut,
    /// The client went for good.
    Abandoned,
    /// Another node speaks for it.
    Superseded,
}

/// Something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionAction {
    /// Find a slot; answered by `LeaseGranted`.
    RequestLease {
        /// To be named in the answer.
        attempt: Attempt,
        /// What kind.
        kind: LeaseKind,
    },
    /// Find a slot for a standby, in the class of the session's decoder and away from it. Nobody waits for it: it takes
    /// nothing that others need, and may be found at any time, if ever. Answered by `LeaseGranted`.
    RequestStandby {
        /// To be named in the answer.
        attempt: Attempt,
    },
    /// The standby is the session's decoder from now on; the one before was released.
    PromoteStandby {
        /// Which.
        attempt: Attempt,
    },
    /// Two decoders of one class have cut the same audio differently, which should not be. The one that is named is let go.
    TellDifference {
        /// Which.
        attempt: Attempt,
        /// Where.
        segment: Segment,
    },
    /// Give the slot back, or withdraw the request for it.
    ReleaseLease {
        /// Which.
        attempt: Attempt,
    },
    /// Begin decoding on the slot.
    OpenStream {
        /// Which.
        attempt: Attempt,
        /// Number of the first segment.
        segment: Segment,
        /// Its first sample.
        from: DecodeOffset,
        /// Most steps that will be outstanding.
        window: u16,
        /// Least audio between partials; 0 for none.
        partial_interval_ms: u32,
        /// Most audio that is decoded before it is told; 0 for each step.
        decoded_interval_ms: u32,
    },
    /// Feed one step.
    Feed {
        /// Which decoder.
        attempt: Attempt,
        /// First sample.
        from: DecodeOffset,
        /// Sample after the last.
        to: DecodeOffset,
    },
    /// End the open segment at the decoder.
    Flush {
        /// Which decoder.
        attempt: Attempt,
        /// Where.
        at: DecodeOffset,
        /// What to call the cut.
        cause: CutCause,
    },
    /// Change how often a decoder says something.
    SetIntervals {
        /// Which decoder.
        attempt: Attempt,
        /// Least audio between partials; 0 for none.
        partial_ms: u32,
        /// Most audio that is decoded before it is told; 0 for each step.
        decoded_ms: u32,
    },
    /// Source before this is not needed any more.
    TrimSource {
        /// First frame that is.
        until: SourceOffset,
    },
    /// The connection speaks for the session now.
    Welcome {
        /// Its number.
        epoch: Epoch,
        /// Frames that are held.
        have_until: SourceOffset,
        /// First final that the client lacks; send it and what follows, if it exists.
        resend_from: Segment,
        /// Whether all finals were made already.
        finished: bool,
    },
    /// The connection can't speak for the session.
    RefuseAttach {
        /// Its number.
        epoch: Epoch,
        /// Why.
        reason: AttachRefusal,
    },
    /// A newer connection speaks; tell this one and close it.
    Fence {
        /// Its number.
        epoch: Epoch,
    },
    /// The journal has another entry. An acknowledgement of it is due.
    Entered {
        /// Which.
        entry: Entry,
        /// The end of the audio before it.
        until: SourceOffset,
    },
    /// Tell the client what is held.
    Ack {
        /// Frames before this.
        until: SourceOffset,
    },
    /// Tell the client the text so far, as the event that is being handled brought it.
    ShowPartial {
        /// Of which segment.
        segment: Segment,
        /// The segment's first frame.
        from: SourceOffset,
        /// How far it reaches.
        until: SourceOffset,
    },
    /// Make this final and tell the client. The text is what the event being handled brought, or an error when `given_up`.
    Commit {
        /// Its number.
        segment: Segment,
        /// First sample at the model's rate: word times count from here.
        decode_from: DecodeOffset,
        /// The sample after the last.
        decode_to: DecodeOffset,
        /// First frame.
        from: SourceOffset,
        /// Frame after the last.
        to: SourceOffset,
        /// Why it ended there; `GivenUp` for an error.
        cause: CutCause,
        /// Whether it answers the journal's first entry.
        answered: bool,
    },
    /// The client has finals up to this one.
    ForgetFinals {
        /// The last it has.
        through: Segment,
    },
    /// Everything before `until` was decoded and told.
    ReportProgress {
        /// Source frames.
        until: SourceOffset,
        /// Whether a replacement decoder is still catching up.
        recovering: bool,
    },
    /// A replacement decoder has caught up.
    CaughtUp {
        /// Which.
        attempt: Attempt,
        /// How much it replayed, in decoder samples.
        replayed: u64,
    },
    /// All finals were made: tell the client.
    AnnounceDone {
        /// How many there are.
        segments: u64,
        /// Frames heard.
        frames: SourceOffset,
    },
    /// The session is over; free everything. Comes once, last.
    End(Outcome),
}
