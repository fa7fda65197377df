//! Our own tick, for anybody to look at.
//!
//! A change that says that this process stood still comes as a message, and messages of before the pause are handled before
//! it. Whoever must not act on what it believed before the pause looks here first.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use starling_core::Timestamp;
use starling_core::tick::{PAUSED_AFTER, TICK, TickWatch};

use crate::observe::{Observation, Observer};

/// Whether this process runs, by its own tick.
#[derive(Clone)]
pub struct Pulse(Arc<Beats>);

/// Reads a clock that goes on while this process, or its machine, stands still.
pub type ReadClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

struct Beats {
    clock: ReadClock,
    last_ms: AtomicU64,
    pauses: AtomicU64,
}

impl Pulse {
    pub(super) fn start() -> Self {
        Self::by(Arc::new(now))
    }

    /// One by a clock of the caller's, and who ticks it. For simulations; a node's own comes with its membership.
    #[must_use]
    pub fn on(clock: ReadClock) -> (Self, Ticking) {
        let pulse = Self::by(clock);
        (pulse.clone(), Ticking::new(pulse))
    }

    pub(super) fn by(clock: ReadClock) -> Self {
        let last_ms = AtomicU64::new(milliseconds(clock()));
        Self(Arc::new(Beats { clock, last_ms, pauses: AtomicU64::new(0) }))
    }

    /// Whether a tick is overdue at this moment: this process stood still and has not taken stock yet.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.is_overdue_at((self.0.clock)())
    }

    /// How often it stood still. If this is another number than before, so may everything else be.
    #[must_use]
    pub fn pauses(&self) -> u64 {
        self.0.pauses.load(Ordering::Acquire)
    }

    fn is_overdue_at(&self, now: Timestamp) -> bool {
        let silent = milliseconds(now).saturating_sub(self.0.last_ms.load(Ordering::Acquire));
        Duration::from_millis(silent) > TICK + PAUSED_AFTER
    }

    /// The pause is counted before the tick is: who sees no tick overdue sees the pause.
    fn beat(&self, now: Timestamp, paused: bool) {
        if paused {
            self.0.pauses.fetch_add(1, Ordering::AcqRel);
        }
        self.0.last_ms.store(milliseconds(now), Ordering::Release);
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pulse").field(&self.pauses()).finish()
    }
}

/// The one who ticks.
#[derive(Debug)]
pub struct Ticking {
    watch: TickWatch,
    pulse: Pulse,
}

impl Ticking {
    pub(super) fn new(pulse: Pulse) -> Self {
        Self { watch: TickWatch::new((pulse.0.clock)()), pulse }
    }

    /// Ticks. How long this process stood still before, if it did.
    pub fn tick(&mut self) -> Option<Duration> {
        self.tick_at((self.pulse.0.clock)())
    }

    fn tick_at(&mut self, now: Timestamp) -> Option<Duration> {
        let pause = self.watch.tick(now);
        self.pulse.beat(now, pause.is_some());
        pause
    }
}

/// Tells when this process stood still, for a node without a membership that would. Ends with the task that it is called in.
pub async fn watch_pulse(observer: Arc<dyn Observer>) {
    let mut ticking = Ticking::new(Pulse::start());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(pause) = ticking.tick() {
            tracing::warn!(?pause, "this process stood still");
            observer.observe(&Observation::StoodStill { pause });
        }
    }
}

fn milliseconds(time: Timestamp) -> u64 {
    u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX)
}

/// Goes on while the machine is suspended, which the clock of timers does not.
fn now() -> Timestamp {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Timestamp(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_can_be_seen_before_it_is_told_and_is_counted_when_it_is() {
        let pulse = Pulse::start();
        let mut ticking = Ticking::new(pulse.clone());
        let start = now();
        let after = |ms| start.plus(Duration::from_millis(ms));
        assert_eq!(ticking.tick_at(after(100)), None);
        assert!(!pulse.is_overdue_at(after(450)));
        assert!(pulse.is_overdue_at(after(2_000)));
        assert_eq!(pulse.pauses(), 0);
        assert_eq!(ticking.tick_at(after(2_000)).map(|pause| pause.as_millis()), Some(1_800));
        assert!(!pulse.is_overdue_at(after(2_000)));
        assert_eq!(pulse.pauses(), 1);
    }
}
