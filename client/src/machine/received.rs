//! What the server says: translated to the consumer's offsets, checked, and given on once.

use std::time::Duration;

use starling_protocol::native::{ErrorBody, ErrorCode, Final, ServerMessage, TimedWord};
use starling_protocol::{CutCause, Epoch, Segment, SessionId, SourceOffset};

use super::servers::{Round, Server};
use super::{Action, Attempt, Entropy, Event, Machine, Opened, Phase};
use crate::error::SessionError;

/// How long before a request its answer may end: a resampler has not heard the last frames out, a few milliseconds.
const UNHEARD_MS: u64 = 10;

/// What matters of a `ready`, in the server's terms.
pub(super) struct Ready {
    pub(super) session: SessionId,
    pub(super) epoch: Epoch,
    pub(super) token: String,
    pub(super) model: String,
    pub(super) have_until: SourceOffset,
    pub(super) durable: bool,
}

impl Machine {
    /// The server said this on the present connection.
    pub(super) fn message(
        &mut self,
        now: Duration,
        message: ServerMessage,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        self.heard(now);
        let live = self.is_live();
        match message {
            ServerMessage::Error(body) if live || matches!(self.phase, Phase::Opening { .. }) => {
                self.refused(now, Box::new(body), entropy, out);
            }
            ServerMessage::Ready { session, epoch, token, model, have_until, durable, .. } => {
                self.answered(now, Ready { session, epoch, token, model, have_until, durable }, entropy, out);
            }
            ServerMessage::View { token, durable, resume_at, .. } if live => {
                self.token = Some(token);
                self.suggest(&resume_at, out);
                self.look_again(now, entropy);
                self.note_durable(durable, out);
            }
            ServerMessage::Ack { until } if live => self.ack(until, out),
            ServerMessage::Partial { segment, from, until, text } if live => {
                let segment = Segment(self.base_segment.saturating_add(segment.0));
                if segment.0 == self.next_segment {
                    out.push(Action::Deliver(Event::Partial {
                        segment,
                        from: self.ours(from),
                        until: self.ours(until),
                        text,
                    }));
                }
            }
            ServerMessage::Final(last) if live => self.final_came(last, out),
            ServerMessage::Warning { code, message } if live => {
                out.push(Action::Deliver(Event::Warning { code, message }));
            }
            ServerMessage::Done { segments, frames } if live => self.done(segments, frames, out),
            ServerMessage::GoAway { deadline_ms } if live => {
                self.go_away(now, Duration::from_millis(deadline_ms), entropy);
            }
            // Of an earlier connection, or newer than this client.
            _ => {}
        }
    }

    /// The attempt at the present connection got its `ready`.
    fn answered(&mut self, now: Duration, ready: Ready, entropy: Entropy, out: &mut Vec<Action>) {
        let Phase::Opening { attempt, planned } = &self.phase else {
            return;
        };
        let (attempt, planned) = (attempt.clone(), *planned);
        if let Err(error) = self.check_ready(&ready) {
            self.fail(error, out);
            return;
        }
        if self.overtaken(&attempt, &ready) {
            self.ask(now, attempt.server, planned, out);
            return;
        }
        if self.lacks_audio_for(&ready) {
            // It should have refused; what it needs is gone all the same.
            let message = format!("the server has audio until {} only", ready.have_until);
            let body = ErrorBody::new(ErrorCode::Gap, message);
            self.unknown(now, Box::new(body), entropy, out);
            return;
        }
        if planned {
            self.lost_at = None;
        }
        self.ready(now, attempt, ready, out);
    }

    pub(super) fn check_ready(&self, ready: &Ready) -> Result<(), SessionError> {
        let message = if Some(ready.session) != self.hello.session {
            format!("ready is for session {}, which was not asked for", ready.session)
        } else if ready.epoch < self.epoch {
            format!("ready has epoch {}, after {} was asked for", ready.epoch, self.epoch)
        } else if ready.have_until.0 > self.written - self.base_frame {
            let written = self.written - self.base_frame;
            format!("the server has audio until {}, of {written} sent", ready.have_until)
        } else {
            return Ok(());
        };
        Err(SessionError::Protocol(message))
    }

    pub(super) fn lacks_audio_for(&self, ready: &Ready) -> bool {
        self.base_frame + ready.have_until.0 < self.start
    }

    /// Whether finals came since the attempt's `hello` was written, on the connection before. The server does not know of
    /// them and could commit others in their place: it is told in another `hello`.
    pub(super) fn overtaken(&mut self, attempt: &Attempt, ready: &Ready) -> bool {
        let overtaken = attempt.told != self.next_segment;
        if overtaken {
            self.epoch = ready.epoch;
            self.token = Some(ready.token.clone());
        }
        overtaken
    }

    /// A connection is live from now on.
    pub(super) fn ready(&mut self, now: Duration, attempt: Attempt, ready: Ready, out: &mut Vec<Action>) {
        let have = self.base_frame + ready.have_until.0;
        self.phase = Phase::Live { since: now, heard: now, pinged: false };
        self.leaving = None;
        if let Server::Configured(index) = attempt.server {
            self.rotation = index;
        }
        self.home = attempt.server;
        self.home_stops = false;
        self.round = Round::default();
        self.epoch = ready.epoch;
        self.live_epoch = ready.epoch;
        self.token = Some(ready.token);
        self.sent = have;
        // An earlier server's word for what this one does not have is worth nothing any more.
        self.acked = self.acked.min(have);
        // Requests before this place were received with the audio that follows them. One at this very place may or may
        // not have been; asked twice, it costs an empty final, not asked again it would go unanswered.
        self.marks_sent = self.marks.iter().take_while(|&&mark| mark < have).count();
        self.end_sent = false;
        self.confirmed = 0;
        if self.opened {
            self.note_durable(ready.durable, out);
        } else {
            self.opened = true;
            self.durable = ready.durable;
            let Ready { session, model, durable, .. } = ready;
            out.push(Action::Opened(Opened { session, model, durable }));
        }
        if let Some(lost_at) = self.lost_at.take() {
            out.push(Action::Deliver(Event::Reconnected {
                gap: now.saturating_sub(lost_at),
                restarted: std::mem::take(&mut self.restarted),
            }));
        }
        self.trim();
    }

    fn note_durable(&mut self, durable: bool, out: &mut Vec<Action>) {
        if durable != self.durable {
            self.durable = durable;
            out.push(Action::Deliver(Event::Durable(durable)));
        }
    }

    /// A server's offset in the consumer's terms.
    fn ours(&self, offset: SourceOffset) -> SourceOffset {
        SourceOffset(offset.0.saturating_add(self.base_frame))
    }

    fn ack(&mut self, until: SourceOffset, out: &mut Vec<Action>) {
        let until = self.ours(until).0;
        if until > self.sent {
            let message = format!("audio until {until} is acknowledged, of {} sent", self.sent);
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        self.acked = self.acked.max(until);
        self.healthy();
    }

    fn final_came(&mut self, mut last: Final, out: &mut Vec<Action>) {
        last.segment = Segment(self.base_segment.saturating_add(last.segment.0));
        last.from = self.ours(last.from);
        last.to = self.ours(last.to);
        if last.segment.0 < self.next_segment {
            return;
        }
        if last.segment.0 > self.next_segment || last.from.0 != self.final_to {
            let error = SessionError::Hole {
                expected: Segment(self.next_segment),
                expected_from: SourceOffset(self.final_to),
                got: last.segment,
                got_from: last.from,
            };
            self.fail(error, out);
            return;
        }
        if last.to < last.from || last.to.0 > self.sent {
            let message = format!(
                "segment {} ends at frame {}; it must end from {} to {}",
                last.segment, last.to, last.from, self.sent
            );
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        if self.base_frame > 0 {
            self.shift_times(&mut last);
        }
        self.next_segment += 1;
        self.final_to = last.to.0;
        self.acked = self.acked.max(self.final_to);
        self.trim();
        self.restarts = 0;
        self.answer_marks(last.cause);
        self.healthy();
        out.push(Action::Deliver(Event::Final(last)));
    }

    /// Forgets the requests that this final answers. No final passes a request over. One whose cause is a request may end a
    /// little before the place where it was made; ending farther before, it answers one that was forgotten long ago: the
    /// request was made twice, or the server is an older copy that does not know of the answer.
    fn answer_marks(&mut self, cause: CutCause) {
        let unheard = u64::from(self.hello.format.sample_rate) * UNHEARD_MS / 1_000;
        let reaches = |mark: &u64| *mark <= self.final_to.saturating_add(unheard);
        let asked = cause == CutCause::Finalize && self.marks.front().is_some_and(reaches);
        let passed = self.marks.iter().take_while(|&&mark| mark < self.final_to).count();
        let answered = passed.max(usize::from(asked)).min(self.marks_sent);
        self.marks.drain(..answered);
        self.marks_sent -= answered;
    }

    fn shift_times(&self, last: &mut Final) {
        let seconds = self.base_frame as f64 / f64::from(self.hello.format.sample_rate);
        last.start += seconds;
        last.end += seconds;
        let shift = |words: &mut [TimedWord]| {
            for word in words {
                word.start += seconds;
                word.end += seconds;
            }
        };
        shift(&mut last.words);
        for alternative in &mut last.alternatives {
            shift(&mut alternative.words);
        }
    }

    fn done(&mut self, segments: u64, frames: SourceOffset, out: &mut Vec<Action>) {
        let segments = self.base_segment.saturating_add(segments);
        let frames = self.ours(frames).0;
        if segments != self.next_segment || frames != self.written || !self.ended {
            let message = format!(
                "done after {segments} segments and {frames} frames; {} segments had come and {} frames were written",
                self.next_segment, self.written
            );
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        self.finish(out);
    }
}
