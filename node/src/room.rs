//! What the machine has for decoder hosts: cores and memory, as far as the node may use them.
//!
//! Owns: reading it, and the last figure for whoever can't wait. Must never: guess; what can't be read is unknown.

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use starling_actors::MemoryKnown;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

pub mod cgroup;

use cgroup::Limits;

/// How often memory is looked at. A host takes about as long to load.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Nothing is known.
const UNKNOWN: u64 = u64::MAX;

/// The machine's memory, as it was last seen.
#[derive(Debug, Clone)]
pub struct MachineRoom {
    available: Arc<AtomicU64>,
}

impl MachineRoom {
    /// Looks once. Reads files.
    #[must_use]
    pub fn look() -> Self {
        let room = Self { available: Arc::new(AtomicU64::new(UNKNOWN)) };
        room.note();
        room
    }

    /// Looks again and again, until told to stop.
    pub async fn keep_looking(self, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopping.cancelled() => return,
            }
            let room = self.clone();
            // Nothing is known anew if the thread failed.
            let _ = spawn_blocking(move || room.note()).await;
        }
    }

    /// For pools.
    #[must_use]
    pub fn memory(&self) -> MemoryKnown {
        let available = Arc::clone(&self.available);
        MemoryKnown(Arc::new(move || {
            Some(available.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
        }))
    }

    fn note(&self) {
        let free = machine_available(&read("/proc/meminfo").unwrap_or_default());
        let free = free.into_iter().chain(Limits::read(read).memory_available).min();
        self.available.store(free.unwrap_or(UNKNOWN), Ordering::Relaxed);
    }
}

/// Cores that this process may use, at least one. Reads files.
#[must_use]
pub fn cores() -> u32 {
    let there = std::thread::available_parallelism().map_or(1, NonZero::get);
    let there = u32::try_from(there).unwrap_or(u32::MAX);
    // A part of a core is none that a thread has to itself.
    let allowed =
        Limits::read(read).cpu_millis.map(|millis| u32::try_from(millis / 1_000).unwrap_or(u32::MAX));
    there.min(allowed.unwrap_or(u32::MAX)).max(1)
}

/// What could be had without swapping, out of /proc/meminfo.
fn machine_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine_is_read() {
        assert_eq!(machine_available("MemTotal:  9 kB\nMemAvailable:   7 kB\n"), Some(7 << 10));
        assert_eq!(machine_available("MemTotal:  9 kB\n"), None);
    }

    #[test]
    fn this_machine_has_some() {
        assert!(cores() >= 1);
        let known = MachineRoom::look().memory();
        assert!((known.0)().is_some_and(|bytes| bytes > 0));
    }
}
