//! Several nodes in one process, over TCP. What needs processes is in `tests/real_control.rs`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use starling_protocol::control::{
    ModelPool, NodeAgent, NodeReply, NodeRequest, PoolReply, PoolRequest, Replica, ReplicaReply,
    ReplicaRequest, ReservationId, Service, decode_reply,
};
use starling_protocol::{Generation, NodeId, NodeName, SessionId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;
use crate::trust::{ClusterSecret, Trust};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers status and reservations, and never an inquiry about a copy.
#[derive(Default)]
struct Services {
    asked_by: Arc<Mutex<Vec<NodeId>>>,
}

impl ControlServices for Services {
    fn node(&self, _: NodeId, _: NodeRequest) -> BoxFuture<'static, NodeReply> {
        std::future::ready(NodeReply::Draining).boxed()
    }

    fn pool(&self, from: NodeId, _: PoolRequest) -> BoxFuture<'static, PoolReply> {
        self.asked_by.lock().expect("lock").push(from);
        std::future::ready(PoolReply::Refused { retry_after_ms: 7 }).boxed()
    }

    fn replica(&self, _: NodeId, _: ReplicaRequest) -> BoxFuture<'static, ReplicaReply> {
        std::future::pending().boxed()
    }
}

struct Node {
    id: NodeId,
    address: SocketAddr,
    handle: ControlHandle,
    changes: mpsc::Receiver<PeerChange>,
    asked_by: Arc<Mutex<Vec<NodeId>>>,
}

impl Node {
    /// Actors have names of their node in ractor's registry, which all tests in a process share: each takes its own.
    async fn start(name: &str, generation: u64) -> Self {
        let name = NodeName::parse(name).expect("name");
        let id = NodeId { name, generation: Generation(generation) };
        let secret = ClusterSecret::from_bytes(b"a secret of this test".to_vec()).expect("secret");
        let trust = Trust::derive(&secret, &id.name).expect("trust");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let services = Services::default();
        let asked_by = Arc::clone(&services.asked_by);
        let arguments = ControlArguments {
            id: id.clone(),
            listener,
            server: Arc::new(trust.server_config(ALPN).expect("server")),
            client: Arc::new(trust.client_config(ALPN).expect("client")),
            services: Arc::new(services),
            clock: Clock::start(),
        };
        let (handle, changes) = ControlHandle::start(arguments).await.expect("start");
        Self { id, address, handle, changes, asked_by }
    }

    fn knows(&self, others: &[&Self]) {
        let member = |node: &&Self| Member { id: node.id.clone(), control: node.address };
        self.handle.members(others.iter().map(member).collect());
    }

    /// The next change but for suspicions, which a busy machine may cause.
    async fn hears(&mut self) -> PeerChange {
        loop {
            let change = timeout(PATIENCE, self.changes.recv()).await.expect("in time").expect("alive");
            if !matches!(change, PeerChange::Suspected(_) | PeerChange::Cleared(_)) {
                return change;
            }
        }
    }
}

async fn pair(first: &str, second: &str) -> (Node, Node) {
    let (mut a, mut b) = (Node::start(first, 1).await, Node::start(second, 1).await);
    a.knows(&[&b]);
    b.knows(&[&a]);
    assert_eq!(a.hears().await, PeerChange::Up(b.id.clone()));
    assert_eq!(b.hears().await, PeerChange::Up(a.id.clone()));
    (a, b)
}

fn release() -> PoolRequest {
    PoolRequest::Release { reservation: ReservationId(1) }
}

fn held() -> ReplicaRequest {
    ReplicaRequest::Status { session: SessionId::random() }
}

#[tokio::test]
async fn nodes_find_each_other_and_answer() {
    let (a, b) = pair("answer-a", "answer-b").await;
    for (from, to) in [(&a, &b), (&b, &a)] {
        assert_eq!(from.handle.peers(), vec![to.id.clone()]);
        let reply = from.handle.request::<ModelPool>(&to.id, &release(), PATIENCE).await;
        assert_eq!(reply.expect("reply"), PoolReply::Refused { retry_after_ms: 7 });
        assert_eq!(*to.asked_by.lock().expect("lock"), vec![from.id.clone()]);
        let reply = from.handle.request::<NodeAgent>(&to.id, &NodeRequest::Status, PATIENCE).await;
        assert_eq!(reply.expect("reply"), NodeReply::Draining);
    }
    let later = NodeId { generation: Generation(2), ..b.id.clone() };
    let error = a.handle.request::<ModelPool>(&later, &release(), PATIENCE).await.expect_err("another run");
    assert!(matches!(error, RequestError::NotConnected), "{error}");
}

#[tokio::test]
async fn what_a_node_does_not_understand_is_answered() {
    let (a, b) = pair("unknown-a", "unknown-b").await;
    let remote = a.handle.peer(&b.id).expect("up");
    for strange in [b"".to_vec(), b"from the future".to_vec(), vec![0xff; 100_000]] {
        let reply = remote.ask::<ModelPool>(strange, PATIENCE).await.expect("answered");
        assert_eq!(decode_reply::<ModelPool>(&reply), ModelPool::unknown());
    }
}

#[tokio::test]
async fn requests_have_deadlines_and_a_bound_and_heartbeats_pass_by_them() {
    let (a, mut b) = pair("bound-a", "bound-b").await;
    let patience = Duration::from_millis(1_500);
    let asked = |_| {
        let (handle, peer) = (a.handle.clone(), b.id.clone());
        async move { handle.request::<Replica>(&peer, &held(), patience).await.expect_err("no answer") }
    };
    let errors = join_all((0..70).map(asked)).await;
    let count = |kind: fn(&RequestError) -> bool| errors.iter().filter(|error| kind(error)).count();
    assert_eq!(count(|error| matches!(error, RequestError::Timeout { .. })), 64);
    assert_eq!(count(|error| matches!(error, RequestError::TooMany)), 6);
    // Twice as long as silence is borne, and nobody was lost.
    let reply = a.handle.request::<ModelPool>(&b.id, &release(), PATIENCE).await;
    assert_eq!(reply.expect("reply"), PoolReply::Refused { retry_after_ms: 7 });
    b.changes.close();
    while let Some(change) = b.changes.recv().await {
        assert!(!matches!(change, PeerChange::Lost { .. }), "{change:?}");
    }
}

#[tokio::test]
async fn a_peer_that_goes_is_lost_at_once_and_its_next_run_is_found() {
    let (mut a, b) = pair("goes-a", "goes-b").await;
    let waiting = tokio::spawn({
        let (handle, peer) = (a.handle.clone(), b.id.clone());
        async move { handle.request::<Replica>(&peer, &held(), PATIENCE).await }
    });
    // The request is with the peer when another one that was sent after it has been answered.
    let reply = a.handle.request::<ModelPool>(&b.id, &release(), PATIENCE).await;
    reply.expect("reply");
    b.handle.stop().await;
    assert_eq!(a.hears().await, PeerChange::Lost { peer: b.id.clone(), cause: PeerLoss::Closed });
    let error = waiting.await.expect("task").expect_err("lost");
    assert!(matches!(error, RequestError::Lost), "{error}");
    let error = a.handle.request::<ModelPool>(&b.id, &release(), PATIENCE).await.expect_err("gone");
    assert!(matches!(error, RequestError::NotConnected), "{error}");

    let mut next = Node::start("goes-b", 2).await;
    a.knows(&[&next]);
    assert_eq!(a.hears().await, PeerChange::Up(next.id.clone()));
    assert_eq!(next.hears().await, PeerChange::Up(a.id.clone()));
}

#[tokio::test]
async fn three_nodes_know_each_other() {
    let mut nodes =
        [Node::start("three-a", 1).await, Node::start("three-b", 1).await, Node::start("three-c", 1).await];
    for node in &nodes {
        // A node may be told of itself.
        node.knows(&nodes.iter().collect::<Vec<_>>());
    }
    let ids = nodes.each_ref().map(|node| node.id.clone());
    for node in &mut nodes {
        let mut up = Vec::new();
        while up.len() < 2 {
            match node.hears().await {
                PeerChange::Up(peer) => up.push(peer),
                change => panic!("{change:?}"),
            }
        }
        up.push(node.id.clone());
        up.sort();
        assert_eq!(up, ids);
    }
}
