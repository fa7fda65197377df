//! Why packets are not used.

use starling_core::replay::ReplayError;
use starling_protocol::gossip::packet::OpenError;
use thiserror::Error;

/// A packet that was not used. Nothing of it had an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
pub(super) enum Refusal {
    #[error("it is no packet of this format")]
    Malformed,
    #[error("it is sealed with a key that this node doesn't have: is the sender given the same secret?")]
    UnknownKey,
    #[error("its seal is broken")]
    Forged,
    #[error("it was heard before")]
    Replayed,
    #[error("it is too old to tell whether it was heard before")]
    TooOld,
    #[error("it is of a run of the node that is over")]
    OldGeneration,
    #[error("this node itself sent it")]
    Own,
    #[error("its seal is whole, but its content can't be read")]
    Undecodable,
}

/// Every reason for which gossip packets are refused, as observers are told them.
pub const GOSSIP_REFUSALS: [&str; 8] = [
    Refusal::Malformed.label(),
    Refusal::UnknownKey.label(),
    Refusal::Forged.label(),
    Refusal::Replayed.label(),
    Refusal::TooOld.label(),
    Refusal::OldGeneration.label(),
    Refusal::Own.label(),
    Refusal::Undecodable.label(),
];

impl Refusal {
    /// The metric's label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::Replayed => "replayed",
            Self::TooOld => "too_old",
            Self::OldGeneration => "old_generation",
            Self::Own => "own",
            Self::Undecodable => "undecodable",
        }
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Malformed => Self::Malformed,
            OpenError::UnknownKey => Self::UnknownKey,
            OpenError::Forged => Self::Forged,
        }
    }
}

impl From<ReplayError> for Refusal {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Replayed => Self::Replayed,
            ReplayError::TooOld => Self::TooOld,
            ReplayError::OldGeneration(_) => Self::OldGeneration,
        }
    }
}
