//! Native calls in progress, and how long each kind has taken so far.
//!
//! Owns: what heartbeats tell of them. Must never: hold a lock across a native call.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use starling_protocol::lease::{CallInProgress, FlightEntry};
use starling_protocol::{DecodeOffset, LeaseId};

use super::Shared;
use super::clock::thread_cpu_micros;

/// Kinds that differ in how long they may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    Open,
    Accept,
    Partial,
    Finish,
}

const KINDS: usize = 4;

/// A native call about to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) lease: LeaseId,
    pub(super) until: DecodeOffset,
    pub(super) kind: CallKind,
    /// Audio in the open segment, in milliseconds: what some calls' length grows with.
    pub(super) segment_ms: u32,
    pub(super) first_use: bool,
}

impl Call {
    /// Least bound in milliseconds that a call is measured against, however short others of its kind were. Engines that
    /// decode a whole segment at its end take a part of its length; a tenth is twice what the slowest was measured at.
    const fn least_bound_ms(&self) -> u32 {
        match self.kind {
            CallKind::Partial | CallKind::Finish => self.segment_ms / 10,
            CallKind::Open | CallKind::Accept => 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Running {
    call: Call,
    started_us: u64,
    /// How long the process had stood still by then.
    stood_still_us: u64,
}

#[derive(Debug)]
pub(super) struct Calls {
    running: Vec<Mutex<Option<Running>>>,
    /// Time in which this process did not run.
    stood_still_us: AtomicU64,
    longest_us: [AtomicU32; KINDS],
    audio_us: AtomicU64,
    busy_us: AtomicU64,
}

impl Calls {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            running: (0..threads).map(|_| Mutex::new(None)).collect(),
            stood_still_us: AtomicU64::new(0),
            longest_us: [const { AtomicU32::new(0) }; KINDS],
            audio_us: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
        }
    }

    /// Decode threads there are.
    pub(super) fn threads(&self) -> usize {
        self.running.len()
    }

    fn begin(&self, index: usize, call: Call, started_us: u64) {
        let stood_still_us = self.stood_still_us.load(Ordering::Relaxed);
        self.set(index, Some(Running { call, started_us, stood_still_us }));
    }

    fn set(&self, index: usize, value: Option<Running>) {
        *self.running[index].lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    /// The process did not run for so long, stopped or starved, and no call with it: that is no sign of a call that does not return.
    pub(super) fn stood_still(&self, us: u64) {
        self.stood_still_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Calls in progress at `now_us`. The locks inside are held for a copy only, never across a call.
    pub(super) fn in_progress(&self, now_us: u64) -> Vec<CallInProgress> {
        let running = self.running.iter();
        let running = running.filter_map(|slot| *slot.lock().unwrap_or_else(PoisonError::into_inner));
        let stood_still_us = self.stood_still_us.load(Ordering::Relaxed);
        let ran_us = |running: &Running| {
            let still_us = stood_still_us.saturating_sub(running.stood_still_us);
            now_us.saturating_sub(running.started_us).saturating_sub(still_us)
        };
        running
            .map(|running| (running.call, ran_us(&running)))
            .map(|(call, ran_us)| CallInProgress {
                lease: call.lease,
                until: call.until,
                running_ms: u32::try_from(ran_us / 1_000).unwrap_or(u32::MAX),
                bound_ms: self.longest_us[call.kind as usize]
                    .load(Ordering::Relaxed)
                    .div_ceil(1_000)
                    .max(call.least_bound_ms()),
                first_use: call.first_use,
            })
            .collect()
    }

    /// Counts decoded audio.
    pub(super) fn add_audio(&self, samples: usize, sample_rate: u32) {
        let us = samples as u64 * 1_000_000 / u64::from(sample_rate.max(1));
        self.audio_us.fetch_add(us, Ordering::Relaxed);
    }

    /// Audio decoded and CPU time spent in calls, both in milliseconds.
    pub(super) fn totals_ms(&self) -> (u64, u64) {
        (self.audio_us.load(Ordering::Relaxed) / 1_000, self.busy_us.load(Ordering::Relaxed) / 1_000)
    }
}

/// What a native call took, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Took {
    /// By the clock.
    pub(super) wall_us: u64,
    /// Of the thread's own time.
    pub(super) cpu_us: u64,
}

/// Makes a native call on decode thread `index`: flight recorder before and after, heartbeats told, length measured.
pub(super) fn native<T>(shared: &Shared, index: usize, call: Call, body: impl FnOnce() -> T) -> (T, Took) {
    shared.flight.note(index, FlightEntry { lease: call.lease, until: call.until });
    let (started, cpu) = (shared.clock.micros(), thread_cpu_micros());
    shared.calls.begin(index, call, started);
    let result = body();
    shared.calls.set(index, None);
    shared.flight.clear(index);
    let wall_us = shared.clock.micros() - started;
    let cpu_us = thread_cpu_micros().saturating_sub(cpu);
    shared.calls.busy_us.fetch_add(cpu_us, Ordering::Relaxed);
    if !call.first_use {
        let longest = &shared.calls.longest_us[call.kind as usize];
        longest.fetch_max(u32::try_from(wall_us).unwrap_or(u32::MAX).max(1), Ordering::Relaxed);
    }
    (result, Took { wall_us, cpu_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_stood_still_is_no_part_of_a_call() {
        let calls = Calls::new(2);
        let call = |lease| Call {
            lease: LeaseId(lease),
            until: DecodeOffset(0),
            kind: CallKind::Accept,
            segment_ms: 0,
            first_use: false,
        };
        let running =
            |now_us| -> Vec<u32> { calls.in_progress(now_us).iter().map(|call| call.running_ms).collect() };
        calls.begin(0, call(0), 10_000);
        assert_eq!(running(50_000), [40]);
        calls.stood_still(1_500_000);
        calls.begin(1, call(1), 1_560_000);
        assert_eq!(running(1_570_000), [60, 10], "what began after it has not stood still");
        assert_eq!(running(2_570_000), [1_060, 1_010], "and one that does not return shows all the same");
        calls.set(0, None);
        assert_eq!(running(2_570_000), [1_010]);
    }
}
