//! Identifiers and offsets. Each is a type of its own, so that a segment can't be taken for an epoch and an offset in
//! the client's samples can't be taken for one in the decoder's.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A session's name. The client makes it, so that a repeated `hello` is idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub Uuid);

impl SessionId {
    /// A new random id (UUID version 4), for whoever opens a session.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads an id as a client wrote it: any of the textual forms of a UUID.
    ///
    /// # Errors
    /// The text is no UUID.
    pub fn parse(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The one after this.
            ///
            /// # Panics
            /// Never in practice: the counter would have to wrap.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The n-th utterance of a session, from 0.
    Segment(u64)
}
counter! {
    /// The n-th decoder that works on a session, from 1. Answers of an earlier attempt are dropped.
    Attempt(u32)
}
counter! {
    /// The n-th connection that speaks for a session, from 1. A lower one is refused.
    Epoch(u64)
}
counter! {
    /// The right to one decoder stream, unique within a node's run.
    LeaseId(u64)
}
counter! {
    /// A position in what the client sent, in its own frames (one sample of each channel).
    SourceOffset(u64)
}
counter! {
    /// A position in what the decoder hears, in samples at the model's rate.
    DecodeOffset(u64)
}

impl SourceOffset {
    /// This offset moved on by `frames`.
    #[must_use]
    pub const fn plus(self, frames: u64) -> Self {
        Self(self.0 + frames)
    }
}

impl DecodeOffset {
    /// This offset moved on by `samples`.
    #[must_use]
    pub const fn plus(self, samples: u64) -> Self {
        Self(self.0 + samples)
    }

    /// Samples from `earlier` to this offset; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
