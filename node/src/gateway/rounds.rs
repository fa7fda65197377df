//! Rounds: where many speak, what they say is taken in together.
//!
//! A step of audio that comes by itself wakes this node, the node that decodes it and the decoder, each for a few microseconds'
//! work and with other work's data in its caches; steps that come together share the waking. As network cards do with
//! interrupts, a session's audio waits for the next round, 10 ms at most, once there are many sessions.
//!
//! Owns: when a session may take in more. Must never: make anybody slower than speech, or wait where few speak.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Between two rounds. A tenth of a step: it leaves as much again of the 20 ms that a gateway may add at the 99th percentile, and
/// with as many sessions as make it worthwhile a round has a few steps.
const ROUND: Duration = Duration::from_millis(10);

/// With fewer sessions a round would hardly ever have two steps.
const MANY: usize = 8;

/// A node's rounds, and how many live sessions keep to them.
#[derive(Debug)]
pub struct Rounds {
    origin: Instant,
    sessions: AtomicUsize,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { origin: Instant::now(), sessions: AtomicUsize::new(0) }
    }
}

impl Rounds {
    /// Counts a session, until what is given is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Pace {
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Pace { rounds: Arc::clone(self), free_until: self.origin }
    }

    /// The next round after `now`.
    fn after(&self, now: Instant) -> Instant {
        let rounds = now.duration_since(self.origin).as_millis() / ROUND.as_millis() + 1;
        self.origin + ROUND * u32::try_from(rounds).unwrap_or(u32::MAX)
    }
}

/// One session's pace.
#[derive(Debug)]
pub(super) struct Pace {
    rounds: Arc<Rounds>,
    /// Until then it need not wait: it has waited.
    free_until: Instant,
}

impl Pace {
    /// Waits for the next round, unless few speak or it has waited for this one. So at least half of all time is free, and whoever
    /// sends faster than speech is not held up for long.
    pub(super) async fn wait(&mut self) {
        let now = Instant::now();
        if self.rounds.sessions.load(Ordering::Relaxed) < MANY || now < self.free_until {
            return;
        }
        let round = self.rounds.after(now);
        self.free_until = round + ROUND;
        sleep_until(round).await;
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.rounds.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(pace: &mut Pace, origin: Instant) -> u128 {
        pace.wait().await;
        origin.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn few_do_not_wait_and_those_who_leave_are_not_counted() {
        let rounds = Arc::new(Rounds::default());
        let origin = Instant::now();
        let mut paces: Vec<_> = (1..MANY).map(|_| rounds.enter()).collect();
        assert_eq!(taken(&mut paces[0], origin).await, 0);
        let last = rounds.enter();
        assert_eq!(taken(&mut paces[0], origin).await, 10);
        drop(last);
        tokio::time::advance(Duration::from_millis(31)).await;
        assert_eq!(taken(&mut paces[0], origin).await, 41);
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_taken_in_together_each_once_a_round() {
        let rounds = Arc::new(Rounds::default());
        let origin = Instant::now();
        let mut paces: Vec<_> = (0..MANY).map(|_| rounds.enter()).collect();
        tokio::time::advance(Duration::from_millis(3)).await;
        assert_eq!(taken(&mut paces[0], origin).await, 10);
        // What came meanwhile goes with it.
        assert_eq!(taken(&mut paces[0], origin).await, 10);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert_eq!(taken(&mut paces[0], origin).await, 15);
        assert_eq!(taken(&mut paces[1], origin).await, 20);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(taken(&mut paces[0], origin).await, 30);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_falls_behind_speech_with_frames_of_any_length() {
        for frame_ms in [5u64, 10, 20, 30, 100] {
            let rounds = Arc::new(Rounds::default());
            let origin = Instant::now();
            let mut paces: Vec<_> = (0..MANY).map(|_| rounds.enter()).collect();
            for frame in 1..=200 {
                let comes = origin + Duration::from_millis(frame * frame_ms);
                sleep_until(comes).await;
                paces[0].wait().await;
                assert!(
                    Instant::now() <= comes + ROUND,
                    "frame {frame} of {frame_ms} ms: {:?}",
                    Instant::now() - comes
                );
            }
        }
    }
}
