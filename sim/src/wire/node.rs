//! A node that is nothing but its shells: membership and the control plane, put together as the program does it, telling all
//! that they tell.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_actors::control::{
    ALPN, ControlArguments, ControlHandle, ControlServices, Member, PeerChange, RequestError,
};
use starling_actors::trust::{ClusterSecret, Trust};
use starling_actors::{
    Clock, ClusterChange, LoadReport, MembershipArguments, MembershipHandle, MembershipTimings, Observation,
    Observer, packet_key,
};
use starling_protocol::control::{
    ModelPool, NodeAgent, NodeReply, NodeRequest, PoolReply, PoolRequest, Replica, ReplicaReply,
    ReplicaRequest, ReservationId, Retirement, RetirementPhase,
};
use starling_protocol::gossip::{Addresses, Roles};
use starling_protocol::{Epoch, NodeId, SessionId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};
use turmoil::net::{TcpListener, UdpSocket};
use uuid::Uuid;

use super::air::{Air, AirSocket, Control, Gossip, Open};
use super::oracle::{Answer, Oracle, RunId};
use super::ways::HostId;
use crate::rng::Rng;

/// The gossip port of each node.
pub const GOSSIP_PORT: u16 = 7_400;

/// The control port of each node.
pub const CONTROL_PORT: u16 = 7_401;

/// What all nodes share.
pub const SECRET: &[u8] = b"the secret of a simulated cluster";

/// How long an answer is waited for, as the program does.
pub const ANSWER: Duration = Duration::from_millis(700);

/// How often each peer is asked something.
const ASK_EVERY: Duration = Duration::from_millis(220);

/// How often something new is told of a node, and its tasks are counted.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What has ended may tidy up for so long before what is left is counted: somebody may have been dialled just before, which takes
/// 3.5 s at most, and ractor_cluster notices the end of a link with its next ping, after 5 s at most.
const TIDIED: Duration = Duration::from_millis(5_500);

/// How a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It asks and tells.
    Busy,
    /// It only lives.
    Quiet,
    /// It leaves.
    Leave,
}

/// What a run is started with.
#[derive(Clone)]
pub struct Setup {
    /// Where.
    pub host: HostId,
    /// Its address.
    pub address: IpAddr,
    /// Which run of which node.
    pub id: NodeId,
    /// An earlier run that woke up again.
    pub is_ghost: bool,
    /// Where all nodes are.
    pub seeds: Vec<String>,
    /// What datagrams go through.
    pub air: Air,
    /// Who is told.
    pub oracle: Oracle,
    /// How it goes on.
    pub phase: watch::Receiver<Phase>,
    /// What its own choices come from.
    pub seed: u64,
}

struct Running {
    run: RunId,
    oracle: Oracle,
    membership: MembershipHandle,
    control: ControlHandle,
    report: LoadReport,
    told: u64,
    open: Open,
    rng: Rng,
}

/// Lives until it is killed, has left, or is told that its name is another's.
///
/// # Errors
/// It can't start.
pub async fn run(setup: Setup) -> turmoil::Result {
    let Setup { host, address, id, is_ghost, seeds, air, oracle, mut phase, seed } = setup;
    let socket = UdpSocket::bind(("0.0.0.0", GOSSIP_PORT)).await?;
    let listener = TcpListener::bind(("0.0.0.0", CONTROL_PORT)).await?;
    let run = oracle.began(&id, host, is_ghost);
    let clock = Clock::start();
    let report = LoadReport {
        version: "wire".to_owned(),
        zone: format!("z{host}"),
        roles: Roles { gateway: true, decoder: true },
        addresses: Addresses {
            control: Some(SocketAddr::new(address, CONTROL_PORT)),
            ..Addresses::default()
        },
        ..LoadReport::default()
    };
    let arguments = MembershipArguments {
        node: id.clone(),
        socket: Gossip { socket: AirSocket { socket, air, own: host }, run, oracle: oracle.clone() },
        advertise: SocketAddr::new(address, GOSSIP_PORT),
        seeds,
        keys: vec![packet_key(SECRET)],
        timings: MembershipTimings::default(),
        report: report.clone(),
        observer: Arc::new(Told { run, oracle: oracle.clone() }),
    };
    let membership = MembershipHandle::start_on(arguments, Arc::new(move || clock.now())).await?;
    let trust = Trust::derive(&ClusterSecret::from_bytes(SECRET.to_vec())?, &id.name)?;
    let open = Open::default();
    let arguments = ControlArguments {
        id: id.clone(),
        listener: Control { listener, open: open.clone() },
        server: Arc::new(trust.server_config(ALPN)?),
        client: Arc::new(trust.client_config(ALPN)?),
        services: Arc::new(Services { id: id.clone() }),
        clock,
    };
    let (control, peers) = ControlHandle::start(arguments).await?;
    let rng = Rng::new(seed, 100 + id.generation.0);
    let mut running = Running { run, oracle, membership, control, report, told: 0, open, rng };
    running.live(peers, &mut phase).await;
    running.leave().await;
    Ok(())
}

impl Running {
    async fn live(&mut self, mut peers: mpsc::Receiver<PeerChange>, phase: &mut watch::Receiver<Phase>) {
        let mut changes = self.membership.changes();
        let mut views = self.membership.views();
        let membership = self.membership.clone();
        let superseded = membership.superseded();
        tokio::pin!(superseded);
        let mut asking = interval(ASK_EVERY);
        let mut telling = interval(TELL_EVERY);
        asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        telling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = *phase.borrow_and_update();
            if now == Phase::Leave {
                return;
            }
            tokio::select! {
                biased;
                by = &mut superseded => {
                    self.oracle.superseded(self.run, by);
                    return;
                }
                change = changes.recv() => match change {
                    Ok(change) => self.oracle.changed(self.run, &change),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return self.oracle.ended(self.run, "membership"),
                },
                changed = views.changed() => {
                    if changed.is_err() {
                        return self.oracle.ended(self.run, "membership");
                    }
                    let view = Arc::clone(&views.borrow_and_update());
                    self.control.members(Member::of(&view));
                    self.oracle.sees(self.run, &view);
                }
                change = peers.recv() => match change {
                    Some(change) => self.oracle.peer(self.run, &change),
                    None => return self.oracle.ended(self.run, "the control plane"),
                },
                _ = asking.tick(), if now == Phase::Busy => self.ask_all(),
                _ = telling.tick() => self.tell(now).await,
                _ = phase.changed() => {}
            }
        }
    }

    /// Says something new of this node, and what it is made of.
    async fn tell(&mut self, phase: Phase) {
        if phase == Phase::Busy {
            self.told += 1;
            self.report.replica_bytes_free = self.told;
            self.oracle.said(self.run, self.told);
            if let Err(error) = self.membership.say(self.report.clone()).await {
                self.oracle.broken(self.run, &format!("nothing can be said of it: {error}"));
            }
        }
        self.oracle.counted(self.run, tasks(), self.open.count());
    }

    fn ask_all(&mut self) {
        for peer in self.control.peers() {
            let asking = Asking {
                run: self.run,
                oracle: self.oracle.clone(),
                control: self.control.clone(),
                peer,
                number: self.rng.next(),
            };
            tokio::spawn(asking.ask());
        }
    }

    /// In order, and tells what is left of it.
    async fn leave(&mut self) {
        self.membership.leave().await;
        self.control.stop().await;
        sleep(TIDIED).await;
        self.oracle.left(self.run, tasks(), self.open.count());
    }
}

/// Tasks of this run; what it says here itself is none of them.
fn tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

struct Asking {
    run: RunId,
    oracle: Oracle,
    control: ControlHandle,
    peer: NodeId,
    number: u64,
}

impl Asking {
    async fn ask(self) {
        let Self { run, oracle, control, peer, number } = self;
        let session = SessionId(Uuid::from_u128(u128::from(number)));
        let asked = oracle.asks(run, &peer, !is_answered(session));
        let expected = answer_of(&peer, session);
        let answer = match number % 3 {
            0 => {
                let request = PoolRequest::Reserve {
                    model: "model".to_owned(),
                    digest: "digest".to_owned(),
                    session,
                    ttl_ms: 2_000,
                    failover: false,
                    trace: None,
                };
                let reply = control.request::<ModelPool>(&peer, &request, ANSWER).await;
                let right = PoolReply::Reserved { reservation: ReservationId(expected), ttl_ms: 2_000 };
                judge(reply, &right)
            }
            1 => {
                let request = ReplicaRequest::Promote { session, epoch: Epoch(number >> 8), trace: None };
                let reply = control.request::<Replica>(&peer, &request, ANSWER).await;
                judge(reply, &ReplicaReply::Fenced { epoch: Epoch(expected) })
            }
            _ => {
                let request = NodeRequest::Recent { after: number };
                let reply = control.request::<NodeAgent>(&peer, &request, ANSWER).await;
                judge(reply, &NodeReply::Retirement(status(expected)))
            }
        };
        oracle.answered(run, asked, answer);
    }
}

fn judge<R: PartialEq>(reply: Result<R, RequestError>, right: &R) -> Answer {
    match reply {
        Ok(reply) if reply == *right => Answer::Right,
        Ok(_) => Answer::Wrong,
        Err(RequestError::NotConnected) => Answer::NotAsked,
        Err(RequestError::Timeout { .. }) => Answer::Timeout,
        Err(RequestError::Lost) => Answer::Lost,
        Err(RequestError::TooMany | RequestError::Request(_)) => Answer::Refused,
    }
}

/// What this run answers to this, and no other one.
fn answer_of(id: &NodeId, session: SessionId) -> u64 {
    let mut rng = Rng::new(session.0.as_u128() as u64, id.generation.0);
    id.name.as_str().bytes().fold(rng.next(), |sum, byte| sum.rotate_left(5) ^ u64::from(byte)) >> 1
}

/// Most questions are answered; one of eight never is.
fn is_answered(session: SessionId) -> bool {
    session.0.as_u128() >> 4 & 7 != 0
}

const fn status(number: u64) -> Retirement {
    Retirement { phase: RetirementPhase::Not, sessions: number as u32, streams: (number >> 32) as u32 }
}

/// Answers what only this run would, after a moment, or never.
struct Services {
    id: NodeId,
}

impl Services {
    fn answer<R: Send + 'static>(
        &self,
        session: SessionId,
        reply: impl FnOnce(u64) -> R + Send + 'static,
    ) -> BoxFuture<'static, R> {
        let answer = answer_of(&self.id, session);
        async move {
            if !is_answered(session) {
                return std::future::pending().await;
            }
            sleep(Duration::from_millis(answer % 40)).await;
            reply(answer)
        }
        .boxed()
    }
}

impl ControlServices for Services {
    fn node(&self, _: NodeId, request: NodeRequest) -> BoxFuture<'static, NodeReply> {
        let NodeRequest::Recent { after } = request else {
            return std::future::ready(NodeReply::Busy).boxed();
        };
        let session = SessionId(Uuid::from_u128(u128::from(after)));
        self.answer(session, |answer| NodeReply::Retirement(status(answer)))
    }

    fn pool(&self, _: NodeId, request: PoolRequest) -> BoxFuture<'static, PoolReply> {
        let PoolRequest::Reserve { session, ttl_ms, .. } = request else {
            return std::future::ready(PoolReply::Busy).boxed();
        };
        self.answer(session, move |answer| PoolReply::Reserved { reservation: ReservationId(answer), ttl_ms })
    }

    fn replica(&self, _: NodeId, request: ReplicaRequest) -> BoxFuture<'static, ReplicaReply> {
        let ReplicaRequest::Promote { session, .. } = request else {
            return std::future::ready(ReplicaReply::Busy).boxed();
        };
        self.answer(session, |answer| ReplicaReply::Fenced { epoch: Epoch(answer) })
    }
}

/// What membership has counted.
struct Told {
    run: RunId,
    oracle: Oracle,
}

impl Observer for Told {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::GossipRefused { reason } => self.oracle.refused(self.run, reason),
            Observation::StoodStill { pause } => {
                self.oracle.broken(self.run, &format!("it says that it stood still for {pause:?}"));
            }
            _ => {}
        }
    }
}

/// In words, but for what is only a detail.
#[must_use]
pub fn change_in_words(change: &ClusterChange) -> Option<String> {
    let said = match change {
        ClusterChange::Joined(id) => format!("{id} joined"),
        ClusterChange::Down(id) => format!("{id} is down"),
        ClusterChange::Left(id) => format!("{id} left"),
        ClusterChange::Suspected(id) => format!("{id} is suspected"),
        ClusterChange::Trusted(id) => format!("{id} is trusted"),
        ClusterChange::DeclaredDown => "was declared down".to_owned(),
        ClusterChange::Superseded { by } => format!("is superseded by #{by}"),
        _ => return None,
    };
    Some(said)
}
