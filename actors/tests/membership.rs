//! Several nodes of a cluster in one process, over real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use starling_actors::{
    ClusterChange, ClusterView, LoadReport, Member, MemberState, MembershipArguments, MembershipHandle,
    MembershipTimings, Observation, Observer, packet_key,
};
use starling_protocol::gossip::{ModelLoad, Roles};
use starling_protocol::{Generation, NodeId, NodeName};
use tokio::net::UdpSocket;
use tokio::sync::{broadcast, watch};

/// Far more than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Refused(watch::Sender<BTreeMap<&'static str, u64>>);

impl Refused {
    fn count(&self, reason: &str) -> u64 {
        self.0.borrow().get(reason).copied().unwrap_or(0)
    }

    async fn reaches(&self, count: u64, reason: &str) {
        let mut counts = self.0.subscribe();
        let reached = counts.wait_for(|counts| counts.get(reason).is_some_and(|now| *now >= count));
        let _counts = tokio::time::timeout(PATIENCE, reached).await.expect("counted").expect("goes on");
    }
}

impl Observer for Refused {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::GossipRefused { reason } = observation {
            self.0.send_modify(|counts| *counts.entry(reason).or_default() += 1);
        }
    }
}

struct Node {
    id: NodeId,
    address: SocketAddr,
    membership: MembershipHandle,
    refused: Arc<Refused>,
}

struct Plan<'a> {
    name: &'a str,
    generation: u64,
    secret: &'a [u8],
    seeds: Vec<SocketAddr>,
    socket: Option<UdpSocket>,
    advertise: Option<SocketAddr>,
}

fn plan(name: &str, generation: u64) -> Plan<'_> {
    Plan { name, generation, secret: b"secret", seeds: Vec::new(), socket: None, advertise: None }
}

impl Plan<'_> {
    fn seeds(mut self, seeds: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.seeds.extend(seeds);
        self
    }

    async fn start(self) -> Node {
        let socket = match self.socket {
            Some(socket) => socket,
            None => socket().await,
        };
        let address = self.advertise.unwrap_or(socket.local_addr().expect("bound"));
        let id = node(self.name, self.generation);
        let refused = Arc::new(Refused::default());
        let arguments = MembershipArguments {
            node: id.clone(),
            socket,
            advertise: address,
            seeds: self.seeds.iter().map(ToString::to_string).collect(),
            keys: vec![packet_key(self.secret)],
            timings: MembershipTimings::default(),
            report: report(self.name),
            observer: Arc::clone(&refused) as Arc<dyn Observer>,
        };
        let membership = MembershipHandle::start(arguments).await.expect("starts");
        Node { id, address, membership, refused }
    }
}

fn node(name: &str, generation: u64) -> NodeId {
    NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(generation) }
}

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a free port")
}

/// An address at which nobody listens: it was free just now.
async fn dead() -> SocketAddr {
    socket().await.local_addr().expect("bound")
}

/// Everybody says something of its own, by which records can be told apart.
fn report(zone: &str) -> LoadReport {
    let models = ["one", "two"].map(|name| ModelLoad {
        name: name.to_owned(),
        slots_total: 4,
        slots_busy: 1,
        slots_idle: 3,
        real_time_factor_milli: Some(230),
        determinism_class: Some(7),
        files: Some(9),
        leaving: false,
        on_demand: false,
    });
    LoadReport {
        version: "0.1.0".to_owned(),
        zone: zone.to_owned(),
        roles: Roles { gateway: true, decoder: true },
        models: models.into(),
        ..LoadReport::default()
    }
}

impl Node {
    async fn sees(&self, what: &str, is_so: impl Fn(&ClusterView) -> bool) -> Arc<ClusterView> {
        let mut views = self.membership.views();
        let seen = tokio::time::timeout(PATIENCE, views.wait_for(|view| is_so(view))).await;
        match seen {
            Ok(view) => Arc::clone(&view.expect("membership goes on")),
            Err(_) => panic!("{} does not see {what}: {:#?}", self.id, self.membership.view()),
        }
    }

    async fn sees_all(&self, names: &[&str]) -> Arc<ClusterView> {
        let whole = |view: &ClusterView| {
            let active: Vec<&Member> = view.active().collect();
            active.len() == names.len()
                && names.iter().zip(active).all(|(name, member)| {
                    member.id.name.as_str() == *name
                        && member.load.as_ref().is_some_and(|load| load.zone == *name)
                })
        };
        self.sees(&format!("{names:?} with their records"), whole).await
    }

    async fn sees_state(&self, of: &NodeId, state: MemberState) {
        let there = |view: &ClusterView| {
            view.get(&of.name).is_some_and(|member| member.id == *of && member.state == state)
        };
        self.sees(&format!("{of} as {state:?}"), there).await;
    }
}

async fn next(
    changes: &mut broadcast::Receiver<ClusterChange>,
    wanted: impl Fn(&ClusterChange) -> bool,
) -> ClusterChange {
    let found = async {
        loop {
            let change = changes.recv().await.expect("not behind");
            if wanted(&change) {
                return change;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_find_each_other_tell_of_themselves_and_leave_in_good_order() {
    let a = plan("a", 1).start().await;
    let b = plan("b", 1).seeds([a.address]).start().await;
    // C knows only b.
    let c = plan("c", 1).seeds([b.address, dead().await]).start().await;
    for one in [&a, &b, &c] {
        let view = one.sees_all(&["a", "b", "c"]).await;
        assert_eq!(view.me, one.id);
        let load = view.get(&c.id.name).and_then(|c| c.load.clone()).expect("told");
        assert_eq!((load.models.len(), load.models[1].name.as_str()), (2, "two"));
    }

    let mut changes = a.membership.changes();
    c.membership.say(LoadReport { draining: true, ..report("c") }).await.expect("said");
    next(&mut changes, |change| *change == ClusterChange::Draining(c.id.clone())).await;
    assert!(a.membership.view().get(&c.id.name).is_some_and(Member::is_draining));

    c.membership.leave().await;
    let end =
        next(&mut changes, |change| matches!(change, ClusterChange::Left(_) | ClusterChange::Down(_))).await;
    assert_eq!(end, ClusterChange::Left(c.id.clone()));
    b.sees_state(&c.id, MemberState::Left).await;
    assert!(c.membership.say(report("c")).await.is_err(), "it has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dies_is_given_up_and_its_next_run_is_a_member_at_once() {
    let a = plan("a", 1).start().await;
    let b = plan("b", 1).seeds([a.address]).start().await;
    let c = plan("c", 1).seeds([a.address]).start().await;
    a.sees_all(&["a", "b", "c"]).await;

    let mut changes = a.membership.changes();
    c.membership.halt().await;
    next(&mut changes, |change| *change == ClusterChange::Down(c.id.clone())).await;
    b.sees_state(&c.id, MemberState::Down).await;
    let again = plan("c", 2).seeds([a.address]).start().await;
    next(&mut changes, |change| *change == ClusterChange::Joined(again.id.clone())).await;
    again.sees_all(&["a", "b", "c"]).await;

    // Restarted before anybody could notice that it was gone, and elsewhere.
    b.membership.halt().await;
    let again = plan("b", 2).seeds([a.address]).start().await;
    let about_b = |change: &ClusterChange| match change {
        ClusterChange::Joined(id) | ClusterChange::Down(id) => id.name == b.id.name,
        _ => false,
    };
    assert_eq!(next(&mut changes, about_b).await, ClusterChange::Down(b.id.clone()));
    assert_eq!(next(&mut changes, about_b).await, ClusterChange::Joined(again.id.clone()));
    let view = a.sees_all(&["a", "b", "c"]).await;
    assert_eq!(view.get(&b.id.name).map(|member| member.address), Some(again.address));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_living_seed_of_three_is_enough_and_a_seed_may_come_late() {
    let late = dead().await;
    let a = plan("a", 1).start().await;
    let b = plan("b", 1).seeds([dead().await, dead().await, a.address]).start().await;
    b.sees_all(&["a", "b"]).await;

    let c = plan("c", 1).seeds([late]).start().await;
    let d = Plan { socket: Some(UdpSocket::bind(late).await.expect("free")), ..plan("d", 1) }.start().await;
    c.sees_all(&["c", "d"]).await;
    d.sees_all(&["c", "d"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_left_alone_finds_the_cluster_again() {
    let a = plan("a", 1).start().await;
    let b = plan("b", 1).seeds([a.address]).start().await;
    b.sees_all(&["a", "b"]).await;
    a.membership.halt().await;
    b.sees_state(&a.id, MemberState::Down).await;

    // The new run knows nobody; b has to find it.
    let bound = async {
        loop {
            match UdpSocket::bind(a.address).await {
                Ok(socket) => return socket,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let socket = tokio::time::timeout(PATIENCE, bound).await.expect("the old run's socket is closed");
    let again = Plan { socket: Some(socket), ..plan("a", 2) }.start().await;
    b.sees_state(&again.id, MemberState::Alive).await;
    again.sees_all(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_another_secret_is_not_heard_and_is_counted() {
    let a = plan("a", 1).start().await;
    let b = plan("b", 1).seeds([a.address]).start().await;
    let stranger = Plan { secret: b"another", ..plan("s", 1) }.seeds([a.address, b.address]).start().await;
    a.refused.reaches(1, "unknown_key").await;
    b.refused.reaches(1, "unknown_key").await;
    a.sees_all(&["a", "b"]).await;
    assert_eq!(a.membership.view().get(&stranger.id.name), None);
    assert_eq!(stranger.membership.view().members.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_are_sent_again_or_changed_are_refused() {
    let a = plan("a", 1).start().await;
    let tap = socket().await;
    let b = plan("b", 1).seeds([tap.local_addr().expect("bound")]).start().await;
    let mut packet = [0; 2_000];
    let (length, from) =
        tokio::time::timeout(PATIENCE, tap.recv_from(&mut packet)).await.expect("in time").expect("read");
    assert_eq!(from, b.address);
    let packet = &packet[..length];
    let mut changed = packet.to_vec();
    *changed.last_mut().expect("not empty") ^= 1;
    for bytes in [&changed[..], packet, packet, b"no packet", &[0; 1_900]] {
        tap.send_to(bytes, a.address).await.expect("sent");
    }
    b.sees_all(&["a", "b"]).await;
    a.refused.reaches(2, "malformed").await;
    assert_eq!((a.refused.count("forged"), a.refused.count("replayed")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_under_one_name_the_earlier_ends() {
    let a = plan("a", 1).start().await;
    let old = plan("b", 1).seeds([a.address]).start().await;
    a.sees_all(&["a", "b"]).await;
    let mut changes = old.membership.changes();
    let new = plan("b", 2).seeds([a.address]).start().await;
    let by = tokio::time::timeout(PATIENCE, old.membership.superseded()).await.expect("in time");
    assert_eq!(by, Generation(2));
    next(&mut changes, |change| *change == ClusterChange::Superseded { by: Generation(2) }).await;
    a.sees_state(&new.id, MemberState::Alive).await;
    new.sees_all(&["a", "b"]).await;
}

/// A way to a node that can be cut, for packets of one other node or of all.
async fn way(to: SocketAddr, only_from: Option<SocketAddr>, cut: &Arc<AtomicBool>) -> SocketAddr {
    let way = socket().await;
    let address = way.local_addr().expect("bound");
    let cut = Arc::clone(cut);
    tokio::spawn(async move {
        let mut packet = [0; 2_000];
        while let Ok((length, from)) = way.recv_from(&mut packet).await {
            let is_cut = only_from.is_none_or(|only| only == from) && cut.load(Ordering::SeqCst);
            if !is_cut {
                let _ = way.send_to(&packet[..length], to).await;
            }
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parted_network_heals_and_who_was_given_up_learns_of_it() {
    let cut = Arc::new(AtomicBool::new(false));
    let sockets = [socket().await, socket().await, socket().await];
    let [a, b, c] = [0, 1, 2].map(|at| sockets[at].local_addr().expect("bound"));
    let ways = [way(a, Some(c), &cut).await, way(b, Some(c), &cut).await, way(c, None, &cut).await];
    let mut nodes = Vec::new();
    for ((name, socket), advertise) in ["a", "b", "c"].into_iter().zip(sockets).zip(ways) {
        let plan = Plan { socket: Some(socket), advertise: Some(advertise), ..plan(name, 1) };
        nodes.push(plan.seeds(ways).start().await);
    }
    for node in &nodes {
        node.sees_all(&["a", "b", "c"]).await;
    }

    let c = &nodes[2];
    let mut changes = c.membership.changes();
    cut.store(true, Ordering::SeqCst);
    nodes[0].sees_state(&c.id, MemberState::Down).await;
    c.sees_state(&nodes[0].id, MemberState::Down).await;
    c.sees_state(&nodes[1].id, MemberState::Down).await;
    cut.store(false, Ordering::SeqCst);
    next(&mut changes, |change| *change == ClusterChange::DeclaredDown).await;
    for node in &nodes {
        node.sees_all(&["a", "b", "c"]).await;
    }
}
