//! The actor of one model's pool.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SupervisionEvent};
use starling_core::Timestamp;
use starling_core::admission::Others;
use starling_core::pool::{
    HostEnd, HostId, PoolAction, PoolConfig, PoolEvent, PoolMachine, RequestId, StartCause,
};
use starling_core::session::LossCause;
use starling_protocol::control::ReservationId;
use starling_protocol::lease::{HostSpec, ToHost};
use starling_protocol::{Attempt, LeaseId};
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::messages::{Grant, HostLoad, PoolMessage, PoolSnapshot, ReserveAnswer};
use super::scaling::{PoolScaling, Scaler};
use crate::clock::Clock;
use crate::decoder::{
    DecoderActor, DecoderArguments, DecoderHandle, DecoderMessage, Holder, HolderMessage, Seat,
};
use crate::host::{HostArguments, HostLauncher, HostMessage, HostSupervisor};
use crate::observe::Observer;
use crate::trace::{DecodeTrace, LeaseTrace, Tracing};

pub(crate) struct ModelPoolActor;

pub(crate) struct PoolArguments {
    pub(crate) config: PoolConfig,
    /// What a shared host is started with.
    pub(crate) spec: HostSpec,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) launcher: Arc<dyn HostLauncher>,
    pub(crate) clock: Clock,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) tracing: Tracing,
    /// Says what the other nodes have; `None` for a node on its own.
    pub(crate) others: Option<OthersKnown>,
    /// Names for reservations, unique on this node: whoever gives one back names no model.
    pub(crate) reservation_names: Arc<AtomicU64>,
    /// Told when a host is ready for the first time.
    pub(crate) ready: Option<oneshot::Sender<()>>,
    /// How there are more hosts and fewer; `None` for always as many.
    pub(crate) scaling: Option<PoolScaling>,
}

/// What is known of the other nodes that decode a model.
pub(crate) type OthersKnown = Box<dyn Fn() -> Others + Send + Sync>;

struct Request {
    attempt: Attempt,
    holder: Holder,
    trace: Option<LeaseTrace>,
}

struct Lease {
    decoder: ActorRef<DecoderMessage>,
    host: HostId,
    holder: Request,
}

pub(crate) struct PoolState {
    arguments: PoolArguments,
    machine: PoolMachine,
    scaler: Option<Scaler>,
    hosts: HashMap<HostId, ActorRef<HostMessage>>,
    /// Hosts of which something is left, be it only memory that the kernel is taking back.
    processes: HashSet<HostId>,
    loads: HashMap<HostId, HostLoad>,
    classes: HashMap<HostId, Arc<str>>,
    /// The last that was heard of.
    class: Option<Arc<str>>,
    /// Of hosts that are gone, so that totals never fall.
    past_load: HostLoad,
    requests: HashMap<RequestId, Request>,
    reserving: HashMap<RequestId, RpcReplyPort<ReserveAnswer>>,
    leases: HashMap<LeaseId, Lease>,
    next_request: u64,
    timer: Option<Timestamp>,
    last_error: Option<String>,
    stopping: Option<RpcReplyPort<()>>,
}

impl Message for PoolMessage {}

impl Actor for ModelPoolActor {
    type Msg = PoolMessage;
    type State = PoolState;
    type Arguments = PoolArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<PoolMessage>,
        arguments: PoolArguments,
    ) -> Result<PoolState, ActorProcessingErr> {
        let mut out = Vec::new();
        let now = arguments.clock.now();
        let machine = PoolMachine::new(now, arguments.config, &mut out);
        let scaler = arguments.scaling.as_ref().map(|scaling| Scaler::new(now, scaling));
        let mut state = PoolState {
            arguments,
            machine,
            scaler,
            hosts: HashMap::new(),
            processes: HashSet::new(),
            loads: HashMap::new(),
            classes: HashMap::new(),
            class: None,
            past_load: HostLoad::default(),
            requests: HashMap::new(),
            reserving: HashMap::new(),
            leases: HashMap::new(),
            next_request: 0,
            timer: None,
            last_error: None,
            stopping: None,
        };
        state.scale(now, &mut out);
        state.perform(&myself, out).await?;
        state.arm(&myself);
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<PoolMessage>,
        message: PoolMessage,
        state: &mut PoolState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            PoolMessage::Acquire { attempt, purpose, claim, holder, trace } => {
                let request = state.name_request();
                state.requests.insert(request, Request { attempt, holder, trace });
                state.look_around(&myself).await?;
                state.drive(&myself, PoolEvent::Requested { request, purpose, claim }).await?;
            }
            PoolMessage::Reserve { session, ttl, failover, reply } => {
                let request = state.name_request();
                let name = state.arguments.reservation_names.fetch_add(1, Ordering::Relaxed);
                let reservation = ReservationId(name);
                state.reserving.insert(request, reply);
                state.look_around(&myself).await?;
                let event = PoolEvent::ReservationRequested { request, reservation, session, ttl, failover };
                state.drive(&myself, event).await?;
            }
            PoolMessage::Unreserve { reservation } => {
                state.drive(&myself, PoolEvent::ReservationReleased { reservation }).await?;
            }
            PoolMessage::Withdraw { attempt, holder } => {
                if let Some(request) = state.request_of(attempt, &holder) {
                    state.requests.remove(&request);
                    state.drive(&myself, PoolEvent::Withdrawn { request }).await?;
                }
            }
            PoolMessage::GiveUp { attempt, holder } => {
                if let Some(request) = state.request_of(attempt, &holder) {
                    state.drive(&myself, PoolEvent::PatienceEnded { request }).await?;
                }
            }
            PoolMessage::Released { lease } => {
                if state.leases.remove(&lease).is_some() {
                    state.look_around(&myself).await?;
                    state.drive(&myself, PoolEvent::Released { lease }).await?;
                }
            }
            PoolMessage::Event(event) => {
                match &event {
                    PoolEvent::HostEnded { host, .. } => state.forget_host(*host),
                    PoolEvent::HostReady { .. } => state.last_error = None,
                    PoolEvent::TimedOut => state.timer = None,
                    _ => {}
                }
                if state.stopping.is_none() {
                    if event == PoolEvent::TimedOut {
                        state.look_around(&myself).await?;
                    }
                    state.drive(&myself, event).await?;
                    state.tell_ready();
                }
                state.end_if_stopped(&myself);
            }
            PoolMessage::HostClass { host, class } => {
                state.class = Some(Arc::clone(&class));
                state.classes.insert(host, class);
            }
            PoolMessage::HostLoad { host, load } => {
                if let Some(scaler) = &mut state.scaler {
                    scaler.note(load.resident_bytes);
                }
                state.loads.insert(host, load);
            }
            PoolMessage::HostGone { host } => {
                state.processes.remove(&host);
                state.end_if_stopped(&myself);
            }
            PoolMessage::LoadFailed { message } => state.last_error = Some(message),
            PoolMessage::Snapshot(reply) => {
                state.look_around(&myself).await?;
                // Whoever asked may have gone.
                let _ = reply.send(state.snapshot());
            }
            PoolMessage::KillOne(reply) => state.kill_one(reply),
            PoolMessage::Stop(reply) => {
                for host in state.hosts.values() {
                    let _ = host.cast(HostMessage::Stop);
                }
                state.stopping = Some(reply);
                state.end_if_stopped(&myself);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<PoolMessage>,
        event: SupervisionEvent,
        state: &mut PoolState,
    ) -> Result<(), ActorProcessingErr> {
        // Actors that end as they should have told what there is to tell before.
        if let SupervisionEvent::ActorFailed(who, problem) = event {
            error!(%problem, "an actor of a model pool failed");
            state.actor_failed(&myself, who.get_id());
        }
        Ok(())
    }
}

impl PoolState {
    const fn name_request(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        request
    }

    fn request_of(&self, attempt: Attempt, holder: &Holder) -> Option<RequestId> {
        let wanted =
            |request: &Request| request.attempt == attempt && request.holder.get_id() == holder.get_id();
        self.requests.iter().find(|(_, request)| wanted(request)).map(|(id, _)| *id)
    }

    /// Tells the machine what the other nodes have now, before it decides on what may be theirs.
    async fn look_around(&mut self, myself: &ActorRef<PoolMessage>) -> Result<(), ActorProcessingErr> {
        if let Some(known) = &self.arguments.others
            && self.stopping.is_none()
        {
            let others = known();
            self.drive(myself, PoolEvent::OthersChanged { others }).await?;
        }
        Ok(())
    }

    async fn drive(
        &mut self,
        myself: &ActorRef<PoolMessage>,
        event: PoolEvent,
    ) -> Result<(), ActorProcessingErr> {
        let mut out = Vec::new();
        let now = self.arguments.clock.now();
        self.machine.handle(now, event, &mut out);
        self.scale(now, &mut out);
        debug_assert_eq!(self.machine.check(), Ok(()));
        self.perform(myself, out).await?;
        self.arm(myself);
        Ok(())
    }

    /// Tells the machine how many hosts there should be, if that has changed.
    fn scale(&mut self, now: Timestamp, out: &mut Vec<PoolAction>) {
        let Some(scaler) = &mut self.scaler else { return };
        if let Some(hosts) = scaler.hosts(now, &self.machine, self.processes.len()) {
            self.machine.handle(now, PoolEvent::Resized { hosts }, out);
        }
    }

    /// Sets the timer, unless one is set that comes early enough: it will set the next.
    fn arm(&mut self, myself: &ActorRef<PoolMessage>) {
        let scaler = self.scaler.as_ref().and_then(Scaler::next_timeout);
        let Some(at) = self.machine.next_timeout().into_iter().chain(scaler).min() else { return };
        if self.timer.is_none_or(|armed| at < armed) {
            self.timer = Some(at);
            let wait = at.since(self.arguments.clock.now());
            myself.send_after(wait, || PoolMessage::Event(PoolEvent::TimedOut));
        }
    }

    async fn perform(
        &mut self,
        myself: &ActorRef<PoolMessage>,
        actions: Vec<PoolAction>,
    ) -> Result<(), ActorProcessingErr> {
        for action in actions {
            match action {
                PoolAction::StartHost { host, quarantine, cause } => {
                    self.start_host(myself, host, quarantine, cause).await;
                }
                PoolAction::StopHost { host } => self.tell_host(host, HostMessage::Stop),
                PoolAction::KillHost { host } => self.tell_host(host, HostMessage::Kill),
                PoolAction::Grant { request, lease, host, waited } => {
                    self.grant(myself, request, lease, host, waited).await?;
                }
                PoolAction::Reserve { request, reservation, ttl } => {
                    if let Some(reply) = self.reserving.remove(&request)
                        && reply.send(Ok((reservation, ttl))).is_err()
                    {
                        let _ = myself.cast(PoolMessage::Unreserve { reservation });
                    }
                }
                PoolAction::Refuse { request, refused } => {
                    if let Some(Request { attempt, holder, .. }) = self.requests.remove(&request) {
                        let answer = Err(refused);
                        let _ = holder.send_message(HolderMessage::Answer { attempt, answer });
                    } else if let Some(reply) = self.reserving.remove(&request) {
                        let _ = reply.send(Err(refused));
                    }
                }
                PoolAction::Lose { lease, cause } => {
                    if let Some(lease) = self.leases.remove(&lease) {
                        let _ = lease.decoder.cast(DecoderMessage::Lost(cause));
                    }
                }
                PoolAction::Move { lease } => {
                    if let Some(lease) = self.leases.get(&lease) {
                        let _ = lease.decoder.cast(DecoderMessage::Move);
                    }
                }
            }
        }
        Ok(())
    }

    fn tell_ready(&mut self) {
        if self.machine.counts().hosts_ready > 0
            && let Some(ready) = self.arguments.ready.take()
        {
            // Whoever asked may not want to know any more.
            let _ = ready.send(());
        }
    }

    fn tell_host(&self, host: HostId, message: HostMessage) {
        if let Some(host) = self.hosts.get(&host) {
            let _ = host.cast(message);
        }
    }

    async fn start_host(
        &mut self,
        myself: &ActorRef<PoolMessage>,
        id: HostId,
        quarantine: bool,
        cause: StartCause,
    ) {
        let mut spec = self.arguments.spec.clone();
        if quarantine {
            (spec.slots, spec.threads, spec.prewarm) = (1, 1, 0);
        }
        let arguments = HostArguments {
            id,
            cause,
            spec,
            environment: self.arguments.environment.clone(),
            launcher: Arc::clone(&self.arguments.launcher),
            pool: myself.clone(),
            clock: self.arguments.clock,
            observer: Arc::clone(&self.arguments.observer),
        };
        match Actor::spawn_linked(None, HostSupervisor, arguments, myself.get_cell()).await {
            Ok((host, _)) => {
                self.hosts.insert(id, host);
                self.processes.insert(id);
            }
            Err(problem) => {
                warn!(%problem, "a decoder host cannot be started");
                self.last_error = Some(problem.to_string());
                let (end, suspects) = (HostEnd::LoadFailed, Vec::new());
                let _ = myself.cast(PoolMessage::Event(PoolEvent::HostEnded { host: id, end, suspects }));
            }
        }
    }

    async fn grant(
        &mut self,
        myself: &ActorRef<PoolMessage>,
        request: RequestId,
        lease: LeaseId,
        host: HostId,
        waited: std::time::Duration,
    ) -> Result<(), ActorProcessingErr> {
        let (Some(mut holder), Some(host_actor)) = (self.requests.remove(&request), self.hosts.get(&host))
        else {
            // Withdrawn requests are gone from the machine too; a host that is gone will be told of.
            let _ = myself.cast(PoolMessage::Event(PoolEvent::Released { lease }));
            return Ok(());
        };
        let trace = self.arguments.tracing.clone().zip(holder.trace.take()).map(|(tracer, trace)| {
            let spec = &self.arguments.spec;
            let (clock, model) = (self.arguments.clock, spec.model.as_str().into());
            Box::new(DecodeTrace::new(tracer, clock, trace, model, spec.sample_rate))
        });
        let arguments = DecoderArguments {
            lease,
            attempt: holder.attempt,
            holder: holder.holder.clone(),
            trace,
            seat: Seat::Host { pool: myself.clone(), host: host_actor.clone() },
        };
        let spawned = Actor::spawn_linked(None, DecoderActor, arguments, myself.get_cell()).await;
        let Ok((decoder, _)) = spawned else {
            // Its host's actor has just ended: the machine will hear of it. Whoever asked asks again.
            let lost = HolderMessage::Lost { attempt: holder.attempt, cause: LossCause::Killed };
            let _ = holder.holder.send_message(lost);
            let _ = myself.cast(PoolMessage::Event(PoolEvent::Released { lease }));
            return Ok(());
        };
        let class = self.classes.get(&host).cloned().unwrap_or_default();
        let grant = Grant { decoder: DecoderHandle::new(decoder.clone(), lease), waited, node: None, class };
        let answer = HolderMessage::Answer { attempt: holder.attempt, answer: Ok(grant) };
        // A holder that is gone drops the grant with the message, and the drop gives the lease back.
        let _ = holder.holder.send_message(answer);
        self.leases.insert(lease, Lease { decoder, host, holder });
        Ok(())
    }

    fn actor_failed(&mut self, myself: &ActorRef<PoolMessage>, who: ActorId) {
        let host = self.hosts.iter().find(|(_, actor)| actor.get_id() == who).map(|(id, _)| *id);
        if let Some(host) = host {
            let (end, suspects) = (HostEnd::Protocol, Vec::new());
            let _ = myself.cast(PoolMessage::Event(PoolEvent::HostEnded { host, end, suspects }));
            return;
        }
        let lease = self.leases.iter().find(|(_, lease)| lease.decoder.get_id() == who).map(|(id, _)| *id);
        if let Some(id) = lease
            && let Some(lease) = self.leases.get(&id)
        {
            let (attempt, cause) = (lease.holder.attempt, LossCause::Protocol);
            let _ = lease.holder.holder.send_message(HolderMessage::Lost { attempt, cause });
            self.tell_host(lease.host, HostMessage::Unbind { lease: id });
            self.tell_host(lease.host, HostMessage::Tell(ToHost::Close { lease: id }));
            let _ = myself.cast(PoolMessage::Released { lease: id });
        }
    }

    /// The host is not told to go, and the machine hears of it as of any other end.
    fn kill_one(&self, reply: RpcReplyPort<Option<(u32, usize)>>) {
        let leases = |id: HostId| self.leases.values().filter(|lease| lease.host == id).count();
        // Those that have a class are, or were, ready.
        let busiest = self.classes.keys().map(|id| (leases(*id), *id)).max();
        match busiest.and_then(|(leases, id)| Some((leases, self.hosts.get(&id)?))) {
            Some((leases, host)) => drop(host.cast(HostMessage::Crash { leases, reply })),
            None => drop(reply.send(None)),
        }
    }

    fn forget_host(&mut self, host: HostId) {
        self.hosts.remove(&host);
        self.classes.remove(&host);
        if let Some(load) = self.loads.remove(&host) {
            self.past_load.audio_ms += load.audio_ms;
            self.past_load.busy_ms += load.busy_ms;
        }
    }

    fn end_if_stopped(&mut self, myself: &ActorRef<PoolMessage>) {
        if self.hosts.is_empty()
            && self.processes.is_empty()
            && let Some(reply) = self.stopping.take()
        {
            let _ = reply.send(());
            myself.stop(None);
        }
    }

    fn snapshot(&self) -> PoolSnapshot {
        let mut load = self.past_load;
        for host in self.loads.values() {
            load.audio_ms += host.audio_ms;
            load.busy_ms += host.busy_ms;
            load.resident_bytes += host.resident_bytes;
        }
        PoolSnapshot {
            counts: self.machine.counts(),
            load,
            last_error: self.last_error.clone(),
            class: self.class.clone(),
            scaling: self.scaler.as_ref().map(Scaler::scale),
        }
    }
}
