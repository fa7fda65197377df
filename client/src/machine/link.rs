//! Connections: when to try, whom to ask, when to give up, and what a refusal means.

use std::time::Duration;

use starling_protocol::native::{ErrorBody, ErrorCode, Hello, Resume};
use starling_protocol::{Epoch, Segment, SourceOffset};

use super::leaving::Next;
use super::servers::{Round, Server};
use super::{Action, Attempt, Entropy, Machine, Phase, Settings};
use crate::error::{OpenError, SessionError};

/// Resumes in a row for which a higher epoch may speak. One does when an earlier attempt of this client, which got no
/// answer in time, was heard after all; a second client that has the session makes it more.
const MAX_SUPERSEDED: u32 = 4;

impl Settings {
    /// Exponential backoff with full jitter: anything from zero to the upper end, which doubles with each attempt.
    pub(super) fn backoff(&self, attempts: u32, entropy: Entropy) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        let most = self.backoff_first.saturating_mul(1 << doublings);
        most.min(self.backoff_most).mul_f64(f64::from(entropy.jitter) / f64::from(u32::MAX))
    }
}

impl Machine {
    pub(super) fn connect(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.round.left.is_empty() {
            self.round = Round::of(self.known());
        }
        // There is a configured server, so there is one to ask.
        let server = self.round.left.pop_front().unwrap_or_else(|| self.home.clone());
        self.ask(now, server, false, out);
    }

    pub(super) fn ask(&mut self, now: Duration, server: Server, planned: bool, out: &mut Vec<Action>) {
        let (attempt, hello) = self.attempt_at(now, server.clone());
        self.phase = Phase::Opening { attempt, planned };
        out.push(Action::Connect { server, hello });
    }

    /// An attempt at a connection, and what it says first.
    pub(super) fn attempt_at(&mut self, now: Duration, server: Server) -> (Attempt, Box<Hello>) {
        self.trim();
        let mut hello = self.hello.clone();
        // An attempt that got no answer may have been heard all the same, and by another node.
        self.epoch = self.epoch.next();
        if let Some(token) = self.token.clone() {
            let last_final = (self.next_segment - self.base_segment).checked_sub(1).map(Segment);
            hello.resume = Some(Resume {
                token,
                epoch: self.epoch,
                last_final,
                final_to: last_final.map(|_| SourceOffset(self.final_to - self.base_frame)),
                have_from: SourceOffset(self.start - self.base_frame),
            });
        } else if self.epoch > Epoch(1) {
            hello.epoch = Some(self.epoch);
        }
        let deadline = now + self.settings.attempt_timeout;
        let attempt = Attempt { server, deadline, have_from: self.start, told: self.next_segment };
        (attempt, Box::new(hello))
    }

    /// The present connection, or the attempt at it, is gone.
    pub(super) fn lost(&mut self, now: Duration, cause: String, entropy: Entropy, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Live { .. } => {
                self.lost_at = self.lost_at.or(Some(now));
                self.trying_since = self.trying_since.or(Some(now));
                if let Some(Next::Opening(attempt)) = self.leaving.take().map(|leaving| leaving.next) {
                    // In the normal order of things: the node that takes a session over tells the one before so.
                    self.round = Round::of(self.known());
                    self.round.left.retain(|server| *server != attempt.server);
                    self.phase = Phase::Opening { attempt, planned: true };
                    out.push(Action::Switch);
                    return;
                }
                self.round = Round::of(self.known());
                if self.attempts > 0 {
                    // It may take connections only to drop them.
                    self.round.ask_last(&self.home);
                }
            }
            Phase::Opening { .. } => self.round.unsure = true,
            Phase::Idle | Phase::Waiting { .. } => return,
        }
        self.go_on(now, cause, entropy, out);
    }

    /// The server ended the present connection, or the attempt at it, with an error.
    pub(super) fn refused(
        &mut self,
        now: Duration,
        body: Box<ErrorBody>,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        use ErrorCode::{
            BadMessage, BadToken, Busy, Gap, Internal, OverQuota, ShuttingDown, Superseded, UnknownSession,
        };
        let live = self.is_live();
        let resuming = self.token.is_some();
        match body.code {
            BadMessage if live => out.push(Action::Complaint(body)),
            // By an attempt of this client's own, whether or not its answer came.
            Superseded if live && self.epoch > self.live_epoch => self.lost(now, body.message, entropy, out),
            Superseded if !live && resuming => self.outrun(now, body, entropy, out),
            Busy | OverQuota if !live => {
                self.round.unsure = true;
                let cause = body.message.clone();
                self.round.busy = Some(body);
                self.go_on(now, cause, entropy, out);
            }
            // A token that this server can't read was sealed by one that is gone, and the session with it.
            UnknownSession | BadToken | Gap if !live && resuming => self.unknown(now, body, entropy, out),
            UnknownSession | BadToken | Gap if resuming => self.lost(now, body.message, entropy, out),
            Busy | Internal | OverQuota | ShuttingDown => {
                self.home_stops |= live && body.code == ShuttingDown;
                self.lost(now, body.message, entropy, out);
            }
            _ => self.fail(SessionError::Ended(body), out),
        }
    }

    /// A higher epoch speaks for the session. If this client raised it, a still higher one outruns it in time.
    fn outrun(&mut self, now: Duration, body: Box<ErrorBody>, entropy: Entropy, out: &mut Vec<Action>) {
        self.superseded += 1;
        if self.superseded > MAX_SUPERSEDED {
            self.fail(SessionError::Ended(body), out);
            return;
        }
        if let Phase::Opening { attempt, .. } = &self.phase {
            self.round.left.push_front(attempt.server.clone());
        }
        self.go_on(now, body.message, entropy, out);
    }

    /// The server that is being asked can't go on with the session.
    pub(super) fn unknown(
        &mut self,
        now: Duration,
        body: Box<ErrorBody>,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        if let Phase::Opening { attempt: Attempt { server: Server::Configured(index), .. }, .. } = self.phase
        {
            self.round.there = Some(index);
        }
        let cause = body.message.clone();
        self.round.unknown = Some(body);
        self.go_on(now, cause, entropy, out);
    }

    /// What follows when a connection is gone or a server could not be won: the next is asked, and when all were, it is seen
    /// what they said.
    fn go_on(&mut self, now: Duration, cause: String, entropy: Entropy, out: &mut Vec<Action>) {
        self.cause = cause;
        self.attempts = self.attempts.saturating_add(1);
        let asked_all = self.round.left.is_empty();
        if asked_all {
            self.rounds = self.rounds.saturating_add(1);
            if let Some(body) = self.lost_everywhere() {
                self.begin_anew(now, body, entropy, out);
                return;
            }
        }
        out.push(Action::Disconnect);
        let over = self.past_deadline(now) && self.attempts as usize >= self.known().len();
        let waits = self.opened || self.settings.wait_when_busy || self.round.busy.is_none();
        if over || (asked_all && !waits) {
            self.give_up(now, out);
            return;
        }
        let wait = if asked_all { self.round.wait() } else { Duration::ZERO };
        self.wait(now, wait + self.settings.backoff(self.attempts, entropy));
    }

    /// Waits before the next attempt, but not beyond the deadline: there is one attempt at the deadline itself, rather than
    /// none after the last long wait.
    pub(super) fn wait(&mut self, now: Duration, wait: Duration) {
        let until = now + wait;
        let until = self.deadline().map_or(until, |deadline| until.min(deadline.max(now)));
        self.phase = Phase::Waiting { until };
    }

    fn give_up(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.phase = Phase::Idle;
        let waited = now.saturating_sub(self.trying_since.unwrap_or(now));
        let cause = self.cause.clone();
        out.push(match self.round.busy.take() {
            _ if self.opened => Action::Failed(SessionError::GaveUp { waited, cause }),
            Some(body) => Action::OpenFailed(OpenError::Busy(body)),
            None => Action::OpenFailed(OpenError::Unreachable { waited, cause }),
        });
    }

    fn deadline(&self) -> Option<Duration> {
        let patience = if self.opened { self.settings.give_up } else { self.settings.open_deadline };
        Some(self.trying_since? + patience)
    }

    fn past_deadline(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }
}
