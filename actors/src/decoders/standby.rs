//! The search for a session's second decoder.
//!
//! Must never: choose (see `starling_core::placement`), keep anybody waiting, or take what somebody else waits for.

use std::time::Duration;

use ractor::ActorRef;
use starling_core::placement::{
    Candidate, Own, Place, SeekPace, StandbyWant, cluster_idle, has_room, place_standby,
};
use starling_protocol::{Attempt, NodeName};
use tracing::{Instrument as _, debug};

use super::{Ask, Decoders, Search, Searching, acquire, own_slots, random, snapshot};
use crate::clock::Clock;
use crate::decoder::HolderMessage;
use crate::pool::PoolSnapshot;
use crate::session::SessionMessage;
use crate::task::AbortOnDrop;

/// A standby that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct StandbyAsk {
    /// Its purpose is `Standby`, its class that of the session's decoder.
    pub(crate) ask: Ask,
    /// How long to wait before the search.
    pub(crate) wait: Duration,
    /// The peer that has the session's decoder; `None` for this node.
    pub(crate) first: Option<NodeName>,
    /// This node's zone, if it has one.
    pub(crate) zone: String,
    /// Nodes that keep a copy of the session, best first.
    pub(crate) keepers: Vec<NodeName>,
    /// Idle slots of the cluster that are left to new sessions; `None` for none.
    pub(crate) keep_idle: Option<u32>,
    pub(crate) clock: Clock,
}

impl Decoders {
    /// Looks for a standby until there is one. The answer is a [`HolderMessage::Answer`] to the session; a refusal among these
    /// says that the node's own pool had none after all.
    pub(crate) fn find_standby(&self, wanted: StandbyAsk, session: &ActorRef<SessionMessage>) -> Search {
        let seeking = Seeking { decoders: self.clone(), wanted, session: session.clone() };
        Search { _task: AbortOnDrop::spawn(seeking.run().in_current_span()) }
    }

    /// Tells the session to give its standby back, if the cluster has fewer idle slots than `keep_idle`.
    pub(crate) fn review_standby(
        &self,
        keep_idle: u32,
        attempt: Attempt,
        session: &ActorRef<SessionMessage>,
    ) -> AbortOnDrop {
        let (decoders, session) = (self.clone(), session.clone());
        AbortOnDrop::spawn(async move {
            let own = decoders.snapshot().await;
            if !decoders.has_room(own.as_ref(), keep_idle, true) {
                let _ = session.cast(SessionMessage::Decoder(HolderMessage::Retiring { attempt }));
            }
        })
    }

    /// How full the own pool is, if this node has hosts for the model.
    async fn snapshot(&self) -> Option<PoolSnapshot> {
        match &self.elsewhere {
            Some(elsewhere) if !elsewhere.own_hosts => None,
            _ => snapshot(&self.pool).await,
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let elsewhere = self.elsewhere.as_ref();
        elsewhere.map_or_else(Vec::new, |there| there.peers.candidates(&there.model, &there.digest))
    }

    fn has_room(&self, own: Option<&PoolSnapshot>, keep_idle: u32, is_there: bool) -> bool {
        has_room(cluster_idle(own.map(own_slots), &self.candidates()), keep_idle, is_there)
    }
}

struct Seeking {
    decoders: Decoders,
    wanted: StandbyAsk,
    session: ActorRef<SessionMessage>,
}

/// What came of asking a peer.
enum Asked {
    Granted,
    Denied,
    /// It would cut elsewhere.
    Unlike,
}

impl Seeking {
    async fn run(self) {
        tokio::time::sleep(self.wanted.wait).await;
        let (mut excluded, mut unlike) = (self.wanted.ask.failed.clone(), Vec::new());
        let mut pace = SeekPace::default();
        loop {
            let wait = pace.next(self.wanted.clock.now(), random() as u32);
            tokio::time::sleep(wait).await;
            if self.round(&mut excluded, &mut unlike).await {
                return;
            }
            excluded.clone_from(&unlike);
        }
    }

    /// Asks everybody once who may have a slot. True when one was found, or the own pool was asked. Peers that turn out to be of
    /// another class are added to `unlike`.
    async fn round(&self, excluded: &mut Vec<NodeName>, unlike: &mut Vec<NodeName>) -> bool {
        let StandbyAsk { ask, first, zone, keepers, keep_idle, .. } = &self.wanted;
        let own = self.decoders.snapshot().await;
        let own_class = own.as_ref().and_then(|own| own.class.clone()).unwrap_or_default();
        loop {
            if keep_idle.is_some_and(|keep| !self.decoders.has_room(own.as_ref(), keep, false)) {
                return false;
            }
            let candidates = self.decoders.candidates();
            let there = candidates.iter().find(|candidate| Some(&candidate.node) == first.as_ref());
            let zone = there.map_or(zone, |there| &there.zone);
            let want = StandbyWant {
                own: own.as_ref().map(|own| Own { idle: own_slots(own).1, class: &own_class }),
                first: first.as_ref(),
                zone,
                class: &ask.class,
                keepers,
                excluded,
            };
            let node = match place_standby(&want, &candidates, random()) {
                None => return false,
                Some(Place::Own) => {
                    acquire(&self.decoders.pool, ask, &self.session);
                    return true;
                }
                Some(Place::Peer(candidate)) => candidate.node.clone(),
            };
            match self.ask_peer(&node).await {
                Asked::Granted => return true,
                Asked::Denied => {}
                Asked::Unlike => unlike.push(node.clone()),
            }
            excluded.push(node);
        }
    }

    async fn ask_peer(&self, node: &NodeName) -> Asked {
        let Some(elsewhere) = self.decoders.elsewhere.clone() else { return Asked::Denied };
        let (pool, ask, session) =
            (self.decoders.pool.clone(), self.wanted.ask.clone(), self.session.clone());
        let searching = Searching { pool, elsewhere, ask, session };
        let asked = searching.ask_peer(node, Duration::ZERO).await;
        let session = self.wanted.ask.session;
        match asked {
            Ok((lease, stream)) if *stream.class == *self.wanted.ask.class => {
                debug!(%session, %node, "a peer stands by");
                searching.deliver(node.clone(), lease, stream);
                Asked::Granted
            }
            Ok((_, stream)) => {
                debug!(%session, %node, class = stream.class, "a peer of another class can't stand by");
                Asked::Unlike
            }
            Err(denied) => {
                debug!(%session, %node, problem = denied.problem, "a peer has no slot for a standby");
                Asked::Denied
            }
        }
    }
}
