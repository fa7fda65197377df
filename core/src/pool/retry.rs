//! When it is worth asking again: about when the slots of those who wait, and one more, will have come free.

use std::time::Duration;

use crate::Timestamp;

/// Nobody is told to stay away for longer: sessions end when they like, and other nodes come and go.
const LONGEST: Duration = Duration::from_secs(10);

/// An estimate from the pace at which slots are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RetryAfter {
    least: Duration,
    /// Mean time between slots, the later ones counting for more.
    pace: Option<Duration>,
    last: Option<Timestamp>,
}

impl RetryAfter {
    /// Nobody is told less than `least`.
    pub(super) const fn new(least: Duration) -> Self {
        Self { least, pace: None, last: None }
    }

    /// A slot was given back.
    pub(super) fn slot_freed(&mut self, now: Timestamp) {
        if let Some(last) = self.last {
            // A pool that nobody used for a while says nothing of one that is full.
            let gap = now.since(last).min(LONGEST);
            self.pace = Some(self.pace.map_or(gap, |pace| (pace * 3 + gap) / 4));
        }
        self.last = Some(now);
    }

    /// What to tell somebody behind `waiting` others.
    pub(super) fn estimate(&self, now: Timestamp, waiting: usize) -> Duration {
        let Some((pace, last)) = self.pace.zip(self.last) else { return self.least };
        let turns = u32::try_from(waiting).unwrap_or(u32::MAX).saturating_add(1);
        // A slot that is overdue slows the pace before it comes.
        let wait = pace.max(now.since(last).min(LONGEST)).saturating_mul(turns);
        wait.min(LONGEST).max(self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(Duration::from_millis(ms))
    }

    #[test]
    fn it_follows_the_pace_within_its_bounds() {
        let least = Duration::from_millis(500);
        let mut retry = RetryAfter::new(least);
        assert_eq!(retry.estimate(at(0), 9), least, "nothing is known");
        retry.slot_freed(at(0));
        assert_eq!(retry.estimate(at(0), 9), least, "one slot is no pace");
        retry.slot_freed(at(800));
        assert_eq!(retry.estimate(at(800), 0), Duration::from_millis(800));
        assert_eq!(retry.estimate(at(800), 2), Duration::from_millis(2_400));
        assert_eq!(retry.estimate(at(800), usize::MAX), LONGEST);
        assert_eq!(retry.estimate(at(2_800), 0), Duration::from_secs(2), "it is overdue");
        for n in 0..20 {
            retry.slot_freed(at(1_000_000 + n * 100));
        }
        assert_eq!(retry.estimate(at(1_001_900), 0), least, "an old pause is forgotten");
    }

    #[test]
    fn what_is_configured_is_the_least_however_long() {
        let least = Duration::from_secs(30);
        let mut retry = RetryAfter::new(least);
        retry.slot_freed(at(0));
        retry.slot_freed(at(1));
        assert_eq!(retry.estimate(at(1), 9), least);
    }

    proptest! {
        /// Whatever the pace: within its bounds, no shorter for who stands farther behind, and where slots come evenly it is
        /// the time until one's own.
        #[test]
        fn it_is_bounded_and_grows_with_the_queue(
            gaps in proptest::collection::vec(0u64..30_000, 0..40),
            least_ms in 0u64..2_000,
            even_ms in 1u64..400,
        ) {
            let least = Duration::from_millis(least_ms);
            let mut retry = RetryAfter::new(least);
            let mut now = 0;
            for gap in gaps {
                now += gap;
                retry.slot_freed(at(now));
                let estimates: Vec<Duration> = (0..9).map(|waiting| retry.estimate(at(now), waiting)).collect();
                prop_assert!(estimates.is_sorted());
                prop_assert!(estimates.iter().all(|wait| *wait >= least && *wait <= LONGEST.max(least)));
            }
            for _ in 0..60 {
                now += even_ms;
                retry.slot_freed(at(now));
            }
            let due = Duration::from_millis(3 * even_ms);
            let estimate = retry.estimate(at(now), 2);
            // Means are whole nanoseconds, rounded down.
            let rounded = estimate + Duration::from_micros(1);
            prop_assert!(rounded >= due.max(least) && estimate <= due.max(least) + Duration::from_millis(2));
        }
    }
}
