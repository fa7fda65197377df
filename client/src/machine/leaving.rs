//! Leaving a server that is about to stop: the next connection is made before the present one is broken.
//!
//! Audio goes on on the present connection and its finals are taken until `ready` comes on the next. The node that takes
//! the session over tells the one before so: a present connection that ends while the next is being opened ends in order.

use std::collections::VecDeque;
use std::time::Duration;

use starling_protocol::native::ServerMessage;

use super::received::Ready;
use super::servers::Server;
use super::{Action, Attempt, Entropy, Machine};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Leaving {
    /// Until when the present connection is served.
    until: Duration,
    /// Servers still to be asked in this round.
    left: VecDeque<Server>,
    attempts: u32,
    pub(super) next: Next,
}

/// The next connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Next {
    /// There is nobody to go to, or no time left.
    Nowhere,
    /// Between attempts.
    Waiting { until: Duration },
    /// Connecting, or waiting for `ready`.
    Opening(Attempt),
}

impl Leaving {
    pub(super) fn timeout(&self) -> Option<Duration> {
        match &self.next {
            Next::Nowhere => None,
            Next::Waiting { until } => Some(*until),
            Next::Opening(attempt) => Some(attempt.deadline),
        }
    }

    pub(super) fn attempt(&self) -> Option<&Attempt> {
        match &self.next {
            Next::Opening(attempt) => Some(attempt),
            Next::Nowhere | Next::Waiting { .. } => None,
        }
    }
}

impl Machine {
    /// The present server is about to stop and serves for `remaining` more.
    pub(super) fn go_away(&mut self, now: Duration, remaining: Duration, entropy: Entropy) {
        if !self.is_live() {
            return;
        }
        self.home_stops = true;
        let until = now.saturating_add(remaining);
        if let Some(leaving) = &mut self.leaving {
            leaving.until = until;
            return;
        }
        self.leaving = Some(Leaving { until, left: VecDeque::new(), attempts: 0, next: Next::Nowhere });
        self.look_for_next(now, entropy);
    }

    /// Other servers are known than before.
    pub(super) fn look_again(&mut self, now: Duration, entropy: Entropy) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        leaving.left.clear();
        if leaving.next == Next::Nowhere && now < leaving.until {
            self.look_for_next(now, entropy);
        }
    }

    pub(super) fn leaving_tick(&mut self, now: Duration, entropy: Entropy, out: &mut Vec<Action>) {
        match self.leaving.as_ref().map(|leaving| &leaving.next) {
            Some(Next::Waiting { until }) if *until <= now => self.open_next(now, out),
            Some(Next::Opening(attempt)) if attempt.deadline <= now => self.next_failed(now, entropy, out),
            _ => {}
        }
    }

    /// A server said this on the next connection.
    pub(super) fn next_said(
        &mut self,
        now: Duration,
        message: ServerMessage,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        match message {
            ServerMessage::Ready { session, epoch, token, model, have_until, durable, .. } => {
                let Some(attempt) = self.leaving.as_ref().and_then(Leaving::attempt).cloned() else {
                    return;
                };
                let ready = Ready { session, epoch, token, model, have_until, durable };
                if self.check_ready(&ready).is_err() || self.lacks_audio_for(&ready) {
                    self.next_failed(now, entropy, out);
                    return;
                }
                if self.overtaken(&attempt, &ready) {
                    self.ask_next(now, attempt.server, out);
                    return;
                }
                out.push(Action::Switch);
                self.ready(now, attempt, ready, out);
            }
            ServerMessage::Error(_) => self.next_failed(now, entropy, out),
            // What is said before `ready` is nothing that this client knows.
            _ => {}
        }
    }

    /// The next connection, or the attempt at it, is gone. The present one is still there.
    pub(super) fn next_failed(&mut self, now: Duration, entropy: Entropy, out: &mut Vec<Action>) {
        if self.leaving.as_ref().and_then(Leaving::attempt).is_none() {
            return;
        }
        out.push(Action::DropNext);
        self.look_for_next(now, entropy);
    }

    /// Waits for the next attempt. A crowd of clients that is told to go must not arrive in step, so the first waits too.
    fn look_for_next(&mut self, now: Duration, entropy: Entropy) {
        let others = self.others();
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.left.is_empty() {
            leaving.left = others;
        }
        let first = leaving.attempts == 0;
        leaving.attempts = leaving.attempts.saturating_add(1);
        let until = now + self.settings.backoff(leaving.attempts, entropy);
        leaving.next = match until {
            _ if leaving.left.is_empty() => Next::Nowhere,
            // There is always time for one.
            until if first => Next::Waiting { until: until.min(leaving.until) },
            until if until < leaving.until => Next::Waiting { until },
            _ => Next::Nowhere,
        };
    }

    fn open_next(&mut self, now: Duration, out: &mut Vec<Action>) {
        let others = self.others();
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.left.is_empty() {
            leaving.left = others;
        }
        match leaving.left.pop_front() {
            Some(server) => self.ask_next(now, server, out),
            None => leaving.next = Next::Nowhere,
        }
    }

    fn ask_next(&mut self, now: Duration, server: Server, out: &mut Vec<Action>) {
        // What the attempt before promised to have, nobody asks for any more.
        if let Some(leaving) = &mut self.leaving {
            leaving.next = Next::Nowhere;
        }
        let (attempt, hello) = self.attempt_at(now, server.clone());
        if let Some(leaving) = &mut self.leaving {
            leaving.next = Next::Opening(attempt);
            out.push(Action::ConnectNext { server, hello });
        }
    }

    fn others(&self) -> VecDeque<Server> {
        let mut others = self.known();
        others.retain(|server| *server != self.home);
        others
    }
}
