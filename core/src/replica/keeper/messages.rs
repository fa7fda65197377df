//! What a keeper is told, and what it has done.

use std::time::Duration;

use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};

use crate::replica::SessionCopy;

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeeperConfig {
    /// Bytes of all copies together.
    pub max_bytes: u64,
    /// Sessions, those counted of which only an epoch is remembered.
    pub max_sessions: usize,
    /// How long an epoch is remembered when there is no copy any more: longer than a message of an owner that nobody obeys
    /// can be on its way.
    pub remember: Duration,
}

/// A stream from an owner, unique within a node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a copy is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The highest epoch that it was told of.
    pub epoch: Epoch,
    /// The set that it belongs to.
    pub view: View,
    /// The first segment that is not committed.
    pub next_segment: Segment,
    /// The end of its audio.
    pub audio_end: SourceOffset,
    /// What it takes.
    pub bytes: u64,
    /// Whether it can be gone on from.
    pub whole: bool,
    /// How long it is to be kept when its owner is gone.
    pub keep: Duration,
}

impl Shape {
    /// That of a copy, to be kept for so long when its owner is gone.
    #[must_use]
    pub fn of(copy: &SessionCopy, keep: Duration) -> Self {
        Self {
            epoch: copy.epoch(),
            view: copy.view(),
            next_segment: copy.next_segment(),
            audio_end: copy.audio_end(),
            bytes: copy.bytes() as u64,
            whole: copy.is_whole(),
            keep,
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeeperEvent {
    /// An owner wants a copy to be kept.
    Opened {
        /// The stream.
        stream: StreamId,
        /// Whose.
        session: SessionId,
        /// The owner's epoch.
        epoch: Epoch,
    },
    /// A message of the owner's was applied, and the copy is like this now. Only while [`KeeperMachine::obeys`].
    Applied {
        /// The stream.
        stream: StreamId,
        /// What it was applied to.
        shape: Shape,
        /// Whether it was the last: the session is over.
        over: bool,
    },
    /// A message of the owner's can't be applied.
    Unfit {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is gone.
    Closed {
        /// Which.
        stream: StreamId,
    },
    /// A session that lived on this node goes on under a higher epoch, and its owner here leaves all that it had. Until the
    /// next owner has made a copy of its own, one more loss must not take that too.
    Offered {
        /// Whose.
        session: SessionId,
        /// What it left.
        shape: Shape,
    },
    /// Somebody wants to go on with the session.
    Promote {
        /// Which.
        session: SessionId,
        /// As this.
        epoch: Epoch,
    },
    /// `next_timeout` has come.
    TimedOut,
}

/// Why a stream is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A higher epoch is obeyed.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
    /// There is no room.
    Full,
}

/// Why a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutReason {
    /// A higher epoch is obeyed from now on.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
    /// There is no more room.
    Full,
    /// What was said does not fit.
    Unfit,
    /// The same owner has opened another.
    Replaced,
    /// The session is over.
    Over,
}

/// The answer to who wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromoteAnswer {
    /// It is obeyed from now on.
    Promoted(CopySummary),
    /// It is obeyed from now on, but there is nothing here.
    NotHeld,
    /// An epoch as high is obeyed already; nothing has changed.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
}

/// Something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeeperAction {
    /// Take the stream; what comes on it fills a new copy.
    Accept {
        /// Which.
        stream: StreamId,
    },
    /// Don't.
    Refuse {
        /// Which.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// Tell the owner that the message that was just applied is.
    Confirm {
        /// On which stream.
        stream: StreamId,
    },
    /// The copy that the stream has filled takes the place of the session's older one.
    Install {
        /// Which stream.
        stream: StreamId,
        /// Whose copy.
        session: SessionId,
    },
    /// Keep the copy that was offered, in place of any other of the session.
    Adopt {
        /// Whose.
        session: SessionId,
    },
    /// Let go of what the stream was filling, if it is not installed.
    DropFill {
        /// Which stream.
        stream: StreamId,
    },
    /// The session's copy has run out, and nobody asked for it: its owner is gone, and its client has not come back.
    RanOut {
        /// Whose.
        session: SessionId,
        /// What it was like.
        held: CopySummary,
    },
    /// Let go of the session's copy.
    DropCopy {
        /// Whose.
        session: SessionId,
    },
    /// End the stream, and say why.
    Cut {
        /// Which.
        stream: StreamId,
        /// Why.
        reason: CutReason,
    },
    /// Answer who wants to go on.
    Answer(PromoteAnswer),
}
