//! What is asked of a run, and what comes out of it; the same for Starling and for the bare loop.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How fast audio comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// As fast as it is taken.
    Free,
    /// 100 ms of it every 100 ms, as somebody speaks.
    Live,
}

/// Between the starts of two live streams: callers don't begin in step.
pub(crate) const STAGGER: Duration = Duration::from_millis(137);

/// Which clips a client speaks: all of them in turn, each client beginning at another.
pub(crate) fn turn(client: usize, round: usize, clips: usize) -> usize {
    (client * 5 + round) % clips
}

/// What came out of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Audio of all clips, in seconds.
    pub(crate) audio_s: f64,
    /// From the first client's start to the last one's end.
    pub(crate) wall_s: f64,
    /// CPU time of everything that decodes or serves, the clients left out.
    pub(crate) cpu_s: f64,
    /// For each clip: from the end of its audio to its last final, in milliseconds.
    pub(crate) after_end_ms: Vec<f64>,
    /// For each clip: texts that were shown before the end, a second of audio.
    pub(crate) partials_per_s: Vec<f64>,
    /// For each clip: how far each of those texts reached, in samples.
    #[serde(default)]
    pub(crate) shown: Vec<Vec<u64>>,
    /// Letters that came out: a run that recognised nothing measures nothing.
    pub(crate) letters: usize,
}

impl Outcome {
    pub(crate) fn throughput(&self) -> f64 {
        self.audio_s / self.wall_s
    }

    /// Both runs as one, but for the times that they share.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.audio_s += other.audio_s;
        self.letters += other.letters;
        self.after_end_ms.extend(other.after_end_ms);
        self.partials_per_s.extend(other.partials_per_s);
        self.shown.extend(other.shown);
        self
    }

    pub(crate) fn p95_ms(&self) -> f64 {
        percentile(&self.after_end_ms, 0.95)
    }
}

/// The smallest value that is not below `part` of them.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(
            [percentile(&values, 0.95), median(&values), percentile(&values, 1.0)],
            [19.0, 10.0, 20.0]
        );
        assert!(median(&[]).is_nan());
    }
}
