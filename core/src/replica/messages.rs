//! What the owner's replication machine is told and what it asks for.

use std::time::Duration;

use starling_protocol::replica::{EntryKind, View};
use starling_protocol::{DecodeOffset, Epoch, NodeName, Segment, SourceOffset};

/// How many copies a session has, and how long it waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplicationConfig {
    /// Copies beside the owner's own; 0 for none.
    pub copies: u8,
    /// How long acknowledgements and finals wait for a copy when none is left. Then the session is not durable.
    pub patience: Duration,
    /// How often nodes are looked for while there are too few.
    pub retry: Duration,
    /// A keeper that applies nothing of what it was sent for so long is given up.
    pub stalled: Duration,
    /// How long audio for a keeper that has all before it is gathered, unless something else is to be told. Zero for a client
    /// that can't send again what was not acknowledged.
    pub gather: Duration,
    /// Longest piece of audio in one message, in source frames.
    pub piece_frames: u64,
    /// Most messages sent to a keeper and not applied.
    pub window: u16,
}

/// The n-th stream that was opened to any keeper: late answers of an earlier one are dropped by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tries(pub u64);

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReplicationEvent {
    /// Audio before `until` lies in the store; an acknowledgement of it is due.
    AudioReceived {
        /// The end of the audio.
        until: SourceOffset,
    },
    /// An entry was added to the journal. The end's acknowledgement is due with it.
    Entered {
        /// Where it stands.
        at: DecodeOffset,
        /// What it is.
        kind: EntryKind,
        /// The end of the audio.
        until: SourceOffset,
    },
    /// A segment was committed; its final is due.
    Committed {
        /// Which.
        segment: Segment,
    },
    /// The client has finals up to this one.
    Confirmed {
        /// The last it has.
        through: Segment,
    },
    /// A connection with this epoch speaks for the session.
    EpochRaised {
        /// Which.
        epoch: Epoch,
    },
    /// Nodes that could keep a copy, best first: the answer to `FindKeepers`.
    KeepersFound {
        /// Their names.
        nodes: Vec<NodeName>,
    },
    /// A keeper took the stream; what it is to be filled with.
    Opened {
        /// Which stream.
        tries: Tries,
        /// The session as it is now.
        standing: Standing,
    },
    /// It did not.
    OpenFailed {
        /// Which stream.
        tries: Tries,
        /// Why.
        failure: OpenFailure,
    },
    /// A keeper has applied so many messages of the stream.
    Applied {
        /// Which stream.
        tries: Tries,
        /// How many, from the first.
        count: u64,
    },
    /// A stream is over.
    Lost {
        /// Which stream.
        tries: Tries,
        /// Why.
        failure: OpenFailure,
    },
    /// This process stood still for a while: others may have gone on without it. Nothing is released before every keeper
    /// has obeyed again.
    StoodStill,
    /// The session is over: copies are not needed any more if `forget`, and stay for whoever takes it over if not.
    Ended {
        /// See above.
        forget: bool,
    },
    /// `next_timeout` has come.
    TimedOut,
}

/// What there is of a session when a copy of it is begun.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The first final that is not confirmed.
    pub finals_from: Segment,
    /// The open segment.
    pub next_segment: Segment,
    /// The first frame that the store holds and a replay could need.
    pub audio_from: SourceOffset,
    /// The end of the audio.
    pub audio_to: SourceOffset,
    /// Entries that are not committed, in order.
    pub entries: Vec<(DecodeOffset, EntryKind)>,
}

/// Why a keeper keeps nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpenFailure {
    /// It can't be reached, or the stream to it broke.
    Unreachable,
    /// It has no room, or can't do with what it was sent.
    Refused,
    /// A higher epoch speaks for the session.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
}

/// What a keeper is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CopyItem {
    /// The session as it stands now, apart from finals, audio and entries. It belongs to this view.
    Begin {
        /// Which.
        view: View,
    },
    /// An unconfirmed final, one that was there at `Begin`.
    Kept {
        /// Which.
        segment: Segment,
    },
    /// Audio.
    Audio {
        /// First frame.
        from: SourceOffset,
        /// Frame after the last.
        to: SourceOffset,
    },
    /// An entry.
    Entry {
        /// Where it stands.
        at: DecodeOffset,
        /// What it is.
        kind: EntryKind,
    },
    /// Everything that was there at `Begin` has been sent.
    Whole,
    /// A segment's commit.
    Commit {
        /// Which.
        segment: Segment,
    },
    /// The client's confirmation.
    Confirmed {
        /// The last final it has.
        through: Segment,
    },
    /// A new connection.
    Epoch {
        /// Its number.
        epoch: Epoch,
    },
    /// Another set of copies.
    View {
        /// Which.
        view: View,
    },
    /// The session is over.
    Over,
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReplicationAction {
    /// Say who could keep a copy; answered by `KeepersFound`, at once.
    FindKeepers {
        /// Nodes that are not wanted: they keep one already, or just failed.
        excluded: Vec<NodeName>,
        /// How many are wanted.
        count: usize,
    },
    /// Open a stream to a keeper; answered by `Opened` or `OpenFailed`, within a deadline of the performer's.
    Open {
        /// Which stream.
        tries: Tries,
        /// To whom.
        node: NodeName,
        /// The owner's epoch.
        epoch: Epoch,
    },
    /// Send this on the stream. Never more than `window` are on their way, so it needs no queue without a bound. `Begin` is
    /// made of the session as it is at this moment.
    Send {
        /// Which stream.
        tries: Tries,
        /// What.
        item: CopyItem,
    },
    /// Close the stream, after what was sent on it. Nothing more is heard of it.
    Close {
        /// Which stream.
        tries: Tries,
    },
    /// Say to the client how its session stands, before any acknowledgement that comes later.
    SetDurable {
        /// Whether what is acknowledged is in two copies.
        durable: bool,
        /// The set of copies.
        view: View,
        /// Who keeps them, the owner apart.
        keepers: Vec<NodeName>,
    },
    /// Audio before `until` may be acknowledged.
    ReleaseAck {
        /// See above.
        until: SourceOffset,
    },
    /// Finals up to this one may go to the client.
    ReleaseFinals {
        /// The last that may.
        through: Segment,
    },
    /// A higher epoch speaks for the session: this owner must say nothing more. Comes once, last.
    Fence {
        /// Which.
        epoch: Epoch,
    },
}
