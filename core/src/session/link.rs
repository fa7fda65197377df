//! The client's side: connections, input, confirmations.

use starling_protocol::{Epoch, Segment, SourceOffset};

use super::machine::SessionMachine;
use super::messages::{AttachRefusal, Outcome, SessionAction};
use crate::Timestamp;
use crate::journal::Control;
use crate::sabotage::{Bug, is};

/// Who speaks for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Link {
    /// A connection does.
    Attached { epoch: Epoch },
    /// Nobody does.
    Detached { since: Timestamp, last_epoch: Epoch },
}

impl SessionMachine {
    pub(super) fn attach(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        last_final: Option<Segment>,
        have_from: SourceOffset,
        out: &mut Vec<SessionAction>,
    ) {
        let has_through = last_final.map_or(Segment(0), Segment::next);
        let refusal = if epoch <= self.last_epoch() {
            Some(AttachRefusal::Superseded)
        } else if have_from > self.journal.received() {
            Some(AttachRefusal::Gap)
        } else if has_through > self.open_segment() {
            Some(AttachRefusal::UnknownFinal)
        } else {
            None
        };
        if let Some(reason) = refusal {
            out.push(SessionAction::RefuseAttach { epoch, reason });
            return;
        }
        if let Link::Attached { epoch } = self.link {
            out.push(SessionAction::Fence { epoch });
        }
        self.link = Link::Attached { epoch };
        self.last_input = now;
        if let Some(segment) = last_final {
            self.note_confirmed(segment, out);
        }
        self.note_clogged(now);
        out.push(SessionAction::Welcome {
            epoch,
            have_until: self.journal.received(),
            resend_from: if is(Bug::UnreadFinalsForgotten) {
                self.open_segment()
            } else {
                has_through.max(self.confirmed)
            },
            finished: self.finished_since.is_some(),
        });
        if self.finished_since.is_some() {
            self.finished_since = Some(now);
            self.announce(out);
            self.end_if_all_is_read(out);
        }
    }

    pub(super) fn detach(&mut self, now: Timestamp, epoch: Epoch, out: &mut Vec<SessionAction>) {
        if self.attached() != Some(epoch) {
            return;
        }
        self.link = Link::Detached { since: now, last_epoch: epoch };
        // A client that read nothing is no slow reader while it is away; the linger bounds it.
        self.clogged_since = None;
        if self.config.linger.is_zero() {
            let outcome = if self.finished_since.is_some() { Outcome::Done } else { Outcome::Abandoned };
            self.end(outcome, out);
        }
    }

    pub(super) fn audio_received(&mut self, now: Timestamp, frames: u64, out: &mut Vec<SessionAction>) {
        self.last_input = now;
        if self.journal.append_audio(frames) && frames > 0 {
            out.push(SessionAction::Ack { until: self.journal.received() });
        }
    }

    pub(super) fn control(&mut self, now: Timestamp, control: Control, out: &mut Vec<SessionAction>) {
        self.last_input = now;
        if let Some(entry) = self.journal.append(control) {
            out.push(SessionAction::Entered { entry, until: self.journal.received() });
        }
    }

    pub(super) fn confirm(&mut self, now: Timestamp, segment: Segment, out: &mut Vec<SessionAction>) {
        self.last_input = now;
        self.note_confirmed(segment, out);
        self.note_clogged(now);
        self.end_if_all_is_read(out);
    }

    fn note_confirmed(&mut self, segment: Segment, out: &mut Vec<SessionAction>) {
        if segment >= self.confirmed && segment < self.open_segment() {
            self.confirmed = segment.next();
            self.clogged_since = None;
            out.push(SessionAction::ForgetFinals { through: segment });
        }
    }

    /// Keeps the time since which the connected client has left too many finals unread.
    pub(super) fn note_clogged(&mut self, now: Timestamp) {
        let clogged = self.unconfirmed() >= self.config.unconfirmed_max && self.attached().is_some();
        self.clogged_since = clogged.then(|| self.clogged_since.unwrap_or(now));
    }

    /// A finished session whose finals are all confirmed has nothing left to wait for.
    pub(super) fn end_if_all_is_read(&mut self, out: &mut Vec<SessionAction>) {
        if self.finished_since.is_some() && self.unconfirmed() == 0 && self.attached().is_some() {
            self.end(Outcome::Done, out);
        }
    }

    pub(super) fn announce(&self, out: &mut Vec<SessionAction>) {
        out.push(SessionAction::AnnounceDone {
            segments: self.open_segment().0,
            frames: self.journal.received(),
        });
    }
}
