//! The actor at the root: starts pools and sessions, and knows which sessions exist.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SupervisionEvent};
use starling_core::audio::{RateMap, Resampler};
use starling_core::pool::PoolEvent;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{SessionId, SourceOffset};
use tokio::sync::{Semaphore, watch};
use tracing::error;

use super::arguments::{NodeArguments, SessionLimits};
use super::models::{Model, Models, PeerArguments};
use super::relays::Relays;
use crate::clock::Clock;
use crate::data::LeaseRequest;
use crate::observe::{Observation, Observer};
use crate::pool::{ModelPoolActor, PoolArguments, PoolMessage};
use crate::session::{
    AttachReply, OpenRequest, ResumeRequest, SessionActor, SessionArguments, SessionMessage,
};

pub(super) struct NodeSupervisor;

pub(super) struct SupervisorArguments {
    pub(super) node: NodeArguments,
    /// How many sessions there are.
    pub(super) sessions: watch::Sender<usize>,
    /// How many sessions of peers decode here.
    pub(super) relays: watch::Sender<usize>,
    /// Set when the node can't go on.
    pub(super) failed: watch::Sender<bool>,
}

pub(super) enum NodeMessage {
    Open(OpenRequest, AttachReply),
    Resume(ResumeRequest, AttachReply),
    /// The filter that a session needs is there.
    Resampled {
        rates: RateMap,
        resampler: Arc<Resampler>,
        request: OpenRequest,
        reply: AttachReply,
    },
    /// A peer wants a decoder.
    Lease(Box<LeaseRequest>),
    /// The models and their pools, for whoever wants to ask them.
    Pools(RpcReplyPort<Vec<PoolEntry>>),
    /// No new sessions from now on.
    Drain,
    /// End the sessions that are left.
    ShutDown,
}

/// What is known of a model apart from its pool's state.
pub(super) struct PoolEntry {
    pub(super) name: Arc<str>,
    pub(super) digest: String,
    pub(super) language: String,
    pub(super) engine: starling_protocol::lease::EngineKind,
    pub(super) capabilities: super::arguments::Capabilities,
    pub(super) sample_rate: u32,
    /// Hosts to keep; 0 where peers alone decode.
    pub(super) hosts: u16,
    pub(super) pool: ActorRef<PoolMessage>,
}

struct Entry {
    actor: ActorRef<SessionMessage>,
    token: Arc<str>,
}

pub(super) struct SupervisorState {
    models: Models,
    limits: SessionLimits,
    observer: Arc<dyn Observer>,
    clock: Clock,
    sessions: HashMap<SessionId, Entry>,
    ids: HashMap<ActorId, SessionId>,
    count: watch::Sender<usize>,
    failed: watch::Sender<bool>,
    draining: bool,
    relays: Relays,
    workshop: Arc<Semaphore>,
}

impl Message for NodeMessage {}

impl Actor for NodeSupervisor {
    type Msg = NodeMessage;
    type State = SupervisorState;
    type Arguments = SupervisorArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<NodeMessage>,
        arguments: SupervisorArguments,
    ) -> Result<SupervisorState, ActorProcessingErr> {
        let SupervisorArguments { node, sessions, relays, failed } = arguments;
        let clock = Clock::start();
        let names = Arc::new(AtomicU64::new(0));
        let peers = node.peers.map(|peers| PeerArguments { peers, names, clock });
        let reservation_names = Arc::new(AtomicU64::new(0));
        let mut models = Models::default();
        for model in node.models {
            let pool = PoolArguments {
                config: model.pool_config(&node.limits),
                spec: model.spec(),
                environment: model.environment.clone(),
                launcher: Arc::clone(&node.launcher),
                clock,
                observer: Arc::clone(&node.observer),
                others: peers.as_ref().map(|peers| peers.others(&model)),
                reservation_names: Arc::clone(&reservation_names),
            };
            let (pool, _) = Actor::spawn_linked(None, ModelPoolActor, pool, myself.get_cell()).await?;
            models.all.push(Model::new(model, pool, peers.as_ref(), &node.limits));
        }
        Ok(SupervisorState {
            models,
            limits: node.limits,
            observer: node.observer,
            clock,
            sessions: HashMap::new(),
            ids: HashMap::new(),
            count: sessions,
            failed,
            draining: false,
            relays: Relays::new(relays),
            workshop: Arc::new(Semaphore::new(1)),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<NodeMessage>,
        message: NodeMessage,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            NodeMessage::Open(request, reply) => {
                state.observer.observe(&Observation::SessionRequested { dialect: request.dialect });
                state.open(&myself, request, reply).await;
            }
            NodeMessage::Resume(request, reply) => state.resume(&request, reply),
            NodeMessage::Resampled { rates, resampler, request, reply } => {
                state.models.keep(rates, resampler);
                state.open(&myself, request, reply).await;
            }
            NodeMessage::Lease(request) => {
                let model = state.models.all.iter().find(|model| *model.name == *request.header.model);
                state.relays.start(&myself, *request, model, state.draining).await;
            }
            NodeMessage::Pools(reply) => drop(reply.send(state.pools())),
            NodeMessage::Drain => {
                state.draining = true;
                state.relays.leave();
                for model in &state.models.all {
                    let _ = model.pool.cast(PoolMessage::Event(PoolEvent::Draining));
                }
            }
            NodeMessage::ShutDown => {
                for entry in state.sessions.values() {
                    let _ = entry.actor.cast(SessionMessage::ShutDown);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<NodeMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(who, _, _) => state.forget(who.get_id()),
            SupervisionEvent::ActorFailed(who, problem) if state.relays.forget(who.get_id()) => {
                error!(%problem, "a relay's actor failed; the session at the peer looks for another decoder");
            }
            SupervisionEvent::ActorFailed(who, problem) => {
                let id = who.get_id();
                if let Some(session) = state.ids.get(&id) {
                    error!(%session, %problem, "a session's actor failed; the session is over");
                } else {
                    // A pool holds every lease of its model: a node that lost one can't keep its promises.
                    error!(%problem, "a model pool's actor failed; the node can't go on");
                    state.failed.send_replace(true);
                }
                state.forget(id);
            }
            _ => {}
        }
        Ok(())
    }
}

impl SupervisorState {
    async fn open(&mut self, myself: &ActorRef<NodeMessage>, request: OpenRequest, reply: AttachReply) {
        let dialect = request.dialect;
        if let Some(entry) = self.sessions.get(&request.session) {
            // The answer to an earlier hello was lost on its way.
            let (epoch, last_final, have_from) = (None, None, SourceOffset(0));
            let _ = entry.actor.cast(SessionMessage::Attach { epoch, last_final, have_from, reply });
            return;
        }
        if let Err((body, reply)) = self.start(myself, request, reply).await {
            self.observer.observe(&Observation::SessionRefused { dialect, reason: body.code });
            let _ = reply.send(Err(body));
        }
    }

    /// Starts a session, unless it must be refused; then the reply comes back with the reason.
    async fn start(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        request: OpenRequest,
        reply: AttachReply,
    ) -> Result<(), (ErrorBody, AttachReply)> {
        if self.draining {
            return Err((ErrorBody::new(ErrorCode::ShuttingDown, "this node is stopping"), reply));
        }
        let resolved = match self.models.resolve(&request, &self.limits) {
            Ok(resolved) => resolved,
            Err(body) => return Err((body, reply)),
        };
        let Some(resampler) = self.models.resampler(resolved.config.rates) else {
            self.make_resampler(myself, resolved.config.rates, request, reply);
            return Ok(());
        };
        let session = request.session;
        let token: Arc<str> = uuid::Uuid::new_v4().simple().to_string().into();
        let arguments = SessionArguments {
            request,
            config: resolved.config,
            options: resolved.options,
            model: resolved.model,
            decoders: resolved.decoders,
            resampler,
            journal_bytes: self.limits.journal_bytes,
            token: Arc::clone(&token),
            warnings: resolved.warnings,
            opener: Some(reply),
            clock: self.clock,
            observer: Arc::clone(&self.observer),
        };
        match Actor::spawn_linked(None, SessionActor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.ids.insert(actor.get_id(), session);
                self.sessions.insert(session, Entry { actor, token });
                self.count.send_replace(self.sessions.len());
            }
            // The opener's reply went with the arguments; dropping it tells the client of an internal error.
            Err(problem) => error!(%problem, "a session's actor cannot be started"),
        }
        Ok(())
    }

    /// Works out a filter where it keeps nobody waiting but the client that asked for it.
    fn make_resampler(
        &self,
        myself: &ActorRef<NodeMessage>,
        rates: RateMap,
        request: OpenRequest,
        reply: AttachReply,
    ) {
        let (supervisor, workshop) = (myself.clone(), Arc::clone(&self.workshop));
        tokio::spawn(async move {
            // One at a time: odd rates must not take the cores that decode.
            let Ok(_turn) = workshop.acquire().await else { return };
            let Ok(made) = tokio::task::spawn_blocking(move || Resampler::new(rates)).await else { return };
            let resampler = Arc::new(made);
            let _ = supervisor.cast(NodeMessage::Resampled { rates, resampler, request, reply });
        });
    }

    fn resume(&self, request: &ResumeRequest, reply: AttachReply) {
        let entry = self.sessions.get(&request.session);
        let Some(entry) = entry else {
            let message = "no such session here: it has ended, or was waited for long enough";
            let _ = reply.send(Err(ErrorBody::new(ErrorCode::UnknownSession, message)));
            return;
        };
        if request.resume.token != *entry.token {
            let message = "resume.token is not the one that this session's ready carried";
            let _ = reply.send(Err(ErrorBody::new(ErrorCode::BadToken, message)));
            return;
        }
        let (epoch, last_final) = (Some(request.resume.epoch), request.resume.last_final);
        let have_from = request.resume.have_from;
        let _ = entry.actor.cast(SessionMessage::Attach { epoch, last_final, have_from, reply });
    }

    fn pools(&self) -> Vec<PoolEntry> {
        let entry = |model: &Model| PoolEntry {
            name: Arc::clone(&model.name),
            digest: model.arguments.digest.clone(),
            language: model.arguments.language.clone(),
            engine: model.arguments.engine,
            capabilities: model.arguments.capabilities,
            sample_rate: model.arguments.sample_rate,
            hosts: model.arguments.hosts,
            pool: model.pool.clone(),
        };
        self.models.all.iter().map(entry).collect()
    }

    fn forget(&mut self, actor: ActorId) {
        self.relays.forget(actor);
        if let Some(session) = self.ids.remove(&actor) {
            self.sessions.remove(&session);
            self.count.send_replace(self.sessions.len());
        }
    }
}
