//! Carrying out what a session's machine asks for.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::pool::{Refusal, Refused};
use starling_core::replica::ReplicationEvent;
use starling_core::session::{AttachRefusal, FailReason, Outcome, SessionAction};
use starling_protocol::lease::ToHost;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{CutCause, DecodeOffset, Epoch, Segment, SourceOffset};
use tracing::{debug, error, info};

use super::actor::{SessionMessage, SessionState};
use super::api::{Ready, SessionEvent};
use super::finals::{Place, make_final};
use super::io::{Attachment, SessionInput, SessionOutput};
use super::outbox::Outbox;
use super::replication::{CommitFacts, KeptFinal};
use crate::observe::{Observation, SessionNews};
use crate::replica::KeeperMessage;
use crate::trace::{Cut, End};

impl SessionState {
    pub(super) fn perform(&mut self, myself: &ActorRef<SessionMessage>, actions: Vec<SessionAction>) {
        for action in actions {
            match action {
                SessionAction::RequestLease { attempt, kind } => {
                    self.find_decoder(myself, attempt, kind);
                }
                SessionAction::RequestStandby { attempt } => self.find_standby(myself, attempt),
                SessionAction::PromoteStandby { attempt } => self.promote_standby(attempt),
                SessionAction::TellDifference { attempt, segment } => self.tell_difference(attempt, segment),
                SessionAction::ReleaseLease { attempt } => self.release(myself, attempt),
                SessionAction::OpenStream {
                    attempt,
                    segment,
                    from,
                    window,
                    partial_interval_ms,
                    decoded_interval_ms,
                } => {
                    let intervals = (partial_interval_ms, decoded_interval_ms);
                    self.open_stream(attempt, segment, from, window, intervals);
                }
                SessionAction::Feed { attempt, from, to } => self.feed(attempt, from, to),
                SessionAction::Flush { attempt, at, cause } => {
                    self.tell_decoder(attempt, |lease| ToHost::Flush { lease, at, cause });
                }
                SessionAction::SetIntervals { attempt, partial_ms, decoded_ms } => {
                    self.tell_decoder(attempt, |lease| ToHost::Partials {
                        lease,
                        interval_ms: partial_ms,
                        decoded_interval_ms: decoded_ms,
                    });
                }
                SessionAction::TrimSource { until } => {
                    self.trim_to = self.trim_to.max(until);
                    self.let_go();
                }
                SessionAction::Welcome { epoch, have_until, resend_from, .. } => {
                    self.welcome(myself, epoch, have_until, resend_from);
                }
                SessionAction::RefuseAttach { reason, .. } => {
                    if let Some(reply) = self.attaching.take() {
                        let _ = reply.send(Err(attach_refusal(reason)));
                    }
                }
                SessionAction::Fence { .. } => {
                    let message = "another connection speaks for this session now";
                    self.finish(SessionEvent::Failed(ErrorBody::new(ErrorCode::Superseded, message)));
                }
                SessionAction::Ack { until } => {
                    self.replicate(myself, ReplicationEvent::AudioReceived { until });
                }
                SessionAction::Entered { entry, until } => {
                    let (at, kind) = (entry.at, entry.control.into());
                    self.replicate(myself, ReplicationEvent::Entered { at, kind, until });
                }
                SessionAction::ShowPartial { segment, from, until } => {
                    self.show_partial(segment, from, until);
                }
                SessionAction::Commit { segment, decode_from, decode_to, from, to, cause, answered } => {
                    let needed_from = self.machine.journal().needed_from();
                    let facts = CommitFacts { to: decode_to, answered, needed_from };
                    self.commit(Place { segment, decode_from, from, to, cause }, facts);
                    self.replicate(myself, ReplicationEvent::Committed { segment });
                    self.review_standby(myself);
                }
                SessionAction::ForgetFinals { through } => {
                    self.replicate(myself, ReplicationEvent::Confirmed { through });
                    self.let_go();
                }
                SessionAction::ReportProgress { until, recovering } => {
                    if let Some(outbox) = &self.outbox {
                        outbox.set_progress(SessionEvent::Progress { until, recovering });
                    }
                }
                SessionAction::CaughtUp { replayed, .. } => self.caught_up(replayed),
                SessionAction::AnnounceDone { segments, frames } => {
                    self.done = Some(SessionEvent::Done { segments, frames });
                    self.finish_when_told();
                }
                SessionAction::End(outcome) => self.end(myself, outcome),
            }
        }
    }

    fn welcome(
        &mut self,
        myself: &ActorRef<SessionMessage>,
        epoch: Epoch,
        have_until: SourceOffset,
        resend_from: Segment,
    ) {
        let Some(reply) = self.attaching.take() else { return };
        self.store.forget_odd_byte();
        let resumed = epoch > self.arguments.request.epoch;
        let outbox = Arc::new(Outbox::default());
        self.replicate(myself, ReplicationEvent::EpochRaised { epoch });
        self.outbox = Some(Arc::clone(&outbox));
        self.pushed = resend_from;
        self.push_finals();
        let (acked, _) = self.released();
        if acked > SourceOffset(0) {
            outbox.set_ack(acked);
        }
        let request = &self.arguments.request;
        if resumed {
            self.arguments.observer.observe(&Observation::SessionResumed { dialect: request.dialect });
        }
        self.trace(|trace, now| trace.attached(now, epoch, resumed));
        let request = &self.arguments.request;
        let ready = Ready {
            session: request.session,
            epoch,
            token: self.token(),
            sample_rate: self.arguments.request.sample_rate,
            model: self.arguments.model.to_string(),
            have_until,
            next_segment: resend_from,
            resumed,
            durable: self.is_durable(),
            linger: request.linger,
            warnings: self.arguments.warnings.clone(),
            log: self.log.clone(),
        };
        let input = SessionInput::new(myself.clone(), epoch, Arc::clone(&self.room), Arc::clone(&self.notes));
        self.welcome = Some((reply, Attachment { ready, input, output: SessionOutput::new(outbox) }));
        self.answer_welcome();
    }

    /// Tells a client that it is welcome, once there has been a decoder for it.
    pub(super) fn answer_welcome(&mut self) {
        if self.admitted
            && let Some((reply, attachment)) = self.welcome.take()
        {
            // A client that has gone meanwhile drops its attachment, and with it the connection.
            let _ = reply.send(Ok(attachment));
        }
    }

    pub(super) fn refuse(&mut self, myself: &ActorRef<SessionMessage>, refused: Refused) {
        let (code, message) = match refused.reason {
            Refusal::QueueFull => (ErrorCode::Busy, "no decoder is free and too many wait for one"),
            Refusal::WaitedTooLong => (ErrorCode::Busy, "no decoder came free in time"),
            Refusal::Draining => (ErrorCode::ShuttingDown, "this node is stopping"),
        };
        let mut body = ErrorBody::new(code, message);
        body.retry_after_ms = Some(refused.retry_after.as_millis() as u64);
        let dialect = self.arguments.request.dialect;
        self.arguments.observer.observe(&Observation::SessionRefused { dialect, reason: code });
        let error = if code == ErrorCode::Busy { "busy" } else { "shutting_down" };
        self.trace(|trace, now| trace.refused(now, error));
        if let Some((reply, _)) = self.welcome.take() {
            let _ = reply.send(Err(body));
        }
        self.outbox = None;
        myself.stop(None);
    }

    fn show_partial(&mut self, segment: Segment, from: SourceOffset, until: SourceOffset) {
        let Some(outbox) = &self.outbox else { return };
        let text = std::mem::take(&mut self.partial_text);
        if !self.times.first_partial && !text.is_empty() {
            self.times.first_partial = true;
            let now = self.arguments.clock.now();
            let after = self.times.first_audio.map_or(Duration::ZERO, |first| now.since(first));
            let (model, live) = (&*self.arguments.model, self.is_live());
            self.arguments.observer.observe(&Observation::FirstPartial { model, live, after });
        }
        outbox.set_partial(SessionEvent::Partial { segment, from, until, text });
    }

    fn commit(&mut self, place: Place, facts: CommitFacts) {
        // What follows is other audio: nobody has failed at it yet.
        self.placed.failed.clear();
        let heard = std::mem::take(&mut self.heard);
        let heard = if place.cause == CutCause::GivenUp { Default::default() } else { heard };
        let spoken_to = heard.words.last().map(|word| self.heard_at(place.decode_from, word.end));
        // In this order: what came before is forgotten.
        let since_speech = spoken_to.map(|to| self.age_of(to));
        let last = make_final(&self.arguments.config.rates, place, heard, self.arguments.options.words);
        let latency = self.age_of(place.to);
        self.trace_cut(&place, latency);
        let model = &*self.arguments.model;
        let (live, cause) = (self.is_live(), place.cause);
        let committed = Observation::FinalCommitted { model, live, cause, latency, since_speech };
        self.arguments.observer.observe(&committed);
        if place.cause == CutCause::GivenUp {
            self.arguments.observer.observe(&Observation::SegmentGivenUp { model });
        }
        let made = Some(self.arguments.clock.now());
        self.finals.push_back(KeptFinal { last, commit: Some(facts), made });
    }

    fn trace_cut(&mut self, place: &Place, latency: Duration) {
        let hz = self.arguments.config.rates.source_hz() as f64;
        let audio = Duration::from_secs_f64(place.to.0.saturating_sub(place.from.0) as f64 / hz);
        let (node, more) = (self.first_node(), self.machine.journal().received() > place.to);
        let Place { segment, cause, .. } = *place;
        self.trace(|trace, now| trace.cut(now, &Cut { segment, cause, audio, latency, more, node: &node }));
    }

    fn caught_up(&mut self, replayed: u64) {
        let audio = Duration::from_secs_f64(replayed as f64 / self.arguments.config.rates.decode_hz() as f64);
        self.trace(|trace, now| trace.caught_up(now, audio));
        let Some((lost, cause)) = self.times.lost.take() else { return };
        let took = self.arguments.clock.now().since(lost);
        let model = &*self.arguments.model;
        info!(?audio, ?took, "a replacement decoder has caught up");
        self.arguments.observer.observe(&Observation::Replayed { model, cause, audio, took });
        let decoder = self.first.place(&self.arguments.copies.own);
        self.tell_news(SessionNews::CaughtUp { decoder: decoder.as_ref(), audio, took });
    }

    pub(super) fn close_outbox(&mut self) {
        if let Some(outbox) = self.outbox.take() {
            outbox.close();
        }
    }

    pub(super) fn finish(&mut self, event: SessionEvent) {
        if let Some(outbox) = self.outbox.take() {
            outbox.finish(event);
        }
    }

    fn end(&mut self, myself: &ActorRef<SessionMessage>, outcome: Outcome) {
        self.note_words_lost(outcome);
        let label = match outcome {
            Outcome::Done => "done",
            Outcome::Failed(reason) => {
                let body = self.failure(reason);
                if let Some((reply, _)) = self.welcome.take() {
                    let _ = reply.send(Err(body.clone()));
                }
                self.finish(SessionEvent::Failed(body));
                match reason {
                    FailReason::SlowReader => "slow_reader",
                    FailReason::Idle => "idle_timeout",
                    FailReason::OptionsRefused => "options_refused",
                    FailReason::ShuttingDown => "shut_down",
                    FailReason::DecodersFail => "failed",
                }
            }
            Outcome::LingeredOut => "lingered_out",
            Outcome::Abandoned => "abandoned",
            Outcome::Superseded => {
                let message = "the session goes on at another node";
                self.finish(SessionEvent::Failed(ErrorBody::new(ErrorCode::Superseded, message)));
                "superseded"
            }
        };
        // Whoever goes on elsewhere needs the copies.
        let forget = !matches!(outcome, Outcome::Superseded | Outcome::Failed(FailReason::ShuttingDown));
        let elsewhere = !forget && (outcome == Outcome::Superseded || !self.keepers().is_empty());
        self.replicate(myself, ReplicationEvent::Ended { forget });
        let hz = self.arguments.config.rates.source_hz() as f64;
        let audio = Duration::from_secs_f64(self.machine.journal().received().0 as f64 / hz);
        debug!(outcome = label, ?audio, "session over");
        let error = if let Outcome::Failed(reason) = outcome { Some(fail_label(reason)) } else { None };
        let segments = self.machine.open_segment().0;
        let end = End { outcome: label, error, audio, segments, elsewhere };
        self.trace(|trace, now| trace.ended(now, &end));
        let linger = self.arguments.config.linger;
        if !elsewhere && !linger.is_zero() {
            let (session, epoch) = (self.arguments.request.session, self.machine.last_epoch());
            // A keeper that failed is gone, and what it knew with it.
            let _ = self.arguments.keeper.cast(KeeperMessage::Over(session, epoch, linger));
        }
        if self.admitted {
            let (dialect, model) = (self.arguments.request.dialect, &*self.arguments.model);
            let ended = Observation::SessionEnded { dialect, model, outcome: label };
            self.arguments.observer.observe(&ended);
            self.census.ended();
            self.tell_news(SessionNews::Over { outcome: label, report: &self.report() });
        }
        self.close_outbox();
        myself.stop(None);
    }

    /// Counts the words that the client may not have and can get from nobody.
    fn note_words_lost(&self, outcome: Outcome) {
        let told = match outcome {
            // The client wants no more, or the session goes on elsewhere.
            Outcome::Abandoned | Outcome::LingeredOut | Outcome::Superseded => return,
            Outcome::Failed(FailReason::ShuttingDown) if self.is_durable() => return,
            // Of a client that is away, it is not known which it was told of those that it did not confirm.
            Outcome::Failed(_) if self.outbox.is_none() => self.machine.confirmed(),
            Outcome::Done | Outcome::Failed(_) => self.pushed,
        };
        let untold = self.finals.iter().filter(|kept| kept.last.segment >= told);
        let words = untold.map(|kept| kept.last.text.split_whitespace().count()).sum();
        if words > 0 {
            let session = self.arguments.request.session;
            error!(%session, words, "a session ended with words that its client can get from nobody");
            self.arguments.observer.observe(&Observation::WordsLost { model: &self.arguments.model, words });
        }
    }

    /// Whether its audio comes as it is spoken.
    const fn is_live(&self) -> bool {
        !self.arguments.request.options.batch
    }

    /// Where in the source a sample of a segment was heard.
    fn heard_at(&self, segment: DecodeOffset, sample: u32) -> SourceOffset {
        let rates = &self.arguments.config.rates;
        SourceOffset((segment.0 + u64::from(sample)) * rates.source_hz() / rates.decode_hz())
    }

    fn failure(&mut self, reason: FailReason) -> ErrorBody {
        match reason {
            FailReason::SlowReader => {
                ErrorBody::new(ErrorCode::SlowReader, "finals were left unread and unconfirmed for too long")
            }
            FailReason::Idle => ErrorBody::new(ErrorCode::IdleTimeout, "nothing was sent for too long"),
            FailReason::OptionsRefused => {
                let message = self.refusal.take().unwrap_or_else(|| "the engine refused the options".into());
                ErrorBody::new(ErrorCode::BadRequest, message)
            }
            FailReason::ShuttingDown => ErrorBody::new(ErrorCode::ShuttingDown, "this node is stopping"),
            FailReason::DecodersFail => {
                ErrorBody::new(ErrorCode::Internal, "decoders die before they hear any audio")
            }
        }
    }

    pub(super) fn note_arrival(&mut self, frames: u64) {
        let now = self.arguments.clock.now();
        self.times.first_audio.get_or_insert(now);
        if let Some(trace) = &self.trace {
            trace.lock().heard(now);
        }
        let end = self.machine.journal().received().plus(frames);
        let step = self.arguments.config.rates.source_hz() / 10;
        match self.times.arrivals.back_mut() {
            Some((at, when)) if end.0 / step == at.0 / step => (*at, *when) = (end, now),
            _ => self.times.arrivals.push_back((end, now)),
        }
        let hz = self.arguments.config.rates.source_hz() as f64;
        let (dialect, audio) = (self.arguments.request.dialect, Duration::from_secs_f64(frames as f64 / hz));
        self.arguments.observer.observe(&Observation::AudioReceived { dialect, audio });
    }

    /// Time since audio up to `to` had arrived. Forgets what came before.
    fn age_of(&mut self, to: SourceOffset) -> Duration {
        let arrivals = &mut self.times.arrivals;
        while arrivals.len() > 1 && arrivals.front().is_some_and(|(at, _)| *at < to) {
            arrivals.pop_front();
        }
        let now = self.arguments.clock.now();
        arrivals.front().map_or(Duration::ZERO, |(_, when)| now.since(*when))
    }
}

const fn fail_label(reason: FailReason) -> &'static str {
    match reason {
        FailReason::SlowReader => "slow_reader",
        FailReason::Idle => "idle_timeout",
        FailReason::OptionsRefused => "options_refused",
        FailReason::ShuttingDown => "shutting_down",
        FailReason::DecodersFail => "decoders_fail",
    }
}

fn attach_refusal(reason: AttachRefusal) -> ErrorBody {
    match reason {
        AttachRefusal::Superseded => {
            ErrorBody::new(ErrorCode::Superseded, "resume.epoch must be higher than any epoch used before")
        }
        AttachRefusal::Gap => ErrorBody::new(
            ErrorCode::Gap,
            "resume.have_from lies beyond the audio that the server has: what is between is lost",
        ),
        AttachRefusal::UnknownFinal => {
            ErrorBody::new(ErrorCode::BadRequest, "resume.last_final names a final that was never made")
        }
    }
}
