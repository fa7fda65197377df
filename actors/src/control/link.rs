//! One link to a peer, from the TLS handshake to its end.
//!
//! Owns: the link's deadlines and heartbeats. Must never: outlive its stream, or tell of its end more than once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use ractor::{Actor, ActorRef};
use starling_core::Timestamp;
use starling_core::peer_links::{LinkId, PeerLoss, Side};
use starling_core::peer_watch::{HEARTBEAT, PeerVerdict, PeerWatch, ROUND, SILENCE};
use starling_protocol::control::{NodeAgent, NodeRequest, encode_call};
use starling_protocol::{NodeId, NodeName};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::AUTHENTICATION_DEADLINE;
use super::actor::ControlMessage;
use super::remote::RemotePeer;
use super::session::{SessionEvent, SessionServerActor, SessionServerArguments, parse_id};
use super::stream::LinkStream;
use crate::clock::Clock;

/// How long ractor_cluster's actors may take to notice that their stream is broken. They notice at once.
const FAREWELL: Duration = Duration::from_secs(1);

/// An answer to a heartbeat is waited for beyond the end of patience: one that comes late clears a suspicion.
const LATEST_ANSWER: Duration = SILENCE.saturating_mul(2);

pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) side: Side,
    pub(super) own: NodeId,
    pub(super) peer: NodeName,
    pub(super) stream: LinkStream,
    /// Set when the link is to be closed.
    pub(super) close: CancellationToken,
    /// Held until the peer has introduced itself, if it came to us.
    pub(super) place: Option<OwnedSemaphorePermit>,
    pub(super) clock: Clock,
    pub(super) control: ActorRef<ControlMessage>,
}

/// Lives as long as the link.
pub(super) async fn run(link: Link) {
    let Link { id, side, own, peer, stream, close, place, clock, control } = link;
    let ended = stream.ended();
    let (events, mut session) = mpsc::channel(8);
    let arguments = SessionServerArguments {
        number: id.0,
        side,
        own: own.clone(),
        stream: stream.into_network_stream(peer.to_string()),
        events,
    };
    let spawned = Actor::spawn_linked(None, SessionServerActor, arguments, control.get_cell()).await;
    let cause = match &spawned {
        Err(error) => {
            warn!(%peer, %error, "a link's actor can't start");
            PeerLoss::Protocol
        }
        Ok(_) => {
            let life = Life { id, own, peer: peer.clone(), clock, control: control.clone() };
            tokio::select! {
                biased;
                () = close.cancelled() => PeerLoss::Closed,
                () = ended.cancelled() => PeerLoss::Closed,
                cause = life.live(&mut session, place) => cause,
            }
        }
    };
    debug!(%peer, link = id.0, ?cause, "link ends");
    let _ = control.cast(ControlMessage::Ended { link: id, cause });

    // Breaks the stream; ractor_cluster's actors end at that, and in their own order, in which they tidy up.
    ended.cancel();
    if let Ok((server, task)) = spawned
        && timeout(FAREWELL, task).await.is_err()
    {
        warn!(%peer, link = id.0, "a link's actors don't end; killing them");
        server.kill();
    }
}

struct Life {
    id: LinkId,
    own: NodeId,
    peer: NodeName,
    clock: Clock,
    control: ActorRef<ControlMessage>,
}

impl Life {
    async fn live(
        &self,
        session: &mut mpsc::Receiver<SessionEvent>,
        place: Option<OwnedSemaphorePermit>,
    ) -> PeerLoss {
        let met = timeout(AUTHENTICATION_DEADLINE, self.meet(session)).await;
        drop(place);
        match met {
            Ok(Some(peer)) => {
                let up = ControlMessage::Up { link: self.id, peer: Arc::clone(&peer) };
                if self.control.cast(up).is_err() {
                    return PeerLoss::Closed;
                }
                self.watch(session, &peer).await
            }
            Ok(None) => PeerLoss::Protocol,
            Err(_) => {
                debug!(peer = %self.peer, link = self.id.0, "the peer did not introduce itself in time");
                PeerLoss::Silent
            }
        }
    }

    async fn meet(&self, session: &mut mpsc::Receiver<SessionEvent>) -> Option<Arc<RemotePeer>> {
        let mut id = None;
        loop {
            match session.recv().await? {
                SessionEvent::Named(name) => {
                    // Whoever proved to be one node can't speak for another.
                    let said = parse_id(&name).filter(|said| said.name == self.peer);
                    if said.is_none() {
                        warn!(peer = %self.peer, name, "a peer introduced itself as another node");
                    }
                    id = Some(said?);
                }
                SessionEvent::Ready(announced) => {
                    let peer = RemotePeer::find(id?, &announced);
                    if peer.is_none() {
                        warn!(peer = %self.peer, "a peer does not announce the services of a node");
                    }
                    return peer;
                }
                SessionEvent::Ended => return None,
            }
        }
    }

    async fn watch(&self, session: &mut mpsc::Receiver<SessionEvent>, peer: &Arc<RemotePeer>) -> PeerLoss {
        let mut watch = PeerWatch::new(self.clock.now());
        let mut rounds = interval(ROUND);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = FuturesUnordered::new();
        let mut next_heartbeat = Timestamp::default();
        let mut sequence = 0;
        loop {
            // Answers first: a round that is due judges by all that has been heard.
            let verdict = tokio::select! {
                biased;
                event = session.recv() => match event {
                    None | Some(SessionEvent::Ended) => return PeerLoss::Protocol,
                    Some(_) => None,
                },
                Some(answered) = asked.next() => if answered { watch.heard(self.clock.now()) } else { None },
                _ = rounds.tick() => {
                    let now = self.clock.now();
                    if now >= next_heartbeat {
                        next_heartbeat = now.plus(HEARTBEAT - ROUND / 2);
                        sequence += 1;
                        asked.push(self.heartbeat(Arc::clone(peer), sequence));
                    }
                    watch.round(now)
                }
            };
            let Some(verdict) = verdict else { continue };
            if verdict == PeerVerdict::Lost {
                return PeerLoss::Silent;
            }
            let _ = self.control.cast(ControlMessage::Verdict { link: self.id, verdict });
        }
    }

    /// Whether the peer answered. What it answers doesn't matter: an answer is a sign of life.
    fn heartbeat(&self, peer: Arc<RemotePeer>, sequence: u64) -> impl Future<Output = bool> + use<> {
        let request = encode_call::<NodeAgent>(&self.own, &NodeRequest::Heartbeat { sequence });
        async move {
            let Ok(request) = request else { return false };
            peer.heartbeat(request, LATEST_ANSWER).await.is_ok()
        }
    }
}
