//! Whether this process stood still: suspended, frozen or starved.
//!
//! Owns: when our own tick came last. Must never: say what follows from a pause. Others may have given this node up
//! meanwhile, so whoever hears of one looks again at everything it believed before.

use std::time::Duration;

use crate::Timestamp;

/// Ticks come this often.
pub const TICK: Duration = Duration::from_millis(100);

/// A tick that is later than this is a pause: other nodes begin to suspect a peer after as much silence.
pub const PAUSED_AFTER: Duration = Duration::from_millis(300);

/// Watches one's own ticks. The clock must go on while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TickWatch {
    last: Timestamp,
}

impl TickWatch {
    /// A watch that begins now.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { last: now }
    }

    /// A tick came. How long this process stood still before it, if it did.
    pub fn tick(&mut self, now: Timestamp) -> Option<Duration> {
        let late = now.since(self.last).saturating_sub(TICK);
        self.last = now;
        (late > PAUSED_AFTER).then_some(late)
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
    fn a_pause_is_told_once_and_small_delays_are_none() {
        let mut watch = TickWatch::new(at(0));
        let told: Vec<_> = [100, 250, 600, 700, 5_700, 5_700, 5_701, 5_800]
            .into_iter()
            .map(|ms| watch.tick(at(ms)))
            .collect();
        let pause = Some(Duration::from_millis(4_900));
        assert_eq!(told, [None, None, None, None, pause, None, None, None]);
    }

    proptest! {
        /// Against the times themselves: what is told is what was missed, and no pause is told that was none.
        #[test]
        fn pauses_are_what_is_missing_between_ticks(gaps in proptest::collection::vec(0u64..2_000, 0..100)) {
            let mut watch = TickWatch::new(at(0));
            let mut now = 0;
            for gap in gaps {
                now += gap;
                let expected = (gap > 400).then(|| Duration::from_millis(gap - 100));
                prop_assert_eq!(watch.tick(at(now)), expected);
            }
            prop_assert_eq!(watch, TickWatch::new(at(now)), "nothing else is remembered");
        }
    }
}
