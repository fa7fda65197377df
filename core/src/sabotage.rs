//! Deliberate faults, each in the one place where a careless change would put it, to see whether tests find them.
//!
//! Without the feature `sabotage` nothing of this is left: [`is`] is false at compile time. With it, nothing is done before
//! [`commit`] is called, which no program that is installed does.

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Audio is acknowledged that no keeper has.
    AckBeforeReplica = 1,
    /// Finals are published that no keeper has.
    PublishBeforeCommit,
    /// A keeper obeys whoever comes.
    NoEpochCheck,
    /// Audio is let go when it is decoded, not when it is committed.
    TrimTooEarly,
    /// A replay feeds other steps than the first attempt did.
    ReplayOnAnotherGrid,
    /// What a decoder says counts whichever attempt it is of.
    AttemptNotFenced,
    /// New sessions are admitted without regard to what the loss of a node would need.
    ReserveIgnored,
    /// Some credit that a decoder gives back is lost.
    CreditLeaked,
    /// A keeper forgets that a session is over.
    TombstoneForgotten,
    /// A node that is drained ends the sessions that can't go elsewhere.
    DrainDropsThinClient,
    /// Unread finals are not given to a client that comes back.
    UnreadFinalsForgotten,
    /// A copy is made without the journal's entries.
    CopyWithoutEntries,
    /// The oldest copy is gone on from, not the best.
    WorstCopyChosen,
    /// A slot is not given back when its session is over.
    SlotLeaked,
    /// An owner that hears of the next one lets go of all that it had.
    FencedOwnerForgets,
    /// Who has a copy says that it knows of no such session.
    ResumeUnknown,
    /// Whichever run of a node was told of last is the latest.
    OldRunBelieved,
    /// Gossip of an earlier run of a node is heard.
    OldRunHeard,
    /// Gossip that was heard before is heard again.
    ReplayWindowIgnored,
    /// A silent peer is never told as lost.
    LostPeerNeverTold,
    /// A link that ended is not made anew.
    LinkNotMadeAnew,
    /// A question to a peer waits for as long as it takes.
    QuestionWithoutDeadline,
    /// Whoever connects and says nothing may stay.
    SilentSocketKept,
    /// What a node says of itself is not said again.
    LoadNotSaidAgain,
}

impl Bug {
    /// Each of those that sessions suffer from.
    pub const ALL: [Self; 16] = [
        Self::AckBeforeReplica,
        Self::PublishBeforeCommit,
        Self::NoEpochCheck,
        Self::TrimTooEarly,
        Self::ReplayOnAnotherGrid,
        Self::AttemptNotFenced,
        Self::ReserveIgnored,
        Self::CreditLeaked,
        Self::TombstoneForgotten,
        Self::DrainDropsThinClient,
        Self::UnreadFinalsForgotten,
        Self::CopyWithoutEntries,
        Self::WorstCopyChosen,
        Self::SlotLeaked,
        Self::FencedOwnerForgets,
        Self::ResumeUnknown,
    ];

    /// Each of those that membership and the control plane suffer from.
    pub const WIRE: [Self; 8] = [
        Self::OldRunBelieved,
        Self::OldRunHeard,
        Self::ReplayWindowIgnored,
        Self::LostPeerNeverTold,
        Self::LinkNotMadeAnew,
        Self::QuestionWithoutDeadline,
        Self::SilentSocketKept,
        Self::LoadNotSaidAgain,
    ];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::AckBeforeReplica => "ack-before-replica",
            Self::PublishBeforeCommit => "publish-before-commit",
            Self::NoEpochCheck => "no-epoch-check",
            Self::TrimTooEarly => "trim-too-early",
            Self::ReplayOnAnotherGrid => "replay-on-another-grid",
            Self::AttemptNotFenced => "attempt-not-fenced",
            Self::ReserveIgnored => "reserve-ignored",
            Self::CreditLeaked => "credit-leaked",
            Self::TombstoneForgotten => "tombstone-forgotten",
            Self::DrainDropsThinClient => "drain-drops-thin-client",
            Self::UnreadFinalsForgotten => "unread-finals-forgotten",
            Self::CopyWithoutEntries => "copy-without-entries",
            Self::WorstCopyChosen => "worst-copy-chosen",
            Self::SlotLeaked => "slot-leaked",
            Self::FencedOwnerForgets => "fenced-owner-forgets",
            Self::ResumeUnknown => "resume-unknown",
            Self::OldRunBelieved => "old-run-believed",
            Self::OldRunHeard => "old-run-heard",
            Self::ReplayWindowIgnored => "replay-window-ignored",
            Self::LostPeerNeverTold => "lost-peer-never-told",
            Self::LinkNotMadeAnew => "link-not-made-anew",
            Self::QuestionWithoutDeadline => "question-without-deadline",
            Self::SilentSocketKept => "silent-socket-kept",
            Self::LoadNotSaidAgain => "load-not-said-again",
        }
    }
}

#[cfg(feature = "sabotage")]
mod switch {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static COMMITTED: AtomicU8 = AtomicU8::new(0);

    /// From now on this process has the fault.
    pub fn commit(bug: Bug) {
        COMMITTED.store(bug as u8, Ordering::Relaxed);
    }

    /// Whether this process has the fault.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        COMMITTED.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(feature = "sabotage")]
pub use switch::{commit, is};

/// Whether this process has the fault: never.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}
