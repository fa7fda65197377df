//! What all clients met, added up.
//!
//! Owns: counts, distributions, and the transcripts that differ from each other. Must never: keep one for each session.

use std::collections::BTreeMap;

use super::caller::{Heard, Outcome};
use super::spread::Spread;

/// Different transcripts of one recording that are kept to be compared. There is one, unless something is wrong; of more than
/// this many it is only counted how often they came.
const MOST_TEXTS: usize = 64;

/// The sum.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) done: u64,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) reconnects: u64,
    pub(super) begun_anew: u64,
    pub(super) gap_frames: u64,
    pub(super) undecoded: u64,
    pub(super) first_partial: Spread,
    pub(super) last_final: Spread,
    pub(super) audio_seconds: f64,
    /// How often each came.
    pub(super) texts: BTreeMap<String, u64>,
    /// Sessions with one that had no room there.
    pub(super) further: u64,
    /// The first of a session that nothing happened to.
    pub(super) undisturbed: Option<String>,
}

impl Tally {
    /// Counts it; gives back what there is to be said of the first of its kind.
    pub(super) fn add(&mut self, outcome: Outcome) -> Option<String> {
        match outcome {
            Outcome::Done(heard) => {
                self.heard(heard);
                None
            }
            Outcome::Refused(reason) => {
                let count = self.refused.entry(reason).or_default();
                *count += 1;
                None
            }
            Outcome::Failed(kind, sentence) => {
                let count = self.failed.entry(kind).or_default();
                *count += 1;
                (*count == 1).then_some(sentence)
            }
        }
    }

    fn heard(&mut self, heard: Heard) {
        self.done += 1;
        self.reconnects += heard.reconnects;
        self.begun_anew += heard.begun_anew;
        // A server says how long a gap is.
        self.gap_frames = self.gap_frames.saturating_add(heard.gap_frames);
        self.undecoded += heard.undecoded;
        self.audio_seconds += heard.audio_seconds;
        heard.first_partial.into_iter().for_each(|time| self.first_partial.add(time));
        heard.last_final.into_iter().for_each(|time| self.last_final.add(time));
        let undisturbed = heard.reconnects == 0 && heard.gap_frames == 0 && heard.undecoded == 0;
        if undisturbed && self.undisturbed.is_none() {
            self.undisturbed = Some(heard.text.clone());
        }
        if let Some(count) = self.texts.get_mut(&heard.text) {
            *count += 1;
        } else if self.texts.len() < MOST_TEXTS {
            self.texts.insert(heard.text, 1);
        } else {
            self.further += 1;
        }
    }

    pub(super) fn progress(&self) -> String {
        let sum = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        format!("{} done, {} refused, {} failed", self.done, sum(&self.refused), sum(&self.failed))
    }
}
