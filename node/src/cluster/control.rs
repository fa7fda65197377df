//! The control plane of a node: its socket, what peers may ask, and what follows when one is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_actors::cluster::follow_members;
use starling_actors::control::{ALPN, ControlArguments, ControlHandle, ControlServices, PeerChange};
use starling_actors::trust::Trust;
use starling_actors::{Clock, MembershipHandle, NodeHandle, PeerLink};
use starling_protocol::NodeId;
use starling_protocol::control::{
    MAX_STATUS_SESSIONS, ModelReport, NodeAgent, NodeReply, NodeReport, NodeRequest, PoolReply, PoolRequest,
    ReplicaReply, ReplicaRequest, Service,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::retire::{DrainOrder, Retiring};
use super::{Cluster, Feed};
use crate::build;
use crate::config::ClusterSettings;
use crate::config::load::variable_of;
use crate::exit::{Exit, Failure};
use crate::models::LiveModels;

/// The control plane's socket, bound, or `None` for a node on its own.
///
/// # Errors
/// The address can't be listened on.
pub async fn bind(settings: &ClusterSettings) -> Result<Option<TcpListener>, Failure> {
    let Some(gossip) = settings.listen else {
        return Ok(None);
    };
    let address = settings.control.unwrap_or_else(|| SocketAddr::new(gossip.ip(), 0));
    let bound = TcpListener::bind(address).await.with_context(|| {
        let variable = variable_of("cluster.control");
        format!("cluster.control = {address} cannot be listened on; choose another address with {variable} or in the file")
    });
    bound.map(Some).map_err(|error| Failure::new(Exit::Os, error))
}

/// This node's end of the control plane.
pub struct ControlPlane {
    handle: ControlHandle,
    changes: mpsc::Receiver<PeerChange>,
}

impl ControlPlane {
    /// Starts it. It dials nobody before [`ControlPlane::run`].
    ///
    /// # Errors
    /// The certificates can't be used, or its actors can't start.
    pub async fn start(
        id: NodeId,
        listener: TcpListener,
        trust: &Trust,
        node: NodeHandle,
        models: Arc<LiveModels>,
        feed: Arc<Feed>,
        cluster: &Cluster,
    ) -> Result<Self, Failure> {
        let unusable = |error| Failure::new(Exit::Usage, anyhow!("{error}"));
        let arguments = ControlArguments {
            id,
            listener,
            server: Arc::new(trust.server_config(ALPN).map_err(unusable)?),
            client: Arc::new(trust.client_config(ALPN).map_err(unusable)?),
            services: Arc::new(Services {
                node,
                models,
                feed,
                retiring: cluster.operating.retiring.clone(),
                clock: Clock::start(),
            }),
            clock: Clock::start(),
        };
        let (handle, changes) = ControlHandle::start(arguments)
            .await
            .map_err(|error| Failure::new(Exit::Software, anyhow!(error)))?;
        Ok(Self { handle, changes })
    }

    /// The way to ask peers.
    #[must_use]
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Keeps links to the members, and drops the data plane's connections with those that are lost.
    pub async fn run(self, membership: MembershipHandle, data: Arc<dyn PeerLink>) {
        follow_members(self.handle, self.changes, membership, data).await;
    }
}

struct Services {
    node: NodeHandle,
    models: Arc<LiveModels>,
    feed: Arc<Feed>,
    /// Told when a peer wants this node to go.
    retiring: Retiring,
    clock: Clock,
}

impl ControlServices for Services {
    fn node(&self, from: NodeId, request: NodeRequest) -> BoxFuture<'static, NodeReply> {
        let (node, uptime, retiring) = (self.node.clone(), self.clock.now(), self.retiring.clone());
        let (models, feed) = (Arc::clone(&self.models), Arc::clone(&self.feed));
        async move {
            match request {
                NodeRequest::Drain { deadline_ms } => {
                    tracing::info!(%from, deadline_ms, "a peer asks this node to drain");
                    retiring.order(DrainOrder { deadline: Duration::from_millis(deadline_ms), stay: None });
                    NodeReply::Draining
                }
                NodeRequest::Retire { deadline_ms, stay_ms } => {
                    tracing::info!(%from, deadline_ms, "a peer asks this node to make room");
                    let stay = Some(Duration::from_millis(stay_ms));
                    retiring.order(DrainOrder { deadline: Duration::from_millis(deadline_ms), stay });
                    NodeReply::Retirement(retiring.report(&node).await)
                }
                NodeRequest::Retirement => NodeReply::Retirement(retiring.report(&node).await),
                NodeRequest::AddModel(offer) => {
                    tracing::info!(%from, model = offer.name, "a peer asks this node to serve a model");
                    // Done to its end, however long the peer waits.
                    let taken = tokio::spawn(async move { models.answer(&offer).await });
                    taken.await.unwrap_or_else(|error| NodeReply::ModelRefused { reason: error.to_string() })
                }
                NodeRequest::Recent { after } => NodeReply::Recent(Box::new(feed.recent(after))),
                NodeRequest::KillDecoder { model } => {
                    tracing::warn!(%from, model, "a peer asks this node to kill a decoder");
                    models.kill_decoder(model.as_deref()).await
                }
                NodeRequest::Status => NodeReply::Status(Box::new(report(&node, uptime.0.as_millis()).await)),
                _ => NodeAgent::unknown(),
            }
        }
        .boxed()
    }

    fn pool(&self, _from: NodeId, request: PoolRequest) -> BoxFuture<'static, PoolReply> {
        let node = self.node.clone();
        async move { node.ask_pool(request).await }.boxed()
    }

    fn replica(&self, from: NodeId, request: ReplicaRequest) -> BoxFuture<'static, ReplicaReply> {
        let node = self.node.clone();
        async move { node.ask_replica(from, request).await }.boxed()
    }
}

async fn report(node: &NodeHandle, uptime_ms: u128) -> NodeReport {
    let status = node.status().await;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let models = status.models.iter().map(|model| ModelReport {
        model: model.name.clone(),
        digest: model.digest.clone(),
        total_slots: count(model.slots_total),
        idle_slots: count(model.slots_idle),
        real_time_factor: model.real_time_factor.unwrap_or_default() as f32,
        hosts_ready: count(model.hosts_ready),
        hosts_total: count(model.hosts_total),
    });
    NodeReport {
        version: build::VERSION.to_owned(),
        draining: status.draining,
        uptime_ms: u64::try_from(uptime_ms).unwrap_or(u64::MAX),
        models: models.collect(),
        sessions: node.session_reports(MAX_STATUS_SESSIONS).await,
        sessions_total: count(status.sessions),
    }
}
