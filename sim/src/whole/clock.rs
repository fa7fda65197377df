//! The clock that a node's own tick reads.
//!
//! Owns: how far it is from the time of the run. Must never: let time fall.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_core::Timestamp;

/// A machine's: it goes on from one run of the node to the next.
#[derive(Clone, Default)]
pub struct OwnClock(Arc<Mutex<Hands>>);

#[derive(Default)]
struct Hands {
    ahead: Duration,
    /// Where it stands, as long as it does.
    stopped_at: Option<Duration>,
}

impl OwnClock {
    /// What it shows at this time of the run.
    #[must_use]
    pub fn at(&self, now: Duration) -> Timestamp {
        let hands = self.lock();
        Timestamp(hands.stopped_at.unwrap_or(now) + hands.ahead)
    }

    /// It is not read any more, as nobody runs who would.
    pub fn stop(&self, now: Duration) {
        self.lock().stopped_at.get_or_insert(now);
    }

    /// It is read again, and has gone on meanwhile.
    pub fn go_on(&self) {
        self.lock().stopped_at = None;
    }

    /// It jumps ahead.
    pub fn jump(&self, by: Duration) {
        self.lock().ahead += by;
    }

    fn lock(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_read_has_gone_on() {
        let clock = OwnClock::default();
        let second = Duration::from_secs;
        clock.stop(second(2));
        clock.stop(second(3));
        assert_eq!(clock.at(second(5)), Timestamp(second(2)));
        clock.go_on();
        assert_eq!(clock.at(second(5)), Timestamp(second(5)));
        clock.jump(second(4));
        assert_eq!(clock.at(second(6)), Timestamp(second(10)));
    }
}
