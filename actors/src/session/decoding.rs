//! A session's decoders: how they are found, what they are told, and what they say.
//!
//! Owns: the lease of the decoder that speaks for the session, that of its standby, and the searches for both. Must never: decide
//! which of the two counts; the machine does.

use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, ActorRef};
use starling_core::pool::Purpose;
use starling_core::session::{LeaseKind, LossCause, SessionEvent as Event};
use starling_protocol::lease::{FromHost, Priority, ToHost};
use starling_protocol::native::WarningCode;
use starling_protocol::replica::View;
use starling_protocol::{Attempt, DecodeOffset, LeaseId, NodeName, Segment, Utterance};
use tracing::{debug, info};

use super::actor::{SessionMessage, SessionState};
use crate::decoder::{DecoderHandle, HolderMessage};
use crate::decoders::{Ask, Search};
use crate::observe::{Observation, SessionNews};
use crate::pool::LeaseAnswer;
use crate::trace::Lost;

/// One of a session's two decoders, or the search for it.
#[derive(Default)]
pub(super) struct Lane {
    /// Which attempt it serves; `None` for none.
    pub(super) attempt: Option<Attempt>,
    /// The search, while peers are asked. Ends when it is dropped.
    pub(super) search: Option<Search>,
    pub(super) decoder: Option<DecoderHandle>,
    /// The peer that decodes; `None` for this node.
    pub(super) node: Option<NodeName>,
    /// What its host decodes alike with; empty while that is not known.
    pub(super) class: Arc<str>,
}

impl Lane {
    pub(super) fn is(&self, attempt: Attempt) -> bool {
        self.attempt == Some(attempt)
    }

    /// Where it decodes, if it does.
    pub(super) fn place(&self, own: &NodeName) -> Option<NodeName> {
        self.decoder.as_ref().map(|_| self.node.clone().unwrap_or_else(|| own.clone()))
    }

    fn tell(&self, command: impl FnOnce(LeaseId) -> ToHost) {
        if let Some(decoder) = &self.decoder {
            decoder.send(command(decoder.lease()));
        }
    }
}

/// Where the session's decoders have been.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// Peers that lost the open segment, the last one at the end.
    pub(super) failed: Vec<NodeName>,
    /// The determinism class that the session began in; empty while that is not known.
    pub(super) class: Arc<str>,
    /// Whether the client was told that it is in another one.
    pub(super) told: bool,
}

impl SessionState {
    pub(super) fn find_decoder(
        &mut self,
        myself: &ActorRef<SessionMessage>,
        attempt: Attempt,
        kind: LeaseKind,
    ) {
        let purpose = if self.admitted { Purpose::Continue(kind) } else { Purpose::New };
        let ask = self.ask(attempt, purpose, Arc::clone(&self.placed.class));
        let search = self.arguments.decoders.find(ask, myself);
        self.first = Lane { attempt: Some(attempt), search, ..Lane::default() };
    }

    pub(super) fn ask(&self, attempt: Attempt, purpose: Purpose, class: Arc<str>) -> Ask {
        Ask {
            session: self.arguments.request.session,
            epoch: self.machine.last_epoch(),
            attempt,
            purpose,
            start: self.machine.journal().committed(),
            class,
            failed: self.placed.failed.clone(),
            trace: self.context(),
        }
    }

    fn lane(&mut self, attempt: Attempt) -> Option<&mut Lane> {
        [&mut self.first, &mut self.standby].into_iter().find(|lane| lane.is(attempt))
    }

    pub(super) fn release(&mut self, myself: &ActorRef<SessionMessage>, attempt: Attempt) {
        let Some(lane) = self.lane(attempt) else { return };
        let Lane { decoder, .. } = std::mem::take(lane);
        if decoder.is_none() {
            self.arguments.decoders.withdraw(attempt, myself);
        }
    }

    pub(super) fn open_stream(
        &mut self,
        attempt: Attempt,
        segment: Segment,
        from: DecodeOffset,
        window: u16,
        (partial_interval_ms, decoded_interval_ms): (u32, u32),
    ) {
        let granted = self.granted.take();
        let options = self.arguments.options.clone();
        let priority = if self.arguments.request.options.batch { Priority::Batch } else { Priority::Live };
        let trace = self.context();
        let Some(lane) = self.lane(attempt) else { return };
        lane.decoder = granted;
        lane.tell(|lease| ToHost::Open {
            lease,
            attempt,
            options,
            segment,
            from,
            priority,
            window,
            partial_interval_ms,
            trace,
            decoded_interval_ms,
        });
    }

    pub(super) fn feed(&mut self, attempt: Attempt, from: DecodeOffset, to: DecodeOffset) {
        let mut samples = Vec::with_capacity(to.since(from) as usize);
        self.arguments.resampler.render(from, to, |at| self.store.sample(at), &mut samples);
        let pcm = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        self.tell_decoder(attempt, |lease| ToHost::Feed { lease, at: from, pcm });
    }

    pub(super) fn tell_decoder(&mut self, attempt: Attempt, command: impl FnOnce(LeaseId) -> ToHost) {
        if let Some(lane) = self.lane(attempt) {
            lane.tell(command);
        }
    }

    pub(super) fn decoder_says(&mut self, myself: &ActorRef<SessionMessage>, message: HolderMessage) {
        match message {
            HolderMessage::Answer { attempt, answer } => self.lease(myself, attempt, answer),
            HolderMessage::Frame { attempt, frame } => {
                if self.first.is(attempt) {
                    self.trace(|trace, now| trace.decoder_spoke(now));
                }
                self.decoder_frame(myself, attempt, frame);
            }
            HolderMessage::Lost { attempt, cause } => self.decoder_lost(myself, attempt, cause),
            HolderMessage::Retiring { attempt } => {
                if self.first.is(attempt) {
                    let node = self.first_node();
                    self.trace(|trace, now| trace.leaving(now, &node));
                }
                self.drive(myself, Event::LeaseRetiring { attempt });
            }
            HolderMessage::OptionsRefused { attempt, message } => {
                self.refusal = Some(message);
                self.drive(myself, Event::OptionsRefused { attempt });
            }
        }
    }

    fn decoder_lost(&mut self, myself: &ActorRef<SessionMessage>, attempt: Attempt, cause: LossCause) {
        let model = &*self.arguments.model;
        if self.first.is(attempt) {
            self.times.lost.get_or_insert((self.arguments.clock.now(), cause.label()));
            self.arguments.observer.observe(&Observation::DecoderLost { model, cause });
            info!(attempt = attempt.0, cause = cause.label(), "a session lost its decoder");
            let (node, buffered) = (self.first_node(), self.buffered());
            let owed = self.machine.journal().decodable() > self.machine.decoded_until();
            let lost = Lost { attempt, cause: cause.label(), node: &node, buffered, owed };
            self.trace(|trace, now| trace.lost(now, &lost));
            let decoder = self.first.place(&self.arguments.copies.own);
            self.tell_news(SessionNews::DecoderLost { decoder: decoder.as_ref(), cause });
        } else if self.standby.is(attempt) {
            self.arguments.observer.observe(&Observation::StandbyLost { model, cause: cause.label() });
            debug!(attempt = attempt.0, cause = cause.label(), "a session lost its standby");
        }
        let node = self.lane(attempt).and_then(|lane| lane.node.take());
        self.placed.failed.extend(node);
        self.drive(myself, Event::LeaseLost { attempt, cause });
    }

    pub(super) fn decoder_failed(&mut self, myself: &ActorRef<SessionMessage>, who: ActorId) {
        let failed = [&self.first, &self.standby].into_iter().find_map(|lane| {
            lane.attempt.filter(|_| lane.decoder.as_ref().is_some_and(|decoder| decoder.id() == who))
        });
        if let Some(attempt) = failed {
            self.decoder_lost(myself, attempt, LossCause::Protocol);
        }
    }

    fn lease(&mut self, myself: &ActorRef<SessionMessage>, attempt: Attempt, answer: LeaseAnswer) {
        let grant = match answer {
            Ok(grant) => grant,
            Err(refused) if self.first.is(attempt) => return self.refuse(myself, refused),
            // Nobody waits for a standby: it is asked for again.
            Err(_) => return self.drive(myself, Event::LeaseLost { attempt, cause: LossCause::Killed }),
        };
        if self.standby.is(attempt) && grant.class != self.first.class {
            // It would cut elsewhere.
            return self.drive(myself, Event::LeaseLost { attempt, cause: LossCause::Killed });
        }
        if !self.admitted {
            self.admitted = true;
            self.census.opened();
            self.begin_copies(myself, self.machine.last_epoch(), View(0), Vec::new());
            self.arguments.observer.observe(&Observation::SessionAdmitted {
                dialect: self.arguments.request.dialect,
                model: &self.arguments.model,
                queue_wait: grant.waited,
            });
            self.trace(|trace, now| trace.admitted(now, grant.waited));
            self.tell_news(SessionNews::Began);
        }
        if self.first.is(attempt) {
            self.note_class(&grant.class);
            let node = grant.node.as_ref().unwrap_or(&self.arguments.copies.own).clone();
            self.trace(|trace, now| trace.granted(now, attempt, &node));
        }
        if let Some(lane) = self.lane(attempt) {
            lane.search = None;
            lane.node = grant.node;
            lane.class = grant.class;
        }
        self.granted = Some(grant.decoder);
        self.drive(myself, Event::LeaseGranted { attempt });
        // A grant that the machine did not want goes back.
        self.granted = None;
        self.answer_welcome();
    }

    /// Where the session is decoded.
    pub(super) fn first_node(&self) -> NodeName {
        self.first.node.clone().unwrap_or_else(|| self.arguments.copies.own.clone())
    }

    /// Audio that would have to be decoded again.
    pub(super) fn buffered(&self) -> Duration {
        let journal = self.machine.journal();
        let samples = journal.decodable().since(journal.committed());
        Duration::from_secs_f64(samples as f64 / self.arguments.config.rates.decode_hz() as f64)
    }

    /// Tells the client when its decoder may hear other words than the one before.
    fn note_class(&mut self, class: &Arc<str>) {
        if self.placed.class.is_empty() {
            self.placed.class = Arc::clone(class);
        } else if !class.is_empty() && *class != self.placed.class && !self.placed.told {
            self.placed.told = true;
            let message = format!("decoding goes on with {class} in place of {}", self.placed.class);
            if let Some(outbox) = &self.outbox {
                outbox.set_warning(WarningCode::Determinism, message);
            }
        }
    }

    fn decoder_frame(&mut self, myself: &ActorRef<SessionMessage>, attempt: Attempt, frame: FromHost) {
        match frame {
            FromHost::Decoded { until, .. } => self.drive(myself, Event::Decoded { attempt, until }),
            FromHost::Partial { segment, until, text, .. } => {
                self.partial_text = text;
                self.drive(myself, Event::PartialHeard { attempt, segment, until });
            }
            FromHost::Cut { segment, from, to, cause, utterance, .. } => {
                self.heard = utterance;
                self.drive(myself, Event::SegmentCut { attempt, segment, from, to, cause });
                self.heard = Utterance::default();
            }
            _ => {}
        }
    }
}
