//! The decoder's side: attempts, credit, replay, cuts, and segments that kill what decodes them.

use starling_protocol::{Attempt, CutCause, DecodeOffset, Segment};

use super::machine::{Cut, SessionConfig, SessionMachine, Suspicion};
use super::messages::{FailReason, LeaseKind, LossCause, Outcome, SessionAction};
use super::stream::{CutFit, Stream};
use crate::Timestamp;
use crate::journal::Control;
use crate::sabotage::{Bug, is};

/// Failures of one segment after which it is given up. One may be chance and two bad luck; a third replay would cost the
/// caller more seconds than the segment is worth.
const GIVE_UP_AFTER: u8 = 3;

/// A replay shows partials again when it is this close to live: older ones would only flicker past.
const CAUGHT_UP_WITHIN_MS: u64 = 1_000;

/// A client with so much audio waiting sends faster than speech: a file, not a voice.
const FAR_AHEAD_MS: u64 = 10_000;

/// The session's decoder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Decoder {
    /// None is needed.
    Closed,
    /// One was asked for.
    Requested { kind: LeaseKind },
    /// One is at work.
    Leased(Stream),
}

impl SessionMachine {
    /// How far the present decoder has come; as far as is committed while there is none.
    #[must_use]
    pub const fn decoded_until(&self) -> DecodeOffset {
        match &self.decoder {
            Decoder::Leased(stream) => stream.decoded,
            Decoder::Closed | Decoder::Requested { .. } => self.journal.committed(),
        }
    }

    pub(super) fn request_decoder(&mut self, out: &mut Vec<SessionAction>) {
        let kind = if self.suspicion.quarantine { LeaseKind::Quarantine } else { LeaseKind::Shared };
        self.attempt = self.next_attempt();
        self.decoder = Decoder::Requested { kind };
        out.push(SessionAction::RequestLease { attempt: self.attempt, kind });
    }

    pub(super) fn close_decoder(&mut self, out: &mut Vec<SessionAction>) {
        if !matches!(self.decoder, Decoder::Closed) {
            self.decoder = Decoder::Closed;
            out.push(SessionAction::ReleaseLease { attempt: self.attempt });
        }
    }

    /// Goes on with another decoder: the standby if there is one, else one that is asked for.
    pub(super) fn replace_decoder(&mut self, out: &mut Vec<SessionAction>) {
        self.close_decoder(out);
        if !self.promote_standby(out) {
            // What waits for a second decoder must not be in the way of what waits for the first.
            self.drop_standby(out);
            self.request_decoder(out);
        }
    }

    pub(super) fn granted(&mut self, attempt: Attempt, out: &mut Vec<SessionAction>) {
        let kind = match self.decoder {
            Decoder::Requested { kind } if attempt == self.attempt => kind,
            _ => return self.standby_granted(attempt, out),
        };
        let from = self.journal.committed();
        // Nothing to catch up with at the first open, whatever has come in while the client waited for a slot.
        let catching_up = attempt > Attempt(1);
        let window = if kind == LeaseKind::Quarantine { 1 } else { self.config.window };
        let mut stream = Stream::new(kind, from, window);
        stream.catching_up = catching_up;
        stream.goal = self.reached;
        stream.leave_at_cut = kind == LeaseKind::Quarantine;
        self.decoder = Decoder::Leased(stream);
        let SessionConfig { partial_interval_ms, decoded_interval_ms, .. } = self.config;
        let (partial_interval_ms, decoded_interval_ms) =
            if catching_up { (0, 0) } else { (partial_interval_ms, decoded_interval_ms) };
        let segment = self.open_segment();
        out.push(SessionAction::OpenStream {
            attempt,
            segment,
            from,
            window,
            partial_interval_ms,
            decoded_interval_ms,
        });
        self.note_caught_up(out);
    }

    fn stream_of(&mut self, attempt: Attempt) -> Option<&mut Stream> {
        match &mut self.decoder {
            Decoder::Leased(stream) if attempt == self.attempt || is(Bug::AttemptNotFenced) => Some(stream),
            _ => self.standby.at_work().filter(|(standby, _)| *standby == attempt).map(|(_, stream)| stream),
        }
    }

    /// Feeds what credit and audio allow.
    pub(super) fn pump(&mut self, out: &mut Vec<SessionAction>) {
        // A client that does not read its finals stops its own decoding, and with it, in time, its own sending.
        if self.unconfirmed() >= self.config.unconfirmed_max {
            return;
        }
        let step = self.config.rates.step();
        if let Decoder::Leased(stream) = &mut self.decoder {
            stream.pump(self.attempt, &self.journal, step, out);
        }
        if let Some((attempt, stream)) = self.standby.at_work() {
            stream.pump(attempt, &self.journal, step, out);
        }
    }

    pub(super) fn decoded(&mut self, attempt: Attempt, until: DecodeOffset, out: &mut Vec<SessionAction>) {
        let known = self.stream_of(attempt).is_some_and(|stream| stream.note_decoded(until));
        // A standby's progress is nothing that anybody hears of.
        if !known || attempt != self.attempt {
            return;
        }
        self.reached = self.reached.max(until);
        self.note_caught_up(out);
        let recovering = matches!(&self.decoder, Decoder::Leased(stream) if stream.catching_up);
        let until = self.config.rates.to_source(until, self.journal.received());
        out.push(SessionAction::ReportProgress { until, recovering });
        if is(Bug::TrimTooEarly) {
            out.push(SessionAction::TrimSource { until });
        }
    }

    pub(super) fn partial(
        &self,
        attempt: Attempt,
        segment: Segment,
        until: DecodeOffset,
        out: &mut Vec<SessionAction>,
    ) {
        let Decoder::Leased(stream) = &self.decoder else {
            return;
        };
        if attempt != self.attempt || segment != self.open_segment() || stream.catching_up {
            return;
        }
        // A text of what was never fed can't be.
        if until > stream.fed || until < self.journal.committed() {
            return;
        }
        let until = self.config.rates.to_source(until, self.journal.received());
        out.push(SessionAction::ShowPartial { segment, from: self.ledger.end(), until });
    }

    pub(super) fn cut(&mut self, now: Timestamp, attempt: Attempt, cut: Cut, out: &mut Vec<SessionAction>) {
        let (open, committed, entry) = (self.ledger.next(), self.journal.committed(), self.journal.entry(0));
        let first = attempt == self.attempt || is(Bug::AttemptNotFenced);
        let Some(stream) = self.stream_of(attempt) else { return };
        match stream.note_cut(cut, open, committed, entry) {
            CutFit::Next => self.cut_open_segment(now, first, cut, out),
            CutFit::Echo if first => self.note_caught_up(out),
            CutFit::Echo => {}
            CutFit::Impossible if first => self.lost(now, attempt, LossCause::Protocol, out),
            CutFit::Differs | CutFit::Impossible => {
                out.push(SessionAction::TellDifference { attempt, segment: cut.segment });
                self.lost(now, attempt, LossCause::Protocol, out);
            }
        }
    }

    /// Commits what the first decoder made of the open segment, or the standby when it came first.
    fn cut_open_segment(&mut self, now: Timestamp, by_first: bool, cut: Cut, out: &mut Vec<SessionAction>) {
        // The end makes a final of what came after the last cut, and none of nothing.
        let answered = if cut.cause == CutCause::End && cut.to == cut.from {
            self.journal.commit(cut.to, cut.cause)
        } else {
            self.commit(now, cut, out)
        };
        if cut.cause == CutCause::End {
            return self.finish(now, out);
        }
        let note = |stream: &mut Stream, made_it: bool| {
            if made_it && answered {
                stream.forget_entry();
            }
            made_it || stream.follow(cut, answered)
        };
        let standby_stays = self.standby.at_work().is_none_or(|(_, stream)| note(stream, !by_first));
        let stays = match &mut self.decoder {
            Decoder::Leased(stream) => note(stream, by_first) && !stream.leave_at_cut,
            _ => true,
        };
        if !standby_stays {
            // Another begins level with the first.
            self.drop_standby(out);
        }
        if stays {
            self.note_caught_up(out);
        } else {
            self.replace_decoder(out);
        }
    }

    /// Returns whether the final answers the journal's first entry.
    fn commit(&mut self, now: Timestamp, cut: Cut, out: &mut Vec<SessionAction>) -> bool {
        let from = self.ledger.end();
        // At the end of the audio the last final reaches the client's last frame, whatever the filter's width.
        let to = if cut.cause == CutCause::End {
            self.journal.received()
        } else {
            self.config.rates.to_source(cut.to, self.journal.received())
        };
        let recorded = self.ledger.record(cut.segment, from, to);
        debug_assert_eq!(recorded, Ok(()), "a final that does not fit");
        let answered = self.journal.commit(cut.to, cut.cause);
        self.suspicion = Suspicion::default();
        self.standby.admit();
        out.push(SessionAction::Commit {
            segment: cut.segment,
            decode_from: cut.from,
            decode_to: cut.to,
            from,
            to,
            cause: cut.cause,
            answered,
        });
        out.push(SessionAction::TrimSource { until: self.journal.needed_from() });
        self.note_clogged(now);
        answered
    }

    pub(super) fn retire(&mut self, attempt: Attempt, out: &mut Vec<SessionAction>) {
        match &mut self.decoder {
            Decoder::Leased(stream) if attempt == self.attempt => stream.leave_at_cut = true,
            // Nobody hears it go.
            _ if self.standby.is(attempt) => self.drop_standby(out),
            _ => {}
        }
    }

    pub(super) fn lost(
        &mut self,
        now: Timestamp,
        attempt: Attempt,
        cause: LossCause,
        out: &mut Vec<SessionAction>,
    ) {
        if self.standby.is(attempt) {
            return self.standby_lost(cause, out);
        }
        if attempt != self.attempt || matches!(self.decoder, Decoder::Closed) {
            return;
        }
        let (alone, fed) = match &self.decoder {
            Decoder::Leased(stream) => (stream.kind == LeaseKind::Quarantine, stream.fed),
            _ => (false, self.journal.committed()),
        };
        out.push(SessionAction::ReleaseLease { attempt });
        self.decoder = Decoder::Closed;
        match cause {
            LossCause::Crashed { suspect: true } => {
                self.suspicion.quarantine = true;
                self.suspicion.failures += u8::from(alone);
            }
            // Step by step, so that what is given up in the end is the step that fails and no more.
            LossCause::EngineFailed => {
                self.suspicion = Suspicion { quarantine: true, failures: self.suspicion.failures + 1 }
            }
            // It may be the host's fault; alone, it can at least hurt nobody else. It is never given up for that.
            LossCause::Stuck { suspect: true } => self.suspicion.quarantine = true,
            LossCause::Crashed { suspect: false }
            | LossCause::Stuck { suspect: false }
            | LossCause::Killed
            | LossCause::Silent
            | LossCause::Protocol
            | LossCause::NodeLost => {}
        }
        if self.suspicion.quarantine {
            // It has heard what may have killed the first.
            self.drop_standby(out);
        }
        if self.suspicion.failures >= GIVE_UP_AFTER {
            self.give_up(now, fed, out);
        }
        if !self.over && self.finished_since.is_none() {
            self.replace_decoder(out);
        }
    }

    /// A recognizer can't be had. Before any audio was decoded that is the options' fault; later it is the engine's.
    pub(super) fn refused(&mut self, now: Timestamp, attempt: Attempt, out: &mut Vec<SessionAction>) {
        if self.standby.is(attempt) {
            return self.standby_lost(LossCause::EngineFailed, out);
        }
        if attempt != self.attempt || matches!(self.decoder, Decoder::Closed) {
            return;
        }
        if self.reached == DecodeOffset(0) {
            self.end(Outcome::Failed(FailReason::OptionsRefused), out);
        } else {
            self.lost(now, attempt, LossCause::EngineFailed, out);
        }
    }

    /// Commits the open segment as an error up to the end of the step that died last, so that the session can go on.
    fn give_up(&mut self, now: Timestamp, fed: DecodeOffset, out: &mut Vec<SessionAction>) {
        let from = self.journal.committed();
        let step_after = from.plus(self.config.rates.step()).min(self.journal.decodable());
        let reached = if fed > from { fed } else { step_after };
        let entry = self.journal.entry(0);
        // An entry is never passed over: the error ends at it instead.
        let to = entry.map_or(reached, |entry| entry.at.min(reached));
        match entry {
            _ if to > from => {}
            Some(entry) if entry.control == Control::Finalize => {}
            Some(_) => {
                // The end, with nothing left before it: there is nothing to be said.
                self.journal.commit(from, CutCause::End);
                self.finish(now, out);
                return;
            }
            None => {
                // Nothing was fed and nothing could be skipped: it is not the audio that kills.
                self.end(Outcome::Failed(FailReason::DecodersFail), out);
                return;
            }
        }
        self.commit(now, Cut { segment: self.ledger.next(), from, to, cause: CutCause::GivenUp }, out);
    }

    pub(super) fn finish(&mut self, now: Timestamp, out: &mut Vec<SessionAction>) {
        self.close_decoder(out);
        self.drop_standby(out);
        self.finished_since = Some(now);
        self.announce(out);
        self.end_if_all_is_read(out);
    }

    pub(super) fn note_caught_up(&mut self, out: &mut Vec<SessionAction>) {
        let Decoder::Leased(stream) = &mut self.decoder else {
            return;
        };
        let behind = self.journal.decodable().since(stream.decoded);
        let close = behind <= self.config.rates.decode_ms(CAUGHT_UP_WITHIN_MS);
        // A client faster than speech is never close; there, catching up is to be back where the lost decoder was.
        let ahead = behind > self.config.rates.decode_ms(FAR_AHEAD_MS);
        let regained = ahead && stream.goal > stream.from && stream.decoded >= stream.goal;
        if !stream.catching_up || !(close || regained) {
            return;
        }
        stream.catching_up = false;
        let attempt = self.attempt;
        out.push(SessionAction::CaughtUp { attempt, replayed: stream.decoded.since(stream.from) });
        let SessionConfig { partial_interval_ms, decoded_interval_ms, .. } = self.config;
        if partial_interval_ms > 0 || decoded_interval_ms > 0 {
            out.push(SessionAction::SetIntervals {
                attempt,
                partial_ms: partial_interval_ms,
                decoded_ms: decoded_interval_ms,
            });
        }
    }
}
