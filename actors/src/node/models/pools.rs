//! One pool of a model, as the node holds it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ractor::{Actor, ActorRef, SpawnErr};
use starling_core::lineup::PoolId;
use starling_core::placement::Candidate;
use tokio::sync::{Semaphore, oneshot};

use super::ModelsMessage;
use crate::claim::{Claim, Claims, Unclaimed};
use crate::clock::Clock;
use crate::data::Peers;
use crate::decoders::{Decoders, Elsewhere};
use crate::host::HostLauncher;
use crate::node::arguments::{ModelArguments, SessionLimits};
use crate::node::supervisor::NodeMessage;
use crate::observe::Observer;
use crate::pool::{ModelPoolActor, OthersKnown, PoolArguments, PoolMessage, PoolScaling};
use crate::task::AbortOnDrop;
use crate::trace::Tracing;

/// How often a node without hosts looks whether a peer serves what it is to serve from now on. They gossip once a second.
const LOOK_FOR_PEERS: Duration = Duration::from_millis(250);

/// What the pools of a node have in common.
pub(in crate::node) struct PoolContext {
    pub(in crate::node) launcher: Arc<dyn HostLauncher>,
    pub(in crate::node) limits: SessionLimits,
    pub(in crate::node) observer: Arc<dyn Observer>,
    pub(in crate::node) tracing: Tracing,
    pub(in crate::node) clock: Clock,
    pub(in crate::node) peers: Option<Arc<dyn Peers>>,
    /// Names for leases on peers.
    pub(in crate::node) names: Arc<AtomicU64>,
    /// Names for reservations of peers, unique on this node.
    pub(in crate::node) reservation_names: Arc<AtomicU64>,
}

impl PoolContext {
    /// What the peers have of a model, for this node's own pool.
    fn others(&self, model: &ModelArguments) -> Option<OthersKnown> {
        let (peers, name, digest) =
            (Arc::clone(self.peers.as_ref()?), model.name.clone(), model.digest.clone());
        Some(Box::new(move || peers.candidates(&name, &digest).iter().map(Candidate::node_slots).collect()))
    }
}

/// A model and one of its pools.
pub(in crate::node) struct Model {
    pub(in crate::node) arguments: ModelArguments,
    pub(in crate::node) name: Arc<str>,
    pub(in crate::node) pool: ActorRef<PoolMessage>,
    elsewhere: Option<Elsewhere>,
    claims: Claims,
    /// Waits for the pool to be ready.
    _watch: AbortOnDrop,
}

impl Model {
    /// Starts a pool. It tells the supervisor when it can take sessions, and when nobody has a claim to it any more.
    pub(super) async fn start(
        id: PoolId,
        arguments: ModelArguments,
        context: &PoolContext,
        supervisor: &ActorRef<NodeMessage>,
    ) -> Result<Self, SpawnErr> {
        let (ready, proof) = oneshot::channel();
        let pool = PoolArguments {
            config: arguments.pool_config(&context.limits),
            spec: arguments.spec(),
            environment: arguments.environment.clone(),
            launcher: Arc::clone(&context.launcher),
            clock: context.clock,
            observer: Arc::clone(&context.observer),
            tracing: context.tracing.clone(),
            others: context.others(&arguments),
            reservation_names: Arc::clone(&context.reservation_names),
            ready: Some(ready),
            scaling: arguments.scaling.enabled.then(|| PoolScaling {
                hosts: arguments.scaling.hosts_config(&arguments),
                memory: arguments.scaling.memory.clone(),
            }),
        };
        let (pool, _) = Actor::spawn_linked(None, ModelPoolActor, pool, supervisor.get_cell()).await?;
        let name: Arc<str> = arguments.name.as_str().into();
        let elsewhere = context.peers.as_ref().map(|peers| Elsewhere {
            peers: Arc::clone(peers),
            model: Arc::clone(&name),
            digest: arguments.digest.as_str().into(),
            own_hosts: arguments.is_decoded_here(),
            queue_wait: context.limits.queue_wait,
            retry_after: context.limits.retry_after,
            queue: Arc::new(Semaphore::new(context.limits.queue_length)),
            load_wait: arguments.scaling.load_wait,
            loading: Arc::new(Semaphore::new(context.limits.queue_length.max(1))),
            names: Arc::clone(&context.names),
            clock: context.clock,
        });
        let claims = Claims::new(unclaimed(supervisor));
        let (told, hosts, peers) = (supervisor.clone(), arguments.hosts, elsewhere.clone());
        let on_demand = arguments.is_on_demand();
        let watch = AbortOnDrop::spawn(async move {
            let ready = match hosts {
                // Whoever asks for it waits while it loads.
                0 if on_demand => true,
                0 => somebody_serves(peers).await,
                _ => proof.await.is_ok(),
            };
            if ready {
                let _ = told.cast(NodeMessage::Models(ModelsMessage::Ready(id)));
            }
        });
        Ok(Self { arguments, name, pool, elsewhere, claims, _watch: watch })
    }

    /// Where a session's decoders come from. The pool is kept for as long as they are.
    pub(in crate::node) fn decoders(&self) -> Decoders {
        Decoders { pool: self.pool.clone(), elsewhere: self.elsewhere.clone(), _claim: self.claim() }
    }

    /// Keeps the pool for as long as it is held.
    pub(in crate::node) fn claim(&self) -> Claim {
        self.claims.claim()
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.claims.any()
    }
}

/// Tells the supervisor, if it is still there.
pub(super) fn unclaimed(supervisor: &ActorRef<NodeMessage>) -> Unclaimed {
    let supervisor = supervisor.clone();
    Arc::new(move || drop(supervisor.cast(NodeMessage::Models(ModelsMessage::Unclaimed))))
}

/// A node that has no hosts is as good as the peers that have the same files.
async fn somebody_serves(elsewhere: Option<Elsewhere>) -> bool {
    let Some(elsewhere) = elsewhere else { return true };
    let candidates = || elsewhere.peers.candidates(&elsewhere.model, &elsewhere.digest);
    while !candidates().iter().any(Candidate::decodes) {
        tokio::time::sleep(LOOK_FOR_PEERS).await;
    }
    true
}
