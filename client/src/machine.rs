//! The client's side of a session, as a machine: inputs in, actions out; offsets instead of samples.
//!
//! Owns: which audio may still be needed, what is to be written next, when to connect and to whom, and that finals come
//! out exactly once, in order and without a hole that is not named. Knows no socket, no clock and no randomness: the time
//! and a random number come in with every input, the samples lie in a ring beside it.
//!
//! Offsets and segments here are the consumer's. They equal the server's until every server has lost the session and the
//! machine begins a new one at the last final; from then on [`Machine`] translates.

use std::collections::VecDeque;
use std::time::Duration;

use starling_protocol::native::Hello;
use starling_protocol::{Epoch, Segment};

use crate::error::{OpenError, SessionError};

mod anew;
mod leaving;
mod link;
mod messages;
mod received;
mod servers;

pub use messages::{Action, Entropy, Event, Input, Opened, Settings, Which, Write};
pub use servers::Server;
pub(crate) use servers::is_address;

use leaving::Leaving;
use servers::Round;

/// Most frames in one binary message: 16 KiB of audio, a second of telephone speech, far below the server's limit.
pub const MAX_FRAMES_PER_WRITE: u64 = 8_192;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Before `Start` and after the end.
    Idle,
    /// Between attempts.
    Waiting { until: Duration },
    /// Connecting, or waiting for `ready`. `planned` when the server before asked for it and was left in time.
    Opening { attempt: Attempt, planned: bool },
    /// `ready` has come.
    Live { since: Duration, heard: Duration, pinged: bool },
}

/// A connection that has no `ready` yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attempt {
    server: Server,
    deadline: Duration,
    /// The first frame that its `hello` promised to have. The server may ask for it.
    have_from: u64,
    /// Finals that its `hello` said are here.
    told: u64,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Machine {
    settings: Settings,
    /// The first message, without `resume`; its session changes when a new server session is begun.
    hello: Hello,
    phase: Phase,
    /// Set while the server of a live connection is about to stop.
    leaving: Option<Leaving>,
    opened: bool,
    /// When the session was started to be opened, or when the last healthy connection was lost.
    trying_since: Option<Duration>,
    /// When the last connection was lost, for the consumer's information.
    lost_at: Option<Duration>,
    /// Attempts since the last healthy connection, and rounds that came to nothing.
    attempts: u32,
    rounds: u32,
    round: Round,
    /// Resumes since the last healthy connection for which a higher epoch spoke.
    superseded: u32,
    /// New server sessions since the last final.
    restarts: u32,
    restarted: bool,
    cause: String,

    /// The server of the last live connection, and whether it is about to stop.
    home: Server,
    home_stops: bool,
    /// The configured server that was live last.
    rotation: usize,
    suggested: Vec<Server>,

    token: Option<String>,
    durable: bool,
    /// The highest epoch of any attempt, and that of the last live connection.
    epoch: Epoch,
    live_epoch: Epoch,
    base_frame: u64,
    base_segment: u64,

    /// `start <= acked <= sent <= written` whenever a connection is live; the ring holds `start..written`.
    start: u64,
    acked: u64,
    sent: u64,
    written: u64,
    /// Where the consumer asked for finals that have not come; those before `marks_sent` are on the present connection.
    marks: VecDeque<u64>,
    marks_sent: usize,
    ended: bool,
    end_sent: bool,

    final_to: u64,
    next_segment: u64,
    delivered: u64,
    confirmed: u64,
}

impl Machine {
    /// A machine for one session. `hello` has no `resume`; its session id is the client's. There must be a server.
    #[must_use]
    pub fn new(settings: Settings, hello: Hello) -> Self {
        Self {
            settings,
            hello,
            phase: Phase::Idle,
            leaving: None,
            opened: false,
            trying_since: None,
            lost_at: None,
            attempts: 0,
            rounds: 0,
            round: Round::default(),
            superseded: 0,
            restarts: 0,
            restarted: false,
            cause: String::new(),
            home: Server::Configured(0),
            home_stops: false,
            rotation: 0,
            suggested: Vec::new(),
            token: None,
            durable: false,
            epoch: Epoch(0),
            live_epoch: Epoch(0),
            base_frame: 0,
            base_segment: 0,
            start: 0,
            acked: 0,
            sent: 0,
            written: 0,
            marks: VecDeque::new(),
            marks_sent: 0,
            ended: false,
            end_sent: false,
            final_to: 0,
            next_segment: 0,
            delivered: 0,
            confirmed: 0,
        }
    }

    /// Takes one input at `now`, a time since any fixed moment, and appends what is to be done to `out`.
    pub fn handle(&mut self, now: Duration, input: Input, entropy: Entropy, out: &mut Vec<Action>) {
        match input {
            Input::Start => {
                self.trying_since = Some(now);
                self.connect(now, out);
            }
            Input::Tick => self.tick(now, entropy, out),
            Input::Audio(frames) => {
                self.written += frames;
                self.trim();
            }
            // One that waits for its final at this very place is the same request.
            Input::Finalize if self.marks.back() != Some(&self.written) => self.marks.push_back(self.written),
            Input::Finalize => {}
            Input::End => self.ended = true,
            Input::Message(Which::Present, message) => self.message(now, *message, entropy, out),
            Input::Message(Which::Next, message) => self.next_said(now, *message, entropy, out),
            Input::Heard(Which::Present) => self.heard(now),
            Input::Heard(Which::Next) => {}
            Input::Lost(Which::Present, cause) => self.lost(now, cause, entropy, out),
            Input::Lost(Which::Next, _) => self.next_failed(now, entropy, out),
            Input::Delivered(segment) => self.delivered = self.delivered.max(segment.0 + 1),
        }
    }

    /// When [`Input::Tick`] is due; a tick that comes early or twice does no harm.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Idle => None,
            Phase::Waiting { until } => Some(*until),
            Phase::Opening { attempt, .. } => Some(attempt.deadline),
            Phase::Live { .. } => {
                let leaving = self.leaving.as_ref().and_then(Leaving::timeout);
                self.silence_due().into_iter().chain(leaving).min()
            }
        }
    }

    /// Frames that may be appended now. When there are none, the server is behind.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.settings.ring_frames.saturating_sub(self.written - self.spare())
    }

    /// The first frame that the ring must go on holding.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Whether everything was said and done.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// The next thing to write to the present connection, taken for written; `None` when there is nothing. What could
    /// not be written is lost with its connection and comes again on the next.
    pub fn next_write(&mut self) -> Option<Write> {
        if !self.is_live() {
            return None;
        }
        if self.delivered > self.confirmed.max(self.base_segment) {
            self.confirmed = self.delivered;
            return Some(Write::Confirm(Segment(self.delivered - 1 - self.base_segment)));
        }
        let mark = self.marks.get(self.marks_sent).copied();
        if mark.is_some_and(|mark| mark <= self.sent) {
            self.marks_sent += 1;
            return Some(Write::Finalize);
        }
        let until = mark.unwrap_or(self.written).min(self.sent + MAX_FRAMES_PER_WRITE);
        if self.sent < until {
            let frames = self.sent..until;
            self.sent = until;
            return Some(Write::Audio(frames));
        }
        if self.ended && !self.end_sent {
            self.end_sent = true;
            return Some(Write::End);
        }
        None
    }

    fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    /// The attempt that waits for its `ready`; there is one at most.
    fn attempt(&self) -> Option<&Attempt> {
        match &self.phase {
            Phase::Opening { attempt, .. } => Some(attempt),
            _ => self.leaving.as_ref().and_then(Leaving::attempt),
        }
    }

    /// The first frame that can't be done without: everything before it is covered by a final or held by a server, was
    /// promised to none that may still ask for it, and is not yet to be sent.
    fn spare(&self) -> u64 {
        let promised = self.attempt().map_or(u64::MAX, |attempt| attempt.have_from);
        let sent = if self.is_live() { self.sent } else { u64::MAX };
        self.start.max(self.acked.max(self.final_to).min(promised).min(sent))
    }

    /// Lets go what finals cover, and what was acknowledged as far as the ring is full: until then it can restart a
    /// session that its servers have lost.
    fn trim(&mut self) {
        let oldest = self.written.saturating_sub(self.settings.ring_frames);
        self.start = self.start.max(self.spare().min(oldest.max(self.final_to)));
    }

    fn tick(&mut self, now: Duration, entropy: Entropy, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Waiting { until } if until <= now => self.connect(now, out),
            Phase::Opening { ref attempt, .. } if attempt.deadline <= now => {
                let cause = format!("no answer in {:?}", self.settings.attempt_timeout);
                self.lost(now, cause, entropy, out);
            }
            Phase::Live { .. } if self.silence_due().is_some_and(|due| now < due) => {
                self.leaving_tick(now, entropy, out);
            }
            Phase::Live { pinged: true, .. } => {
                let cause = format!("nothing was heard for {:?}", self.settings.liveness);
                self.lost(now, cause, entropy, out);
            }
            Phase::Live { ref mut pinged, .. } => {
                *pinged = true;
                out.push(Action::Ping);
            }
            Phase::Idle | Phase::Waiting { .. } | Phase::Opening { .. } => {}
        }
    }

    /// When the present connection's silence has to be looked into.
    fn silence_due(&self) -> Option<Duration> {
        let Phase::Live { heard, pinged, .. } = self.phase else {
            return None;
        };
        Some(heard + if pinged { self.settings.liveness } else { self.settings.liveness / 2 })
    }

    fn heard(&mut self, now: Duration) {
        if let Phase::Live { since, heard, pinged } = &mut self.phase {
            *heard = now;
            *pinged = false;
            // A server that takes connections only to drop them must not reset the backoff.
            if now.saturating_sub(*since) >= self.settings.backoff_first {
                self.healthy();
            }
        }
    }

    fn healthy(&mut self) {
        self.attempts = 0;
        self.rounds = 0;
        self.round = Round::default();
        self.superseded = 0;
        self.trying_since = None;
    }

    fn fail(&mut self, error: SessionError, out: &mut Vec<Action>) {
        self.phase = Phase::Idle;
        self.leaving = None;
        out.push(Action::Disconnect);
        if self.opened {
            out.push(Action::Failed(error));
            return;
        }
        out.push(Action::OpenFailed(match error {
            SessionError::Ended(body) => OpenError::Refused(body),
            other => OpenError::Protocol(other.to_string()),
        }));
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
