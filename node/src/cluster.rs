//! This node among the others: its name, what it tells of itself, and what it knows of them.
//!
//! Owns: the wiring between settings, the node's status and membership. Must never: decide who gets which session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use starling_actors::cluster::load_report;
pub use starling_actors::cluster::{ClusterCopies, ControlReservations, Directory, Facts};
use starling_actors::{
    Clock, ClusterView, LoadReport, Member, MemberState, MembershipArguments, MembershipHandle,
    MembershipTimings, NodeStatus, Observer, generation_at_start, packet_key,
};
use starling_protocol::gossip::{Addresses, LoadRecord, Roles};
use starling_protocol::ids::NodeNameError;
use starling_protocol::{Generation, NodeId, NodeName};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::build;
use crate::config::load::variable_of;
use crate::config::{ClusterSettings, Role, Secret};
use crate::exit::{Exit, Failure};
use crate::sessions::Sessions;

mod control;
mod data;
mod feed;
mod models;
mod name;
mod operate;
mod report;
mod retire;
mod scaling;
mod story;
mod trust;
mod watcher;

pub use control::{ControlPlane, bind as bind_control};
pub use data::{DataPlane, bind as bind_data};
pub use feed::{Feed, Observers};
pub use models::ModelOutcome;
pub(crate) use operate::entry;
pub use operate::{DrainError, KillError, Told, UnknownNode};
pub use report::{ClusterReport, HostsReport, ModelReport, NodeReport, SessionEntry, SlotsReport};
pub use retire::DrainOrder;
pub use scaling::{ModelScalingReport, OwnScaling, ScalingReport};
pub use story::ClusterEvent;
pub use trust::{token_key, trust};
pub use watcher::{Scene, Watcher};

/// How often the others are told how loaded this node is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How long a node waits for one of its seeds before it takes callers alone. They are asked at once and answer within a round trip;
/// the first node of a cluster has none that could, and must not wait for ever.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);

/// This node and its membership, if it has one.
pub struct Cluster {
    node: NodeId,
    address: SocketAddr,
    facts: Facts,
    membership: Option<MembershipHandle>,
    directory: Arc<Directory>,
    operating: operate::Operating,
    scaling: scaling::ClusterScaling,
    clock: Clock,
    /// The seeds that may be other nodes, and until when one of them is waited for.
    joining: Option<(Vec<String>, Instant)>,
}

/// What of a node's facts the settings say; addresses are known later.
#[must_use]
pub fn facts(settings: &ClusterSettings) -> Facts {
    let roles = Roles {
        gateway: settings.roles.contains(&Role::Gateway),
        decoder: settings.roles.contains(&Role::Decoder),
    };
    Facts {
        version: build::VERSION.to_owned(),
        zone: settings.zone.clone(),
        roles,
        addresses: Addresses::default(),
    }
}

/// The gossip socket, bound, or `None` for a node on its own.
///
/// # Errors
/// The address can't be listened on.
pub async fn bind(settings: &ClusterSettings) -> Result<Option<UdpSocket>, Failure> {
    let Some(address) = settings.listen else {
        return Ok(None);
    };
    let bound = UdpSocket::bind(address).await.with_context(|| {
        let variable = variable_of("cluster.listen");
        format!(
            "cluster.listen = {address} cannot be listened on; choose another address with --cluster-listen, {variable} or \
             in the file"
        )
    });
    bound.map(Some).map_err(|error| Failure::new(Exit::Os, error))
}

impl Cluster {
    /// A node on its own.
    ///
    /// # Errors
    /// The name is none.
    pub fn alone(name: &str) -> Result<Self, NodeNameError> {
        let node = NodeId { name: NodeName::parse(name)?, generation: generation_at_start() };
        Ok(Self {
            node,
            address: nowhere(),
            facts: Facts { version: build::VERSION.to_owned(), ..Facts::default() },
            membership: None,
            directory: Arc::default(),
            operating: operate::Operating::default(),
            scaling: scaling::ClusterScaling::default(),
            clock: Clock::start(),
            joining: None,
        })
    }

    /// This node's run, in a cluster if there is a socket.
    ///
    /// # Errors
    /// Membership could not be started.
    pub async fn start(
        settings: &ClusterSettings,
        secret: &Secret,
        facts: Facts,
        socket: Option<UdpSocket>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, Failure> {
        let name = name::chosen(&settings.node_id).map_err(|error| Failure::new(Exit::Usage, error))?;
        let mut cluster = Self::alone(name.as_str()).map_err(|error| Failure::new(Exit::Usage, error))?;
        cluster.facts = facts;
        let Some(socket) = socket else {
            return Ok(cluster);
        };
        let bound = socket.local_addr().map_err(|error| Failure::new(Exit::Os, error))?;
        cluster.address = settings.advertise.unwrap_or(bound);
        let other = |seed: &&String| seed.parse() != Ok(cluster.address) && seed.parse() != Ok(bound);
        let seeds: Vec<String> = settings.seeds.iter().filter(other).cloned().collect();
        cluster.joining = (!seeds.is_empty()).then(|| (seeds, Instant::now() + JOIN_PATIENCE));
        // Scripts wait for this line and read a port that the system chose off it.
        tracing::info!(address = %bound, node = %cluster.node, "listening for gossip");
        let arguments = MembershipArguments {
            node: cluster.node.clone(),
            socket,
            advertise: cluster.address,
            seeds: settings.seeds.clone(),
            keys: vec![packet_key(secret.expose())],
            timings: MembershipTimings { probe: settings.probe, suspicion: settings.suspicion },
            report: cluster.report(None, false),
            observer,
        };
        let membership = MembershipHandle::start(arguments).await;
        let membership = membership.map_err(|error| Failure::new(Exit::Software, anyhow!(error)))?;
        cluster.directory.follow(membership.views());
        cluster.membership = Some(membership);
        Ok(cluster)
    }

    /// Who else decodes, as this node knows.
    #[must_use]
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory)
    }

    /// This run of this node.
    #[must_use]
    pub const fn node(&self) -> &NodeId {
        &self.node
    }

    /// Its membership, if it is in a cluster.
    #[must_use]
    pub const fn membership(&self) -> Option<&MembershipHandle> {
        self.membership.as_ref()
    }

    /// What keeps this node from having joined the others, while it may yet.
    #[must_use]
    pub fn joining(&self) -> Option<String> {
        let (seeds, until) = self.joining.as_ref()?;
        let met = |view: &ClusterView| view.members.iter().any(|member| member.id != self.node);
        if Instant::now() >= *until || self.membership.as_ref().is_none_or(|ours| met(&ours.view())) {
            return None;
        }
        Some(format!("none of the seeds has answered yet: {}", seeds.join(", ")))
    }

    /// Everybody, as this node sees them; of itself, what `status` says.
    #[must_use]
    pub fn view(&self, status: &NodeStatus) -> ClusterView {
        let record = |revision| Arc::new(self.record(status, revision));
        let Some(membership) = &self.membership else {
            let me = Member {
                id: self.node.clone(),
                address: self.address,
                state: MemberState::Alive,
                load: Some(record(1)),
            };
            return ClusterView { me: self.node.clone(), members: vec![me] };
        };
        let mut view = ClusterView::clone(&membership.view());
        if let Some(me) = view.members.iter_mut().find(|member| member.id == self.node) {
            let said = me.load.take();
            let draining = said.as_ref().is_some_and(|said| said.draining);
            let mut now = LoadRecord::clone(&record(said.map_or(1, |said| said.revision)));
            now.draining |= draining;
            me.load = Some(Arc::new(now));
        }
        view
    }

    /// Tells the others how loaded this node is, and takes note of how loaded all are, until told to stop. Then it tells them that it
    /// stops, says so by `told`, and goes on telling them how much is left, until it is `over`.
    pub async fn keep_telling(
        self: Arc<Self>,
        sessions: Arc<dyn Sessions>,
        stopping: CancellationToken,
        told: oneshot::Sender<()>,
        over: CancellationToken,
    ) {
        let mut ticks = tokio::time::interval(TELL_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let status = sessions.status().await;
                    drop(self.scaling(&status));
                    self.tell(&status, false).await;
                }
                () = stopping.cancelled() => break,
            }
        }
        // From here on nobody should be sent here, and what becomes free is not for new sessions.
        self.tell(&sessions.status().await, true).await;
        // Whoever waits for it may have ended.
        let _ = told.send(());
        ticks.reset();
        loop {
            tokio::select! {
                // What has gone elsewhere counts there: here it must not count any more, or more decoders seem to be needed.
                _ = ticks.tick() => self.tell(&sessions.status().await, true).await,
                () = over.cancelled() => return,
            }
        }
    }

    async fn tell(&self, status: &NodeStatus, stopping: bool) {
        let Some(membership) = &self.membership else { return };
        self.directory.learn(status);
        if let Err(error) = membership.say(self.report(Some(status), stopping)).await {
            tracing::warn!(%error, "the other nodes were not told of this node's load");
        }
    }

    /// Resolves when another process runs under this node's name; never for a node on its own.
    pub async fn superseded(&self) -> Generation {
        match &self.membership {
            Some(membership) => membership.superseded().await,
            None => std::future::pending().await,
        }
    }

    /// Says goodbye to the others.
    pub async fn leave(&self) {
        if let Some(membership) = &self.membership {
            membership.leave().await;
        }
    }

    fn report(&self, status: Option<&NodeStatus>, stopping: bool) -> LoadReport {
        load_report(&self.facts, status, stopping)
    }

    fn record(&self, status: &NodeStatus, revision: u64) -> LoadRecord {
        let LoadReport { version, zone, roles, draining, addresses, replica_bytes_free, models } =
            self.report(Some(status), false);
        LoadRecord {
            name: self.node.name.clone(),
            generation: self.node.generation,
            revision,
            version,
            zone,
            roles,
            draining,
            leaving: false,
            addresses,
            replica_bytes_free,
            models,
            models_omitted: 0,
        }
    }
}

/// The gossip address of a node that has none.
const fn nowhere() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0)
}

/// Where others reach a listener of this node, if they can.
#[must_use]
pub fn reachable(listener: SocketAddr, advertised: SocketAddr) -> Option<SocketAddr> {
    if listener.ip().is_unspecified() {
        return Some(SocketAddr::new(advertised.ip(), listener.port()));
    }
    let only_here =
        listener.ip().to_canonical().is_loopback() && !advertised.ip().to_canonical().is_loopback();
    (!only_here).then_some(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_told_of_where_others_reach_it() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let lan = address("10.0.0.7:7400");
        assert_eq!(reachable(address("0.0.0.0:8080"), lan), Some(address("10.0.0.7:8080")));
        assert_eq!(reachable(address("10.1.0.7:8080"), lan), Some(address("10.1.0.7:8080")));
        assert_eq!(reachable(address("127.0.0.1:8080"), lan), None);
        let here = address("127.0.0.1:7400");
        assert_eq!(reachable(address("127.0.0.1:8080"), here), Some(address("127.0.0.1:8080")));
    }
}
