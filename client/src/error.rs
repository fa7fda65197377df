//! What can go wrong, one enum for each operation.

use std::time::Duration;

use starling_protocol::native::ErrorBody;
use starling_protocol::{Segment, SourceOffset};
use thiserror::Error;

use crate::tls::TrustError;

/// A configuration can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No server was named.
    #[error("servers is empty; it must name at least one, such as ws://127.0.0.1:8080")]
    NoServers,
    /// A server's address can't be used.
    #[error("servers[{index}] is {value:?}; it must be ws://HOST:PORT, wss://HOST:PORT or quic://HOST:PORT")]
    Server {
        /// Which of the list.
        index: usize,
        /// As it was written.
        value: String,
    },
    /// There are no certificates to trust.
    #[error("no server can be trusted over TLS: {0}")]
    Trust(#[from] TrustError),
    /// The key can't be sent.
    #[error("api_key has characters that no key has; it must be of visible ASCII characters")]
    ApiKey,
    /// A duration that must not be zero is.
    #[error("{field} is 0; it must be longer")]
    Zero {
        /// The field of [`ClientConfig`](crate::ClientConfig).
        field: &'static str,
    },
}

/// A session could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No server could be reached, or none answered, until the deadline.
    #[error("no server answered in {waited:?}: {cause}")]
    Unreachable {
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        cause: String,
    },
    /// Every server is full.
    #[error("every server is busy: {}", .0.message)]
    Busy(Box<ErrorBody>),
    /// The server refused what was asked; trying again would not help.
    #[error("the server refused the session: {}", .0.message)]
    Refused(Box<ErrorBody>),
    /// The server said what the protocol does not allow.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

/// A session ended before `Done`. Everything delivered earlier stays valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SessionError {
    /// No server took the session on until the deadline.
    #[error("the connection was lost and no server went on with the session in {waited:?}: {cause}")]
    GaveUp {
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met.
        cause: String,
    },
    /// The server ended the session.
    #[error("the server ended the session: {}", .0.message)]
    Ended(Box<ErrorBody>),
    /// A final is missing, or finals do not adjoin.
    #[error(
        "a final is missing: expected segment {expected} from frame {expected_from}, got segment {got} from {got_from}"
    )]
    Hole {
        /// The segment that was due.
        expected: Segment,
        /// Where it had to begin.
        expected_from: SourceOffset,
        /// The segment that came.
        got: Segment,
        /// Where it begins.
        got_from: SourceOffset,
    },
    /// The server said what the protocol does not allow.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

/// Audio or a request could not be handed in: the session is over, [`Events`](crate::Events) says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the session is over")]
pub struct SendError;
