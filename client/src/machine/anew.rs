//! The end of a server's session: begun anew when every server has lost it, finished when all is said.

use std::time::Duration;

use starling_protocol::native::ErrorBody;
use starling_protocol::{Epoch, Segment, SourceOffset};

use super::servers::{Round, Server};
use super::{Action, Entropy, Event, Machine, Phase};
use crate::error::SessionError;

/// New server sessions that may be begun without one final between them: a server that loses the same audio this often
/// loses it for a reason.
const MAX_RESTARTS: u32 = 3;

/// Rounds in which a server that could not be asked may still have the audio that is otherwise lost: a connection that
/// flaps or a node that is being started is back within them.
const ROUNDS_BEFORE_A_GAP: u32 = 3;

impl Machine {
    /// After a round: what the servers said, if none of them goes on with the session.
    pub(super) fn lost_everywhere(&self) -> Option<Box<ErrorBody>> {
        let leaves_a_gap = self.start > self.final_to;
        let patient = leaves_a_gap && self.round.unsure && self.rounds < ROUNDS_BEFORE_A_GAP;
        self.round.unknown.clone().filter(|_| !patient)
    }

    /// Begins a new server session with the audio after the last final, or with what there is of it.
    pub(super) fn begin_anew(
        &mut self,
        now: Duration,
        body: Box<ErrorBody>,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        if self.is_complete() {
            // The server had said everything and forgot; only its `done` was lost.
            self.finish(out);
            return;
        }
        if self.restarts >= MAX_RESTARTS {
            self.fail(SessionError::Ended(body), out);
            return;
        }
        if self.start > self.final_to {
            let (from, to) = (SourceOffset(self.final_to), SourceOffset(self.start));
            out.push(Action::Deliver(Event::Gap { from, to }));
            self.final_to = self.start;
            self.marks.retain(|&mark| mark >= to.0);
            if self.is_complete() {
                self.finish(out);
                return;
            }
        }
        self.restarts += 1;
        self.restarted = true;
        self.hello.session = Some(entropy.session);
        self.token = None;
        self.suggested.clear();
        self.epoch = Epoch(0);
        self.start = self.final_to;
        self.base_frame = self.final_to;
        self.base_segment = self.next_segment;
        self.acked = self.final_to;
        self.marks_sent = 0;
        let there = self.round.there;
        self.home = Server::Configured(there.unwrap_or(self.rotation));
        self.home_stops = false;
        self.round = Round::of(self.known());
        if there.is_some() {
            self.connect(now, out);
        } else {
            out.push(Action::Disconnect);
            self.wait(now, self.settings.backoff(self.attempts, entropy));
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Action>) {
        // Whatever the consumer has yet to take lies on this side now.
        match self.next_segment.checked_sub(self.base_segment + 1) {
            Some(last) if self.is_live() => out.push(Action::Farewell(Segment(last))),
            _ => out.push(Action::Disconnect),
        }
        self.phase = Phase::Idle;
        self.leaving = None;
        out.push(Action::Deliver(Event::Done {
            segments: self.next_segment,
            frames: SourceOffset(self.final_to),
        }));
    }

    fn is_complete(&self) -> bool {
        self.ended && self.marks.is_empty() && self.final_to == self.written
    }
}
