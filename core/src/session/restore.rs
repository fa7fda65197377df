//! A session that goes on from a copy of its journal.

use starling_protocol::replica::EntryKind;
use starling_protocol::{Attempt, DecodeOffset, Epoch, Segment, SourceOffset};

use super::decoder::Decoder;
use super::link::Link;
use super::machine::{SessionConfig, SessionMachine, Suspicion};
use super::messages::SessionAction;
use super::standby::Standby;
use crate::Timestamp;
use crate::audio::{RateMap, SourceStore};
use crate::invariants::FinalsLedger;
use crate::journal::{Control, Entry, Journal};
use crate::replica::SessionCopy;

/// Where a session stands that is taken over.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    /// Audio before this was received.
    pub received: SourceOffset,
    /// Whether it is over.
    pub ended: bool,
    /// Segments are committed up to here.
    pub committed: DecodeOffset,
    /// Entries that are not committed.
    pub entries: Vec<Entry>,
    /// The open segment.
    pub next_segment: Segment,
    /// Where the last final ended.
    pub final_end: SourceOffset,
    /// The first final that the client has not confirmed.
    pub confirmed: Segment,
    /// The audio that is not committed.
    pub audio: SourceStore,
    /// Finals from `confirmed` on.
    pub finals: Vec<starling_protocol::native::Final>,
    /// The last attempt that was begun, as far as is known.
    pub attempt: Attempt,
}

impl From<EntryKind> for Control {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::End => Self::End,
            _ => Self::Finalize,
        }
    }
}

impl From<Control> for EntryKind {
    fn from(control: Control) -> Self {
        match control {
            Control::Finalize => Self::Finalize,
            Control::End => Self::End,
        }
    }
}

impl Restored {
    /// What a copy says. With `skip_to` the client has finals that the copy lacks, up to the one before the segment, which
    /// ended at that frame: they count, and what the copy has of them does not.
    #[must_use]
    pub fn from_copy(copy: SessionCopy, rates: RateMap, skip_to: Option<(Segment, SourceOffset)>) -> Self {
        let (start, finals, audio, entries) = copy.into_parts();
        let entries = entries.into_iter().map(|(at, kind)| Entry { at, control: kind.into() });
        let mut restored = Self {
            received: audio.end(),
            ended: start.ended,
            committed: start.committed,
            entries: entries.collect(),
            next_segment: start.next_segment,
            final_end: start.final_end,
            confirmed: start.confirmed,
            audio,
            finals: finals.into(),
            attempt: start.attempt,
        };
        if let Some((segment, to)) = skip_to {
            restored.skip(rates, segment, to);
        }
        restored
    }

    fn skip(&mut self, rates: RateMap, segment: Segment, to: SourceOffset) {
        self.committed = rates.to_decode(to);
        self.next_segment = segment;
        self.confirmed = segment;
        self.final_end = to;
        self.finals.clear();
        // A request at the very place was answered by the final that the client has, or it asks again.
        let committed = self.committed;
        self.entries.retain(|entry| entry.at > committed || entry.control == Control::End);
        if to > self.received {
            // The client sends on from there. What the filter looks back at is gone, which costs a few samples' last bits.
            self.received = to;
            self.audio = SourceStore::starting_at(to);
            self.ended = false;
            self.entries.clear();
        } else {
            self.audio.trim(rates.needed_from(self.committed));
        }
    }
}

impl SessionMachine {
    /// A session that goes on here; asks for a decoder if there is anything left to decode. The client attaches with an
    /// epoch above `last_epoch`.
    #[must_use]
    pub fn restore(
        now: Timestamp,
        config: SessionConfig,
        restored: &Restored,
        last_epoch: Epoch,
        out: &mut Vec<SessionAction>,
    ) -> Self {
        let Restored { received, ended, committed, next_segment, final_end, confirmed, attempt, .. } =
            *restored;
        // What is decoded again is nothing new: partials wait until it has caught up. So there was one before, known or not.
        let attempt = attempt.max(Attempt(1));
        let entries = restored.entries.iter().copied().collect();
        let mut machine = Self {
            config,
            journal: Journal::restore(config.rates, received, committed, entries, ended),
            ledger: FinalsLedger::resume(next_segment, final_end),
            link: Link::Detached { since: now, last_epoch },
            decoder: Decoder::Closed,
            attempt,
            standby: Standby::Absent,
            last_attempt: attempt,
            suspicion: Suspicion::default(),
            reached: committed,
            confirmed,
            clogged_since: None,
            finished_since: None,
            last_input: now,
            over: false,
        };
        if ended && machine.journal.pending_entries() == 0 {
            machine.finish(now, out);
        } else {
            machine.request_decoder(out);
        }
        machine
    }
}
