//! When something that died may be started again.
//!
//! Owns: the record of recent starts of one child. Must never: give up. A decoder host that can't stay up is tried more and
//! more rarely, because a session may be waiting for it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Timestamp;

/// Bounds on restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RestartLimits {
    /// Most restarts within `period`.
    pub most: usize,
    /// See `most`.
    pub period: Duration,
    /// Wait before the second restart in a row; the first is at once. Doubles from there.
    pub first_backoff: Duration,
    /// Longest wait.
    pub longest_backoff: Duration,
}

impl Default for RestartLimits {
    /// A host costs a second or two of CPU to start; 20 starts a minute leave most of a core to those that work.
    fn default() -> Self {
        Self {
            most: 20,
            period: Duration::from_secs(60),
            first_backoff: Duration::from_millis(100),
            longest_backoff: Duration::from_secs(5),
        }
    }
}

/// Decides when a child is started again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RestartIntensity {
    limits: RestartLimits,
    recent: VecDeque<Timestamp>,
    in_a_row: u32,
}

impl RestartIntensity {
    /// A child that has not died yet.
    #[must_use]
    pub const fn new(limits: RestartLimits) -> Self {
        Self { limits, recent: VecDeque::new(), in_a_row: 0 }
    }

    /// The child died at `now`: the earliest time to start it again.
    pub fn died(&mut self, now: Timestamp) -> Timestamp {
        while self.recent.front().is_some_and(|at| now.since(*at) >= self.limits.period) {
            self.recent.pop_front();
        }
        let backoff = match self.in_a_row {
            0 => Duration::ZERO,
            n => self
                .limits
                .first_backoff
                .saturating_mul(1 << (n - 1).min(16))
                .min(self.limits.longest_backoff),
        };
        let mut at = now.plus(backoff);
        if self.recent.len() >= self.limits.most {
            let oldest = self.recent[self.recent.len() - self.limits.most];
            at = at.max(oldest.plus(self.limits.period));
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.recent.push_back(at);
        at
    }

    /// The child has proved itself: the next death is the first in a row again.
    pub fn proved(&mut self) {
        self.in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_longer() {
        let mut intensity = RestartIntensity::new(RestartLimits::default());
        let mut waits = Vec::new();
        let mut now = Timestamp::default();
        for _ in 0..8 {
            let at = intensity.died(now);
            waits.push(at.since(now).as_millis());
            now = at;
        }
        assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200, 5_000]);
        intensity.proved();
        assert_eq!(intensity.died(now), now);
    }

    proptest! {
        #[test]
        fn no_period_sees_more_than_the_most(lives in proptest::collection::vec((0u64..5_000, any::<bool>()), 1..200)) {
            let limits = RestartLimits::default();
            let mut intensity = RestartIntensity::new(limits);
            let mut now = Timestamp::default();
            let mut starts: Vec<Timestamp> = Vec::new();
            for (life_ms, proved) in lives {
                now = now.plus(Duration::from_millis(life_ms));
                if proved {
                    intensity.proved();
                }
                let at = intensity.died(now);
                prop_assert!(at >= now);
                starts.push(at);
                now = at;
                let within = starts.iter().filter(|start| at.since(**start) < limits.period).count();
                prop_assert!(within <= limits.most, "{} starts within the period", within);
            }
        }
    }
}
