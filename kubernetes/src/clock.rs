//! The one place of this crate where clocks are read.

use starling_core::Timestamp;
use tokio::time::Instant;

/// Time since its start. Follows tokio's, so that tests can pause it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Timestamp {
        Timestamp(self.start.elapsed())
    }

    pub(crate) fn instant(self, at: Timestamp) -> Instant {
        self.start + at.0
    }
}

/// Microseconds since 1970, for people who look at the Lease.
#[expect(clippy::disallowed_methods, reason = "the one place where wall-clock time is read")]
pub(crate) fn unix_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
