//! The way to one keeper: what waits to be sent, what is on its way, and what the keeper is known to have.
//!
//! Owns: the order of a copy's messages and how many may be unanswered. Must never: skip one, or count on one that was not
//! answered.

use std::collections::VecDeque;
use std::time::Duration;

use starling_protocol::replica::View;
use starling_protocol::{Epoch, NodeName, Segment, SourceOffset};

use super::messages::{CopyItem, ReplicationConfig, Standing};
use crate::Timestamp;
use crate::sabotage::{Bug, is};

/// One keeper.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) node: NodeName,
    pub(super) phase: Phase,
    /// Not sent yet, oldest first. Audio that adjoins is one item, so this is bounded by what the session may leave
    /// uncommitted and unconfirmed.
    queue: VecDeque<CopyItem>,
    sent: u64,
    applied: u64,
    /// What is on its way and will be known to be held once it is answered, by its number.
    marks: VecDeque<(u64, Mark)>,
    /// All audio before this is held.
    pub(super) audio_to: SourceOffset,
    /// All commits before this are held.
    pub(super) next_segment: Segment,
    /// Whether it has to obey once more before anything counts on it.
    pub(super) doubted: bool,
    progress: Timestamp,
    /// Since when there is audio that waits for more.
    gathering_since: Option<Timestamp>,
}

/// How far the keeper has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// The stream is being opened.
    Opening,
    /// It is told of the session as it stood.
    Filling,
    /// Its copy is good. What goes out waits for it, so that it catches up with what went out before.
    Whole,
    /// It has all that the client was told of, and belongs to the set of copies.
    Member,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Mark {
    Audio(SourceOffset),
    Commit(Segment),
    Whole,
    Obeyed,
}

/// The keeper claims to have applied what it was never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absurd;

impl Line {
    pub(super) const fn new(now: Timestamp, node: NodeName) -> Self {
        Self {
            node,
            phase: Phase::Opening,
            queue: VecDeque::new(),
            sent: 0,
            applied: 0,
            marks: VecDeque::new(),
            audio_to: SourceOffset(0),
            next_segment: Segment(0),
            doubted: false,
            progress: now,
            gathering_since: None,
        }
    }

    /// The keeper took the stream: it is to be told of everything.
    pub(super) fn fill(&mut self, now: Timestamp, view: View, standing: &Standing) {
        self.phase = Phase::Filling;
        self.progress = now;
        self.queue.push_back(CopyItem::Begin { view });
        for segment in standing.finals_from.0..standing.next_segment.0 {
            self.queue.push_back(CopyItem::Kept { segment: Segment(segment) });
        }
        let (from, to) = (standing.audio_from, standing.audio_to);
        if to > from {
            self.queue.push_back(CopyItem::Audio { from, to });
        }
        let entries = standing.entries.iter().map(|&(at, kind)| CopyItem::Entry { at, kind });
        self.queue.extend(entries.filter(|_| !is(Bug::CopyWithoutEntries)));
        self.queue.push_back(CopyItem::Whole);
        self.next_segment = standing.next_segment;
        self.audio_to = standing.audio_from;
    }

    /// Something happened that the keeper is to be told, if it was told of what came before.
    pub(super) fn push(&mut self, item: CopyItem) {
        if self.phase == Phase::Opening {
            return;
        }
        if let CopyItem::Audio { from, to } = item
            && let Some(CopyItem::Audio { to: end, .. }) = self.queue.back_mut()
            && *end == from
        {
            *end = to;
            return;
        }
        self.queue.push_back(item);
    }

    /// Nothing counts on this keeper before it has obeyed once more.
    pub(super) fn doubt(&mut self, epoch: Epoch) {
        if self.phase != Phase::Opening {
            self.doubted = true;
            self.queue.push_back(CopyItem::Epoch { epoch });
        }
    }

    /// The next item, if another may be on its way.
    pub(super) fn next(&mut self, now: Timestamp, config: &ReplicationConfig) -> Option<CopyItem> {
        let ReplicationConfig { window, piece_frames, gather, .. } = *config;
        if self.sent - self.applied >= u64::from(window) || self.gathers(now, gather) {
            return None;
        }
        self.gathering_since = None;
        let item = match self.queue.front_mut()? {
            CopyItem::Audio { from, to } if to.0 - from.0 > piece_frames => {
                let piece = CopyItem::Audio { from: *from, to: from.plus(piece_frames) };
                *from = from.plus(piece_frames);
                piece
            }
            _ => self.queue.pop_front()?,
        };
        if self.sent == self.applied {
            self.progress = now;
        }
        self.sent += 1;
        let mark = match item {
            CopyItem::Audio { to, .. } => Some(Mark::Audio(to)),
            CopyItem::Commit { segment } => Some(Mark::Commit(segment)),
            CopyItem::Whole => Some(Mark::Whole),
            CopyItem::Epoch { .. } => Some(Mark::Obeyed),
            _ => None,
        };
        self.marks.extend(mark.map(|mark| (self.sent, mark)));
        Some(item)
    }

    /// Whether what is to be sent is audio alone, and may wait for more of it.
    fn gathers(&mut self, now: Timestamp, gather: Duration) -> bool {
        let audio_alone = matches!(self.queue.front(), Some(CopyItem::Audio { .. })) && self.queue.len() == 1;
        if self.phase != Phase::Member || !audio_alone {
            return false;
        }
        let since = *self.gathering_since.get_or_insert(now);
        now < since.plus(gather)
    }

    /// When to look again, should no more audio come. More of it is looked at when it comes; this is later, so that it is not
    /// a second cause of the same.
    pub(super) fn gathers_until(&self, gather: Duration) -> Option<Timestamp> {
        self.gathering_since.map(|since| since.plus(2 * gather))
    }

    /// The keeper has applied so many messages.
    pub(super) fn applied(&mut self, now: Timestamp, count: u64) -> Result<(), Absurd> {
        if count > self.sent {
            return Err(Absurd);
        }
        if count <= self.applied {
            return Ok(());
        }
        self.applied = count;
        self.progress = now;
        while let Some((number, mark)) = self.marks.front().copied()
            && number <= count
        {
            self.marks.pop_front();
            match mark {
                Mark::Audio(to) => self.audio_to = self.audio_to.max(to),
                Mark::Commit(segment) => self.next_segment = self.next_segment.max(segment.next()),
                Mark::Whole => self.phase = Phase::Whole,
                // The last one asked for is the one that counts.
                Mark::Obeyed => self.doubted &= self.awaits_obedience(),
            }
        }
        Ok(())
    }

    /// Whether its copy is good.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.phase, Phase::Whole | Phase::Member)
    }

    fn awaits_obedience(&self) -> bool {
        let sent = self.marks.iter().any(|(_, mark)| *mark == Mark::Obeyed);
        sent || self.queue.iter().any(|item| matches!(item, CopyItem::Epoch { .. }))
    }

    /// When it counts as stalled, should nothing be answered until then.
    pub(super) fn stalls_at(&self, patience: Duration) -> Option<Timestamp> {
        (self.phase != Phase::Opening && self.sent > self.applied).then(|| self.progress.plus(patience))
    }

    /// The first audio that is still to be sent.
    pub(super) fn audio_from(&self) -> Option<SourceOffset> {
        self.queue.iter().find_map(|item| match item {
            CopyItem::Audio { from, .. } => Some(*from),
            _ => None,
        })
    }

    /// The first final that is still to be sent.
    pub(super) fn finals_from(&self) -> Option<Segment> {
        self.queue.iter().find_map(|item| match item {
            CopyItem::Kept { segment } | CopyItem::Commit { segment } => Some(*segment),
            _ => None,
        })
    }

    /// What is on its way: never more than the window.
    pub(super) const fn unanswered(&self) -> u64 {
        self.sent - self.applied
    }
}
