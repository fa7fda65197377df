//! What the program holds of its node.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef, RpcReplyPort};
use starling_core::lineup::Stage;
use starling_core::scaling::ScalingConfig;
use starling_protocol::control::{
    CopySummary, KilledDecoder, Replica, ReplicaReply, ReplicaRequest, Service, SessionReport,
};
use starling_protocol::lease::EngineKind;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{Epoch, NodeId, NodeName, SessionId};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::arguments::{Capabilities, ModelArguments, NodeArguments};
use super::models::{ModelChange, ModelsMessage, ServeError};
use super::scaling::PoolScale;
use super::supervisor::{NodeMessage, NodeSupervisor, PoolEntry, SupervisorArguments};
use crate::data::{IncomingStreams, serve};
use crate::pool::{PoolMessage, PoolSnapshot};
use crate::replica::{Kept, KeptCopy, RanOutElsewhere};
use crate::session::{Attachment, OpenRequest, ResumeRequest, SessionMessage};

/// An actor of this node that does not answer for so long has failed.
const ANSWER: Duration = Duration::from_secs(5);

/// Sessions that were told to end are given so long to tell their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Hosts are given so long to end; they are killed before this.
const HOSTS_END: Duration = Duration::from_secs(8);

/// A node can't be started. Nothing runs.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is nothing to serve.
    #[error("no model is configured")]
    NoModels,
    /// An actor can't be started.
    #[error("the node's actors cannot be started: {0}")]
    Actors(#[from] ractor::SpawnErr),
}

/// A node as it is now.
#[derive(Debug, Clone, Default)]
pub struct NodeStatus {
    /// Its models' pools: those that new sessions get, the default one first; each with the one that is to replace it; then those
    /// that older sessions go on with.
    pub models: Vec<ModelStatus>,
    /// Sessions that exist.
    pub sessions: usize,
    /// Sessions of peers that decode here.
    pub relayed: usize,
    /// Copies of peers' sessions.
    pub copies: usize,
    /// What they take.
    pub copies_bytes: u64,
    /// What more may come.
    pub copies_free_bytes: u64,
    /// Whether it takes no new ones.
    pub draining: bool,
}

/// One pool of a model as it is now.
#[derive(Debug, Clone)]
pub struct ModelStatus {
    /// Its name.
    pub name: String,
    /// The pool, by its number on this node.
    pub pool: u64,
    /// What the pool is there for.
    pub stage: Stage,
    /// SHA-256 of its files' table, in hex.
    pub digest: String,
    /// Engine, library and CPU class, of which decoding is a pure function; `None` until a host was ready.
    pub determinism: Option<String>,
    /// Its language.
    pub language: String,
    /// Its engine.
    pub engine: EngineKind,
    /// What its engine can give.
    pub capabilities: Capabilities,
    /// The rate it hears, in Hz.
    pub sample_rate: u32,
    /// Hosts that are ready.
    pub hosts_ready: usize,
    /// Hosts that are to be kept.
    pub hosts_total: usize,
    /// Slots of ready hosts.
    pub slots_total: usize,
    /// Leases held, those in the reserve counted, and slots that are kept for leases to come.
    pub slots_busy: usize,
    /// Slots that a new session could have now, without what is kept for the streams of other nodes.
    pub slots_idle: usize,
    /// Requests that wait for a slot.
    pub waiting: usize,
    /// Those among them of sessions that go on: they have streams that nobody decodes now.
    pub continuing: usize,
    /// Hosts that ended without being told to.
    pub restarts: u64,
    /// Slots that the pool aims for, hosts that are still to come counted.
    pub slots_desired: usize,
    /// Hosts that are one too many, and there still.
    pub hosts_parked: usize,
    /// What it is to have in idle decoders and the like.
    pub policy: ScalingConfig,
    /// How its hosts become more and fewer, if they do.
    pub scaling: Option<PoolScale>,
    /// CPU seconds for each second of audio, since the start; `None` before any.
    pub real_time_factor: Option<f64>,
    /// Audio that its hosts have decoded since the start, those that are gone too.
    pub decoded: Duration,
    /// CPU time that took.
    pub decoding: Duration,
    /// Resident memory of its hosts.
    pub resident_bytes: u64,
    /// Why its hosts can't load, while they can't.
    pub last_error: Option<String>,
}

/// A running node.
#[derive(Clone)]
pub struct NodeHandle {
    supervisor: ActorRef<NodeMessage>,
    sessions: watch::Receiver<usize>,
    relays: watch::Receiver<usize>,
    kept: watch::Receiver<Kept>,
    served: watch::Receiver<Arc<[ModelArguments]>>,
    failed: watch::Receiver<bool>,
    draining: watch::Sender<bool>,
}

impl NodeHandle {
    /// Starts a node. Returns at once; its hosts load in the background, and sessions may wait for them.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(arguments: NodeArguments) -> Result<Self, StartError> {
        if arguments.models.is_empty() {
            return Err(StartError::NoModels);
        }
        let (count, sessions) = watch::channel(0);
        let (broken, failed) = watch::channel(false);
        let (relayed, relays) = watch::channel(0);
        let (keeping, kept) = watch::channel(Kept::default());
        let (offered, served) = watch::channel(Arc::default());
        let arguments = SupervisorArguments {
            node: arguments,
            sessions: count,
            relays: relayed,
            kept: keeping,
            served: offered,
            failed: broken,
        };
        let (supervisor, _) = Actor::spawn(None, NodeSupervisor, arguments).await?;
        let draining = watch::Sender::new(false);
        Ok(Self { supervisor, sessions, relays, kept, served, failed, draining })
    }

    /// Opens a session, or goes on with one of the same id whose client never got an answer.
    ///
    /// # Errors
    /// What the client is to be told: busy, an unknown model, an option out of range.
    pub async fn open(&self, request: OpenRequest) -> Result<Attachment, ErrorBody> {
        self.attach(|reply| NodeMessage::Open(request, reply)).await
    }

    /// Goes on with the session of the request's id, whose client has nothing else to show. Begins none, and takes no decoder to see
    /// whether there is one.
    ///
    /// # Errors
    /// What the client is to be told; `unknown_session` when no node has it.
    pub async fn go_on(&self, request: OpenRequest) -> Result<Attachment, ErrorBody> {
        self.attach(|reply| NodeMessage::GoOn(request, reply)).await
    }

    /// Goes on with a session.
    ///
    /// # Errors
    /// What the client is to be told: no such session, not its token, superseded, a gap.
    pub async fn resume(&self, request: ResumeRequest) -> Result<Attachment, ErrorBody> {
        self.attach(|reply| NodeMessage::Resume(request, reply)).await
    }

    async fn attach(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<Attachment, ErrorBody>>) -> NodeMessage,
    ) -> Result<Attachment, ErrorBody> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| ErrorBody::new(ErrorCode::Internal, "the session ended before it began");
        // The pool's queue has a deadline, and with it this wait; a node that is gone drops the reply.
        let _ = self.supervisor.cast(message(reply));
        answer.await.unwrap_or_else(|error| Err(gone(error)))
    }

    /// Serves streams that peers open, until there are no more of them or the node has ended. To be called in a task of its
    /// own, once for each link.
    pub async fn serve_peers(&self, streams: IncomingStreams) {
        let supervisor = self.supervisor.clone();
        serve(streams, move |request| supervisor.cast(NodeMessage::Peer(request)).is_ok()).await;
    }

    /// A peer goes on with a session: from now on `epoch` is obeyed, if no other as high came first.
    pub async fn promote(&self, session: SessionId, epoch: Epoch) -> ReplicaReply {
        let asked = ask(&self.supervisor, |reply| NodeMessage::Promote(session, epoch, reply)).await;
        asked.unwrap_or(ReplicaReply::Busy)
    }

    /// What is held of another node's session.
    pub async fn held(&self, session: SessionId) -> ReplicaReply {
        let asked = ask(&self.supervisor, |reply| NodeMessage::Held(session, reply)).await;
        asked.unwrap_or(ReplicaReply::Busy)
    }

    /// Whether this node knows better of a session whose copy has run out on the node `by`.
    pub async fn ran_out(&self, session: SessionId, copy: CopySummary, by: NodeName) -> ReplicaReply {
        let asked = |reply| NodeMessage::RanOut(RanOutElsewhere { session, copy, by, reply });
        ask(&self.supervisor, asked).await.unwrap_or(ReplicaReply::Busy)
    }

    /// Answers what a peer asks of copies on the control plane.
    pub async fn ask_replica(&self, from: NodeId, request: ReplicaRequest) -> ReplicaReply {
        match request {
            ReplicaRequest::Promote { session, epoch, .. } => {
                tracing::debug!(%session, %epoch, %from, "a peer goes on with a session");
                self.promote(session, epoch).await
            }
            ReplicaRequest::Status { session } => self.held(session).await,
            ReplicaRequest::RanOut { session, copy } => self.ran_out(session, copy, from.name).await,
            _ => Replica::unknown(),
        }
    }

    /// What this node keeps of others' sessions, and whom it obeys: for whoever judges it from outside.
    pub async fn kept_copies(&self) -> Vec<KeptCopy> {
        ask(&self.supervisor, NodeMessage::Kept).await.unwrap_or_default()
    }

    /// How this node's sessions are: those that answer at once, `most` of them.
    pub async fn session_reports(&self, most: usize) -> Vec<SessionReport> {
        let sessions = ask(&self.supervisor, NodeMessage::Sessions).await.unwrap_or_default();
        let reports = sessions.into_iter().take(most).map(|session| async move {
            let (reply, report) = oneshot::channel();
            session.cast(SessionMessage::Report(reply)).ok()?;
            tokio::time::timeout(ANSWER, report).await.ok()?.ok()
        });
        futures_util::future::join_all(reports).await.into_iter().flatten().collect()
    }

    /// Serves these models from now on and no others, the default first. What is served already is left as it is; where files
    /// or settings differ, a new pool takes the old one's place once it can. Sessions keep what they began with. Returns when
    /// the pools are there, with what became of each model.
    ///
    /// # Errors
    /// See [`ServeError`]: nothing has changed.
    pub async fn serve_models(&self, models: Vec<ModelArguments>) -> Result<Vec<ModelChange>, ServeError> {
        self.change(|reply| ModelsMessage::Serve(models, reply)).await
    }

    /// Serves this model too, or in place of the one of its name.
    ///
    /// # Errors
    /// See [`ServeError`]: nothing has changed.
    pub async fn add_model(&self, model: ModelArguments) -> Result<ModelChange, ServeError> {
        let changes = self.change(|reply| ModelsMessage::Add(Box::new(model), reply)).await?;
        changes.into_iter().next().ok_or(ServeError::Gone)
    }

    async fn change(
        &self,
        message: impl FnOnce(RpcReplyPort<Result<Vec<ModelChange>, ServeError>>) -> ModelsMessage,
    ) -> Result<Vec<ModelChange>, ServeError> {
        let answer = ask(&self.supervisor, |reply| NodeMessage::Models(message(reply))).await;
        answer.unwrap_or(Err(ServeError::Gone))
    }

    /// Kills the busiest decoder host of a model, or of all, with no word to anybody: what follows is what follows on a crash.
    /// `None` if there is none.
    pub async fn kill_decoder(&self, model: Option<&str>) -> Option<KilledDecoder> {
        for entry in self.pools().await {
            if model.is_some_and(|model| *model != *entry.name) {
                continue;
            }
            if let Some((pid, leases)) = ask(&entry.pool, PoolMessage::KillOne).await.flatten() {
                let leases = u32::try_from(leases).unwrap_or(u32::MAX);
                return Some(KilledDecoder { model: entry.name.to_string(), pid, leases });
            }
        }
        None
    }

    /// What new sessions get, the default first. Changes while the node runs.
    #[must_use]
    pub fn served(&self) -> watch::Receiver<Arc<[ModelArguments]>> {
        self.served.clone()
    }

    /// How the node is.
    pub async fn status(&self) -> NodeStatus {
        let mut models = Vec::new();
        for entry in self.pools().await {
            let snapshot = ask(&entry.pool, PoolMessage::Snapshot).await.unwrap_or_default();
            models.push(model_status(entry, snapshot));
        }
        let (sessions, relayed) = (*self.sessions.borrow(), *self.relays.borrow());
        let Kept { copies, bytes, free_bytes } = *self.kept.borrow();
        let (copies_bytes, copies_free_bytes) = (bytes, free_bytes);
        let draining = *self.draining.borrow();
        NodeStatus { models, sessions, relayed, copies, copies_bytes, copies_free_bytes, draining }
    }

    /// Resolves when the node can't go on. The process should end.
    pub async fn failed(&self) {
        let mut failed = self.failed.clone();
        // A supervisor that is gone can't go on either.
        let _ = failed.wait_for(|failed| *failed).await;
    }

    /// Takes no new sessions and waits until those there are have ended, and those of peers have left. What is left at the
    /// deadline is told and ended.
    pub async fn drain(&self, deadline: Duration) {
        self.draining.send_replace(true);
        let _ = self.supervisor.cast(NodeMessage::Drain);
        let (mut sessions, mut relays) = (self.sessions.clone(), self.relays.clone());
        let empty = async {
            // Without its supervisor the node has neither.
            let _ = sessions.wait_for(|count| *count == 0).await;
            let _ = relays.wait_for(|count| *count == 0).await;
        };
        if tokio::time::timeout(deadline, empty).await.is_err() {
            let _ = self.supervisor.cast(NodeMessage::ShutDown);
            let _ = tokio::time::timeout(LAST_WORDS, sessions.wait_for(|count| *count == 0)).await;
        }
    }

    /// Ends every host, then the node.
    pub async fn stop(self) {
        let pools = self.pools().await;
        let stops = pools.iter().map(|entry| async move {
            let (reply, stopped) = oneshot::channel();
            if entry.pool.cast(PoolMessage::Stop(reply.into())).is_ok() {
                let _ = tokio::time::timeout(HOSTS_END, stopped).await;
            }
        });
        futures_util::future::join_all(stops).await;
        let _ = self.supervisor.stop_and_wait(None, Some(ANSWER)).await;
    }

    pub(super) async fn pools(&self) -> Vec<PoolEntry> {
        ask(&self.supervisor, NodeMessage::Pools).await.unwrap_or_default()
    }
}

pub(super) async fn ask<M, T>(
    actor: &ActorRef<M>,
    message: impl FnOnce(ractor::RpcReplyPort<T>) -> M,
) -> Option<T>
where
    M: ractor::Message,
    T: Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    actor.cast(message(reply.into())).ok()?;
    tokio::time::timeout(ANSWER, answer).await.ok()?.ok()
}

fn model_status(entry: PoolEntry, snapshot: PoolSnapshot) -> ModelStatus {
    let PoolSnapshot { counts, load, last_error, class, scaling } = snapshot;
    ModelStatus {
        name: entry.name.to_string(),
        pool: entry.id.0,
        stage: entry.stage,
        digest: entry.digest,
        determinism: class.map(|class| class.to_string()),
        language: entry.language,
        engine: entry.engine,
        capabilities: entry.capabilities,
        sample_rate: entry.sample_rate,
        hosts_ready: counts.hosts_ready,
        hosts_total: counts.hosts_wanted,
        slots_total: counts.slots,
        slots_busy: counts.leases + counts.reserved,
        slots_idle: counts.idle,
        waiting: counts.waiting,
        continuing: counts.continuing,
        restarts: counts.failures,
        slots_desired: counts.hosts_wanted * entry.slots_per_host,
        hosts_parked: counts.hosts_parked,
        policy: entry.policy,
        scaling,
        decoded: Duration::from_millis(load.audio_ms),
        decoding: Duration::from_millis(load.busy_ms),
        real_time_factor: (load.audio_ms > 0).then(|| load.busy_ms as f64 / load.audio_ms as f64),
        resident_bytes: load.resident_bytes,
        last_error,
    }
}
