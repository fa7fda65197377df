//! What the server says: translated to the consumer's offsets, checked, and given on once.

use std::time::Duration;

use starling_protocol::native::{Final, ServerMessage, TimedWord};
use starling_protocol::{CutCause, Epoch, Segment, SourceOffset};

use super::{Action, Entropy, Event, Machine, Opened, Phase};
use crate::error::SessionError;

impl Machine {
    pub(super) fn message(
        &mut self,
        now: Duration,
        message: ServerMessage,
        entropy: Entropy,
        out: &mut Vec<Action>,
    ) {
        self.heard(now);
        let live = matches!(self.phase, Phase::Live { .. });
        match message {
            ServerMessage::Error(body) if self.phase != Phase::Idle => {
                self.refused(now, Box::new(body), entropy, out);
            }
            ServerMessage::Ready { session, epoch, token, model, have_until, durable, .. }
                if matches!(self.phase, Phase::Opening { .. }) =>
            {
                let opened = Opened { session, model, durable };
                self.ready(now, epoch, token, have_until, opened, out);
            }
            ServerMessage::Ack { until } if live => self.ack(until, out),
            ServerMessage::Partial { segment, from, until, text } if live => {
                let segment = Segment(self.base_segment + segment.0);
                if segment.0 == self.next_segment {
                    out.push(Action::Deliver(Event::Partial {
                        segment,
                        from: from.plus(self.base_frame),
                        until: until.plus(self.base_frame),
                        text,
                    }));
                }
            }
            ServerMessage::Final(last) if live => self.final_came(last, out),
            ServerMessage::Warning { code, message } if live => {
                out.push(Action::Deliver(Event::Warning { code, message }));
            }
            ServerMessage::Done { segments, frames } if live => self.done(segments, frames, out),
            ServerMessage::GoAway { .. } => self.go_away(now, entropy, out),
            // Of an earlier connection, or newer than this client.
            _ => {}
        }
    }

    fn ready(
        &mut self,
        now: Duration,
        epoch: Epoch,
        token: String,
        have_until: SourceOffset,
        opened: Opened,
        out: &mut Vec<Action>,
    ) {
        if Some(opened.session) != self.hello.session {
            let message = format!("ready is for session {}, which was not asked for", opened.session);
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        if epoch < self.epoch {
            let message = format!("ready has epoch {epoch}, after {} was asked for", self.epoch);
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        let have = self.base_frame + have_until.0;
        if have > self.written {
            let message = format!("the server has audio until {have}, of {} sent", self.written);
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        if have < self.start {
            let error = SessionError::AudioLost { from: SourceOffset(have), to: SourceOffset(self.start) };
            self.fail(error, out);
            return;
        }
        self.epoch = epoch;
        self.token = Some(token);
        self.phase = Phase::Live { since: now, heard: now, pinged: false };
        self.sent = have;
        self.acked = have;
        // Requests before this place were received with the audio that follows them. One at this very place may or may
        // not have been; asked twice, it costs an empty final, not asked again it would go unanswered.
        self.marks_sent = self.marks.iter().take_while(|&&mark| mark < have).count();
        self.end_sent = false;
        self.confirmed = 0;
        if !self.opened {
            self.opened = true;
            out.push(Action::Opened(opened));
        }
        if let Some(lost_at) = self.lost_at.take() {
            out.push(Action::Deliver(Event::Reconnected {
                gap: now.saturating_sub(lost_at),
                restarted: std::mem::take(&mut self.restarted),
            }));
        }
    }

    fn ack(&mut self, until: SourceOffset, out: &mut Vec<Action>) {
        let until = self.base_frame + until.0;
        if until > self.sent {
            let message = format!("audio until {until} is acknowledged, of {} sent", self.sent);
            self.fail(SessionError::Protocol(message), out);
            return;
        }
        self.acked = self.acked.max(until);
        self.healthy();
    }

    fn final_came(&mut self, mut last: Final, out: &mut Vec<Action>) {
        last.segment = Segment(self.base_segment + last.segment.0);
        last.from = last.from.plus(self.base_frame);
        last.to = last.to.plus(self.base_frame);
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
        self.start = self.start.max(self.final_to);
        self.restarts = 0;
        self.answer_marks(last.cause);
        self.healthy();
        out.push(Action::Deliver(Event::Final(last)));
    }

    /// Forgets the requests that this final answers. Each gets a final that says so, which may end a little before the
    /// place where it was asked for: a resampler has not heard the last frames out. No final passes a request over.
    fn answer_marks(&mut self, cause: CutCause) {
        let passed = self.marks.iter().take_while(|&&mark| mark < self.final_to).count();
        let answered = passed.max(usize::from(cause == CutCause::Finalize)).min(self.marks_sent);
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
        let segments = self.base_segment + segments;
        let frames = self.base_frame + frames.0;
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
