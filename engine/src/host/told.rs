//! How much of what is decoded the parent knows.
//!
//! Owns: when it is told again. Must never: keep to itself so much that the parent could run out of credit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use starling_protocol::DecodeOffset;

/// One lease's.
pub(super) struct Told {
    until: DecodeOffset,
    /// Steps decoded since.
    steps: usize,
    window: usize,
    interval_ms: Arc<AtomicU32>,
}

impl Told {
    /// Nothing is decoded beyond `from`. The interval, the most audio that is decoded before the parent is told, may be changed
    /// from outside.
    pub(super) fn new(from: DecodeOffset, window: u16, interval_ms: Arc<AtomicU32>) -> Self {
        Self { until: from, steps: 0, window: usize::from(window), interval_ms }
    }

    /// A step was decoded. Whether that is to be told now.
    pub(super) fn step(&mut self, until: DecodeOffset, sample_rate: u32) -> bool {
        self.steps += 1;
        let interval_ms = u64::from(self.interval_ms.load(Ordering::Relaxed));
        let enough = until.since(self.until) >= interval_ms * u64::from(sample_rate) / 1_000;
        enough || 2 * self.steps >= self.window
    }

    /// Everything before `until` is about to be told. Whether there is anything new in that.
    pub(super) fn tell(&mut self, until: DecodeOffset) -> bool {
        self.until = until;
        std::mem::take(&mut self.steps) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 16_000;

    /// After which of ten steps of 100 ms it is told.
    fn told_after(window: u16, interval_ms: u32) -> Vec<u64> {
        let mut told = Told::new(DecodeOffset(0), window, Arc::new(AtomicU32::new(interval_ms)));
        let due = |step: &u64| {
            let until = DecodeOffset(step * 1_600);
            told.step(until, RATE) && told.tell(until)
        };
        (1..=10).filter(due).collect()
    }

    #[test]
    fn the_parent_is_told_after_the_interval() {
        assert_eq!(told_after(20, 0), (1..=10).collect::<Vec<_>>());
        assert_eq!(told_after(20, 100), (1..=10).collect::<Vec<_>>());
        assert_eq!(told_after(20, 250), [3, 6, 9]);
        assert_eq!(told_after(20, 400), [4, 8]);
    }

    #[test]
    fn half_the_window_is_never_kept_back() {
        assert_eq!(told_after(1, 400), (1..=10).collect::<Vec<_>>());
        assert_eq!(told_after(2, 400), (1..=10).collect::<Vec<_>>());
        assert_eq!(told_after(5, 10_000), [3, 6, 9]);
        assert_eq!(told_after(20, 10_000), [10]);
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut told = Told::new(DecodeOffset(0), 20, Arc::new(AtomicU32::new(400)));
        assert!(!told.tell(DecodeOffset(0)));
        told.step(DecodeOffset(1_600), RATE);
        assert!(told.tell(DecodeOffset(1_600)));
        assert!(!told.tell(DecodeOffset(1_600)));
    }
}
