//! A session's standby: how it is sought, how it takes the first decoder's place, and when the cluster needs its slot.

use std::sync::Arc;

use ractor::ActorRef;
use starling_core::placement::SeekPace;
use starling_core::pool::Purpose;
use starling_protocol::{Attempt, Segment};
use tracing::{info, warn};

use super::actor::{SessionMessage, SessionState};
use super::decoding::Lane;
use crate::decoders::{StandbyAsk, random};
use crate::node::StandbyPolicy;
use crate::observe::Observation;
use crate::task::AbortOnDrop;

/// What a session knows of standbys beside the one it has.
#[derive(Default)]
pub(super) struct Standbys {
    pace: SeekPace,
    /// Looks whether the cluster can still spare the slot.
    review: Option<AbortOnDrop>,
}

impl SessionState {
    pub(super) fn find_standby(&mut self, myself: &ActorRef<SessionMessage>, attempt: Attempt) {
        // The pool knows its own leases alone.
        let own = self.first.decoder.as_ref().filter(|_| self.first.node.is_none());
        let purpose = Purpose::Standby { avoid: own.map(crate::decoder::DecoderHandle::lease) };
        let now = self.arguments.clock.now();
        let wanted = StandbyAsk {
            ask: self.ask(attempt, purpose, Arc::clone(&self.first.class)),
            wait: self.standbys.pace.next(now, random() as u32),
            first: self.first.node.clone(),
            zone: self.arguments.copies.peers.as_ref().map_or_else(String::new, |peers| peers.own_zone()),
            keepers: self.likely_keepers(),
            keep_idle: self.keep_idle(),
            clock: self.arguments.clock,
        };
        let search = Some(self.arguments.decoders.find_standby(wanted, myself));
        self.standby = Lane { attempt: Some(attempt), search, ..Lane::default() };
    }

    pub(super) fn promote_standby(&mut self, attempt: Attempt) {
        self.first = std::mem::take(&mut self.standby);
        let node = self.first_node();
        self.trace(|trace, now| trace.promoted(now, attempt, &node));
        let model = &*self.arguments.model;
        info!(attempt = attempt.0, node = ?self.first.node, "a session goes on with its standby");
        self.arguments.observer.observe(&Observation::StandbyPromoted { model });
    }

    pub(super) fn tell_difference(&self, attempt: Attempt, segment: Segment) {
        let (model, session) = (&*self.arguments.model, self.arguments.request.session);
        let class = &self.first.class;
        warn!(%session, %segment, attempt = attempt.0, %class, "two decoders of one class cut the same audio differently");
        self.arguments.observer.observe(&Observation::StandbyLost { model, cause: "differed" });
    }

    /// A segment was cut: a time at which a standby can go and another begin without a replay.
    pub(super) fn review_standby(&mut self, myself: &ActorRef<SessionMessage>) {
        self.standbys.review = self
            .keep_idle()
            .zip(self.standby.attempt)
            .map(|(keep, attempt)| self.arguments.decoders.review_standby(keep, attempt, myself));
    }

    /// Idle slots of the cluster that this session's standby leaves to others; `None` when it need not care.
    const fn keep_idle(&self) -> Option<u32> {
        match self.arguments.standby {
            StandbyPolicy::Idle { keep } => Some(keep),
            StandbyPolicy::Off | StandbyPolicy::Warm => None,
        }
    }
}
