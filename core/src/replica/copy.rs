//! A copy of a session: what it takes for another node to go on.
//!
//! Owns: the finals that the client has not confirmed, the audio that is not committed, the entries between. Must never: take
//! what does not adjoin; a copy with a hole is none.

use std::collections::VecDeque;

use starling_protocol::native::Final;
use starling_protocol::replica::{
    Commit, CopyStart, EntryKind, MAX_COPY_AUDIO_BYTES, SessionFacts, ToReplica, View,
};
use starling_protocol::{Attempt, DecodeOffset, Epoch, Segment, SourceOffset};
use thiserror::Error;

use crate::audio::SourceStore;

/// Entries that a copy takes. An owner keeps to what its journal has room for, which is less.
const MOST_ENTRIES: usize = 16_384;

/// Finals that a copy takes; an owner stops decoding long before.
const MOST_FINALS: usize = 4_096;

/// Segments whose times are kept: as many as end within the seconds that spans are gathered for.
pub const RECENT_SEGMENTS: usize = 8;

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionCopy {
    start: CopyStart,
    finals: VecDeque<Final>,
    audio: SourceStore,
    entries: VecDeque<(DecodeOffset, EntryKind)>,
    whole: bool,
    over: bool,
    final_bytes: usize,
}

/// A message that does not fit what was said before. The copy is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unfit(pub &'static str);

impl SessionCopy {
    /// A copy that was just begun.
    #[must_use]
    pub fn begin(start: CopyStart) -> Self {
        let audio = SourceStore::starting_at(start.audio_from);
        Self {
            start,
            finals: VecDeque::new(),
            audio,
            entries: VecDeque::new(),
            whole: false,
            over: false,
            final_bytes: 0,
        }
    }

    /// What the session is.
    #[must_use]
    pub const fn facts(&self) -> &SessionFacts {
        &self.start.facts
    }

    /// The highest epoch it was told of.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.start.epoch
    }

    /// The set of copies that it belongs to.
    #[must_use]
    pub const fn view(&self) -> View {
        self.start.view
    }

    /// Whether everything that was there when it was begun has been told.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether the session has ended for good.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// The first segment that is not committed.
    #[must_use]
    pub const fn next_segment(&self) -> Segment {
        self.start.next_segment
    }

    /// The end of the audio.
    #[must_use]
    pub fn audio_end(&self) -> SourceOffset {
        self.audio.end()
    }

    /// Memory that it takes, in bytes; the constant part of it left out.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.audio.bytes() + self.final_bytes + self.entries.len() * size_of::<(DecodeOffset, EntryKind)>()
    }

    /// What it was begun with, kept up to date.
    #[must_use]
    pub const fn start(&self) -> &CopyStart {
        &self.start
    }

    /// Finals that the client has not confirmed, as far as it was told.
    pub fn finals(&self) -> impl Iterator<Item = &Final> {
        self.finals.iter()
    }

    /// Its parts: finals, audio, entries.
    #[must_use]
    pub fn into_parts(
        self,
    ) -> (CopyStart, VecDeque<Final>, SourceStore, VecDeque<(DecodeOffset, EntryKind)>) {
        (self.start, self.finals, self.audio, self.entries)
    }

    /// Takes the next message.
    ///
    /// # Errors
    /// It does not fit.
    pub fn apply(&mut self, message: ToReplica) -> Result<(), Unfit> {
        if self.over {
            return Err(Unfit("something follows the end"));
        }
        match message {
            ToReplica::Begin(_) => Err(Unfit("a copy begins once")),
            ToReplica::Kept(last) if !self.whole => {
                let expected = self.after_kept();
                if last.segment != expected || last.segment >= self.start.next_segment {
                    return Err(Unfit("a final is not the next one"));
                }
                self.keep(*last)
            }
            ToReplica::Kept(_) => Err(Unfit("a final that was there comes too late")),
            ToReplica::Audio { from, pcm, attempt } => {
                self.audio(from, &pcm)?;
                self.begun(attempt);
                Ok(())
            }
            ToReplica::Entry { at, kind } => self.entry(at, kind),
            ToReplica::Whole if self.whole => Err(Unfit("a copy becomes whole once")),
            ToReplica::Whole => {
                if self.after_kept() != self.start.next_segment {
                    return Err(Unfit("finals are missing"));
                }
                self.whole = true;
                Ok(())
            }
            ToReplica::Commit(commit) => self.commit(*commit),
            ToReplica::Confirmed { through } => {
                while self.finals.front().is_some_and(|last| last.segment <= through) {
                    if let Some(last) = self.finals.pop_front() {
                        self.final_bytes -= bytes_of(&last);
                    }
                }
                let known = through.next().min(self.start.next_segment);
                self.start.confirmed = self.start.confirmed.max(known);
                Ok(())
            }
            ToReplica::Epoch { epoch } => {
                self.start.epoch = self.start.epoch.max(epoch);
                Ok(())
            }
            ToReplica::View { view } => {
                self.start.view = self.start.view.max(view);
                Ok(())
            }
            ToReplica::Over => {
                self.over = true;
                Ok(())
            }
            // A newer owner says more than this node understands: what it means for the copy can't be known.
            _ => Err(Unfit("a message that is not understood")),
        }
    }

    /// The messages that make this copy anew, [`ToReplica::Whole`] last.
    pub fn messages(&self) -> impl Iterator<Item = ToReplica> {
        let piece = MAX_COPY_AUDIO_BYTES / 2;
        let (from, to) = (self.audio.start(), self.audio.end());
        let pieces = (from.0..to.0).step_by(piece).map(move |at| {
            let end = at.saturating_add(piece as u64).min(to.0);
            ToReplica::Audio {
                from: SourceOffset(at),
                pcm: self.audio.read(SourceOffset(at), SourceOffset(end)),
                attempt: Attempt(0),
            }
        });
        let start = CopyStart { audio_from: from, ..self.start.clone() };
        std::iter::once(ToReplica::Begin(Box::new(start)))
            .chain(self.finals.iter().map(|last| ToReplica::Kept(Box::new(last.clone()))))
            .chain(pieces)
            .chain(self.entries.iter().map(|&(at, kind)| ToReplica::Entry { at, kind }))
            .chain(std::iter::once(ToReplica::Whole))
    }

    /// The segment after the finals that are kept. Where they begin is the owner's word, and may be any number.
    fn after_kept(&self) -> Segment {
        Segment(self.start.confirmed.0.saturating_add(self.finals.len() as u64))
    }

    fn begun(&mut self, attempt: Attempt) {
        self.start.attempt = self.start.attempt.max(attempt);
    }

    fn keep(&mut self, last: Final) -> Result<(), Unfit> {
        if self.finals.len() >= MOST_FINALS {
            return Err(Unfit("too many finals are not confirmed"));
        }
        self.final_bytes += bytes_of(&last);
        self.finals.push_back(last);
        Ok(())
    }

    fn audio(&mut self, from: SourceOffset, pcm: &[u8]) -> Result<(), Unfit> {
        if from != self.audio.end() {
            return Err(Unfit("audio does not adjoin"));
        }
        if !pcm.len().is_multiple_of(2) || pcm.len() > MAX_COPY_AUDIO_BYTES {
            return Err(Unfit("a piece of audio has no allowed length"));
        }
        self.audio.append(pcm);
        Ok(())
    }

    fn entry(&mut self, at: DecodeOffset, kind: EntryKind) -> Result<(), Unfit> {
        let last = self.entries.back().map_or(self.start.committed, |(last, _)| *last);
        let ended = self.entries.back().is_some_and(|(_, kind)| *kind == EntryKind::End);
        if at < last || ended {
            return Err(Unfit("an entry is out of order"));
        }
        if self.entries.len() >= MOST_ENTRIES {
            return Err(Unfit("too many entries are not committed"));
        }
        self.start.ended |= kind == EntryKind::End;
        self.entries.push_back((at, kind));
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<(), Unfit> {
        let Commit { last, to, answered, needed_from, times, attempt } = commit;
        if self.after_kept() != self.start.next_segment {
            return Err(Unfit("a commit comes before the finals that were there"));
        }
        if last.segment != self.start.next_segment || last.from != self.start.final_end || last.to < last.from
        {
            return Err(Unfit("a commit is not the next one"));
        }
        if to < self.start.committed || (answered && self.entries.is_empty()) {
            return Err(Unfit("a commit goes back"));
        }
        // The copy could not be read out: what it would begin with stands behind what follows.
        if self.entries.get(usize::from(answered)).is_some_and(|(at, _)| *at < to) {
            return Err(Unfit("a commit passes an entry"));
        }
        let (segment, final_end) = (last.segment, last.to);
        self.keep(last)?;
        if answered {
            self.entries.pop_front();
        }
        self.start.next_segment = segment.next();
        self.start.final_end = final_end;
        self.start.committed = to;
        self.begun(attempt);
        if let Some(times) = times {
            let spare = (self.start.recent.len() + 1).saturating_sub(RECENT_SEGMENTS);
            self.start.recent.drain(..spare);
            self.start.recent.push(times);
        }
        self.audio.trim(needed_from);
        self.start.audio_from = self.audio.start();
        Ok(())
    }
}

/// What a final takes, near enough: its texts and a record for each word.
fn bytes_of(last: &Final) -> usize {
    let words = |words: &[starling_protocol::native::TimedWord]| -> usize {
        words.iter().map(|word| size_of_val(word) + word.word.len()).sum()
    };
    let others: usize = last
        .alternatives
        .iter()
        .map(|other| size_of_val(other) + other.text.len() + words(&other.words))
        .sum();
    size_of::<Final>() + last.text.len() + words(&last.words) + others
}
