//! The machine's state, and which part of it an event concerns.

use std::time::Duration;

use starling_protocol::{Attempt, DecodeOffset, Epoch, Segment, SourceOffset};

use super::decoder::Decoder;
use super::link::Link;
use super::messages::{FailReason, Outcome, SessionAction, SessionEvent};
use super::standby::Standby;
use crate::Timestamp;
use crate::audio::RateMap;
use crate::invariants::FinalsLedger;
use crate::journal::Journal;

/// What a session is decided by, fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionConfig {
    /// The client's rate and the model's.
    pub rates: RateMap,
    /// Most steps outstanding at a decoder.
    pub window: u16,
    /// Least audio between partials; 0 for none.
    pub partial_interval_ms: u32,
    /// Most audio that a decoder decodes before it says so; 0 to hear of each step. While it catches up each is heard of.
    pub decoded_interval_ms: u32,
    /// How long the session waits for a client that has gone.
    pub linger: Duration,
    /// How long a connected client may send nothing; zero for ever.
    pub idle: Duration,
    /// How long a client may leave its finals unread, once there are too many.
    pub slow_reader: Duration,
    /// How many unread finals are too many: decoding pauses until some are confirmed.
    pub unconfirmed_max: u64,
    /// Whether a second decoder is to stand by.
    pub standby: bool,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionMachine {
    pub(super) config: SessionConfig,
    pub(super) journal: Journal,
    pub(super) ledger: FinalsLedger,
    pub(super) link: Link,
    pub(super) decoder: Decoder,
    /// The attempt that speaks for the session.
    pub(super) attempt: Attempt,
    pub(super) standby: Standby,
    /// The last attempt that was begun, a standby's or not.
    pub(super) last_attempt: Attempt,
    pub(super) suspicion: Suspicion,
    /// How far any attempt has decoded.
    pub(super) reached: DecodeOffset,
    /// Finals up to here (exclusive) are confirmed.
    pub(super) confirmed: Segment,
    /// Since when too many finals are unread.
    pub(super) clogged_since: Option<Timestamp>,
    /// Since when all finals are made.
    pub(super) finished_since: Option<Timestamp>,
    pub(super) last_input: Timestamp,
    pub(super) over: bool,
}

/// What the open segment has done to its decoders so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Suspicion {
    /// Attempts on this segment are to be made alone.
    pub(super) quarantine: bool,
    /// Hosts that died of it in quarantine, and errors that the engine gave for it.
    pub(super) failures: u8,
}

impl SessionMachine {
    /// A session that was just admitted; asks for its first decoder.
    #[must_use]
    pub fn new(now: Timestamp, config: SessionConfig, out: &mut Vec<SessionAction>) -> Self {
        let mut machine = Self {
            config,
            journal: Journal::new(config.rates),
            ledger: FinalsLedger::default(),
            link: Link::Detached { since: now, last_epoch: Epoch(0) },
            decoder: Decoder::Closed,
            attempt: Attempt(0),
            standby: Standby::Absent,
            last_attempt: Attempt(0),
            suspicion: Suspicion::default(),
            reached: DecodeOffset(0),
            confirmed: Segment(0),
            clogged_since: None,
            finished_since: None,
            last_input: now,
            over: false,
        };
        machine.request_decoder(out);
        machine
    }

    /// The epoch whose connection speaks for the session, while one does.
    #[must_use]
    pub const fn attached(&self) -> Option<Epoch> {
        match self.link {
            Link::Attached { epoch } => Some(epoch),
            Link::Detached { .. } => None,
        }
    }

    /// The last epoch that spoke for the session.
    #[must_use]
    pub const fn last_epoch(&self) -> Epoch {
        match self.link {
            Link::Attached { epoch } => epoch,
            Link::Detached { last_epoch, .. } => last_epoch,
        }
    }

    /// Whether every final is made.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.finished_since.is_some()
    }

    /// What was received and is not committed.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Number of the open segment.
    #[must_use]
    pub const fn open_segment(&self) -> Segment {
        self.ledger.next()
    }

    /// Where the last final ended.
    #[must_use]
    pub const fn final_end(&self) -> SourceOffset {
        self.ledger.end()
    }

    /// The first final that the client has not confirmed.
    #[must_use]
    pub const fn confirmed(&self) -> Segment {
        self.confirmed
    }

    /// The attempt that speaks for the session, wanted or at work.
    #[must_use]
    pub const fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// The last attempt that was begun, by whichever owner, a standby's or not.
    #[must_use]
    pub const fn last_attempt(&self) -> Attempt {
        self.last_attempt
    }

    /// Whether the session is over; nothing changes any more.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Takes an event and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: SessionEvent, out: &mut Vec<SessionAction>) {
        if self.over {
            return;
        }
        match event {
            SessionEvent::Attach { epoch, last_final, have_from } => {
                self.attach(now, epoch, last_final, have_from, out);
            }
            SessionEvent::Detached { epoch } => self.detach(now, epoch, out),
            SessionEvent::AudioReceived { frames } => self.audio_received(now, frames, out),
            SessionEvent::FinalizeRequested => self.control(now, crate::journal::Control::Finalize, out),
            SessionEvent::EndRequested => self.control(now, crate::journal::Control::End, out),
            SessionEvent::Confirmed { segment } => self.confirm(now, segment, out),
            SessionEvent::Abandoned => self.end(Outcome::Abandoned, out),
            SessionEvent::Superseded => self.end(Outcome::Superseded, out),
            SessionEvent::ShutDown => self.end(Outcome::Failed(FailReason::ShuttingDown), out),
            SessionEvent::LeaseGranted { attempt } => self.granted(attempt, out),
            SessionEvent::OptionsRefused { attempt } => self.refused(now, attempt, out),
            SessionEvent::LeaseLost { attempt, cause } => self.lost(now, attempt, cause, out),
            SessionEvent::LeaseRetiring { attempt } => self.retire(attempt, out),
            SessionEvent::Decoded { attempt, until } => self.decoded(attempt, until, out),
            SessionEvent::PartialHeard { attempt, segment, until } => {
                self.partial(attempt, segment, until, out);
            }
            SessionEvent::SegmentCut { attempt, segment, from, to, cause } => {
                self.cut(now, attempt, Cut { segment, from, to, cause }, out);
            }
            SessionEvent::TimedOut => self.timed_out(now, out),
        }
        if !self.over {
            self.pump(out);
            self.seek_standby(out);
        }
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.deadlines().into_iter().flatten().map(|(at, _)| at).min()
    }

    fn timed_out(&mut self, now: Timestamp, out: &mut Vec<SessionAction>) {
        let due =
            self.deadlines().into_iter().flatten().filter(|(at, _)| *at <= now).min_by_key(|(at, _)| *at);
        if let Some((_, outcome)) = due {
            self.end(outcome, out);
        }
    }

    fn deadlines(&self) -> [Option<(Timestamp, Outcome)>; 4] {
        if self.over {
            return [None; 4];
        }
        let SessionConfig { linger, idle, slow_reader, .. } = self.config;
        let finished = self.finished_since.is_some();
        let lingered = match self.link {
            Link::Detached { since, .. } => {
                Some((since.plus(linger), if finished { Outcome::Done } else { Outcome::LingeredOut }))
            }
            Link::Attached { .. } => None,
        };
        let waits_for_client = self.attached().is_some() && !self.journal.ended() && !idle.is_zero();
        [
            lingered,
            waits_for_client.then(|| (self.last_input.plus(idle), Outcome::Failed(FailReason::Idle))),
            self.clogged_since
                .map(|since| (since.plus(slow_reader), Outcome::Failed(FailReason::SlowReader))),
            // A client that is away has its whole linger.
            self.finished_since
                .filter(|_| self.attached().is_some())
                .map(|since| (since.plus(slow_reader), Outcome::Done)),
        ]
    }

    pub(super) fn end(&mut self, outcome: Outcome, out: &mut Vec<SessionAction>) {
        self.close_decoder(out);
        self.drop_standby(out);
        self.over = true;
        out.push(SessionAction::End(outcome));
    }

    pub(super) fn next_attempt(&mut self) -> Attempt {
        self.last_attempt = self.last_attempt.next();
        self.last_attempt
    }

    /// Finals made and not confirmed.
    pub(super) const fn unconfirmed(&self) -> u64 {
        self.ledger.next().0 - self.confirmed.0
    }
}

/// A segment's cut as a decoder reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Cut {
    pub(super) segment: Segment,
    pub(super) from: DecodeOffset,
    pub(super) to: DecodeOffset,
    pub(super) cause: starling_protocol::CutCause,
}
