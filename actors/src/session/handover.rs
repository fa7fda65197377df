//! A session between two nodes: taken up from a copy, handed over as one, and what is told of it.
//!
//! Must never: hand over what a higher epoch has not asked for.

use ractor::ActorRef;
use starling_core::replica::{CopyItem, SessionCopy};
use starling_core::session::SessionEvent as Event;
use starling_protocol::control::{CopySummary, SessionReport};
use starling_protocol::replica::MAX_COPY_AUDIO_BYTES;
use starling_protocol::{Epoch, Segment, SourceOffset};
use tokio::sync::oneshot;

use super::actor::{RestoredSession, SessionMessage, SessionState};
use super::replication::KeptFinal;
use crate::clock::unix_now;
use crate::observe::{Observation, SessionNews, TAKEN_OVER};
use crate::replica::KeeperMessage;
use crate::trace::kept_id;

impl SessionState {
    /// Takes up what a copy holds. The session was admitted before, elsewhere.
    pub(super) fn restore(&mut self, myself: &ActorRef<SessionMessage>, restored: RestoredSession) {
        let RestoredSession { standing, last_epoch, view, class, holders, .. } = restored;
        self.admitted = true;
        self.census.opened();
        self.times.lost = Some((self.arguments.clock.now(), TAKEN_OVER));
        self.placed.class = class;
        self.trim_to = standing.audio.start();
        // What there is takes its room, even if that is more than a client would get: it is what was acknowledged.
        let held = standing.audio.bytes().min(self.room.available_permits());
        self.room.forget_permits(held);
        self.store = standing.audio;
        self.pushed = standing.confirmed;
        self.finals =
            standing.finals.into_iter().map(|last| KeptFinal { last, commit: None, made: None }).collect();
        let dialect = self.arguments.request.dialect;
        self.arguments.observer.observe(&Observation::SessionTakenOver { dialect });
        let buffered = self.buffered();
        self.trace(|trace, now| trace.came_with(now, buffered));
        self.tell_news(SessionNews::TakenOver);
        // Who was asked to obey the opener's epoch takes nothing from a lower one.
        self.begin_copies(myself, last_epoch.next(), view, holders);
    }

    pub(super) fn relinquish(
        &mut self,
        myself: &ActorRef<SessionMessage>,
        epoch: Epoch,
        reply: oneshot::Sender<Result<Box<SessionCopy>, Epoch>>,
    ) {
        let last = self.machine.last_epoch();
        if epoch <= last {
            let _ = reply.send(Err(last));
            return;
        }
        let copy = self.as_copy();
        self.trace(|trace, now| trace.handed_over(now, epoch));
        self.drive(myself, Event::Superseded);
        // Without a copy, which would be a fault of this node's, those of the keepers count.
        if let Some(copy) = copy {
            let _ = reply.send(Ok(Box::new(copy)));
        }
    }

    /// Leaves all that there is to this node's keeper: whoever speaks for the session now may have no copy yet.
    pub(super) fn leave_copy(&self) {
        if let Some(copy) = self.as_copy() {
            let _ = self.arguments.keeper.cast(KeeperMessage::Offer(Box::new(copy)));
        }
    }

    pub(super) fn report(&self) -> SessionReport {
        let rates = &self.arguments.config.rates;
        let behind = self.machine.journal().decodable().since(self.machine.decoded_until());
        let here = self.arguments.clock.now().since(self.times.begun);
        let age = here.max(unix_now().saturating_sub(self.opened));
        SessionReport {
            session: self.arguments.request.session,
            dialect: self.arguments.request.dialect.label().to_owned(),
            model: self.arguments.model.to_string(),
            replicas: self.keepers(),
            durable: self.is_durable(),
            connected: self.machine.attached().is_some(),
            decoder: self.first.place(&self.arguments.copies.own),
            standby: self.standby.place(&self.arguments.copies.own),
            attempt: self.machine.attempt().0,
            epoch: self.machine.last_epoch(),
            lag_ms: behind * 1_000 / rates.decode_hz(),
            tenant: self.arguments.request.tenant.clone(),
            audio_ms: self.machine.journal().received().0 * 1_000 / rates.source_hz(),
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            trace_id: self.context().as_ref().and_then(kept_id),
        }
    }

    pub(super) fn tell_news(&self, news: SessionNews<'_>) {
        let (session, model) = (self.arguments.request.session, &*self.arguments.model);
        self.arguments.observer.observe(&Observation::SessionNews { session, model, news });
    }

    /// How far it goes, in the words of copies.
    pub(super) fn summary(&self) -> CopySummary {
        CopySummary {
            epoch: self.machine.last_epoch(),
            view: self.set().0.0,
            next_segment: self.machine.open_segment(),
            audio_end: self.machine.journal().received(),
        }
    }

    /// The session as a copy, for another node to go on with.
    fn as_copy(&self) -> Option<SessionCopy> {
        let standing = self.standing();
        let view = self.set().0;
        let mut copy = SessionCopy::begin(self.copy_start(view));
        let finals = (standing.finals_from.0..standing.next_segment.0)
            .map(|segment| CopyItem::Kept { segment: Segment(segment) });
        let piece = MAX_COPY_AUDIO_BYTES / 2;
        let audio = (standing.audio_from.0..standing.audio_to.0).step_by(piece).map(|from| CopyItem::Audio {
            from: SourceOffset(from),
            to: SourceOffset((from + piece as u64).min(standing.audio_to.0)),
        });
        let entries = standing.entries.iter().map(|&(at, kind)| CopyItem::Entry { at, kind });
        for item in finals.chain(audio).chain(entries).chain([CopyItem::Whole]) {
            copy.apply(self.copy_message(item)?).ok()?;
        }
        Some(copy)
    }
}
