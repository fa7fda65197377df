//! A client and a decoder around one machine. The decoder cuts segments by a function of their first sample and writes
//! down the very steps it was fed, so that a lost, repeated, or differently cut step shows in a final.

use std::collections::VecDeque;
use std::time::Duration;

use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment, SourceOffset};

use crate::Timestamp;
use crate::audio::RateMap;
use crate::invariants::FinalsLedger;
use crate::session::{
    LeaseKind, LossCause, Outcome, SessionAction, SessionConfig, SessionEvent, SessionMachine,
};

/// A final and the steps it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) segment: Segment,
    pub(super) from: SourceOffset,
    pub(super) to: SourceOffset,
    pub(super) cause: CutCause,
    pub(super) steps: Vec<(u64, u64)>,
}

#[derive(Debug, Default)]
struct FakeDecoder {
    commands: VecDeque<SessionAction>,
    segment: Segment,
    from: DecodeOffset,
    steps: Vec<(u64, u64)>,
}

pub(super) struct World {
    pub(super) machine: SessionMachine,
    pub(super) now: Timestamp,
    decoder: Option<(Attempt, FakeDecoder)>,
    requested: Option<(Attempt, LeaseKind)>,
    pub(super) kinds: Vec<LeaseKind>,
    ledger: FinalsLedger,
    pub(super) finals: Vec<Heard>,
    pub(super) outcome: Option<Outcome>,
    pub(super) announced: Option<(u64, SourceOffset)>,
    pub(super) other: Vec<SessionAction>,
    window: u16,
    step: u64,
    outstanding: usize,
    trimmed: SourceOffset,
}

pub(super) fn config(source: u32) -> SessionConfig {
    SessionConfig {
        rates: RateMap::new(source, 16_000).expect("in range"),
        window: 8,
        partial_interval_ms: 200,
        linger: Duration::from_secs(60),
        idle: Duration::from_secs(300),
        slow_reader: Duration::from_secs(30),
        unconfirmed_max: 64,
    }
}

impl World {
    pub(super) fn new(config: SessionConfig) -> Self {
        let mut out = Vec::new();
        let machine = SessionMachine::new(Timestamp::default(), config, &mut out);
        let mut world = Self {
            machine,
            now: Timestamp::default(),
            decoder: None,
            requested: None,
            kinds: Vec::new(),
            ledger: FinalsLedger::default(),
            finals: Vec::new(),
            outcome: None,
            announced: None,
            other: Vec::new(),
            window: config.window,
            step: config.rates.step(),
            outstanding: 0,
            trimmed: SourceOffset(0),
        };
        world.perform(out, &[]);
        world.attach(1);
        world
    }

    pub(super) fn attach(&mut self, epoch: u64) {
        let last_final = self.ledger.next().0.checked_sub(1).map(Segment);
        self.send(SessionEvent::Attach { epoch: Epoch(epoch), last_final, have_from: SourceOffset(0) });
    }

    pub(super) fn send(&mut self, event: SessionEvent) {
        self.send_with(event, &[]);
    }

    fn send_with(&mut self, event: SessionEvent, steps: &[(u64, u64)]) {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        self.perform(out, steps);
    }

    fn perform(&mut self, actions: Vec<SessionAction>, steps: &[(u64, u64)]) {
        for action in actions {
            assert!(self.outcome.is_none(), "something after the end: {action:?}");
            match action {
                SessionAction::RequestLease { attempt, kind } => {
                    self.requested = Some((attempt, kind));
                    self.kinds.push(kind);
                }
                SessionAction::ReleaseLease { attempt } => {
                    assert_eq!(Some(attempt), self.current_attempt(), "a lease that is not held is released");
                    (self.decoder, self.requested, self.outstanding) = (None, None, 0);
                }
                SessionAction::OpenStream { attempt, segment, from, window, .. } => {
                    assert_eq!(segment, self.ledger.next(), "a replay begins at the open segment");
                    self.window = window;
                    self.decoder = Some((attempt, FakeDecoder { segment, from, ..FakeDecoder::default() }));
                }
                SessionAction::Feed { attempt, from, to } => {
                    assert!(to > from && to.since(from) <= self.step);
                    let needed = self.machine.journal().needed_from();
                    assert!(needed >= self.trimmed, "audio that is still needed was trimmed");
                    self.outstanding += 1;
                    assert!(self.outstanding <= usize::from(self.window), "I6: credit exceeded");
                    self.push(attempt, action);
                }
                SessionAction::Flush { attempt, .. } => self.push(attempt, action),
                SessionAction::SetPartials { .. } => {}
                SessionAction::TrimSource { until } => {
                    assert!(until >= self.trimmed);
                    self.trimmed = until;
                }
                SessionAction::Commit { segment, from, to, cause, .. } => {
                    self.ledger.record(segment, from, to).expect("I1 to I3");
                    let steps = if cause == CutCause::GivenUp { Vec::new() } else { steps.to_vec() };
                    self.finals.push(Heard { segment, from, to, cause, steps });
                }
                SessionAction::AnnounceDone { segments, frames } => self.announced = Some((segments, frames)),
                SessionAction::End(outcome) => self.outcome = Some(outcome),
                other => self.other.push(other),
            }
        }
    }

    fn push(&mut self, attempt: Attempt, action: SessionAction) {
        let (current, decoder) = self.decoder.as_mut().expect("a decoder is at work");
        assert_eq!(*current, attempt);
        decoder.commands.push_back(action);
    }

    pub(super) fn current_attempt(&self) -> Option<Attempt> {
        self.decoder.as_ref().map(|(attempt, _)| *attempt).or(self.requested.map(|(attempt, _)| attempt))
    }

    pub(super) fn grant(&mut self) {
        if let Some((attempt, _)) = self.requested {
            self.send(SessionEvent::LeaseGranted { attempt });
            if self.decoder.is_some() {
                self.requested = None;
            }
        }
    }

    pub(super) fn lose(&mut self, cause: LossCause) {
        if let Some(attempt) = self.current_attempt() {
            self.send(SessionEvent::LeaseLost { attempt, cause });
        }
    }

    /// Commands on their way to the decoder.
    pub(super) fn commands(&self) -> usize {
        self.decoder.as_ref().map_or(0, |(_, decoder)| decoder.commands.len())
    }

    /// Lets the decoder work on one command.
    pub(super) fn decode(&mut self) -> bool {
        let Some((attempt, decoder)) = self.decoder.as_mut() else {
            return false;
        };
        let attempt = *attempt;
        let Some(command) = decoder.commands.pop_front() else {
            return false;
        };
        match command {
            SessionAction::Feed { from, to, .. } => {
                decoder.steps.push((from.0, to.0));
                let cut = decoder.steps.len() as u64 > 1 + decoder.from.0 / self.step % 7;
                self.outstanding -= 1;
                self.send(SessionEvent::Decoded { attempt, until: to });
                if cut {
                    self.cut(attempt, to, CutCause::Endpoint);
                }
            }
            SessionAction::Flush { at, cause, .. } => self.cut(attempt, at, cause),
            other => panic!("no command for a decoder: {other:?}"),
        }
        true
    }

    fn cut(&mut self, attempt: Attempt, to: DecodeOffset, cause: CutCause) {
        let Some((current, decoder)) = self.decoder.as_mut() else {
            return;
        };
        assert_eq!(*current, attempt);
        let (segment, from) = (decoder.segment, decoder.from);
        let steps = std::mem::take(&mut decoder.steps);
        decoder.segment = segment.next();
        decoder.from = to;
        self.send_with(SessionEvent::SegmentCut { attempt, segment, from, to, cause }, &steps);
    }

    /// No more faults: everything that can happen does.
    pub(super) fn settle(&mut self) {
        for _ in 0..100_000 {
            self.grant();
            if let Some(last) = self.finals.last() {
                let segment = last.segment;
                self.send(SessionEvent::Confirmed { segment });
            }
            if !self.decode() && self.requested.is_none() {
                return;
            }
        }
        panic!("I7: no end in sight");
    }
}
