//! What is around a session's machine, and what has to hold after each event: the named invariants, as far as one session has
//! them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::audio::SourceStore;
use starling_core::invariants::FinalsLedger;
use starling_core::session::{
    LeaseKind, LossCause, Outcome, Restored, SessionAction, SessionConfig, SessionEvent, SessionMachine,
};
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment, SourceOffset};

/// Flushes that a decoder may owe an answer for.
const MOST_FLUSHES: usize = 16;

/// Frames that a session holds, as a node has it by itself: 4 MiB.
const MOST_FRAMES: u64 = 2 << 20;

/// Whose attempt is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    First,
    Standby,
    /// One that was let go.
    Gone,
    Other(Attempt),
}

/// A decoder, as far as it can be seen from the session.
#[derive(Debug, Clone, Default)]
pub(super) struct Decoder {
    work: VecDeque<Work>,
    pub(super) segment: Segment,
    pub(super) from: DecodeOffset,
    /// Where the last step that it was given ended.
    pub(super) given: DecodeOffset,
    /// Where the last step that it has heard ended.
    heard: DecodeOffset,
    window: usize,
    outstanding: usize,
    /// It has said what is not so: nothing that it says from then on has to fit.
    lied: bool,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    Step(DecodeOffset),
    Flush(DecodeOffset, CutCause),
}

pub(super) struct World {
    pub(super) machine: SessionMachine,
    config: SessionConfig,
    /// Whether a decoder tells of its cut before it tells how far it has heard.
    cut_first: bool,
    now: Timestamp,
    decoders: BTreeMap<Attempt, Decoder>,
    requested: Option<(Attempt, LeaseKind)>,
    standby_requested: Option<Attempt>,
    gone: Vec<Attempt>,
    ledger: FinalsLedger,
    committed: DecodeOffset,
    given_up: u64,
    /// The highest epoch that spoke.
    epoch: Epoch,
    /// Whether any decoder has said what is not so.
    lied: bool,
    forgotten: Option<Segment>,
    trimmed: SourceOffset,
    outcome: Option<Outcome>,
}

impl World {
    pub(super) fn new(config: SessionConfig, cut_first: bool) -> Self {
        let mut out = Vec::new();
        let machine = SessionMachine::new(Timestamp::default(), config, &mut out);
        let mut world = Self {
            machine,
            config,
            cut_first,
            now: Timestamp::default(),
            decoders: BTreeMap::new(),
            requested: None,
            standby_requested: None,
            gone: Vec::new(),
            ledger: FinalsLedger::default(),
            committed: DecodeOffset(0),
            given_up: 0,
            epoch: Epoch(0),
            lied: false,
            forgotten: None,
            trimmed: SourceOffset(0),
            outcome: None,
        };
        world.perform(out);
        world.come_back();
        world
    }

    /// As much audio comes as a session holds: a client waits when there is no more room.
    pub(super) fn hear(&mut self, frames: u64) {
        let held = self.machine.journal().received().0 - self.trimmed.0;
        let frames = frames.min(MOST_FRAMES.saturating_sub(held));
        self.send(SessionEvent::AudioReceived { frames });
    }

    pub(super) fn send(&mut self, event: SessionEvent) {
        let attached = self.machine.attached();
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        let most = 2 * (usize::from(self.config.window) + MOST_FLUSHES) + 16;
        assert!(out.len() <= most, "{event:?} asks for {} actions", out.len());
        if let SessionEvent::Attach { epoch, .. } = event {
            self.check_attach(attached, epoch, &out);
            self.epoch = self.epoch.max(self.machine.last_epoch());
        }
        self.perform(out);
        self.check();
    }

    /// I5: of connections the one with the highest epoch speaks, and each is told whether it does.
    fn check_attach(&self, before: Option<Epoch>, epoch: Epoch, out: &[SessionAction]) {
        let fenced = out.iter().find_map(|action| match action {
            SessionAction::Fence { epoch } => Some(*epoch),
            _ => None,
        });
        match out.iter().find(|action| {
            matches!(action, SessionAction::Welcome { .. } | SessionAction::RefuseAttach { .. })
        }) {
            Some(SessionAction::Welcome { epoch: welcomed, have_until, resend_from, .. }) => {
                assert_eq!(*welcomed, epoch);
                assert!(self.machine.is_over() || self.machine.attached() == Some(epoch));
                assert!(self.epoch < epoch, "I5: the epoch falls");
                assert_eq!(fenced, before);
                assert_eq!(*have_until, self.machine.journal().received());
                assert!(*resend_from <= self.ledger.next(), "I1: a final that there is not");
                assert!(self.forgotten.is_none_or(|last| last < *resend_from), "one that is forgotten");
            }
            Some(_) => assert_eq!((self.machine.attached(), fenced), (before, None)),
            None => panic!("a connection is told nothing"),
        }
    }

    fn check(&self) {
        let machine = &self.machine;
        let standby = machine.standby();
        let known = |attempt: &Attempt| *attempt == machine.attempt() || Some(*attempt) == standby;
        assert!(self.decoders.keys().all(known), "I10: a decoder is held that nobody knows of");
        let idle = self.decoders.is_empty() && self.requested.is_none() && self.standby_requested.is_none();
        if machine.is_over() {
            assert!(idle, "I10: a decoder is held beyond the end");
            assert!(self.outcome.is_some() && machine.next_timeout().is_none());
            return;
        }
        assert_eq!(idle, machine.is_finished(), "I7: nobody decodes");
        assert!(!machine.is_finished() || machine.journal().ended(), "I1: the end comes before the client's");
        assert_eq!((self.ledger.next(), self.ledger.end()), (machine.open_segment(), machine.final_end()));
        assert_eq!(machine.journal().committed(), self.committed);
        assert!(self.committed <= machine.journal().decodable());
        assert!(machine.confirmed() <= machine.open_segment());
        // What was fed already can still be cut; and what is given up is not fed again.
        let fed = u64::from(self.config.window) + MOST_FLUSHES as u64;
        let unread = machine.open_segment().0 - machine.confirmed().0;
        assert!(
            unread <= self.config.unconfirmed_max + fed + self.given_up,
            "I6: {unread} finals are unread"
        );
    }

    fn perform(&mut self, actions: Vec<SessionAction>) {
        for action in actions {
            assert_eq!(self.outcome, None, "something after the end: {action:?}");
            let journal = self.machine.journal();
            let (received, decodable) = (journal.received(), journal.decodable());
            match action {
                SessionAction::RequestLease { attempt, kind } => {
                    assert!(self.decoders.is_empty(), "a decoder is asked for while there is one");
                    assert_eq!((self.requested, self.standby_requested), (None, None));
                    self.requested = Some((attempt, kind));
                }
                SessionAction::RequestStandby { attempt } => {
                    assert_eq!((self.decoders.len(), self.standby_requested), (1, None));
                    self.standby_requested = Some(attempt);
                }
                SessionAction::OpenStream { attempt, segment, from, window, .. } => {
                    let first = self.requested.take_if(|(requested, _)| *requested == attempt);
                    let standby = self.standby_requested.take_if(|requested| *requested == attempt);
                    assert!(first.is_some() || standby.is_some(), "a stream nobody was asked for");
                    if let Some((_, kind)) = first {
                        assert!(kind == LeaseKind::Shared || window == 1, "poison in more than one step");
                    }
                    assert_eq!((segment, from), (self.ledger.next(), self.committed));
                    let window = usize::from(window);
                    let decoder =
                        Decoder { segment, from, given: from, heard: from, window, ..Decoder::default() };
                    self.decoders.insert(attempt, decoder);
                }
                SessionAction::Feed { attempt, from, to } => {
                    let decoder = self.decoders.get_mut(&attempt).expect("a decoder is at work");
                    assert_eq!(from, decoder.given, "I11: steps adjoin");
                    assert!(from < to && to <= decodable && to.since(from) <= self.config.rates.step());
                    let needed = self.config.rates.needed_from(from);
                    assert!(needed >= self.trimmed, "I11: it was let go of");
                    decoder.given = to;
                    decoder.outstanding += 1;
                    assert!(decoder.lied || decoder.outstanding <= decoder.window, "I6: credit exceeded");
                    decoder.work.push_back(Work::Step(to));
                }
                SessionAction::Flush { attempt, at, cause } => {
                    let decoder = self.decoders.get_mut(&attempt).expect("a decoder is at work");
                    assert_eq!(at, decoder.given, "I11: a flush is where its entry is");
                    decoder.work.push_back(Work::Flush(at, cause));
                    let flushes = decoder.work.iter().filter(|work| matches!(work, Work::Flush(..))).count();
                    assert!(decoder.lied || flushes <= MOST_FLUSHES, "I6: too many flushes");
                }
                SessionAction::SetIntervals { attempt, .. } | SessionAction::CaughtUp { attempt, .. } => {
                    assert!(self.decoders.contains_key(&attempt));
                }
                SessionAction::PromoteStandby { attempt } => {
                    assert_eq!((self.decoders.len(), self.machine.attempt()), (1, attempt));
                    assert!(self.decoders.contains_key(&attempt));
                }
                SessionAction::TellDifference { attempt, segment } => {
                    // The one that comes second is named, whichever of them it was.
                    assert!(self.lied, "{attempt:?} differs in {segment:?}, and all decoders are honest");
                }
                SessionAction::ReleaseLease { attempt } => self.release(attempt),
                SessionAction::TrimSource { until } => {
                    assert!(until >= self.trimmed && until <= self.ledger.end());
                    self.trimmed = until;
                }
                SessionAction::Commit { segment, decode_from, decode_to, from, to, cause, .. } => {
                    self.ledger.record(segment, from, to).expect("I1 to I3");
                    assert!(decode_from == self.committed && decode_from <= decode_to && to <= received);
                    self.committed = decode_to;
                    self.given_up += u64::from(cause == CutCause::GivenUp);
                }
                SessionAction::ForgetFinals { through } => {
                    assert!(through < self.ledger.next() && self.forgotten < Some(through));
                    self.forgotten = Some(through);
                }
                SessionAction::ShowPartial { segment, from, until } => {
                    assert_eq!((segment, from), (self.ledger.next(), self.ledger.end()));
                    assert!(from <= until && until <= received, "a partial from {from} to {until}");
                }
                SessionAction::Ack { until }
                | SessionAction::Entered { until, .. }
                | SessionAction::Welcome { have_until: until, .. } => {
                    assert_eq!(until, received, "I4: what is held is acknowledged");
                }
                SessionAction::ReportProgress { until, .. } => assert!(until <= received),
                SessionAction::AnnounceDone { segments, frames } => {
                    assert_eq!((Segment(segments), frames), (self.ledger.next(), received));
                }
                SessionAction::RefuseAttach { .. } | SessionAction::Fence { .. } => {}
                SessionAction::End(outcome) => self.outcome = Some(outcome),
            }
        }
    }

    fn release(&mut self, attempt: Attempt) {
        let wanted = self.requested.take_if(|(requested, _)| *requested == attempt).is_some()
            || self.standby_requested.take_if(|requested| *requested == attempt).is_some();
        assert!(self.decoders.remove(&attempt).is_some() || wanted, "I10: nobody has {attempt:?}");
        self.gone.push(attempt);
    }

    fn attempt(&self, who: Who) -> Option<Attempt> {
        match who {
            Who::First => Some(self.machine.attempt()),
            Who::Standby => self.machine.standby().or(self.standby_requested),
            Who::Gone => self.gone.last().copied(),
            Who::Other(attempt) => Some(attempt),
        }
    }

    fn is_wanted(&self, attempt: Attempt) -> bool {
        self.requested.is_some_and(|(requested, _)| requested == attempt)
            || self.standby_requested == Some(attempt)
    }

    /// Has a decoder, or what calls itself one, say something. Of those that are gone nothing counts.
    pub(super) fn say(&mut self, who: Who, event: impl FnOnce(Attempt, &Decoder) -> SessionEvent) {
        let Some(attempt) = self.attempt(who) else { return };
        let nobody = Decoder { given: self.committed, from: self.committed, ..Decoder::default() };
        let known = self.decoders.get(&attempt);
        let event = event(attempt, known.unwrap_or(&nobody));
        if known.is_some() || self.is_wanted(attempt) {
            return self.send(event);
        }
        let before = self.machine.clone();
        self.send(event);
        assert_eq!(self.machine, before, "an old attempt's word counts: {event:?}");
    }

    /// Has a decoder say something that it made up.
    pub(super) fn lie(&mut self, who: Who, event: impl FnOnce(Attempt, &Decoder) -> SessionEvent) {
        if let Some(attempt) = self.attempt(who)
            && let Some(decoder) = self.decoders.get_mut(&attempt)
        {
            decoder.lied = true;
            self.lied = true;
        }
        self.say(who, event);
    }

    pub(super) fn grant(&mut self, who: Who) {
        self.say(who, |attempt, _| SessionEvent::LeaseGranted { attempt });
    }

    pub(super) fn lose(&mut self, who: Who, cause: LossCause) {
        self.say(who, |attempt, _| SessionEvent::LeaseLost { attempt, cause });
    }

    /// Lets a decoder work. What has lied has lost its place and does no more.
    pub(super) fn decode(&mut self, who: Who, most: u8) {
        for _ in 0..most {
            if !self.decode_one(who) {
                return;
            }
        }
    }

    fn decode_one(&mut self, who: Who) -> bool {
        let Some(attempt) = self.attempt(who) else { return false };
        let Some(decoder) = self.decoders.get_mut(&attempt).filter(|decoder| !decoder.lied) else {
            return false;
        };
        match decoder.work.pop_front() {
            Some(Work::Step(to)) => {
                decoder.heard = to;
                decoder.outstanding -= 1;
                // By what the segment is: another decoder cuts it where this one did.
                let (segment, is_cut) = (decoder.segment, is_cut(decoder, self.config.rates.step()));
                self.send(SessionEvent::PartialHeard { attempt, segment, until: to });
                if is_cut && self.cut_first {
                    self.cut(attempt, to, CutCause::Endpoint);
                }
                self.send(SessionEvent::Decoded { attempt, until: to });
                if is_cut && !self.cut_first {
                    self.cut(attempt, to, CutCause::Endpoint);
                }
                true
            }
            Some(Work::Flush(at, cause)) => {
                self.cut(attempt, at, cause);
                true
            }
            None => false,
        }
    }

    fn cut(&mut self, attempt: Attempt, to: DecodeOffset, cause: CutCause) {
        let Some(decoder) = self.decoders.get_mut(&attempt) else { return };
        let (segment, from) = (decoder.segment, decoder.from);
        decoder.segment = segment.next();
        decoder.from = to;
        self.send(SessionEvent::SegmentCut { attempt, segment, from, to, cause });
    }

    /// Has a decoder cut what it has heard, which another would not have cut there.
    pub(super) fn cut_here(&mut self, who: Who, cause: CutCause) {
        let Some(attempt) = self.attempt(who) else { return };
        let Some(decoder) = self.decoders.get_mut(&attempt).filter(|decoder| !decoder.lied) else { return };
        if decoder.heard > decoder.from {
            // Another one would have said otherwise, or has: it may have been ahead, and gone since.
            decoder.lied = self.machine.standby().is_some() || decoder.segment < self.ledger.next();
            self.lied |= decoder.lied;
            let to = decoder.heard;
            self.cut(attempt, to, cause);
        }
    }

    /// A client that knows what it has comes with a new connection.
    pub(super) fn come_back(&mut self) {
        let last_final = self.machine.confirmed().0.checked_sub(1).map(Segment);
        let epoch = self.machine.last_epoch().next();
        self.send(SessionEvent::Attach { epoch, last_final, have_from: self.machine.final_end() });
    }

    /// Time goes by; without a number, until something is due.
    pub(super) fn wait(&mut self, time: Option<Duration>) {
        let until = match time {
            Some(time) => Some(self.now.plus(time)),
            None => self.machine.next_timeout(),
        };
        self.now = until.map_or(self.now, |until| until.max(self.now));
        let due = self.machine.next_timeout().is_some_and(|at| at <= self.now);
        let before = (!due).then(|| self.machine.clone());
        self.send(SessionEvent::TimedOut);
        match before {
            Some(before) => assert_eq!(self.machine, before, "a timeout that came too early counts"),
            None => assert!(self.machine.is_over(), "nothing comes of a timeout"),
        }
    }

    /// The node is gone; another goes on from a copy that has all of it.
    pub(super) fn move_to_another_node(&mut self) {
        let journal = self.machine.journal();
        let restored = Restored {
            received: journal.received(),
            ended: journal.ended(),
            committed: journal.committed(),
            entries: (0..journal.pending_entries()).filter_map(|at| journal.entry(at)).collect(),
            next_segment: self.machine.open_segment(),
            final_end: self.machine.final_end(),
            confirmed: self.machine.confirmed(),
            audio: SourceStore::starting_at(self.trimmed),
            finals: Vec::new(),
            attempt: self.machine.last_attempt(),
        };
        self.decoders.clear();
        self.gone.clear();
        (self.requested, self.standby_requested) = (None, None);
        let mut out = Vec::new();
        let last_epoch = self.machine.last_epoch();
        self.machine = SessionMachine::restore(self.now, self.config, &restored, last_epoch, &mut out);
        self.perform(out);
        self.check();
    }

    /// From now on nothing goes wrong: the client is there and reads, and decoders do what they should. All audio gets its
    /// finals, and the session ends (I7).
    pub(super) fn settle(&mut self) {
        self.come_back();
        self.send(SessionEvent::EndRequested);
        let attempts: Vec<Attempt> = self.decoders.keys().copied().collect();
        for attempt in attempts {
            if self.decoders.get(&attempt).is_some_and(|decoder| decoder.lied) {
                self.send(SessionEvent::LeaseLost { attempt, cause: LossCause::Killed });
            }
        }
        // Each round does one thing at least.
        let steps = self.machine.journal().decodable().since(self.committed) / self.config.rates.step();
        for _ in 0..8 * (steps + self.machine.journal().pending_entries() as u64) + 100 {
            if self.machine.is_over() {
                assert_eq!(self.outcome, Some(Outcome::Done));
                let received = self.machine.journal().received();
                assert!(
                    self.ledger.next() == Segment(0) || self.ledger.end() == received,
                    "I1: audio is left"
                );
                return;
            }
            self.grant(Who::First);
            if let Some(last) = self.ledger.next().0.checked_sub(1) {
                self.send(SessionEvent::Confirmed { segment: Segment(last) });
            }
            self.decode_one(Who::First);
            self.decode_one(Who::Standby);
        }
        panic!("I7: no end in sight");
    }
}

/// Whether a segment ends here: after one to seven steps, by where it begins.
fn is_cut(decoder: &Decoder, step: u64) -> bool {
    decoder.heard.since(decoder.from) >= step * (1 + decoder.from.0 / step % 7)
}
