//! Packets on their way, each late by a time of its own.
//!
//! Owns: their order. Must never: hold more than a bounded number of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// What comes while so many wait is dropped, as routers do; the kernel's own netem begins with as many.
const MOST_WAITING: usize = 1_000;

/// One way of a link. Each packet is late by anything from nothing to `jitter`, so that they overtake each other.
pub(super) struct Line {
    jitter: Duration,
    random: StdRng,
    waiting: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    count: u64,
}

impl Line {
    pub(super) fn new(jitter: Duration, random: StdRng) -> Self {
        Self { jitter, random, waiting: BinaryHeap::new(), count: 0 }
    }

    pub(super) fn push(&mut self, now: Instant, packet: Vec<u8>) {
        if self.waiting.len() < MOST_WAITING {
            let late = self.jitter.mul_f64(self.random.random());
            self.count += 1;
            self.waiting.push(Reverse((now + late, self.count, packet)));
        }
    }

    /// When the next one is there.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.peek().map(|Reverse((at, _, _))| *at)
    }

    /// The next one, if it is there.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.due()? > now {
            return None;
        }
        self.waiting.pop().map(|Reverse((_, _, packet))| packet)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn each_packet_comes_once_and_within_the_jitter() {
        let jitter = Duration::from_millis(300);
        let mut line = Line::new(jitter, StdRng::seed_from_u64(1));
        let start = Instant::now();
        for number in 0..100 {
            line.push(start, vec![number]);
        }
        let mut came = Vec::new();
        while let Some(at) = line.due() {
            assert!(at <= start + jitter);
            assert_eq!(line.pop(at - Duration::from_nanos(1)), None);
            came.extend(line.pop(at).expect("due"));
        }
        assert!(!came.is_sorted(), "none overtook another: {came:?}");
        came.sort_unstable();
        assert_eq!(came, (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn a_full_line_drops_what_comes() {
        let mut line = Line::new(Duration::from_millis(300), StdRng::seed_from_u64(1));
        let now = Instant::now();
        (0..=MOST_WAITING).for_each(|_| line.push(now, Vec::new()));
        assert_eq!(line.waiting.len(), MOST_WAITING);
    }
}
