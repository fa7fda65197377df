//! The client's side of a session, as a machine: inputs in, actions out; offsets instead of samples.
//!
//! Owns: which audio may still be needed, what is to be written next, when to connect and to whom, and that finals come
//! out exactly once, in order and without a hole. Knows no socket, no clock and no randomness: the time and a random
//! number come in with every input, the samples lie in a ring beside it.
//!
//! Offsets and segments here are the consumer's. They equal the server's until a server that lost the session makes the
//! machine begin a new one at the last final; from then on [`Machine`] translates.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use starling_protocol::native::{ErrorBody, Final, Hello, ServerMessage, WarningCode};
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};

use crate::error::{OpenError, SessionError};

mod link;
mod received;

/// Most frames in one binary message: 16 KiB of audio, a second of telephone speech, far below the server's limit.
pub const MAX_FRAMES_PER_WRITE: u64 = 8_192;

/// What the machine is told once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// How many servers there are; the machine knows them by index.
    pub servers: usize,
    /// Frames of audio that are kept to be sent again.
    pub ring_frames: u64,
    /// See [`ClientConfig::open_deadline`](crate::ClientConfig).
    pub open_deadline: Duration,
    /// See [`ClientConfig::wait_when_busy`](crate::ClientConfig).
    pub wait_when_busy: bool,
    /// See [`ClientConfig::give_up`](crate::ClientConfig).
    pub give_up: Duration,
    /// See [`ClientConfig::attempt_timeout`](crate::ClientConfig).
    pub attempt_timeout: Duration,
    /// See [`ClientConfig::liveness`](crate::ClientConfig).
    pub liveness: Duration,
    /// See [`ClientConfig::backoff_first`](crate::ClientConfig).
    pub backoff_first: Duration,
    /// See [`ClientConfig::backoff_most`](crate::ClientConfig).
    pub backoff_most: Duration,
}

/// Randomness for one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entropy {
    /// Spreads the next attempt: 0 for no delay, `u32::MAX` for the longest.
    pub jitter: u32,
    /// An unused id, should a new server session have to be begun.
    pub session: SessionId,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// First of all: connect.
    Start,
    /// The time of [`Machine::next_timeout`] has come.
    Tick,
    /// The consumer appended this many frames to the ring; never more than [`Machine::room`].
    Audio(u64),
    /// The consumer wants the open segment ended here.
    Finalize,
    /// No more audio will come.
    End,
    /// The server said this on the present connection.
    Message(Box<ServerMessage>),
    /// Something else was heard on the present connection, such as a pong.
    Heard,
    /// The present connection, or the attempt at one, is gone.
    Lost(String),
    /// The consumer has taken every final up to this one.
    Delivered(Segment),
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Drop whatever connection there is, connect to this server and send this first.
    Connect {
        /// Index of the server.
        server: usize,
        /// The first message.
        hello: Box<Hello>,
    },
    /// Drop the connection or the attempt at one.
    Disconnect,
    /// Confirm up to this segment, in the server's terms, and close: the server has nothing left to keep.
    Farewell(Segment),
    /// Send a WebSocket ping.
    Ping,
    /// The session is open.
    Opened(Opened),
    /// The session could not be opened; nothing follows.
    OpenFailed(OpenError),
    /// Give the consumer this. Nothing follows [`Event::Done`].
    Deliver(Event),
    /// The session is over before its end; nothing follows.
    Failed(SessionError),
    /// The server complained of a message that this client sent; the session goes on.
    Complaint(Box<ErrorBody>),
}

/// What is known of a session when it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The session's id.
    pub session: SessionId,
    /// The model that was chosen.
    pub model: String,
    /// Whether acknowledged audio is in two copies.
    pub durable: bool,
}

/// What a consumer is told.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The text so far of the open segment. Those that were overtaken before they were read are left out.
    Partial {
        /// The segment.
        segment: Segment,
        /// Its first source frame.
        from: SourceOffset,
        /// How far the text reaches.
        until: SourceOffset,
        /// The text so far.
        text: String,
    },
    /// A segment's committed text: each exactly once, in order, adjoining the last.
    Final(Final),
    /// The server has something to say; the session goes on.
    Warning {
        /// What kind.
        code: WarningCode,
        /// In a sentence.
        message: String,
    },
    /// A lost connection was replaced. Nothing was lost and nothing comes twice.
    Reconnected {
        /// From the loss to the new connection's `ready`.
        gap: Duration,
        /// Whether the server had lost the session, so that it was begun anew at the last final.
        restarted: bool,
    },
    /// Every final has come.
    Done {
        /// How many segments there were.
        segments: u64,
        /// How many source frames were heard.
        frames: SourceOffset,
    },
}

/// The next thing to be written to the present connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A binary message with these frames of the ring.
    Audio(Range<u64>),
    /// `confirm`, in the server's terms.
    Confirm(Segment),
    /// `finalize`.
    Finalize,
    /// `end`.
    End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// Before `Start` and after the end.
    Idle,
    /// Between attempts.
    Waiting { until: Duration },
    /// Connecting, or waiting for `ready`.
    Opening { deadline: Duration },
    /// `ready` has come.
    Live { since: Duration, heard: Duration, pinged: bool },
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    settings: Settings,
    /// The first message, without `resume`; its session changes when a new server session is begun.
    hello: Hello,
    phase: Phase,
    opened: bool,
    /// When the session was started to be opened, or when the last healthy connection was lost.
    trying_since: Option<Duration>,
    /// When the last connection was lost, for the consumer's information.
    lost_at: Option<Duration>,
    /// Attempts since the last healthy connection.
    attempts: u32,
    /// New server sessions since the last final.
    restarts: u32,
    restarted: bool,
    server: usize,
    cause: String,

    token: Option<String>,
    epoch: Epoch,
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
    /// A machine for one session. `hello` has no `resume`; its session id is the client's.
    #[must_use]
    pub const fn new(settings: Settings, hello: Hello) -> Self {
        Self {
            settings,
            hello,
            phase: Phase::Idle,
            opened: false,
            trying_since: None,
            lost_at: None,
            attempts: 0,
            restarts: 0,
            restarted: false,
            server: 0,
            cause: String::new(),
            token: None,
            epoch: Epoch(0),
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
            Input::Audio(frames) => self.append(frames),
            // One that waits for its final at this very place is the same request.
            Input::Finalize if self.marks.back() != Some(&self.written) => self.marks.push_back(self.written),
            Input::Finalize => {}
            Input::End => self.ended = true,
            Input::Message(message) => self.message(now, *message, entropy, out),
            Input::Heard => self.heard(now),
            Input::Lost(cause) => self.lost(now, cause, entropy, out),
            Input::Delivered(segment) => self.delivered = self.delivered.max(segment.0 + 1),
        }
    }

    /// When [`Input::Tick`] is due; a tick that comes early or twice does no harm.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Idle => None,
            Phase::Waiting { until } => Some(until),
            Phase::Opening { deadline } => Some(deadline),
            Phase::Live { heard, pinged, .. } => Some(heard + self.patience(pinged)),
        }
    }

    /// Frames that may be appended now. When there are none, the server is behind.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.settings.ring_frames.saturating_sub(self.written - self.acked.max(self.start))
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
        if !matches!(self.phase, Phase::Live { .. }) {
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

    fn append(&mut self, frames: u64) {
        self.written += frames;
        let oldest = self.written.saturating_sub(self.settings.ring_frames);
        // Acknowledged audio is the first to go, and only when the ring is full: until then it can restart a session
        // that its server has lost.
        self.start = self.start.max(oldest.min(self.acked));
    }

    fn tick(&mut self, now: Duration, entropy: Entropy, out: &mut Vec<Action>) {
        if self.next_timeout().is_none_or(|at| now < at) {
            return;
        }
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Waiting { .. } => self.connect(now, out),
            Phase::Opening { .. } => {
                let cause = format!("no answer in {:?}", self.settings.attempt_timeout);
                self.lost(now, cause, entropy, out);
            }
            Phase::Live { pinged: true, .. } => {
                let cause = format!("nothing was heard for {:?}", self.settings.liveness);
                self.lost(now, cause, entropy, out);
            }
            Phase::Live { pinged, .. } => {
                *pinged = true;
                out.push(Action::Ping);
            }
        }
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
        self.trying_since = None;
    }

    fn patience(&self, pinged: bool) -> Duration {
        if pinged { self.settings.liveness } else { self.settings.liveness / 2 }
    }

    fn fail(&mut self, error: SessionError, out: &mut Vec<Action>) {
        self.phase = Phase::Idle;
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
