//! When a peer that could not be reached is dialled again.
//!
//! Owns: how often it failed in a row. Must never: give up, or let all nodes dial at the same moment.

use std::time::Duration;

/// Wait after the first failure. A process that is restarted listens again within a few of these.
pub const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Longest wait: a node that comes back after an hour is found within a second or two.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Waits between attempts to reach one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Redial {
    failures: u32,
}

impl Redial {
    /// An attempt failed: how long to wait before the next. `random` may be any number; it spreads the wait over
    /// the upper half of what it is at most, so that nodes which lost each other together don't meet in step.
    pub fn failed(&mut self, random: u32) -> Duration {
        let most = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        let share = f64::from(random) / f64::from(u32::MAX);
        most.mul_f64(0.5 + share / 2.0)
    }

    /// The peer was reached.
    pub fn reached(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_two_seconds_and_start_over_when_the_peer_was_reached() {
        let mut redial = Redial::default();
        let waits: Vec<_> = (0..7).map(|_| redial.failed(u32::MAX).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        redial.reached();
        assert_eq!(redial.failed(0), FIRST_WAIT / 2);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_nothing_and_never_over_the_longest(randoms in proptest::collection::vec(any::<u32>(), 1..50)) {
            let mut redial = Redial::default();
            for random in randoms {
                let wait = redial.failed(random);
                prop_assert!(wait >= FIRST_WAIT / 2 && wait <= LONGEST_WAIT);
            }
        }
    }
}
