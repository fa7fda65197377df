//! A client and decoders around one machine. Each decoder cuts segments by a function of their first sample and writes
//! down the very steps it was fed, so that a lost, repeated, or differently cut step shows in a final.

use std::collections::{BTreeMap, VecDeque};
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
    /// Where the last step that it was given ended.
    given: DecodeOffset,
    steps: Vec<(u64, u64)>,
    window: u16,
    outstanding: usize,
}

pub(super) struct World {
    pub(super) machine: SessionMachine,
    pub(super) now: Timestamp,
    decoders: BTreeMap<Attempt, FakeDecoder>,
    requested: Option<Attempt>,
    standby_requested: Option<Attempt>,
    /// Standbys that were asked for, and those that became the session's decoder.
    pub(super) standbys: (usize, usize),
    pub(super) kinds: Vec<LeaseKind>,
    ledger: FinalsLedger,
    pub(super) finals: Vec<Heard>,
    pub(super) outcome: Option<Outcome>,
    pub(super) announced: Option<(u64, SourceOffset)>,
    pub(super) other: Vec<SessionAction>,
    /// Whether a decoder's cut comes before its word that the audio is decoded: from a host it does.
    pub(super) cut_first: bool,
    step: u64,
    trimmed: SourceOffset,
}

pub(super) fn config(source: u32) -> SessionConfig {
    SessionConfig {
        rates: RateMap::new(source, 16_000).expect("in range"),
        window: 8,
        partial_interval_ms: 200,
        decoded_interval_ms: 0,
        linger: Duration::from_secs(60),
        idle: Duration::from_secs(300),
        slow_reader: Duration::from_secs(30),
        unconfirmed_max: 64,
        standby: false,
    }
}

impl World {
    pub(super) fn new(config: SessionConfig) -> Self {
        let mut out = Vec::new();
        let machine = SessionMachine::new(Timestamp::default(), config, &mut out);
        let mut world = Self {
            machine,
            now: Timestamp::default(),
            decoders: BTreeMap::new(),
            requested: None,
            standby_requested: None,
            standbys: (0, 0),
            kinds: Vec::new(),
            ledger: FinalsLedger::default(),
            finals: Vec::new(),
            outcome: None,
            announced: None,
            other: Vec::new(),
            cut_first: true,
            step: config.rates.step(),
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
        self.check();
    }

    /// Time passes, as far as a timeout would end the session. A timer that comes before that changes nothing.
    pub(super) fn pass(&mut self, time: Duration) {
        let due =
            self.machine.next_timeout().map(|due| Timestamp(due.0.saturating_sub(Duration::from_nanos(1))));
        let then = self.now.plus(time);
        self.now = due.map_or(then, |due| then.min(due)).max(self.now);
        let before = self.machine.clone();
        self.send(SessionEvent::TimedOut);
        assert_eq!(before, self.machine, "a timer that came too early changed something");
    }

    /// I10: decoders are held that the machine knows of, and a standby only beside one that is shared.
    fn check(&self) {
        let machine = &self.machine;
        let standby = machine.standby();
        let known = |attempt: &Attempt| *attempt == machine.attempt() || Some(*attempt) == standby;
        assert!(self.decoders.keys().all(known), "a decoder is held that nobody knows of");
        if standby.is_some() || self.standby_requested.is_some() {
            assert!(self.decoders.contains_key(&machine.attempt()) && !machine.is_over());
            assert_eq!(self.kinds.last(), Some(&LeaseKind::Shared));
        }
        if machine.is_over() {
            assert!(self.decoders.is_empty() && self.requested.is_none());
        }
    }

    fn perform(&mut self, actions: Vec<SessionAction>, steps: &[(u64, u64)]) {
        for action in actions {
            assert!(self.outcome.is_none(), "something after the end: {action:?}");
            match action {
                SessionAction::RequestLease { attempt, kind } => {
                    assert!(self.decoders.is_empty(), "a decoder is asked for while there is one");
                    assert_eq!(self.standby_requested, None, "a standby's request is in the way");
                    self.requested = Some(attempt);
                    self.kinds.push(kind);
                }
                SessionAction::RequestStandby { attempt } => {
                    assert_eq!((self.decoders.len(), self.standby_requested), (1, None));
                    self.standby_requested = Some(attempt);
                    self.standbys.0 += 1;
                }
                SessionAction::PromoteStandby { attempt } => {
                    assert_eq!(self.decoders.keys().collect::<Vec<_>>(), [&attempt]);
                    self.standbys.1 += 1;
                }
                SessionAction::ReleaseLease { attempt } => {
                    let wanted = [self.requested, self.standby_requested].contains(&Some(attempt));
                    let held = self.decoders.remove(&attempt).is_some();
                    assert!(held || wanted, "a lease that is not held is released");
                    self.requested = self.requested.filter(|requested| *requested != attempt);
                    self.standby_requested = self.standby_requested.filter(|standby| *standby != attempt);
                }
                SessionAction::OpenStream { attempt, segment, from, window, .. } => {
                    assert_eq!(segment, self.ledger.next(), "a replay begins at the open segment");
                    let decoder =
                        FakeDecoder { segment, from, given: from, window, ..FakeDecoder::default() };
                    self.decoders.insert(attempt, decoder);
                }
                SessionAction::Feed { attempt, from, to } => {
                    assert!(to > from && to.since(from) <= self.step);
                    let needed = self.machine.config.rates.needed_from(from);
                    assert!(needed >= self.trimmed, "audio that is still needed was trimmed");
                    let decoder = self.decoders.get_mut(&attempt).expect("a decoder is at work");
                    assert_eq!(from, decoder.given, "each step is fed once, and none is left out");
                    decoder.given = to;
                    decoder.outstanding += 1;
                    assert!(decoder.outstanding <= usize::from(decoder.window), "I6: credit exceeded");
                    decoder.commands.push_back(action);
                }
                SessionAction::Flush { attempt, .. } => {
                    let decoder = self.decoders.get_mut(&attempt).expect("a decoder is at work");
                    decoder.commands.push_back(action);
                    let flush = |command: &&SessionAction| matches!(command, SessionAction::Flush { .. });
                    assert!(decoder.commands.iter().filter(flush).count() <= 16, "I6: too many flushes");
                }
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

    pub(super) fn current_attempt(&self) -> Option<Attempt> {
        let attempt = self.machine.attempt();
        (self.decoders.contains_key(&attempt) || self.requested == Some(attempt)).then_some(attempt)
    }

    pub(super) fn standby_attempt(&self) -> Option<Attempt> {
        self.machine.standby().or(self.standby_requested)
    }

    pub(super) fn grant(&mut self) {
        if let Some(attempt) = self.requested {
            self.send(SessionEvent::LeaseGranted { attempt });
            if self.decoders.contains_key(&attempt) {
                self.requested = None;
            }
        }
    }

    pub(super) fn grant_standby(&mut self) {
        if let Some(attempt) = self.standby_requested.take() {
            self.send(SessionEvent::LeaseGranted { attempt });
            assert!(self.decoders.contains_key(&attempt), "a standby that is wanted is taken");
        }
    }

    pub(super) fn lose(&mut self, cause: LossCause) {
        if let Some(attempt) = self.current_attempt() {
            self.send(SessionEvent::LeaseLost { attempt, cause });
        }
    }

    pub(super) fn lose_standby(&mut self, cause: LossCause) {
        if let Some(attempt) = self.standby_attempt() {
            self.send(SessionEvent::LeaseLost { attempt, cause });
        }
    }

    /// Commands on their way to the decoder.
    pub(super) fn commands(&self) -> usize {
        self.decoders.get(&self.machine.attempt()).map_or(0, |decoder| decoder.commands.len())
    }

    /// Lets the decoder work on one command.
    pub(super) fn decode(&mut self) -> bool {
        self.decode_at(self.machine.attempt())
    }

    /// Lets the standby work on one command.
    pub(super) fn decode_standby(&mut self) -> bool {
        self.machine.standby().is_some_and(|attempt| self.decode_at(attempt))
    }

    fn decode_at(&mut self, attempt: Attempt) -> bool {
        let Some(decoder) = self.decoders.get_mut(&attempt) else {
            return false;
        };
        let Some(command) = decoder.commands.pop_front() else {
            return false;
        };
        match command {
            SessionAction::Feed { from, to, .. } => {
                decoder.steps.push((from.0, to.0));
                let cut = decoder.steps.len() as u64 > 1 + decoder.from.0 / self.step % 7;
                decoder.outstanding -= 1;
                if cut && self.cut_first {
                    self.cut(attempt, to, CutCause::Endpoint);
                }
                self.send(SessionEvent::Decoded { attempt, until: to });
                if cut && !self.cut_first {
                    self.cut(attempt, to, CutCause::Endpoint);
                }
            }
            SessionAction::Flush { at, cause, .. } => self.cut(attempt, at, cause),
            other => panic!("no command for a decoder: {other:?}"),
        }
        true
    }

    fn cut(&mut self, attempt: Attempt, to: DecodeOffset, cause: CutCause) {
        let Some(decoder) = self.decoders.get_mut(&attempt) else {
            return;
        };
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
            let worked = self.decode() | self.decode_standby();
            if !worked && self.requested.is_none() {
                return;
            }
        }
        panic!("I7: no end in sight");
    }
}
