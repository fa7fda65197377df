//! A node as the program puts one together, on a host of turmoil's.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_actors::cluster::{
    ClusterCopies, ControlReservations, Directory, Facts, drop_gone, follow_members, load_report, peers_over,
};
use starling_actors::control::{ALPN, ControlArguments, ControlHandle, ControlServices};
use starling_actors::trust::{ClusterSecret, Trust};
use starling_actors::{
    Clock, CopyPeers, MembershipArguments, MembershipHandle, MembershipTimings, NodeHandle, NodeStatus,
    PeerLink, QuinnLink, QuinnLinkArguments, QuinnTrust, Reservations, SilentObserver, TokenSealer,
    packet_key,
};
use starling_protocol::control::{
    NodeAgent, NodeReply, NodeRequest, PoolReply, PoolRequest, ReplicaReply, ReplicaRequest, Service,
};
use starling_protocol::gossip::{Addresses, Roles};
use starling_protocol::{NodeId, NodeName};
use tokio::sync::watch;
use tokio::time::interval;
use turmoil::net::{TcpListener, UdpSocket};

use super::clock::OwnClock;
use super::lines::{NATIVE_PORT, THIN_PORT};
use super::socket;
use super::world::LOOK_EVERY;
use crate::gateway;
use crate::host::Hosts;
use crate::net::HostId;
use crate::node::arguments;
use crate::oracle::SharedOracle;
use crate::plan::{Plan, Speaks};
use crate::wire::air::{Air, AirSocket, Control, Open};
use crate::wire::node::{CONTROL_PORT, GOSSIP_PORT, SECRET};

/// The data port of each node.
const DATA_PORT: u16 = 7_402;

/// How often the others are told how loaded a node is, as the program does.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How often somebody looks at how a node is.
const STATUS_EVERY: Duration = Duration::from_millis(250);

/// What a run is started with.
#[derive(Clone)]
pub struct Setup {
    /// Which node.
    pub node: HostId,
    /// Its address.
    pub address: IpAddr,
    /// Which run of it.
    pub id: NodeId,
    /// Where all nodes are.
    pub seeds: Vec<String>,
    /// How it is configured.
    pub plan: Arc<Plan>,
    /// What seals resume tokens.
    pub sealer: Arc<TokenSealer>,
    /// What datagrams go through.
    pub air: Air,
    /// Who is told what it keeps.
    pub oracle: SharedOracle,
    /// What the world holds of it.
    pub reins: Reins,
}

/// What the world holds of a node, from one run to the next.
#[derive(Clone, Default)]
pub struct Reins {
    /// What its own tick reads.
    pub clock: OwnClock,
    /// Says that it is to stop, and how long it may serve on.
    pub stopping: watch::Sender<Option<Duration>>,
    stopped: Arc<AtomicBool>,
    hosts: Arc<Mutex<Option<Hosts>>>,
    status: Arc<Mutex<Option<NodeStatus>>>,
}

impl Reins {
    /// A run of it begins.
    pub fn begins(&self) {
        self.stopping.send_replace(None);
        self.stopped.store(false, Ordering::Relaxed);
        self.ends();
    }

    /// Its run is over.
    pub fn ends(&self) {
        let _before = (lock(&self.hosts).take(), lock(&self.status).take());
    }

    /// Whether it has stopped in order.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Its decoder hosts, once it has any.
    #[must_use]
    pub fn hosts(&self) -> Option<Hosts> {
        lock(&self.hosts).clone()
    }

    /// How it was a moment ago.
    #[must_use]
    pub fn status(&self) -> Option<NodeStatus> {
        lock(&self.status).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lives until it is killed or has stopped in order.
///
/// # Errors
/// It can't start.
pub async fn run(setup: Setup) -> turmoil::Result {
    let Setup { node, address, id, seeds, plan, sealer, air, oracle, reins } = setup;
    let socket = UdpSocket::bind(("0.0.0.0", GOSSIP_PORT)).await?;
    let data = UdpSocket::bind(("0.0.0.0", DATA_PORT)).await?;
    let listener = TcpListener::bind(("0.0.0.0", CONTROL_PORT)).await?;
    let at = |port| Some(SocketAddr::new(address, port));
    let facts = Facts {
        version: "whole".to_owned(),
        zone: format!("z{node}"),
        roles: Roles { gateway: true, decoder: plan.nodes[node].hosts > 0 },
        addresses: Addresses { control: at(CONTROL_PORT), data: at(DATA_PORT), http: at(NATIVE_PORT) },
    };
    let (began, since, clock) =
        (turmoil::sim_elapsed().unwrap_or_default(), Clock::start(), reins.clock.clone());
    let membership = MembershipArguments {
        node: id.clone(),
        socket: AirSocket { socket, air: air.clone(), own: node },
        advertise: SocketAddr::new(address, GOSSIP_PORT),
        seeds,
        keys: vec![packet_key(SECRET)],
        timings: MembershipTimings::default(),
        report: load_report(&facts, None, false),
        observer: Arc::new(SilentObserver),
    };
    let reads = Arc::new(move || clock.at(began + since.now().0));
    let membership = MembershipHandle::start_on(membership, reads).await?;
    let directory = Arc::<Directory>::default();
    directory.follow(membership.views());

    let trust = Trust::derive(&ClusterSecret::from_bytes(SECRET.to_vec())?, &id.name)?;
    let addresses = Arc::clone(&directory);
    let (link, incoming) = QuinnLink::start(QuinnLinkArguments {
        name: id.name.clone(),
        socket: socket::quic(AirSocket { socket: data, air, own: node }),
        trust: QuinnTrust::of(&trust)?,
        address_of: Box::new(move |peer: &NodeName| addresses.address_of(peer)),
    })?;
    let quic = link.clone();
    let link: Arc<dyn PeerLink> = Arc::new(link);
    let copies = Arc::new(ClusterCopies::new(Arc::clone(&directory), Arc::clone(&link), facts.zone.clone()));
    let reservations = Arc::<ControlReservations>::default();
    let peers = peers_over(
        Arc::clone(&link),
        Arc::clone(&directory),
        Arc::clone(&reservations) as Arc<dyn Reservations>,
    );
    let hosts = Hosts::new(plan.marked);
    let ways = (Arc::clone(&copies) as Arc<dyn CopyPeers>, peers);
    let handle =
        NodeHandle::start(arguments(node, &plan, &hosts, ways, (membership.pulse(), &sealer))).await?;
    *lock(&reins.hosts) = Some(hosts);
    let (control, changes) = ControlHandle::start(ControlArguments {
        id,
        listener: Control { listener, open: Open::default() },
        server: Arc::new(trust.server_config(ALPN)?),
        client: Arc::new(trust.client_config(ALPN)?),
        services: Arc::new(Services(handle.clone())),
        clock: Clock::start(),
    })
    .await?;
    copies.ask_over(control.clone());
    reservations.reach_by(control.clone());
    tokio::spawn(follow_members(control.clone(), changes, membership.clone(), Arc::clone(&link)));
    tokio::spawn(drop_gone(membership.clone(), control.clone(), link));
    let serving = handle.clone();
    tokio::spawn(async move { serving.serve_peers(incoming).await });

    let connections = Arc::new(AtomicUsize::new(0));
    for (port, speaks) in [(NATIVE_PORT, Speaks::Native), (THIN_PORT, Speaks::Thin)] {
        let listener = TcpListener::bind(("0.0.0.0", port)).await?;
        let leave = reins.stopping.subscribe();
        tokio::spawn(take_clients(listener, speaks, handle.clone(), leave, Arc::clone(&connections)));
    }
    tokio::spawn(show(node, handle.clone(), oracle));
    let telling = Telling { facts, membership: membership.clone(), directory, handle: handle.clone() };
    telling.until_stopped(&reins, &connections).await;
    membership.leave().await;
    handle.stop().await;
    control.stop().await;
    quic.stop().await;
    reins.stopped.store(true, Ordering::Relaxed);
    Ok(())
}

async fn take_clients(
    listener: TcpListener,
    speaks: Speaks,
    handle: NodeHandle,
    leave: watch::Receiver<Option<Duration>>,
    connections: Arc<AtomicUsize>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (handle, leave, connections) = (handle.clone(), leave.clone(), Arc::clone(&connections));
        tokio::spawn(async move {
            connections.fetch_add(1, Ordering::Relaxed);
            let (reader, writer) = stream.into_split();
            gateway::serve((Box::new(reader), Box::new(writer)), speaks, handle, leave).await;
            connections.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Shows what it keeps to whoever judges.
async fn show(node: HostId, handle: NodeHandle, oracle: SharedOracle) {
    let mut looks = interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        oracle.sampled(node, &handle.kept_copies().await);
    }
}

struct Telling {
    facts: Facts,
    membership: MembershipHandle,
    directory: Arc<Directory>,
    handle: NodeHandle,
}

impl Telling {
    /// Tells the others of it, and the world how it is, until it is to stop and all is drained.
    async fn until_stopped(&self, reins: &Reins, connections: &AtomicUsize) {
        let mut stopping = reins.stopping.subscribe();
        let (mut tells, mut looks) = (interval(TELL_EVERY), interval(STATUS_EVERY));
        let within = loop {
            tokio::select! {
                biased;
                stops = stopping.wait_for(Option::is_some) => {
                    break stops.ok().and_then(|stops| *stops).unwrap_or_default();
                }
                _ = tells.tick() => self.tell(false).await,
                _ = looks.tick() => *lock(&reins.status) = Some(self.handle.status().await),
            }
        };
        self.tell(true).await;
        let drained = async {
            self.handle.drain(within).await;
            // Clients are told the last words before the process ends.
            for _ in 0..100 {
                if connections.load(Ordering::Relaxed) == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::pin!(drained);
        loop {
            tokio::select! {
                biased;
                () = &mut drained => return,
                _ = tells.tick() => self.tell(true).await,
            }
        }
    }

    async fn tell(&self, stopping: bool) {
        let status = self.handle.status().await;
        self.directory.learn(&status);
        // Membership that has ended says so elsewhere.
        let _ = self.membership.say(load_report(&self.facts, Some(&status), stopping)).await;
    }
}

/// What peers may ask of sessions; the rest is the program's.
struct Services(NodeHandle);

impl ControlServices for Services {
    fn node(&self, _: NodeId, _: NodeRequest) -> BoxFuture<'static, NodeReply> {
        std::future::ready(NodeAgent::unknown()).boxed()
    }

    fn pool(&self, _: NodeId, request: PoolRequest) -> BoxFuture<'static, PoolReply> {
        let node = self.0.clone();
        async move { node.ask_pool(request).await }.boxed()
    }

    fn replica(&self, from: NodeId, request: ReplicaRequest) -> BoxFuture<'static, ReplicaReply> {
        let node = self.0.clone();
        async move { node.ask_replica(from, request).await }.boxed()
    }
}
