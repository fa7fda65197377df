//! The most that was asked for within a period that ends now.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Timestamp;

/// A sliding maximum: what is kept falls from front to back, so it is as long as there were descents within the period.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Recent {
    /// Since when something was asked for, and until when; the last is still asked for.
    asked: VecDeque<(Timestamp, u32)>,
}

impl Recent {
    /// From `now` on it is so many.
    pub(super) fn ask(&mut self, now: Timestamp, count: u32) {
        if let Some((until, last)) = self.asked.back_mut() {
            if *last == count {
                return;
            }
            // It was asked for until now, and its period begins now.
            *until = now;
        }
        while self.asked.back().is_some_and(|(_, last)| *last <= count) {
            self.asked.pop_back();
        }
        self.asked.push_back((now, count));
    }

    /// The most within `period`.
    pub(super) fn most(&mut self, now: Timestamp, period: Duration) -> u32 {
        while self.asked.len() > 1 && self.asked.front().is_some_and(|(until, _)| now.since(*until) >= period)
        {
            self.asked.pop_front();
        }
        self.asked.front().map_or(0, |(_, count)| *count)
    }

    /// What is asked for now.
    pub(super) fn now(&self) -> u32 {
        self.asked.back().map_or(0, |(_, count)| *count)
    }

    /// When the most may become less, if ever.
    pub(super) fn next_change(&self, period: Duration) -> Option<Timestamp> {
        let front = self.asked.front().filter(|_| self.asked.len() > 1);
        front.map(|(until, _)| until.plus(period))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: Duration = Duration::from_secs(10);

    proptest! {
        /// Against a list of all that was ever asked for.
        #[test]
        fn it_is_the_maximum_of_the_period(steps in proptest::collection::vec((0u64..6, 0u32..5), 1..60)) {
            let mut recent = Recent::default();
            let mut all: Vec<(Timestamp, u32)> = Vec::new();
            let mut now = Timestamp::default();
            for (wait, count) in steps {
                now = now.plus(Duration::from_secs(wait));
                recent.ask(now, count);
                all.push((now, count));
                // One counts that was asked for at any time after the period's beginning.
                let counts = |(index, (_, count)): (usize, &(Timestamp, u32))| {
                    let until = all.get(index + 1).map(|(until, _)| *until);
                    until.is_none_or(|until| now.since(until) < PERIOD).then_some(*count)
                };
                let expected = all.iter().enumerate().filter_map(counts).max();
                prop_assert_eq!(Some(recent.most(now, PERIOD)), expected);
                prop_assert_eq!(recent.now(), count);
            }
        }
    }
}
