//! What became of all calls so far.
//!
//! Owns: the counts by kind of client. Must never: count a call whole that was not looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::callers::Told;
use crate::verdict::Judged;

/// Failures that are told one by one; further ones are counted.
const MOST_TOLD: usize = 40;

/// One kind of client.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Kind {
    pub(crate) calls: u64,
    /// All words, once, in order.
    pub(crate) whole: u64,
    /// Of a protocol that can't go on: its node was lost, and it was told or cut off. What it was told until then was right.
    pub(crate) cut_off: u64,
    /// Behaved badly: what it was told does not matter.
    pub(crate) rude: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    pub(crate) wrong: u64,
    pub(crate) reconnects: u64,
    pub(crate) begun_anew: u64,
    /// Calls that were said, once at least, to be in two copies.
    pub(crate) durable: u64,
    pub(crate) words: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) kinds: BTreeMap<&'static str, Kind>,
    pub(crate) failures: Vec<String>,
    pub(crate) failures_untold: u64,
    pub(crate) longest_reconnect_s: f64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<Counts>>);

impl Tally {
    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A caller on the SDK.
    pub(crate) fn add(&self, kind: &'static str, at_s: f64, words: usize, told: &Told, judged: &Judged) {
        self.change(|counts| {
            for back in &told.reconnects {
                counts.longest_reconnect_s = counts.longest_reconnect_s.max(back.took_s);
                // One fault at a time leaves one of two copies. Who was begun a moment before it may have had none yet.
                if back.anew && back.was_durable {
                    let what = "a session that was in two copies was begun anew";
                    counts.fail(format!("{at_s:.0} s, {kind}: {what} at {:.0} s", back.at_s));
                }
            }
            let kind_counts = counts.kinds.entry(kind).or_default();
            kind_counts.calls += 1;
            kind_counts.words += words as u64;
            kind_counts.lost += judged.lost;
            kind_counts.twice += judged.twice;
            kind_counts.reconnects += told.reconnects.len() as u64;
            kind_counts.begun_anew += told.reconnects.iter().filter(|back| back.anew).count() as u64;
            kind_counts.durable += u64::from(told.durable);
            if judged.faults.is_empty() {
                kind_counts.whole += 1;
            } else {
                kind_counts.wrong += 1;
                counts.fail(format!("{at_s:.0} s, {kind}: {}", judged.faults.join("; ")));
            }
        });
    }
}

impl Counts {
    pub(crate) fn fail(&mut self, what: String) {
        if self.failures.len() < MOST_TOLD {
            self.failures.push(what);
        } else {
            self.failures_untold += 1;
        }
    }

    pub(crate) fn sum(&self, of: impl Fn(&Kind) -> u64) -> u64 {
        self.kinds.values().map(of).sum()
    }
}
