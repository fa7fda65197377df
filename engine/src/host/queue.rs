//! Which lease a decode thread takes next: the one whose oldest step has been due longest.
//!
//! Owns: due times and their order, and the share of time that partials may take. Must never: know what a step holds.
//! Times are microseconds of the host's clock and come in as arguments.

use std::collections::BTreeSet;

use starling_protocol::LeaseId;
use starling_protocol::lease::Priority;

/// Due times of one lease's steps lie at least this far apart, so that a replay's burst runs at up to four times real time
/// against live streams, and as fast as it can when nothing else is due.
const LIVE_SPACING_US: u64 = 25_000;

/// A file takes its real-time share at most when threads are short.
const BATCH_SPACING_US: u64 = 100_000;

/// A batch step counts as due this much later than a live one: live goes first, and yet no file starves.
const BATCH_GRACE_US: u64 = 2_000_000;

/// Gives a lease's steps their due times.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DueTimes {
    last: Option<u64>,
}

impl DueTimes {
    /// The due time of a step that arrives now.
    pub(super) fn next(&mut self, now_us: u64, priority: Priority) -> u64 {
        let (arrival, spacing) = match priority {
            Priority::Live => (now_us, LIVE_SPACING_US),
            Priority::Batch => (now_us + BATCH_GRACE_US, BATCH_SPACING_US),
        };
        let due = self.last.map_or(arrival, |last| arrival.max(last + spacing));
        self.last = Some(due);
        due
    }
}

/// Leases in the order of their due times.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    ready: BTreeSet<(u64, LeaseId)>,
}

impl FairQueue {
    pub(super) fn push(&mut self, due_us: u64, lease: LeaseId) {
        self.ready.insert((due_us, lease));
    }

    /// Takes the lease that has been due longest. Work that lies in the future is taken too when nothing else waits.
    pub(super) fn pop(&mut self) -> Option<LeaseId> {
        self.ready.pop_first().map(|(_, lease)| lease)
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        self.ready.retain(|(_, queued)| *queued != lease);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }
}

/// Half of the decode threads' time at most goes to partials, which may cost as much as finals and are worth less.
const PARTIAL_SHARE_PERCENT: u64 = 50;

/// Unused time that is kept for later: a burst of partials after an idle second.
const PARTIAL_SAVED_US: i64 = 500_000;

/// Keeps the time spent on partials to a share of the threads' time, whatever one of them costs.
#[derive(Debug)]
pub(super) struct PartialBudget {
    threads: u64,
    left_us: i64,
    counted_us: u64,
}

impl PartialBudget {
    pub(super) fn new(threads: u16) -> Self {
        Self { threads: u64::from(threads.max(1)), left_us: PARTIAL_SAVED_US, counted_us: 0 }
    }

    /// How long to wait before a partial may be made; 0 for now.
    pub(super) fn wait_us(&mut self, now_us: u64) -> u64 {
        let elapsed = now_us.saturating_sub(self.counted_us);
        let earned = elapsed * self.threads * PARTIAL_SHARE_PERCENT / 100;
        if earned > 0 {
            self.counted_us = now_us;
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.left_us = self.left_us.saturating_add(earned).min(PARTIAL_SAVED_US);
        }
        let missing = u64::try_from(1 - self.left_us).unwrap_or(0);
        missing * 100 / (self.threads * PARTIAL_SHARE_PERCENT)
    }

    /// Counts what one has cost.
    pub(super) fn spend(&mut self, us: u64) {
        self.left_us = self.left_us.saturating_sub(i64::try_from(us).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_step_that_waits_longest_goes_first() {
        let mut queue = FairQueue::default();
        for (due, lease) in [(30, 1), (10, 2), (20, 3)] {
            queue.push(due, LeaseId(lease));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|lease| lease.0).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn a_burst_does_not_hold_live_steps_up() {
        let mut replay = DueTimes::default();
        let burst: Vec<u64> = (0..50).map(|_| replay.next(0, Priority::Live)).collect();
        let live = DueTimes::default().next(100_000, Priority::Live);
        assert_eq!(burst.iter().filter(|due| **due < live).count(), 4);
    }

    #[test]
    fn batch_waits_for_live_but_not_for_ever() {
        let batch = DueTimes::default().next(0, Priority::Batch);
        assert!(DueTimes::default().next(1_000_000, Priority::Live) < batch);
        assert!(DueTimes::default().next(3_000_000, Priority::Live) > batch);
    }

    #[test]
    fn partials_keep_to_their_share() {
        let mut budget = PartialBudget::new(2);
        let (mut now, mut spent) = (0, 0);
        while now < 60_000_000 {
            let wait = budget.wait_us(now);
            if wait == 0 {
                budget.spend(300_000);
                spent += 300_000;
                now += 1_000;
            } else {
                now += wait;
            }
        }
        assert!((50_000_000..62_000_000).contains(&spent), "{spent} of 120 s");
    }

    proptest! {
        #[test]
        fn due_times_of_a_lease_rise(arrivals in proptest::collection::vec(0u64..1_000_000, 1..50)) {
            let mut times = DueTimes::default();
            let mut now = 0;
            let mut last = None;
            for arrival in arrivals {
                now += arrival;
                let due = times.next(now, Priority::Live);
                prop_assert!(due >= now && last.is_none_or(|last| due > last));
                last = Some(due);
            }
        }
    }
}
