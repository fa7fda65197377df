//! Times of which only their distribution is kept.
//!
//! Owns: counts in steps of one per cent, however many times there are. Must never: grow.

use std::time::Duration;

use serde::Serialize;

/// Each step is so much longer than the last.
const STEP: f64 = 1.01;

/// By steps of a per cent from a millisecond on this is beyond two hours.
const STEPS: usize = 1_600;

/// A distribution of times.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    counts: Vec<u64>,
    count: u64,
    longest: Duration,
}

/// What is told of one, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_ms: f64,
}

impl Default for Spread {
    fn default() -> Self {
        Self { counts: vec![0; STEPS], count: 0, longest: Duration::ZERO }
    }
}

impl Spread {
    pub(super) fn add(&mut self, time: Duration) {
        let ms = time.as_secs_f64() * 1_000.0;
        // Below a millisecond it is the first step; a logarithm below zero becomes zero.
        let step = (ms.ln() / STEP.ln()).max(0.0) as usize;
        self.counts[step.min(STEPS - 1)] += 1;
        self.count += 1;
        self.longest = self.longest.max(time);
    }

    /// Nothing when there was none.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        (self.count > 0).then(|| Percentiles {
            count: self.count,
            p50_ms: self.part(0.50),
            p95_ms: self.part(0.95),
            p99_ms: self.part(0.99),
            longest_ms: rounded(self.longest.as_secs_f64() * 1_000.0),
        })
    }

    /// The upper end of the step that the time with this rank is in, and never more than the longest.
    fn part(&self, part: f64) -> f64 {
        let rank = (self.count as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let step = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        let upper = STEP.powi(step.unwrap_or(STEPS) as i32 + 1);
        rounded(upper.min(self.longest.as_secs_f64() * 1_000.0))
    }
}

fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_per_cent() {
        let mut spread = Spread::default();
        assert_eq!(spread.percentiles(), None);
        (1..=1_000).for_each(|ms| spread.add(Duration::from_millis(ms)));
        let told = spread.percentiles().expect("some");
        for (told, exact) in [(told.p50_ms, 500.0), (told.p95_ms, 950.0), (told.p99_ms, 990.0)] {
            assert!((exact * 0.99..=exact * 1.02).contains(&told), "{told} for {exact}");
        }
        assert_eq!((told.count, told.longest_ms), (1_000, 1_000.0));
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_place() {
        let mut spread = Spread::default();
        spread.add(Duration::ZERO);
        assert_eq!(spread.percentiles().expect("one").p99_ms, 0.0);
        spread.add(Duration::from_secs(1_000_000));
        let told = spread.percentiles().expect("two");
        assert!(told.p99_ms >= 7_200_000.0 && told.p50_ms <= 1.1, "{told:?}");
    }
}
