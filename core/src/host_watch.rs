//! Whether a decoder host still lives, judged by its heartbeats.
//!
//! Owns: when each host was last heard, and what it was doing then. Must never: accuse a host for this node's own delay. A
//! round whose tick came late accuses nobody, because a heartbeat may be lying unread, and what it came late by is not counted
//! as the host's silence.

use std::time::Duration;

use starling_protocol::LeaseId;
use starling_protocol::lease::CallInProgress;

use crate::Timestamp;
pub use crate::round::LATE;
use crate::round::{Round, Rounds};

/// Heartbeats come and rounds are held this often.
pub const ROUND: Duration = Duration::from_millis(100);

/// A host that was silent for so long is lost: seven heartbeats in a row.
pub const SILENCE: Duration = Duration::from_millis(700);

/// A native call is never stuck before this, however fast its kind usually is.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);

/// A native call longer than this many times its measured bound is stuck.
pub const STUCK_FACTOR: u32 = 5;

/// Longest first call of a recognizer. A cold Vosk takes about a second of CPU for it; thirty leave room for a machine
/// that is loaded far beyond use.
pub const FIRST_USE_LIMIT: Duration = Duration::from_secs(30);

/// What is wrong with a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accusation {
    /// Its heartbeats stopped.
    Silent,
    /// A native call for this lease does not return.
    Stuck(LeaseId),
}

/// Watches one host from the moment it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostWatch {
    heard: Timestamp,
    rounds: Rounds,
    calls: Vec<CallInProgress>,
}

impl HostWatch {
    /// A host that was heard just now.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { heard: now, rounds: Rounds::new(now, ROUND), calls: Vec::new() }
    }

    /// A heartbeat came.
    pub fn heartbeat(&mut self, now: Timestamp, calls: Vec<CallInProgress>) {
        self.heard = now;
        self.calls = calls;
    }

    /// Holds a round. Call it every [`ROUND`].
    pub fn round(&mut self, now: Timestamp) -> Option<Accusation> {
        match self.rounds.hold(now) {
            Round::Piled => return None,
            Round::Late(gap) => {
                // Its silence goes on from where it was when we stopped listening: what held us up may have held it up too.
                self.heard = self.heard.plus(gap).min(now);
                return None;
            }
            Round::OnTime => {}
        }
        if now.since(self.heard) > SILENCE {
            return Some(Accusation::Silent);
        }
        self.calls.iter().find(|call| is_stuck(call)).map(|call| Accusation::Stuck(call.lease))
    }
}

fn is_stuck(call: &CallInProgress) -> bool {
    let running = Duration::from_millis(u64::from(call.running_ms));
    // A first use opens files and fills caches: how long it takes says little of how long the next will.
    if call.first_use {
        return running > FIRST_USE_LIMIT;
    }
    let bound = Duration::from_millis(u64::from(call.bound_ms)) * STUCK_FACTOR;
    running > bound.max(STUCK_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use starling_protocol::DecodeOffset;

    fn at(ms: u64) -> Timestamp {
        Timestamp(Duration::from_millis(ms))
    }

    fn call(running_ms: u32, bound_ms: u32, first_use: bool) -> CallInProgress {
        CallInProgress { lease: LeaseId(7), until: DecodeOffset(0), running_ms, bound_ms, first_use }
    }

    #[test]
    fn silence_is_told_in_the_round_after_700_ms() {
        let mut watch = HostWatch::new(at(0));
        let accused: Vec<u64> =
            (1..12).map(|n| n * 100).filter(|ms| watch.round(at(*ms)).is_some()).collect();
        assert_eq!(accused.first(), Some(&800));
    }

    #[test]
    fn a_pause_of_our_own_accuses_nobody_and_counts_for_nothing() {
        let mut watch = HostWatch::new(at(0));
        let burst = [100, 200, 5_000, 5_000, 5_001, 5_003];
        let rounds = burst.into_iter().chain((5_100..6_000).step_by(100));
        let accused: Vec<u64> = rounds.filter(|ms| watch.round(at(*ms)).is_some()).collect();
        assert_eq!(accused.first(), Some(&5_600), "200 ms before the pause and the rest after it");
    }

    #[test]
    fn a_long_call_is_measured_against_its_kind_and_a_first_use_against_its_own_limit() {
        let verdict = |running, bound, first| {
            let mut watch = HostWatch::new(at(0));
            watch.heartbeat(at(90), vec![call(running, bound, first)]);
            watch.round(at(100))
        };
        assert_eq!(verdict(1_000, 0, false), None);
        assert_eq!(verdict(1_001, 0, false), Some(Accusation::Stuck(LeaseId(7))));
        assert_eq!(verdict(2_000, 400, false), None);
        assert_eq!(verdict(2_001, 400, false), Some(Accusation::Stuck(LeaseId(7))));
        assert_eq!(verdict(30_000, 0, true), None);
        assert_eq!(verdict(30_001, 0, true), Some(Accusation::Stuck(LeaseId(7))));
    }

    proptest! {
        /// However late our own ticks come, a host whose heartbeats we read at least every 600 ms of time is not accused.
        #[test]
        fn a_host_that_is_heard_is_never_accused(gaps in proptest::collection::vec(1u64..600, 1..100)) {
            let mut watch = HostWatch::new(at(0));
            let mut now = 0;
            for gap in gaps {
                now += gap;
                prop_assert_eq!(watch.round(at(now)), None);
                watch.heartbeat(at(now), vec![call(999, 0, false)]);
            }
        }
    }
}
