//! Which reply a vosk-server client gets, and when: one for each message, whatever a session's events are.
//!
//! Owns: what came out of the session and was not yet told. Must never: wait, or touch a socket; it is told of events and
//! asked whether a reply is due.

use std::collections::VecDeque;

use starling_actors::SessionEvent;
use starling_core::audio::RateMap;
use starling_protocol::native::{ErrorBody, Final};
use starling_protocol::vosk::{final_reply, partial_reply};
use starling_protocol::{CutCause, Segment, SourceOffset};

/// Finals that may wait for later replies. Messages that each hold several utterances would otherwise fall behind for
/// ever; past it the waiting ones are joined.
const MAX_WAITING_FINALS: usize = 8;

/// What has to have come before a message is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Nothing: the text so far will do.
    Nothing,
    /// All audio before this is decoded, or a final.
    Decoded(SourceOffset),
    /// The final that was asked for.
    Finalized,
    /// The session's end.
    Done,
}

/// A reply, and what the client will have with it.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) text: String,
    pub(super) confirm: Option<Segment>,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ended {
    Done,
    Failed(ErrorBody),
    /// Without a word, which a session only does when another connection has it.
    Silently,
}

/// The state of one connection's replies.
#[derive(Debug)]
pub(super) struct Lockstep {
    rates: RateMap,
    words: bool,
    alternatives: bool,
    bytes: u64,
    decoded: SourceOffset,
    /// Where the open segment began, and with it the grid of steps.
    grid: SourceOffset,
    recovering: bool,
    partial: String,
    finals: VecDeque<Final>,
    /// Why the first segment that could not be decoded couldn't be.
    failure: Option<String>,
    ended: Option<Ended>,
}

impl Lockstep {
    pub(super) const fn new(rates: RateMap, words: bool, alternatives: bool) -> Self {
        Self {
            rates,
            words,
            alternatives,
            bytes: 0,
            decoded: SourceOffset(0),
            grid: SourceOffset(0),
            recovering: false,
            partial: String::new(),
            finals: VecDeque::new(),
            failure: None,
            ended: None,
        }
    }

    /// A message of audio was handed on. Says what its reply waits for.
    pub(super) fn sent(&mut self, bytes: usize) -> Awaited {
        self.bytes += bytes as u64;
        let frames = bytes as u64 / 2;
        if frames * 10 < self.rates.source_hz() {
            return Awaited::Nothing;
        }
        Awaited::Decoded(self.last_whole_step())
    }

    pub(super) fn take_in(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Partial { text, .. } => self.partial = text,
            SessionEvent::Final(last) => {
                if let Some(error) = &last.error {
                    self.failure.get_or_insert_with(|| error.clone());
                }
                self.grid = last.to;
                self.partial.clear();
                self.finals.push_back(last);
            }
            SessionEvent::Progress { until, recovering } => {
                self.decoded = until;
                self.recovering = recovering;
            }
            SessionEvent::Failed(error) => self.ended = Some(Ended::Failed(error)),
            SessionEvent::Done { .. } => self.ended = Some(Ended::Done),
            SessionEvent::View { .. } | SessionEvent::Ack(_) | SessionEvent::Warning(..) => {}
        }
    }

    /// No more events will come.
    pub(super) fn closed(&mut self) {
        self.ended.get_or_insert(Ended::Silently);
    }

    pub(super) const fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    /// Why what was told is not all that was said: this dialect's texts have no place for it.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether a message that waits for this can be answered now.
    pub(super) fn is_due(&self, awaited: Awaited) -> bool {
        if self.ended.is_some() {
            return true;
        }
        match awaited {
            Awaited::Nothing => true,
            Awaited::Decoded(until) => {
                // Positions go through two rates and are rounded; a whole step is ten times this.
                let rounding = self.rates.source_hz() / 100;
                !self.finals.is_empty() || self.recovering || self.decoded.0 + rounding >= until.0
            }
            Awaited::Finalized => self.finals.iter().any(|last| last.cause == CutCause::Finalize),
            Awaited::Done => false,
        }
    }

    /// The last of so many waiting finals that the session would stop for want of confirmation. They are held here and
    /// nowhere else could the client get them, so nothing is lost by forgetting them there.
    pub(super) fn overflow(&self) -> Option<Segment> {
        let last = self.finals.back().filter(|_| self.finals.len() > MAX_WAITING_FINALS);
        last.map(|last| last.segment)
    }

    /// The reply to audio: the next final, or the text so far.
    pub(super) fn next_reply(&mut self) -> Reply {
        if self.finals.len() > MAX_WAITING_FINALS {
            return self.joined_reply();
        }
        // An empty final says nothing when another is there to be told.
        while self.finals.len() > 1 && self.finals.front().is_some_and(|last| last.text.is_empty()) {
            self.finals.pop_front();
        }
        match self.finals.pop_front() {
            Some(last) => self.reply_with(&[last]),
            None => self.text_so_far(),
        }
    }

    /// The reply that carries every waiting final.
    pub(super) fn joined_reply(&mut self) -> Reply {
        let finals: Vec<Final> = self.finals.drain(..).collect();
        self.reply_with(&finals)
    }

    /// The reply without a final.
    pub(super) fn text_so_far(&self) -> Reply {
        Reply { text: partial_reply(&self.partial), confirm: None }
    }

    fn reply_with(&self, finals: &[Final]) -> Reply {
        Reply {
            text: final_reply(finals, self.words, self.alternatives),
            confirm: finals.last().map(|last| last.segment),
        }
    }

    /// The end of the last whole step of what was sent, as far as the resampler can already see.
    fn last_whole_step(&self) -> SourceOffset {
        let received = self.bytes / 2;
        let hz = self.rates.source_hz();
        // The segment's start is known to the frame below; two frames keep a step from being counted that isn't whole.
        let unseen = if self.rates.is_identity() { 0 } else { self.rates.half_width() + 2 };
        let steps = received.saturating_sub(unseen + self.grid.0) * 10 / hz;
        self.grid.plus(steps * hz / 10)
    }
}

#[cfg(test)]
mod tests;
