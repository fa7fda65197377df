//! Identifiers and offsets. Each is a type of its own, so that a segment can't be taken for an epoch and an offset in
//! the client's samples can't be taken for one in the decoder's.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
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

    /// The id of what has this digest (UUID version 8), for a client that comes back by a name of its own.
    #[must_use]
    pub fn of_digest(digest: [u8; 16]) -> Self {
        Self(uuid::Builder::from_custom_bytes(digest).into_uuid())
    }

    /// Whether it is one that [`Self::of_digest`] makes: of something that others may know.
    #[must_use]
    pub fn is_of_digest(self) -> bool {
        self.0.get_version_num() == 8
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
            /// The one after this; the last there is has none and stays. Nothing counts so far, but others may say any
            /// number.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
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

counter! {
    /// The n-th start of a node: it grows with each, so that a restarted node is a new member at once.
    Generation(u64)
}

/// A node's name within its cluster: 1 to 63 of `a` to `z`, `0` to `9`, `-` and `.`, as in a host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Box<str>);

impl NodeName {
    /// The longest name, in bytes: that of a label in a host name (RFC 1035, 2.3.4).
    pub const MAX_BYTES: usize = 63;

    /// Reads a name.
    ///
    /// # Errors
    /// It is empty, too long, or has a character that a host name can't have.
    pub fn parse(text: &str) -> Result<Self, NodeNameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if text.is_empty() || text.len() > Self::MAX_BYTES || !text.chars().all(allowed) {
            return Err(NodeNameError { name: text.to_owned() });
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<String> for NodeName {
    type Error = NodeNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.into()
    }
}

/// A text that is no [`NodeName`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name:?} is no node name: it takes 1 to 63 of the characters a-z, 0-9, - and .")]
pub struct NodeNameError {
    /// What was given.
    pub name: String,
}

/// One run of a node. Written `name#generation`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId {
    /// The name, which outlives restarts.
    pub name: NodeName,
    /// Which start of it.
    pub generation: Generation,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.generation)
    }
}

impl SourceOffset {
    /// This offset moved on by `frames`, to the last there is at most.
    #[must_use]
    pub const fn plus(self, frames: u64) -> Self {
        Self(self.0.saturating_add(frames))
    }
}

impl DecodeOffset {
    /// This offset moved on by `samples`, to the last there is at most.
    #[must_use]
    pub const fn plus(self, samples: u64) -> Self {
        Self(self.0.saturating_add(samples))
    }

    /// Samples from `earlier` to this offset; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_is_what_a_host_name_can_be() {
        for name in ["a", "node-1", "10.0.0.7", &"x".repeat(63)] {
            assert_eq!(NodeName::parse(name).expect(name).as_str(), name);
        }
        for name in ["", "Node", "a b", "a#1", &"x".repeat(64)] {
            assert!(NodeName::parse(name).expect_err(name).to_string().contains("1 to 63"));
            assert!(serde_json::from_value::<NodeName>(name.into()).is_err());
        }
    }

    #[test]
    fn the_highest_number_that_others_may_say_is_the_last_one() {
        assert_eq!(Segment(u64::MAX).next(), Segment(u64::MAX));
        assert_eq!(Epoch(u64::MAX - 1).next(), Epoch(u64::MAX));
        assert_eq!(SourceOffset(u64::MAX - 1).plus(7), SourceOffset(u64::MAX));
        assert_eq!(DecodeOffset(7).plus(u64::MAX), DecodeOffset(u64::MAX));
    }

    #[test]
    fn a_restarted_node_is_another_one_and_a_later_one() {
        let name = NodeName::parse("a").expect("name");
        let first = NodeId { name, generation: Generation(1) };
        let second = NodeId { generation: first.generation.next(), ..first.clone() };
        assert!(first < second);
        assert_eq!(second.to_string(), "a#2");
    }
}
