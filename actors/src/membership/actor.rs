//! The actor of one node's membership.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use starling_core::Timestamp;
use starling_core::tick::TICK;
use starling_protocol::Generation;
use starling_protocol::gossip::LoadEncodeError;
use starling_protocol::gossip::packet::{MAX_PACKET_BYTES, Payload};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::task::{AbortHandle, JoinHandle};

use super::arguments::{LoadReport, MembershipArguments};
use super::pulse::{Pulse, Ticking};
use super::refusal::Refusal;
use super::seal::{Opened, Sealer};
use super::seeds::{Announcing, look_up};
use super::swim::{Outcome, Swim};
use super::view::{ClusterChange, ClusterView};
use crate::clock::Clock;
use crate::network::Datagrams;
use crate::observe::{Observation, Observer};

/// Packets that were read and wait for the actor. When they are so many the socket is not read, and its buffer, at last,
/// drops what comes.
const UNHEARD_PACKETS: usize = 256;

/// How often a goodbye is said, since each packet may be lost, and the time between two.
const GOODBYES: u8 = 3;
const BETWEEN_GOODBYES: Duration = Duration::from_millis(50);

/// How long to wait after the socket gave an error.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct MembershipActor<D>(PhantomData<D>);

impl<D> MembershipActor<D> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

pub(super) struct ActorArguments<D> {
    pub(super) membership: MembershipArguments<D>,
    pub(super) view: watch::Sender<Arc<ClusterView>>,
    pub(super) changes: broadcast::Sender<ClusterChange>,
    pub(super) superseded: watch::Sender<Option<Generation>>,
    pub(super) pulse: Pulse,
}

pub(super) enum MembershipMessage {
    /// Something came in at the socket.
    Packet { bytes: Vec<u8>, from: SocketAddr, _room: OwnedSemaphorePermit },
    /// A timer of the protocol may be due.
    Due,
    /// Our own tick.
    Tick,
    /// The seeds were looked up.
    Seeds(Vec<SocketAddr>),
    /// What there is to say of this node.
    Say(LoadReport, RpcReplyPort<Result<(), LoadEncodeError>>),
    /// Say goodbye, this many times more, and end.
    Leave { more: u8, reply: RpcReplyPort<()> },
}

pub(super) struct MembershipState<D> {
    swim: Swim,
    sealer: Sealer,
    socket: Arc<D>,
    seeds: Arc<[String]>,
    announcing: Announcing,
    looking_up: bool,
    jitter: StdRng,
    clock: Clock,
    ticking: Ticking,
    timer: Option<(Timestamp, AbortHandle)>,
    view: watch::Sender<Arc<ClusterView>>,
    changes: broadcast::Sender<ClusterChange>,
    superseded: watch::Sender<Option<Generation>>,
    warned: BTreeSet<Refusal>,
    observer: Arc<dyn Observer>,
    receiving: JoinHandle<()>,
}

impl<D> Drop for MembershipState<D> {
    fn drop(&mut self) {
        self.receiving.abort();
        if let Some((_, timer)) = &self.timer {
            timer.abort();
        }
    }
}

impl Message for MembershipMessage {}

impl<D: Datagrams> Actor for MembershipActor<D> {
    type Msg = MembershipMessage;
    type State = MembershipState<D>;
    type Arguments = ActorArguments<D>;

    async fn pre_start(
        &self,
        myself: ActorRef<MembershipMessage>,
        arguments: ActorArguments<D>,
    ) -> Result<MembershipState<D>, ActorProcessingErr> {
        let ActorArguments { membership, view, changes, superseded, pulse } = arguments;
        let MembershipArguments { node, socket, advertise, seeds, keys, timings, report, observer } =
            membership;
        let clock = Clock::start();
        let now = clock.now();
        let mut random: StdRng = rand::make_rng();
        let mut salt = [0; 16];
        random.fill_bytes(&mut salt);
        let mut swim = Swim::new(node.clone(), advertise, timings, report, rand::make_rng());
        swim.say(now, None)?;
        let socket = Arc::new(socket);
        // A socket that was never waited for is not known to be writable.
        socket.writable().await?;
        let receiving = tokio::spawn(receive(Arc::clone(&socket), myself.clone()));
        myself.send_interval(TICK, || MembershipMessage::Tick);
        let state = MembershipState {
            swim,
            sealer: Sealer::new(keys, node, salt),
            socket,
            seeds: seeds.into(),
            announcing: Announcing::new(now),
            looking_up: false,
            jitter: random,
            clock,
            ticking: Ticking::new(pulse),
            timer: None,
            view,
            changes,
            superseded,
            warned: BTreeSet::new(),
            observer,
            receiving,
        };
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<MembershipMessage>,
        message: MembershipMessage,
        state: &mut MembershipState<D>,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            MembershipMessage::Packet { bytes, from, _room } => state.packet(&bytes, from),
            MembershipMessage::Due => {
                state.timer = None;
                while state.swim.run_timer(state.clock.now()) {
                    state.settle();
                }
            }
            MembershipMessage::Tick => state.own_tick(&myself),
            MembershipMessage::Seeds(mut addresses) => {
                state.looking_up = false;
                if state.swim.is_alone() {
                    addresses.extend(state.swim.last_known_addresses());
                }
                state.swim.announce(&addresses);
            }
            MembershipMessage::Say(report, reply) => {
                let said = state.swim.say(state.clock.now(), Some(report));
                state.settle();
                // Whoever asked may have gone.
                let _ = reply.send(said);
            }
            MembershipMessage::Leave { more, reply } => {
                state.leave(&myself, more, reply);
            }
        }
        state.settle();
        state.arm(&myself);
        Ok(())
    }
}

impl<D: Datagrams> MembershipState<D> {
    fn packet(&mut self, bytes: &[u8], from: SocketAddr) {
        if self.is_superseded() {
            return;
        }
        match self.sealer.open(bytes) {
            Ok(Opened::Fresh(payload)) => match Payload::decode(&payload) {
                Some(Payload::Gossip(gossip)) => {
                    if let Err(error) = self.swim.hear(gossip) {
                        tracing::debug!(%error, %from, "gossip cannot be read");
                        self.refuse(Refusal::Undecodable, from);
                    }
                }
                Some(Payload::Superseded(by)) => self.supersede(by),
                // Of a later version; what it means, older ones do without.
                None => {}
            },
            Ok(Opened::Successor(by)) => self.supersede(by),
            Ok(Opened::OldRun(by)) => {
                self.refuse(Refusal::OldGeneration, from);
                // It may be a process that was frozen when its successor was started, and must hear of it.
                self.send(from, Payload::Superseded(by));
            }
            Err(refusal) => self.refuse(refusal, from),
        }
    }

    fn refuse(&mut self, refusal: Refusal, from: SocketAddr) {
        self.observer.observe(&Observation::GossipRefused { reason: refusal.label() });
        // Anybody can send packets: each reason is told once, the metrics count the rest. A copy of our own is ordinary.
        if refusal != Refusal::Own && self.warned.insert(refusal) {
            tracing::warn!(%from, "a gossip packet was refused: {refusal}; further ones are only counted");
        }
    }

    /// Only a run that is older than `by` is superseded by it: an answer meant for an earlier run is none for this one.
    fn supersede(&mut self, by: Generation) {
        let own = self.swim.node().generation;
        if by <= own || self.is_superseded() {
            return;
        }
        tracing::error!(
            node = %self.swim.node(), later = %by,
            "another process runs under this node's name with a later generation, or did and the clock was set back; \
             node names must be unique. This one no longer takes part in the cluster"
        );
        self.superseded.send_replace(Some(by));
        let _ = self.changes.send(ClusterChange::Superseded { by });
    }

    fn is_superseded(&self) -> bool {
        self.superseded.borrow().is_some()
    }

    fn own_tick(&mut self, myself: &ActorRef<MembershipMessage>) {
        if let Some(pause) = self.ticking.tick() {
            tracing::warn!(?pause, "this process stood still");
            self.observer.observe(&Observation::StoodStill { pause });
            let _ = self.changes.send(ClusterChange::Paused { pause });
        }
        let now = self.clock.now();
        if let Err(error) = self.swim.say(now, None) {
            tracing::debug!(%error, "nothing is said of this node");
        }
        let alone = self.swim.is_alone();
        if !self.looking_up && self.announcing.is_due(now, alone, self.jitter.random()) {
            self.looking_up = true;
            let (seeds, actor) = (Arc::clone(&self.seeds), myself.clone());
            tokio::spawn(async move {
                let addresses = look_up(&seeds).await;
                let _ = actor.cast(MembershipMessage::Seeds(addresses));
            });
        }
    }

    fn leave(&mut self, myself: &ActorRef<MembershipMessage>, more: u8, reply: RpcReplyPort<()>) {
        if more == GOODBYES {
            self.swim.leave(self.clock.now());
        } else {
            self.swim.spread();
        }
        self.settle();
        if more > 1 && !self.swim.is_alone() {
            let next = MembershipMessage::Leave { more: more - 1, reply };
            myself.send_after(BETWEEN_GOODBYES, || next);
        } else {
            let _ = reply.send(());
            myself.stop(None);
        }
    }

    /// Sends what is to be sent, and tells what changed.
    fn settle(&mut self) {
        let Outcome { changes, different, announce, answered } = self.swim.settle(self.clock.now());
        if let Some(took) = answered {
            self.observer.observe(&Observation::GossipAnswered { took });
        }
        while let Some((to, bytes)) = self.swim.take_outgoing() {
            self.send(to, Payload::Gossip(&bytes));
        }
        if announce {
            self.announcing.at_once(self.clock.now());
        }
        if different {
            self.view.send_replace(Arc::new(self.swim.view()));
        }
        for change in changes {
            log(&change);
            // Nobody may be listening.
            let _ = self.changes.send(change);
        }
    }

    fn send(&mut self, to: SocketAddr, payload: Payload<'_>) {
        if self.is_superseded() {
            return;
        }
        match self.sealer.seal(payload) {
            // The protocol is made for packets that get lost; a socket that is full loses this one.
            Ok(packet) => {
                if let Err(error) = self.socket.try_send_to(&packet, to) {
                    tracing::debug!(%error, %to, "a gossip packet was not sent");
                }
            }
            Err(error) => tracing::debug!(%error, "a gossip packet was not sealed"),
        }
    }

    /// Sets the timer, unless one is set that comes early enough: it will set the next.
    fn arm(&mut self, myself: &ActorRef<MembershipMessage>) {
        let Some(at) = self.swim.next_timer() else { return };
        if self.timer.as_ref().is_none_or(|(armed, _)| at < *armed) {
            let wait = at.since(self.clock.now());
            let timer = myself.send_after(wait, || MembershipMessage::Due).abort_handle();
            if let Some((_, later)) = self.timer.replace((at, timer)) {
                later.abort();
            }
        }
    }
}

fn log(change: &ClusterChange) {
    match change {
        ClusterChange::Joined(node) => tracing::info!(%node, "joined"),
        ClusterChange::Draining(node) => tracing::info!(%node, "is draining"),
        ClusterChange::Left(node) => tracing::info!(%node, "left"),
        ClusterChange::Down(node) => tracing::warn!(%node, "is down"),
        ClusterChange::DeclaredDown => {
            tracing::warn!("the other nodes had given this one up; it is a member again");
        }
        ClusterChange::Suspected(node) => tracing::debug!(%node, "is suspected"),
        ClusterChange::Trusted(node) => tracing::debug!(%node, "is there after all"),
        ClusterChange::Updated(_) | ClusterChange::Paused { .. } | ClusterChange::Superseded { .. } => {}
    }
}

async fn receive<D: Datagrams>(socket: Arc<D>, actor: ActorRef<MembershipMessage>) {
    let room = Arc::new(Semaphore::new(UNHEARD_PACKETS));
    // One byte more than a packet may have, so that one that is too long is seen to be.
    let mut buffer = [0; MAX_PACKET_BYTES + 1];
    while let Ok(room) = Arc::clone(&room).acquire_owned().await {
        match socket.recv_from(&mut buffer).await {
            Ok((length, from)) => {
                let bytes = buffer[..length].to_vec();
                let packet = MembershipMessage::Packet { bytes, from, _room: room };
                if actor.cast(packet).is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the gossip socket gave an error");
                tokio::time::sleep(SOCKET_PAUSE).await;
            }
        }
    }
}

pub(super) const fn first_goodbye(reply: RpcReplyPort<()>) -> MembershipMessage {
    MembershipMessage::Leave { more: GOODBYES, reply }
}
