//! The one clock of a node's actors. Follows tokio's, so that tests can pause it.

use starling_core::Timestamp;
use tokio::time::Instant;

/// Time since the node's start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time on it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.start.elapsed())
    }
}

/// Time since 1970, for what other nodes compare with their own, and for people.
#[expect(clippy::disallowed_methods, reason = "the one place where wall-clock time is read")]
#[must_use]
pub fn unix_now() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
