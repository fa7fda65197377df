//! How soon something that nobody waits for is sought again.

use std::time::Duration;

use crate::Timestamp;

/// Wait before the second search. Nodes tell of their load every second; the first figures may be that old.
const FIRST: Duration = Duration::from_millis(200);

/// Longest wait: a search costs a question or two, and what it looks for is worth seconds.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits between searches. The first one begins at once; while each follows the last within seconds, they get rarer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeekPace {
    wait: Duration,
    /// When the last search was to begin.
    last: Option<Timestamp>,
}

impl SeekPace {
    /// A search is wanted: how long it is to wait. `random` may be any number; it spreads the wait over the upper half of what
    /// it is at most, so that sessions which lost the same node don't search in step.
    pub fn next(&mut self, now: Timestamp, random: u32) -> Duration {
        let soon = self.last.is_some_and(|last| now < last.plus(LONGEST));
        self.wait = if soon { (self.wait * 2).clamp(FIRST, LONGEST) } else { Duration::ZERO };
        let share = f64::from(random) / f64::from(u32::MAX);
        let wait = self.wait.mul_f64(0.5 + share / 2.0);
        self.last = Some(now.plus(wait));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_search_is_at_once_and_those_that_follow_soon_get_rarer() {
        let mut pace = SeekPace::default();
        let mut now = Timestamp::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = pace.next(now, u32::MAX);
            now = now.plus(wait).plus(Duration::from_secs(1));
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [0, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(pace.next(now, 0), LONGEST / 2);
        now = now.plus(LONGEST * 2);
        assert_eq!(pace.next(now, u32::MAX), Duration::ZERO, "one that lasted is no sign of trouble");
    }

    proptest! {
        /// Whoever searches again at once, for as long as it likes, does so no more often than every few seconds.
        #[test]
        fn searches_get_rare_however_soon_the_next_is_wanted(
            searches in proptest::collection::vec((any::<u32>(), 0u64..20_000), 1..100),
        ) {
            let mut pace = SeekPace::default();
            let (mut now, mut in_a_row) = (Timestamp::default(), 0u32);
            for (random, after_ms) in searches {
                let wait = pace.next(now, random);
                let most = if in_a_row == 0 { Duration::ZERO } else { (FIRST * (1 << (in_a_row - 1).min(9))).min(LONGEST) };
                prop_assert!(wait <= most && wait >= most / 2, "{:?} of {:?}", wait, most);
                let begins = now.plus(wait);
                now = begins.plus(Duration::from_millis(after_ms));
                in_a_row = if now < begins.plus(LONGEST) { in_a_row + 1 } else { 0 };
            }
        }
    }
}
