//! The models a node serves, while it runs.
//!
//! Owns: their pools' actors, and the lineup that decides among them. Must never: decide itself when one begins or ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ractor::{ActorId, ActorRef, RpcReplyPort, SpawnErr};
use starling_core::Timestamp;
use starling_core::audio::{RateMap, Resampler};
use starling_core::lineup::{Change, LineupAction, LineupConfig, LineupEvent, LineupMachine, PoolId, Stage};
use starling_core::pool::PoolEvent;
use starling_protocol::data::LeaseHeader;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::replica::SessionFacts;
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info};

use super::arguments::{ModelArguments, SessionLimits};
use super::supervisor::{NodeMessage, PoolEntry};
use crate::claim::FilesClaims;
use crate::pool::PoolMessage;
use crate::session::OpenRequest;

mod pools;
mod resamplers;
mod resolve;

pub(super) use pools::{Model, PoolContext};
use resamplers::Resamplers;
pub(super) use resolve::Resolved;

/// How long a pool that was replaced is kept once nobody has a claim to it. A session of a peer that has lost its decoder or its
/// node is back within the time that nodes keep sessions for; most are within a second.
const KEEP: Duration = Duration::from_secs(60);

/// What the models are told.
pub(super) enum ModelsMessage {
    /// Serve these and no others, the default first.
    Serve(Vec<ModelArguments>, RpcReplyPort<Result<Vec<ModelChange>, ServeError>>),
    /// Serve this one beside the others.
    Add(Box<ModelArguments>, RpcReplyPort<Result<Vec<ModelChange>, ServeError>>),
    /// A pool can take sessions.
    Ready(PoolId),
    /// Nobody has a claim to some pool any more.
    Unclaimed,
    /// The lineup's timer.
    TimedOut,
}

/// What became of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelChange {
    /// Its name.
    pub name: String,
    /// Its digest.
    pub digest: String,
    /// The pool that serves it, by its number; the one that did, if it was retired.
    pub pool: u64,
    /// What became of it.
    pub change: Change,
}

/// Models can't be changed. All are served as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ServeError {
    /// The node takes no new sessions.
    #[error("this node is stopping")]
    Draining,
    /// Nothing would be served.
    #[error("no model is named")]
    Nothing,
    /// The node has ended.
    #[error("this node has ended")]
    Gone,
}

pub(super) struct Models {
    lineup: LineupMachine<ModelArguments>,
    pools: HashMap<PoolId, Model>,
    context: PoolContext,
    resamplers: Resamplers,
    /// Of sessions that live elsewhere and may have to go on here.
    copies: FilesClaims,
    /// What new sessions get, the default first.
    served: watch::Sender<Arc<[ModelArguments]>>,
    timer: Option<Timestamp>,
    draining: bool,
}

impl Models {
    pub(super) async fn start(
        offers: Vec<ModelArguments>,
        context: PoolContext,
        served: watch::Sender<Arc<[ModelArguments]>>,
        supervisor: &ActorRef<NodeMessage>,
    ) -> Result<Self, SpawnErr> {
        let mut out = Vec::new();
        let lineup = LineupMachine::new(LineupConfig { keep: KEEP }, offers, &mut out);
        let mut models = Self {
            lineup,
            pools: HashMap::new(),
            context,
            resamplers: Resamplers::default(),
            copies: FilesClaims::new(pools::unclaimed(supervisor)),
            served,
            timer: None,
            draining: false,
        };
        for action in out {
            if let LineupAction::Start { pool } = action {
                models.start_pool(pool, supervisor).await?;
            }
        }
        models.publish();
        Ok(models)
    }

    /// The model a client named, or the default.
    pub(super) fn find(&self, name: Option<&str>) -> Result<&Model, ErrorBody> {
        let found = self.lineup.find(name).and_then(|pool| self.pools.get(&pool));
        found.ok_or_else(|| {
            let names: Vec<&str> = self.lineup.names().collect();
            let allowed = format!("one of {}", names.join(", "));
            let mut body = ErrorBody::field("model", format!("{:?}", name.unwrap_or_default()), allowed);
            body.code = ErrorCode::UnknownModel;
            body
        })
    }

    /// The model that a session began with, if it is still here.
    pub(super) fn find_exact(&self, name: &str, digest: &str) -> Option<&Model> {
        self.lineup.find_exact(name, digest).and_then(|pool| self.pools.get(&pool))
    }

    /// The model that a peer names. One with other files is there to be told of.
    pub(super) fn for_peer(&self, header: &LeaseHeader) -> Option<&Model> {
        self.find_exact(&header.model, &header.digest).or_else(|| self.find(Some(&header.model)).ok())
    }

    /// What a session that lived elsewhere is decided by here.
    pub(super) fn resume(&self, facts: &SessionFacts, limits: &SessionLimits) -> Result<Resolved, ErrorBody> {
        let served = self.find_exact(&facts.model, &facts.digest);
        let model =
            served.filter(|model| model.arguments.sample_rate == facts.decode_hz).ok_or_else(|| {
                let message = format!("this node has no model {} with the session's files", facts.model);
                ErrorBody::new(ErrorCode::UnknownModel, message)
            })?;
        model.resume(facts, limits)
    }

    pub(super) fn resolve(
        &self,
        request: &OpenRequest,
        limits: &SessionLimits,
    ) -> Result<Resolved, ErrorBody> {
        self.find(request.model.as_deref())?.resolve(request, limits)
    }

    /// The filter for a pair of rates, if it is there or costs nothing.
    pub(super) fn resampler(&mut self, rates: RateMap) -> Option<Arc<Resampler>> {
        self.resamplers.get(rates)
    }

    /// Keeps a filter for the next session with these rates.
    pub(super) fn keep(&mut self, rates: RateMap, resampler: Arc<Resampler>) {
        self.resamplers.keep(rates, resampler);
    }

    /// All pools, for whoever wants to ask them.
    pub(super) fn entries(&self) -> Vec<PoolEntry> {
        let entry = |pool: PoolId| {
            let (model, stage) = (self.pools.get(&pool)?, self.lineup.stage(pool)?);
            Some(PoolEntry {
                id: pool,
                stage,
                name: Arc::clone(&model.name),
                digest: model.arguments.digest.clone(),
                language: model.arguments.language.clone(),
                engine: model.arguments.engine,
                capabilities: model.arguments.capabilities,
                sample_rate: model.arguments.sample_rate,
                decodes: model.arguments.is_decoded_here(),
                policy: model.arguments.scaling.policy,
                slots_per_host: usize::from(model.arguments.slots_per_host),
                pool: model.pool.clone(),
            })
        };
        self.lineup.pools().into_iter().filter_map(entry).collect()
    }

    /// Claims for copies of sessions that live elsewhere.
    pub(super) fn copies(&self) -> FilesClaims {
        self.copies.clone()
    }

    /// No new sessions from now on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        for model in self.pools.values() {
            let _ = model.pool.cast(PoolMessage::Event(PoolEvent::Draining));
        }
    }

    pub(super) async fn handle(&mut self, supervisor: &ActorRef<NodeMessage>, message: ModelsMessage) {
        match message {
            ModelsMessage::Serve(offers, reply) => {
                let answer = match self.refusal(&offers) {
                    Some(refusal) => Err(refusal),
                    None => Ok(self.drive(supervisor, LineupEvent::Named { offers }).await),
                };
                // Whoever asked may have gone; the log has it.
                let _ = reply.send(answer);
            }
            ModelsMessage::Add(offer, reply) => {
                let answer = match self.refusal(std::slice::from_ref(&offer)) {
                    Some(refusal) => Err(refusal),
                    None => Ok(self.drive(supervisor, LineupEvent::Added { offer: *offer }).await),
                };
                let _ = reply.send(answer);
            }
            ModelsMessage::Ready(pool) => {
                let awaited = self.lineup.stage(pool) == Some(Stage::Loading);
                self.drive(supervisor, LineupEvent::Ready { pool }).await;
                if let (true, Some(model)) = (awaited, self.lineup.offer(pool)) {
                    info!(model = model.name, digest = model.digest, "new sessions get this model");
                }
            }
            ModelsMessage::Unclaimed => self.tell(supervisor, LineupEvent::TimedOut).await,
            ModelsMessage::TimedOut => {
                self.timer = None;
                self.tell(supervisor, LineupEvent::TimedOut).await;
            }
        }
    }

    /// Whether it was a pool that ended, and was meant to or needed by nobody.
    pub(super) async fn ended(&mut self, supervisor: &ActorRef<NodeMessage>, actor: ActorId) -> bool {
        let found = self.pools.iter().find(|(_, model)| model.pool.get_id() == actor);
        let Some(pool) = found.map(|(id, _)| *id) else { return false };
        self.tell(supervisor, LineupEvent::TimedOut).await;
        if self.lineup.is_needed(pool) {
            return false;
        }
        self.pools.remove(&pool);
        self.tell(supervisor, LineupEvent::Ended { pool }).await;
        true
    }

    fn refusal(&self, offers: &[ModelArguments]) -> Option<ServeError> {
        match offers {
            [] => Some(ServeError::Nothing),
            _ if self.draining => Some(ServeError::Draining),
            _ => None,
        }
    }

    async fn tell(&mut self, supervisor: &ActorRef<NodeMessage>, event: LineupEvent<ModelArguments>) {
        let _changes = self.drive(supervisor, event).await;
    }

    async fn drive(
        &mut self,
        supervisor: &ActorRef<NodeMessage>,
        event: LineupEvent<ModelArguments>,
    ) -> Vec<ModelChange> {
        let mut out = self.count_claims();
        self.lineup.handle(self.context.clock.now(), event, &mut out);
        let (mut changes, mut out) = (Vec::new(), VecDeque::from(out));
        while let Some(action) = out.pop_front() {
            match action {
                LineupAction::Start { pool } => {
                    let started = self.start_pool(pool, supervisor).await;
                    let now = self.context.clock.now();
                    if let Err(problem) = started {
                        error!(%problem, "a model's pool cannot be started");
                        // Nothing but the pool itself goes with it.
                        self.lineup.handle(now, LineupEvent::Ended { pool }, &mut Vec::new());
                    } else if self.lineup.offer(pool).is_some_and(ModelArguments::is_on_demand) {
                        // Whoever asked for it has its next request served.
                        let mut more = Vec::new();
                        self.lineup.handle(now, LineupEvent::Ready { pool }, &mut more);
                        out.extend(more);
                    }
                }
                LineupAction::End { pool } => self.end_pool(pool),
                LineupAction::Changed { pool, change } => changes.extend(self.change(pool, change)),
            }
        }
        debug_assert_eq!(self.lineup.check(), Ok(()));
        self.publish();
        self.arm(supervisor);
        changes
    }

    /// Tells the lineup who rests on what.
    fn count_claims(&mut self) -> Vec<LineupAction> {
        let claimed = |(id, model): &(&PoolId, &Model)| {
            let ModelArguments { name, digest, .. } = &model.arguments;
            let for_copies = self.lineup.find_exact(name, digest) == Some(**id);
            model.is_claimed() || for_copies && self.copies.any(name, digest)
        };
        let pools = self.pools.iter().filter(claimed).map(|(id, _)| *id).collect();
        let mut out = Vec::new();
        self.lineup.handle(self.context.clock.now(), LineupEvent::Claimed { pools }, &mut out);
        out
    }

    async fn start_pool(&mut self, pool: PoolId, supervisor: &ActorRef<NodeMessage>) -> Result<(), SpawnErr> {
        if let Some(arguments) = self.lineup.offer(pool).cloned() {
            let model = Model::start(pool, arguments, &self.context, supervisor).await?;
            self.pools.insert(pool, model);
        }
        Ok(())
    }

    fn end_pool(&self, pool: PoolId) {
        let Some(model) = self.pools.get(&pool) else { return };
        info!(model = &*model.name, digest = model.arguments.digest, "a pool that nobody needs is ended");
        // Its end comes as the end of its actor.
        let (reply, _) = tokio::sync::oneshot::channel();
        let _ = model.pool.cast(PoolMessage::Stop(reply.into()));
    }

    fn change(&self, pool: PoolId, change: Change) -> Option<ModelChange> {
        let offer = self.lineup.offer(pool)?;
        let (name, digest) = (offer.name.clone(), offer.digest.clone());
        Some(ModelChange { name, digest, pool: pool.0, change })
    }

    fn publish(&self) {
        let offer = |name| self.lineup.offer(self.lineup.find(Some(name))?).cloned();
        let now: Arc<[ModelArguments]> = self.lineup.names().filter_map(offer).collect();
        self.served.send_if_modified(|served| {
            let changed = **served != *now;
            *served = now;
            changed
        });
    }

    /// Sets the timer, unless one is set that comes early enough: it will set the next.
    fn arm(&mut self, supervisor: &ActorRef<NodeMessage>) {
        let Some(at) = self.lineup.next_timeout() else { return };
        if self.timer.is_none_or(|armed| at < armed) {
            self.timer = Some(at);
            let wait = at.since(self.context.clock.now());
            supervisor.send_after(wait, || NodeMessage::Models(ModelsMessage::TimedOut));
        }
    }
}
