//! What a client sent that is not yet committed: how much audio, and the entries between it that affect text.
//!
//! Owns: offsets and entries. The samples lie in a [`SourceStore`](crate::audio::SourceStore) beside it.
//! Must never: reorder an entry against the audio around it; a replay feeds exactly what the first run fed.

use std::collections::VecDeque;

use starling_protocol::{CutCause, DecodeOffset, SourceOffset};

use crate::audio::RateMap;

/// An entry that affects text, apart from audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Control {
    /// The open segment ends here.
    Finalize,
    /// The audio ends here.
    End,
}

impl Control {
    /// What the cut that it makes is called.
    #[must_use]
    pub const fn cause(self) -> CutCause {
        match self {
            Self::Finalize => CutCause::Finalize,
            Self::End => CutCause::End,
        }
    }
}

/// A control at its place in the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The decoder position it stands at. A function of the source before it alone.
    pub at: DecodeOffset,
    /// What it asks for.
    pub control: Control,
}

/// One session's uncommitted input.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Journal {
    rates: RateMap,
    received: SourceOffset,
    committed: DecodeOffset,
    entries: VecDeque<Entry>,
    ended: bool,
}

impl Journal {
    /// An empty journal.
    #[must_use]
    pub const fn new(rates: RateMap) -> Self {
        Self {
            rates,
            received: SourceOffset(0),
            committed: DecodeOffset(0),
            entries: VecDeque::new(),
            ended: false,
        }
    }

    /// What another node's journal held when a session moves here.
    #[must_use]
    pub fn restore(
        rates: RateMap,
        received: SourceOffset,
        committed: DecodeOffset,
        entries: VecDeque<Entry>,
        ended: bool,
    ) -> Self {
        Self { rates, received, committed, entries, ended }
    }

    /// Source frames received.
    #[must_use]
    pub const fn received(&self) -> SourceOffset {
        self.received
    }

    /// Position up to which segments are committed.
    #[must_use]
    pub const fn committed(&self) -> DecodeOffset {
        self.committed
    }

    /// Whether the audio has ended.
    #[must_use]
    pub const fn ended(&self) -> bool {
        self.ended
    }

    /// Entries not yet committed.
    #[must_use]
    pub fn pending_entries(&self) -> usize {
        self.entries.len()
    }

    /// The n-th entry not yet committed.
    #[must_use]
    pub fn entry(&self, index: usize) -> Option<Entry> {
        self.entries.get(index).copied()
    }

    /// Position up to which decoder samples can be made of what was received.
    #[must_use]
    pub const fn decodable(&self) -> DecodeOffset {
        if self.ended {
            self.rates.decodable_at_end(self.received)
        } else {
            self.rates.decodable(self.received)
        }
    }

    /// The first source frame that a replay could still need.
    #[must_use]
    pub const fn needed_from(&self) -> SourceOffset {
        self.rates.needed_from(self.committed)
    }

    /// More audio came. Nothing follows the end: it is then ignored and `false` returned.
    pub fn append_audio(&mut self, frames: u64) -> bool {
        if self.ended {
            return false;
        }
        self.received = self.received.plus(frames);
        true
    }

    /// An entry came. Each gets its own cut, even two at one place: whether the first was answered yet must not matter.
    /// After the end nothing is added.
    pub fn append(&mut self, control: Control) -> Option<Entry> {
        if self.ended {
            return None;
        }
        if control == Control::End {
            self.ended = true;
        }
        let entry = Entry { at: self.decodable(), control };
        self.entries.push_back(entry);
        Some(entry)
    }

    /// A segment up to `to` was committed; `cause` tells whether an entry made it. Returns whether one did.
    pub fn commit(&mut self, to: DecodeOffset, cause: CutCause) -> bool {
        debug_assert!(to >= self.committed && to <= self.decodable(), "commit outside the journal");
        self.committed = to;
        let given_up = cause == CutCause::GivenUp;
        // A finalize gets its final from whatever ends the segment there; the end is only the end.
        let answered = |entry: &Entry| {
            entry.at == to
                && (entry.control.cause() == cause || (given_up && entry.control == Control::Finalize))
        };
        let answered = self.entries.front().is_some_and(answered);
        if answered {
            self.entries.pop_front();
        }
        debug_assert!(self.entries.front().is_none_or(|entry| entry.at >= to), "a commit passed an entry");
        answered
    }
}

#[cfg(test)]
mod tests;
