//! The actor that keeps a node's links to its peers.
//!
//! Owns: the machine that decides on links, the addresses it dials, the table of peers that are up. Must never: wait for a
//! peer.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, SupervisionEvent};
use rustls::{ClientConfig, ServerConfig};
use starling_core::peer_links::{
    LinkId, PeerChange, PeerLinksAction, PeerLinksEvent, PeerLinksMachine, PeerLoss, Side,
};
use starling_core::peer_watch::PeerVerdict;
use starling_protocol::control::{ModelPool, NodeAgent, Replica};
use starling_protocol::{NodeId, NodeName};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::acceptor::{GreetError, accept};
use super::dialer::{dial, random};
use super::gateway::{ControlServices, GatewayActor, Served, label};
use super::link::{self, Link};
use super::remote::RemotePeer;
use super::stream::LinkStream;
use crate::clock::Clock;
use crate::membership::ClusterView;
use crate::network::Streams;

/// How long whoever listens to changes may leave them unread when the channel is full. A node whose parts don't hear of
/// losses can't keep its promises.
const UNHEARD: Duration = Duration::from_secs(5);

/// What a control plane is started with.
pub struct ControlArguments<N = TcpListener> {
    /// This run of this node.
    pub id: NodeId,
    /// The control port, bound.
    pub listener: N,
    /// How peers that dial are met, with [`ALPN`](super::ALPN).
    pub server: Arc<ServerConfig>,
    /// How peers are dialled, with [`ALPN`](super::ALPN).
    pub client: Arc<ClientConfig>,
    /// What peers may ask for.
    pub services: Arc<dyn ControlServices>,
    /// The node's clock.
    pub clock: Clock,
}

/// Another node of the cluster, and where its control port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its latest run.
    pub id: NodeId,
    /// Its control port.
    pub control: SocketAddr,
}

/// Peers that are up, by name.
pub(super) type PeerTable = HashMap<NodeName, Arc<RemotePeer>>;

impl Member {
    /// The other nodes of a cluster, as far as they have told where they are reached.
    #[must_use]
    pub fn of(view: &ClusterView) -> Vec<Self> {
        let peers = view.active().filter(|member| member.id != view.me);
        let reached = peers.filter_map(|member| {
            let control = member.load.as_ref()?.addresses.control?;
            Some(Self { id: member.id.clone(), control })
        });
        reached.collect()
    }
}

pub(super) struct ControlActor<N>(PhantomData<N>);

impl<N> ControlActor<N> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

pub(super) struct ControlActorArguments<N> {
    pub(super) start: ControlArguments<N>,
    pub(super) table: watch::Sender<PeerTable>,
    pub(super) changes: mpsc::Sender<PeerChange>,
}

pub(super) enum ControlMessage {
    /// The cluster's other nodes.
    Members(Vec<Member>),
    /// A connection was made, and TLS tells to whom.
    Connected { peer: NodeName, stream: Box<LinkStream>, side: Side, place: Option<OwnedSemaphorePermit> },
    /// A peer could not be reached.
    DialFailed { peer: NodeName, error: GreetError },
    /// Requests pass over a link.
    Up { link: LinkId, peer: Arc<RemotePeer> },
    /// A peer's standing has changed.
    Verdict { link: LinkId, verdict: PeerVerdict },
    /// A link is gone.
    Ended { link: LinkId, cause: PeerLoss },
    /// The machine's timeout.
    Timeout,
}

impl Message for ControlMessage {}

pub(super) struct ControlState<N> {
    id: NodeId,
    network: Arc<N>,
    clock: Clock,
    tls: TlsConnector,
    machine: PeerLinksMachine,
    addresses: HashMap<NodeName, SocketAddr>,
    links: HashMap<LinkId, CancellationToken>,
    last_link: u64,
    table: watch::Sender<PeerTable>,
    changes: mpsc::Sender<PeerChange>,
    timer: Option<AbortHandle>,
    acceptor: JoinHandle<()>,
}

impl<N: Streams> Actor for ControlActor<N> {
    type Msg = ControlMessage;
    type State = ControlState<N>;
    type Arguments = ControlActorArguments<N>;

    async fn pre_start(
        &self,
        myself: ActorRef<ControlMessage>,
        arguments: ControlActorArguments<N>,
    ) -> Result<ControlState<N>, ActorProcessingErr> {
        let ControlActorArguments { start, table, changes } = arguments;
        let ControlArguments { id, listener, server, client, services, clock } = start;
        spawn_gateway::<NodeAgent>(&myself, &id, &services).await?;
        spawn_gateway::<ModelPool>(&myself, &id, &services).await?;
        spawn_gateway::<Replica>(&myself, &id, &services).await?;
        let network = Arc::new(listener);
        let acceptor = tokio::spawn(accept(Arc::clone(&network), TlsAcceptor::from(server), myself));
        Ok(ControlState {
            machine: PeerLinksMachine::new(id.name.clone()),
            id,
            network,
            clock,
            tls: TlsConnector::from(client),
            addresses: HashMap::new(),
            links: HashMap::new(),
            last_link: 0,
            table,
            changes,
            timer: None,
            acceptor,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ControlMessage>,
        message: ControlMessage,
        state: &mut ControlState<N>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ControlMessage::Members(members) => {
                state.addresses =
                    members.iter().map(|member| (member.id.name.clone(), member.control)).collect();
                let ids = members.into_iter().map(|member| member.id).collect();
                state.handle(&myself, PeerLinksEvent::Members(ids), None).await
            }
            ControlMessage::Connected { peer, stream, side, place } => {
                let link = state.open(&myself, peer.clone(), *stream, side, place);
                state.handle(&myself, PeerLinksEvent::Connected { peer, link, side }, None).await
            }
            ControlMessage::DialFailed { peer, error } => {
                debug!(%peer, %error, "can't reach a peer");
                let event = PeerLinksEvent::DialFailed { peer, random: random() };
                state.handle(&myself, event, None).await
            }
            ControlMessage::Up { link, peer } => {
                let event = PeerLinksEvent::Up { link, peer: peer.id.clone() };
                state.handle(&myself, event, Some(peer)).await
            }
            ControlMessage::Verdict { link, verdict } => {
                let event = match verdict {
                    PeerVerdict::Suspected => PeerLinksEvent::Suspected(link),
                    PeerVerdict::Cleared => PeerLinksEvent::Cleared(link),
                    // The link ends with it, and says so.
                    PeerVerdict::Lost => return Ok(()),
                };
                state.handle(&myself, event, None).await
            }
            ControlMessage::Ended { link, cause } => {
                state.links.remove(&link);
                let event = PeerLinksEvent::Ended { link, cause, random: random() };
                state.handle(&myself, event, None).await
            }
            ControlMessage::Timeout => state.handle(&myself, PeerLinksEvent::Timeout, None).await,
        }
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ControlMessage>,
        event: SupervisionEvent,
        state: &mut ControlState<N>,
    ) -> Result<(), ActorProcessingErr> {
        // Links report their own ends. Gateways have names, and a node that peers can't ask is of no use to them.
        if let SupervisionEvent::ActorFailed(actor, error) = event
            && let Some(name) = actor.get_name()
        {
            warn!(node = %state.id, name, %error, "a gateway failed; the control plane ends");
            myself.stop(Some("gateway failed".to_owned()));
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<ControlMessage>,
        state: &mut ControlState<N>,
    ) -> Result<(), ActorProcessingErr> {
        state.acceptor.abort();
        if let Some(timer) = &state.timer {
            timer.abort();
        }
        for close in state.links.values() {
            close.cancel();
        }
        state.table.send_replace(PeerTable::new());
        Ok(())
    }
}

async fn spawn_gateway<S: Served>(
    control: &ActorRef<ControlMessage>,
    id: &NodeId,
    services: &Arc<dyn ControlServices>,
) -> Result<(), ActorProcessingErr> {
    // The name is for peers, who see nothing else of an actor; nobody here looks it up.
    let name = Some(label(id, S::NAME));
    Actor::spawn_linked(name, GatewayActor::<S>::new(), Arc::clone(services), control.get_cell()).await?;
    Ok(())
}

impl<N: Streams> ControlState<N> {
    fn open(
        &mut self,
        control: &ActorRef<ControlMessage>,
        peer: NodeName,
        stream: LinkStream,
        side: Side,
        place: Option<OwnedSemaphorePermit>,
    ) -> LinkId {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        let close = CancellationToken::new();
        self.links.insert(id, close.clone());
        let link = Link {
            id,
            side,
            own: self.id.clone(),
            peer,
            stream,
            close,
            place,
            clock: self.clock,
            control: control.clone(),
        };
        tokio::spawn(link::run(link));
        id
    }

    async fn handle(
        &mut self,
        control: &ActorRef<ControlMessage>,
        event: PeerLinksEvent,
        arrived: Option<Arc<RemotePeer>>,
    ) -> Result<(), ActorProcessingErr> {
        let mut actions = Vec::new();
        self.machine.handle(self.clock.now(), event, &mut actions);
        for action in actions {
            match action {
                PeerLinksAction::Dial(peer) => self.dial(control, peer),
                PeerLinksAction::Close(link) => {
                    if let Some(close) = self.links.get(&link) {
                        close.cancel();
                    }
                }
                PeerLinksAction::Tell(change) => self.tell(change, arrived.as_ref()).await?,
            }
        }
        self.arm(control);
        Ok(())
    }

    fn dial(&self, control: &ActorRef<ControlMessage>, peer: NodeName) {
        let address = self.addresses.get(&peer).copied();
        let (network, tls, control) = (Arc::clone(&self.network), self.tls.clone(), control.clone());
        tokio::spawn(async move {
            let dialled = match address {
                Some(address) => dial(&*network, &peer, address, tls).await,
                // It has left the cluster since; the attempt fails, and there is no other.
                None => Err(GreetError::Protocol),
            };
            let message = match dialled {
                Ok(stream) => {
                    let stream = Box::new(stream);
                    ControlMessage::Connected { peer, stream, side: Side::Dialled, place: None }
                }
                Err(error) => ControlMessage::DialFailed { peer, error },
            };
            let _ = control.cast(message);
        });
    }

    async fn tell(
        &mut self,
        change: PeerChange,
        arrived: Option<&Arc<RemotePeer>>,
    ) -> Result<(), ActorProcessingErr> {
        // The table first: whoever hears of a change can act on it.
        match &change {
            PeerChange::Up(id) => {
                info!(node = %self.id, peer = %id, "peer is up");
                if let Some(peer) = arrived {
                    self.table.send_modify(|table| drop(table.insert(id.name.clone(), Arc::clone(peer))));
                }
            }
            PeerChange::Lost { peer, cause } => {
                warn!(node = %self.id, %peer, ?cause, "peer is lost");
                self.table.send_modify(|table| drop(table.remove(&peer.name)));
            }
            PeerChange::Suspected(peer) => debug!(node = %self.id, %peer, "peer is suspected"),
            PeerChange::Cleared(peer) => debug!(node = %self.id, %peer, "peer is suspected no more"),
        }
        match self.changes.send_timeout(change, UNHEARD).await {
            Ok(()) => Ok(()),
            Err(error) => Err(format!("nobody hears what becomes of peers: {error}").into()),
        }
    }

    fn arm(&mut self, control: &ActorRef<ControlMessage>) {
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        self.timer = self.machine.next_timeout().map(|at| {
            let wait = at.since(self.clock.now());
            control.send_after(wait, || ControlMessage::Timeout).abort_handle()
        });
    }
}
