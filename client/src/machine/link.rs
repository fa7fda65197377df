//! Connections: when to try, whom to ask, when to give up, and what a refusal means.

use std::time::Duration;

use starling_protocol::native::{ErrorBody, ErrorCode, Resume};
use starling_protocol::{Epoch, Segment, SourceOffset};

use super::{Action, Entropy, Event, Machine, Phase};
use crate::error::{OpenError, SessionError};

/// New server sessions that may be begun without one final between them: a server that loses the same audio this often
/// loses it for a reason.
const MAX_RESTARTS: u32 = 3;

impl Machine {
    pub(super) fn connect(&mut self, now: Duration, out: &mut Vec<Action>) {
        let mut hello = self.hello.clone();
        if let Some(token) = self.token.clone() {
            self.epoch = self.epoch.next();
            let received = self.next_segment - self.base_segment;
            hello.resume = Some(Resume {
                token,
                epoch: self.epoch,
                last_final: received.checked_sub(1).map(Segment),
                final_to: (received > 0).then(|| SourceOffset(self.final_to - self.base_frame)),
                have_from: SourceOffset(self.start - self.base_frame),
            });
        }
        self.phase = Phase::Opening { deadline: now + self.settings.attempt_timeout };
        out.push(Action::Connect { server: self.server, hello: Box::new(hello) });
    }

    /// The connection, or the attempt at one, is gone.
    pub(super) fn lost(&mut self, now: Duration, cause: String, entropy: Entropy, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Live { .. } => {
                self.lost_at = self.lost_at.or(Some(now));
                self.trying_since = self.trying_since.or(Some(now));
            }
            Phase::Opening { .. } => self.next_server(),
            Phase::Idle | Phase::Waiting { .. } => return,
        }
        self.retry(now, cause, Duration::ZERO, entropy, out);
    }

    /// This node is about to stop. With another to go to the session moves now, while both are there; without one it
    /// stays for as long as it is served.
    pub(super) fn go_away(&mut self, now: Duration, entropy: Entropy, out: &mut Vec<Action>) {
        if self.settings.servers > 1 && matches!(self.phase, Phase::Live { .. }) {
            self.next_server();
            self.lost(now, "the server is about to stop".to_owned(), entropy, out);
        }
    }

    /// The server ended the connection with an error.
    pub(super) fn refused(
        &mut self,
        now: Duration,
        body: Box<ErrorBody>,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        let live = matches!(self.phase, Phase::Live { .. });
        match body.code {
            ErrorCode::BadMessage if live => out.push(Action::Complaint(body)),
            ErrorCode::Busy => self.busy(now, body, entropy, out),
            ErrorCode::Internal | ErrorCode::ShuttingDown => {
                if live && body.code == ErrorCode::ShuttingDown {
                    self.next_server();
                }
                self.lost(now, body.message, entropy, out);
            }
            // A token that this server can't read was sealed by one that is gone, and the session with it.
            ErrorCode::UnknownSession | ErrorCode::BadToken if self.token.is_some() => {
                self.unknown(now, body, entropy, out);
            }
            ErrorCode::Gap => {
                let error = SessionError::AudioLost {
                    from: SourceOffset(self.final_to),
                    to: SourceOffset(self.start),
                };
                self.fail(error, out);
            }
            _ => self.fail(SessionError::Ended(body), out),
        }
    }

    fn busy(&mut self, now: Duration, body: Box<ErrorBody>, entropy: Entropy, out: &mut Vec<Action>) {
        self.next_server();
        // The others are asked before anybody waits.
        let asked_all = self.attempts as usize + 1 >= self.settings.servers;
        if asked_all && !self.opened && !self.settings.wait_when_busy {
            self.phase = Phase::Idle;
            out.push(Action::Disconnect);
            out.push(Action::OpenFailed(OpenError::Busy(body)));
            return;
        }
        let wait =
            if asked_all { Duration::from_millis(body.retry_after_ms.unwrap_or(0)) } else { Duration::ZERO };
        if self.past_deadline(now) && !self.opened {
            self.phase = Phase::Idle;
            out.push(Action::Disconnect);
            out.push(Action::OpenFailed(OpenError::Busy(body)));
            return;
        }
        self.retry(now, body.message, wait, entropy, out);
    }

    /// This server does not know the session. When no other does, it is begun anew at the last final.
    fn unknown(&mut self, now: Duration, body: Box<ErrorBody>, entropy: Entropy, out: &mut Vec<Action>) {
        if (self.attempts as usize + 1) < self.settings.servers {
            self.next_server();
            self.retry(now, body.message, Duration::ZERO, entropy, out);
            return;
        }
        if self.ended && self.final_to == self.written {
            // The server had said everything and forgot; only its `done` was lost.
            self.finish(out);
            return;
        }
        if self.start > self.final_to {
            let error =
                SessionError::AudioLost { from: SourceOffset(self.final_to), to: SourceOffset(self.start) };
            self.fail(error, out);
            return;
        }
        if self.restarts >= MAX_RESTARTS {
            self.fail(SessionError::Ended(body), out);
            return;
        }
        self.restarts += 1;
        self.restarted = true;
        self.hello.session = Some(entropy.session);
        self.token = None;
        self.epoch = Epoch(0);
        self.base_frame = self.final_to;
        self.base_segment = self.next_segment;
        self.acked = self.final_to;
        self.connect(now, out);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Action>) {
        let live = matches!(self.phase, Phase::Live { .. });
        self.phase = Phase::Idle;
        // Whatever the consumer has yet to take lies on this side now.
        match self.next_segment.checked_sub(self.base_segment + 1) {
            Some(last) if live => out.push(Action::Farewell(Segment(last))),
            _ => out.push(Action::Disconnect),
        }
        out.push(Action::Deliver(Event::Done {
            segments: self.next_segment,
            frames: SourceOffset(self.final_to),
        }));
    }

    fn retry(
        &mut self,
        now: Duration,
        cause: String,
        wait: Duration,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        self.cause = cause;
        out.push(Action::Disconnect);
        self.attempts = self.attempts.saturating_add(1);
        if self.past_deadline(now) && self.attempts as usize >= self.settings.servers {
            self.give_up(now, out);
            return;
        }
        let until = now + wait + self.backoff(entropy.jitter);
        // One attempt at the deadline itself, rather than none after the last long wait.
        let until = self.deadline().map_or(until, |deadline| until.min(deadline.max(now)));
        self.phase = Phase::Waiting { until };
    }

    fn give_up(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.phase = Phase::Idle;
        let waited = now.saturating_sub(self.trying_since.unwrap_or(now));
        let cause = self.cause.clone();
        out.push(if self.opened {
            Action::Failed(SessionError::GaveUp { waited, cause })
        } else {
            Action::OpenFailed(OpenError::Unreachable { waited, cause })
        });
    }

    /// Exponential backoff with full jitter: anything from zero to the upper end, which doubles with each attempt.
    fn backoff(&self, jitter: u32) -> Duration {
        let doublings = self.attempts.saturating_sub(1).min(16);
        let most = self.settings.backoff_first.saturating_mul(1 << doublings);
        most.min(self.settings.backoff_most).mul_f64(f64::from(jitter) / f64::from(u32::MAX))
    }

    fn deadline(&self) -> Option<Duration> {
        let patience = if self.opened { self.settings.give_up } else { self.settings.open_deadline };
        Some(self.trying_since? + patience)
    }

    fn past_deadline(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    const fn next_server(&mut self) {
        self.server = (self.server + 1) % self.settings.servers;
    }
}
