//! The actor at the root: starts pools and sessions, and knows which sessions exist.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SupervisionEvent};
use starling_core::audio::{RateMap, Resampler};
use starling_core::lineup::{PoolId, Stage};
use starling_core::replica::AskedAgain;
use starling_core::sabotage::{Bug, is};
use starling_core::scaling::ScalingConfig;
use starling_protocol::control::ReplicaReply;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{Epoch, SessionId, SourceOffset};
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::error;

use super::arguments::{ModelArguments, NodeArguments, SessionLimits};
use super::crashed::Running;
use super::models::{Models, ModelsMessage, PoolContext, Resolved};
use super::relays::Relays;
use crate::clock::Clock;
use crate::data::PeerRequest;
use crate::observe::{Observation, Observer};
use crate::pool::PoolMessage;
use crate::replica::{
    CopyArguments, KeeperActor, KeeperArguments, KeeperHandle, KeeperMessage, Kept, KeptCopy, NotTaken,
    RanOutElsewhere, TakenOver, unknown,
};
use crate::session::{
    AskedEpoch, AttachReply, OpenRequest, Opener, RestoredSession, ResumeRequest, SessionActor,
    SessionArguments, SessionMessage, Sighting,
};
use crate::trace::{Begin, SessionTrace, SharedTrace, Tracing, log_span};

pub(super) struct NodeSupervisor;

pub(super) struct SupervisorArguments {
    pub(super) node: NodeArguments,
    /// How many sessions there are.
    pub(super) sessions: watch::Sender<usize>,
    /// How many sessions of peers decode here.
    pub(super) relays: watch::Sender<usize>,
    /// What copies of others' sessions take.
    pub(super) kept: watch::Sender<Kept>,
    /// What new sessions get.
    pub(super) served: watch::Sender<Arc<[ModelArguments]>>,
    /// Set when the node can't go on.
    pub(super) failed: watch::Sender<bool>,
}

pub(super) enum NodeMessage {
    Open(OpenRequest, AttachReply),
    /// A new session was asked for, and now there is what it needs.
    Begin(Box<OpenRequest>, AttachReply),
    Resume(ResumeRequest, AttachReply),
    /// The filter that a session needs is there.
    Resampled {
        rates: RateMap,
        resampler: Arc<Resampler>,
        then: Box<NodeMessage>,
    },
    /// A peer wants a decoder, or a copy to be kept, or one that is kept.
    Peer(PeerRequest),
    /// A peer wants to go on with a session.
    Promote(SessionId, Epoch, RpcReplyPort<ReplicaReply>),
    /// A peer's copy of a session has run out.
    RanOut(RanOutElsewhere),
    /// What is held of a session?
    Held(SessionId, RpcReplyPort<ReplicaReply>),
    /// A session was found elsewhere, or was not.
    TakenOver {
        resume: ResumeRequest,
        found: Result<Box<TakenOver>, NotTaken>,
        reply: AttachReply,
    },
    /// No node has the session that a client came back to by its id: it is a new one.
    NotFound(Box<OpenRequest>, AttachReply),
    /// Go on with a session by its id, if there is one.
    GoOn(OpenRequest, AttachReply),
    /// No node has it.
    Nowhere(SessionId, AttachReply),
    /// What is known of others' sessions.
    Kept(RpcReplyPort<Vec<KeptCopy>>),
    /// The sessions, for whoever wants to ask them.
    Sessions(RpcReplyPort<Vec<ActorRef<SessionMessage>>>),
    /// The models and their pools, for whoever wants to ask them.
    Pools(RpcReplyPort<Vec<PoolEntry>>),
    /// The models are to change, or something happened to them.
    Models(ModelsMessage),
    /// No new sessions from now on.
    Drain,
    /// End the sessions that are left.
    ShutDown,
}

/// A session hands itself over between two messages.
pub(super) const HAND_OVER: Duration = Duration::from_millis(500);

/// What is known of a model apart from its pool's state.
pub(super) struct PoolEntry {
    pub(super) id: PoolId,
    pub(super) stage: Stage,
    pub(super) name: Arc<str>,
    pub(super) digest: String,
    pub(super) language: String,
    pub(super) engine: starling_protocol::lease::EngineKind,
    pub(super) capabilities: super::arguments::Capabilities,
    pub(super) sample_rate: u32,
    /// Whether this node has hosts for it, rather than peers alone.
    pub(super) decodes: bool,
    pub(super) policy: ScalingConfig,
    pub(super) slots_per_host: usize,
    pub(super) pool: ActorRef<PoolMessage>,
}

pub(super) struct SupervisorState {
    pub(super) models: Models,
    pub(super) limits: SessionLimits,
    pub(super) observer: Arc<dyn Observer>,
    tracing: Tracing,
    pub(super) clock: Clock,
    pub(super) sessions: HashMap<SessionId, ActorRef<SessionMessage>>,
    /// Sessions that are being looked for elsewhere, and who came back meanwhile.
    pub(super) takeovers: HashMap<SessionId, Option<(ResumeRequest, AttachReply)>>,
    /// Clients that were told to ask again, as somebody who may have their session had not answered.
    pub(super) asked_again: AskedAgain,
    pub(super) copies: CopyArguments,
    pub(super) keeper: KeeperHandle,
    /// What another keeper is started with, if the one that is there fails.
    making: KeeperArguments,
    /// Sessions by their actors.
    running: HashMap<ActorId, Running>,
    count: watch::Sender<usize>,
    failed: watch::Sender<bool>,
    pub(super) draining: bool,
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
        let SupervisorArguments { node, sessions, relays, kept, served, failed } = arguments;
        let clock = Clock::start();
        let context = PoolContext {
            launcher: node.launcher,
            limits: node.limits,
            observer: Arc::clone(&node.observer),
            tracing: node.tracing.clone(),
            clock,
            peers: node.peers,
            names: Arc::new(AtomicU64::new(0)),
            reservation_names: Arc::new(AtomicU64::new(0)),
        };
        let models = Models::start(node.models, context, served, &myself).await?;
        let making = KeeperArguments {
            memory_bytes: node.copies.memory_bytes,
            clock,
            claims: models.copies(),
            kept,
            tracing: node.tracing.clone(),
            own: node.copies.own.clone(),
            peers: node.copies.peers.clone(),
            observer: Arc::clone(&node.observer),
        };
        let keeper = spawn_keeper(&myself, making.clone()).await?;
        Ok(SupervisorState {
            models,
            limits: node.limits,
            observer: node.observer,
            tracing: node.tracing,
            clock,
            sessions: HashMap::new(),
            takeovers: HashMap::new(),
            asked_again: AskedAgain::default(),
            copies: node.copies,
            keeper,
            making,
            running: HashMap::new(),
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
            NodeMessage::Open(request, reply) => state.open(&myself, request, reply).await,
            NodeMessage::Begin(request, reply) => {
                // The same client may have asked again while the filter was worked out.
                if let Some(reply) = state.attach(&request, reply) {
                    state.begin(&myself, *request, reply).await;
                }
            }
            NodeMessage::Resume(request, reply) => state.resume(&myself, request, reply),
            NodeMessage::Resampled { rates, resampler, then } => {
                state.models.keep(rates, resampler);
                let _ = myself.cast(*then);
            }
            NodeMessage::Peer(PeerRequest::Lease(request)) => {
                let model = state.models.for_peer(&request.header);
                state.relays.start(&myself, *request, model, state.draining).await;
            }
            NodeMessage::Peer(PeerRequest::Copy(request)) => {
                let _ = state.keeper.cast(KeeperMessage::Copy(request));
            }
            NodeMessage::Peer(PeerRequest::Fetch(request)) => {
                let _ = state.keeper.cast(KeeperMessage::Fetch(request));
            }
            NodeMessage::Promote(session, epoch, reply) => state.promote(session, epoch, reply),
            NodeMessage::RanOut(asked) => state.ran_out(asked),
            NodeMessage::Held(session, reply) => state.held(session, reply),
            NodeMessage::Kept(reply) => drop(state.keeper.cast(KeeperMessage::Known(reply))),
            NodeMessage::NotFound(request, reply) => {
                state.takeovers.remove(&request.session);
                state.open_new(&myself, *request, reply).await;
            }
            NodeMessage::GoOn(request, reply) => state.go_on_by_id(&myself, request, reply),
            NodeMessage::Nowhere(session, reply) => {
                state.takeovers.remove(&session);
                let _ = reply.send(Err(unknown()));
            }
            NodeMessage::TakenOver { resume, found, reply } => {
                state.taken_over(&myself, resume, found, reply).await;
            }
            NodeMessage::Sessions(reply) => {
                let _ = reply.send(state.sessions.values().cloned().collect());
            }
            NodeMessage::Pools(reply) => drop(reply.send(state.models.entries())),
            NodeMessage::Models(message) => state.models.handle(&myself, message).await,
            NodeMessage::Drain => {
                state.draining = true;
                if is(Bug::DrainDropsThinClient) {
                    let _ = myself.cast(NodeMessage::ShutDown);
                }
                state.relays.leave();
                state.models.drain();
            }
            NodeMessage::ShutDown => {
                for session in state.sessions.values() {
                    let _ = session.cast(SessionMessage::ShutDown);
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<NodeMessage>,
        event: SupervisionEvent,
        state: &mut SupervisorState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorTerminated(who, ..) | SupervisionEvent::ActorFailed(who, _) = &event
            && state.models.ended(&myself, who.get_id()).await
        {
            return Ok(());
        }
        match event {
            SupervisionEvent::ActorFailed(who, problem) if who.get_id() == state.keeper.get_id() => {
                error!(%problem, "the keeper of copies failed and starts over; owners make new copies");
                state.keeper = spawn_keeper(&myself, state.making.clone()).await?;
            }
            SupervisionEvent::ActorTerminated(who, _, _) => state.forget(who.get_id()),
            SupervisionEvent::ActorFailed(who, problem) if state.relays.forget(who.get_id()) => {
                error!(%problem, "a relay's actor failed; the session at the peer looks for another decoder");
            }
            SupervisionEvent::ActorFailed(who, problem) => {
                let id = who.get_id();
                if let Some(running) = state.running.get(&id) {
                    error!(parent: &running.log, %problem, "a session's actor failed; the session is over");
                    state.crashed(&myself, running);
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
        let Some(reply) = self.attach(&request, reply) else { return };
        if request.by_id && !self.draining && self.copies.peers.is_some() {
            return self.look_for(myself, request, reply, |request, reply| {
                NodeMessage::NotFound(Box::new(request), reply)
            });
        }
        self.open_new(myself, request, reply).await;
    }

    /// Connects the client to its session, if there is one already: the answer to an earlier hello was lost on its way.
    pub(super) fn attach(&self, request: &OpenRequest, reply: AttachReply) -> Option<AttachReply> {
        let Some(session) = self.sessions.get(&request.session) else { return Some(reply) };
        let (epoch, last_final, have_from) = (AskedEpoch::NextFrom(request.epoch), None, SourceOffset(0));
        let tenant = request.tenant.clone();
        let _ = session.cast(SessionMessage::Attach { tenant, epoch, last_final, have_from, reply });
        None
    }

    async fn open_new(&mut self, myself: &ActorRef<NodeMessage>, request: OpenRequest, reply: AttachReply) {
        self.observer.observe(&Observation::SessionRequested { dialect: request.dialect });
        self.begin(myself, request, reply).await;
    }

    async fn begin(&mut self, myself: &ActorRef<NodeMessage>, request: OpenRequest, reply: AttachReply) {
        let dialect = request.dialect;
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
            return Err((stopping(), reply));
        }
        let resolved = match self.models.resolve(&request, &self.limits) {
            Ok(resolved) => resolved,
            Err(body) => return Err((body, reply)),
        };
        let Some(resampler) = self.models.resampler(resolved.config.rates) else {
            let rates = resolved.config.rates;
            self.make_resampler(myself, rates, NodeMessage::Begin(Box::new(request), reply));
            return Ok(());
        };
        let opener = Opener { epoch: request.epoch, last_final: None, have_from: SourceOffset(0), reply };
        self.spawn(myself, request, resolved, resampler, opener, None).await;
        Ok(())
    }

    pub(super) async fn spawn(
        &mut self,
        myself: &ActorRef<NodeMessage>,
        request: OpenRequest,
        resolved: Resolved,
        resampler: Arc<Resampler>,
        opener: Opener,
        restored: Option<Box<RestoredSession>>,
    ) {
        let session = request.session;
        let (trace, log) = self.trace(&request, &resolved.model, &opener, restored.as_deref());
        let seen = Sighting::default();
        let since = (self.clock.now(), restored.as_ref().and_then(|restored| restored.opened));
        let running = Running::new(&request, &resolved.model, since, (trace.as_ref(), &log), &seen);
        let arguments = SessionArguments {
            request,
            config: resolved.config,
            options: resolved.options,
            model: resolved.model,
            digest: resolved.digest,
            decoders: resolved.decoders,
            resampler,
            journal_bytes: self.limits.journal_bytes,
            copies: self.copies.clone(),
            keeper: self.keeper.clone(),
            standby: self.limits.standby,
            warnings: resolved.warnings,
            opener: Some(opener),
            restored,
            clock: self.clock,
            observer: Arc::clone(&self.observer),
            trace,
            log,
            seen,
        };
        match Actor::spawn_linked(None, SessionActor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.running.insert(actor.get_id(), running);
                self.sessions.insert(session, actor);
                self.count.send_replace(self.sessions.len());
            }
            // The opener's reply went with the arguments; dropping it tells the client of an internal error.
            Err(problem) => {
                error!(parent: &running.log, %problem, "a session's actor cannot be started");
                self.crashed(myself, &running);
            }
        }
    }

    /// Who tells of a session that begins or goes on here, and what each line of the log says of it, whoever writes it.
    fn trace(
        &self,
        request: &OpenRequest,
        model: &str,
        opener: &Opener,
        restored: Option<&RestoredSession>,
    ) -> (Option<SharedTrace>, tracing::Span) {
        let begin = Begin {
            session: request.session,
            tenant: &request.tenant,
            dialect: request.dialect.label(),
            model,
            epoch: opener.epoch,
            context: request.trace.as_ref(),
            arrival: restored.map(|restored| restored.arrival.clone()),
        };
        let begin = |tracer| SharedTrace::new(*SessionTrace::begin(tracer, self.clock.now(), begin));
        let trace = self.tracing.clone().map(begin);
        let context = trace.as_ref().map(|trace| trace.lock().context()).or_else(|| request.trace.clone());
        (trace, log_span(request.session, context.as_ref()))
    }

    /// Works out a filter where it keeps nobody waiting but the client that asked for it, and goes on with `then`.
    pub(super) fn make_resampler(&self, myself: &ActorRef<NodeMessage>, rates: RateMap, then: NodeMessage) {
        let (supervisor, workshop) = (myself.clone(), Arc::clone(&self.workshop));
        tokio::spawn(async move {
            // One at a time: odd rates must not take the cores that decode.
            let Ok(_turn) = workshop.acquire().await else { return };
            let Ok(made) = tokio::task::spawn_blocking(move || Resampler::new(rates)).await else { return };
            let (resampler, then) = (Arc::new(made), Box::new(then));
            let _ = supervisor.cast(NodeMessage::Resampled { rates, resampler, then });
        });
    }

    /// A peer goes on with a session. One that lives here is handed over first.
    fn promote(&self, session: SessionId, epoch: Epoch, reply: RpcReplyPort<ReplicaReply>) {
        let keeper = self.keeper.clone();
        let Some(owner) = self.sessions.get(&session).cloned() else {
            let _ = keeper.cast(KeeperMessage::Promote(session, epoch, reply));
            return;
        };
        tokio::spawn(async move {
            let (hand_over, copy) = oneshot::channel();
            let _ = owner.cast(SessionMessage::Relinquish { epoch, reply: hand_over });
            match tokio::time::timeout(HAND_OVER, copy).await {
                Ok(Ok(Ok(copy))) => drop(keeper.cast(KeeperMessage::Offer(copy))),
                Ok(Ok(Err(epoch))) => {
                    let _ = reply.send(ReplicaReply::Fenced { epoch });
                    return;
                }
                // It has just ended, and left a copy or did not.
                Ok(Err(_)) => {}
                Err(_) => {
                    let _ = reply.send(ReplicaReply::Busy);
                    return;
                }
            }
            let _ = keeper.cast(KeeperMessage::Promote(session, epoch, reply));
        });
    }

    fn forget(&mut self, actor: ActorId) {
        self.relays.forget(actor);
        if let Some(Running { session, .. }) = self.running.remove(&actor) {
            self.sessions.remove(&session);
            self.count.send_replace(self.sessions.len());
        }
    }
}

async fn spawn_keeper(
    myself: &ActorRef<NodeMessage>,
    arguments: KeeperArguments,
) -> Result<KeeperHandle, ActorProcessingErr> {
    let (keeper, _) = Actor::spawn_linked(None, KeeperActor, arguments, myself.get_cell()).await?;
    Ok(keeper)
}

pub(super) fn stopping() -> ErrorBody {
    ErrorBody::new(ErrorCode::ShuttingDown, "this node is stopping")
}
