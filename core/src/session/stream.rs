//! One decoder at work: what it was fed, how far it has come, and which cuts are still to be heard of it.
//!
//! Must never: decide what a loss means, or which of two decoders speaks for the session.

use std::collections::VecDeque;

use starling_protocol::{Attempt, CutCause, DecodeOffset, Segment};

use super::machine::Cut;
use super::messages::{LeaseKind, SessionAction};
use crate::credit::Credit;
use crate::journal::{Entry, Journal};
use crate::sabotage::{Bug, is};

/// Flushes on their way to a decoder. They hold no audio, so credit does not bound them.
const MOST_FLUSHES: usize = 16;

/// How far one attempt has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stream {
    pub(super) kind: LeaseKind,
    /// Where it began to work for the caller.
    pub(super) from: DecodeOffset,
    pub(super) fed: DecodeOffset,
    pub(super) decoded: DecodeOffset,
    credit: Credit,
    /// Flushes that were not answered by a cut yet.
    flushes: usize,
    /// Pending journal entries that were passed on.
    entries_fed: usize,
    /// Cuts that the other decoder made first, and this one is still to make.
    owed: VecDeque<Cut>,
    pub(super) catching_up: bool,
    /// How far earlier attempts had come.
    pub(super) goal: DecodeOffset,
    pub(super) leave_at_cut: bool,
}

/// What a decoder's cut is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CutFit {
    /// The end of the open segment.
    Next,
    /// One that the other decoder made before.
    Echo,
    /// Not the one that the other decoder made before.
    Differs,
    /// One that can't be.
    Impossible,
}

impl Stream {
    pub(super) fn new(kind: LeaseKind, from: DecodeOffset, window: u16) -> Self {
        Self {
            kind,
            from,
            fed: from,
            decoded: from,
            credit: Credit::new(window),
            flushes: 0,
            entries_fed: 0,
            owed: VecDeque::new(),
            catching_up: false,
            goal: from,
            leave_at_cut: false,
        }
    }

    /// Feeds what credit and audio allow, in steps of `step` samples.
    pub(super) fn pump(
        &mut self,
        attempt: Attempt,
        journal: &Journal,
        step: u64,
        out: &mut Vec<SessionAction>,
    ) {
        let decodable = journal.decodable();
        loop {
            let entry = journal.entry(self.entries_fed);
            if let Some(entry) = entry.filter(|entry| entry.at == self.fed) {
                if self.flushes >= MOST_FLUSHES {
                    return;
                }
                self.entries_fed += 1;
                self.flushes += 1;
                out.push(SessionAction::Flush { attempt, at: entry.at, cause: entry.control.cause() });
                continue;
            }
            let off = is(Bug::ReplayOnAnotherGrid) && attempt > Attempt(1) && self.fed == self.from;
            let whole = self.fed.plus(if off { step / 2 } else { step });
            // Only an entry cuts a step short, so that every attempt feeds the same steps.
            let to = entry.map_or(whole, |entry| entry.at.min(whole));
            if to > decodable || !self.credit.has_room() {
                return;
            }
            out.push(SessionAction::Feed { attempt, from: self.fed, to });
            self.credit.sent(to);
            self.fed = to;
        }
    }

    /// Takes note of what was decoded; false for what was never fed.
    pub(super) fn note_decoded(&mut self, until: DecodeOffset) -> bool {
        if until > self.fed {
            return false;
        }
        self.decoded = self.decoded.max(until);
        self.credit.decoded(until);
        true
    }

    /// Takes note of a cut that this decoder made while `open` began at `committed` and `entry` was the first in the journal. A
    /// cut that does not fit changes nothing that counts: whoever made it is let go.
    pub(super) fn note_cut(
        &mut self,
        cut: Cut,
        open: Segment,
        committed: DecodeOffset,
        entry: Option<Entry>,
    ) -> CutFit {
        let owed = self.owed.pop_front();
        let fit = match owed {
            Some(owed) if owed == cut => CutFit::Echo,
            Some(_) => CutFit::Differs,
            None if cut.segment == open && cut.from == committed && self.can_make(cut, entry) => CutFit::Next,
            None => CutFit::Impossible,
        };
        // Credit comes back with `Decoded` alone: the host sends that after the cut, and counts by it.
        self.decoded = self.decoded.max(cut.to.min(self.fed));
        if matches!(cut.cause, CutCause::Finalize | CutCause::End) {
            self.flushes = self.flushes.saturating_sub(1);
        }
        fit
    }

    /// Whether this decoder can have cut the open segment so. It cuts what it was fed, or answers the journal's first entry
    /// where that stands, and passes none.
    fn can_make(&self, cut: Cut, entry: Option<Entry>) -> bool {
        let entry = entry.filter(|_| self.entries_fed > 0);
        let has_cause = match cut.cause {
            CutCause::Finalize | CutCause::End => {
                entry.is_some_and(|entry| entry.at == cut.to && entry.control.cause() == cut.cause)
            }
            // Nobody but the session gives a segment up.
            CutCause::GivenUp => false,
            _ => cut.to > cut.from,
        };
        let passes = entry.is_some_and(|entry| entry.at < cut.to);
        has_cause && !passes && cut.to >= cut.from && cut.to <= self.fed
    }

    /// The journal's first entry is answered.
    pub(super) fn forget_entry(&mut self) {
        self.entries_fed = self.entries_fed.saturating_sub(1);
    }

    /// The other decoder has made the next cut, which answers an entry or does not. False when this one was not given all that
    /// makes it: what is before a cut is let go, so that it could never be fed the rest.
    pub(super) fn follow(&mut self, cut: Cut, answered: bool) -> bool {
        if self.fed < cut.to || (answered && self.entries_fed == 0) {
            return false;
        }
        if answered {
            self.forget_entry();
        }
        self.owed.push_back(cut);
        true
    }

    /// It speaks for the session from here on. Others have come as far as `goal`.
    pub(super) fn take_over(&mut self, goal: DecodeOffset) {
        self.from = self.decoded;
        self.goal = goal;
        self.catching_up = true;
    }
}
