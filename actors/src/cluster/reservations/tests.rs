//! Two control planes in one process, over TCP.

use std::net::SocketAddr;
use std::sync::Arc;

use starling_protocol::control::{NodeReply, NodeRequest, ReplicaReply, ReplicaRequest, ReservationId};
use starling_protocol::{Generation, NodeId};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::Clock;
use crate::control::{ALPN, ControlArguments, ControlServices, Member, PeerChange};
use crate::trust::{ClusterSecret, Trust};

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pool that gives back whatever it is told to, and answers nothing else.
struct Services;

impl ControlServices for Services {
    fn node(&self, _: NodeId, _: NodeRequest) -> BoxFuture<'static, NodeReply> {
        std::future::pending().boxed()
    }

    fn pool(&self, _: NodeId, request: PoolRequest) -> BoxFuture<'static, PoolReply> {
        match request {
            PoolRequest::Release { .. } => std::future::ready(PoolReply::Released).boxed(),
            _ => std::future::pending().boxed(),
        }
    }

    fn replica(&self, _: NodeId, _: ReplicaRequest) -> BoxFuture<'static, ReplicaReply> {
        std::future::pending().boxed()
    }
}

async fn start(name: &str) -> (NodeId, SocketAddr, ControlHandle, mpsc::Receiver<PeerChange>) {
    let id = NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(1) };
    let secret = ClusterSecret::from_bytes(b"a secret of this test".to_vec()).expect("a secret");
    let trust = Trust::derive(&secret, &id.name).expect("certificates");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let arguments = ControlArguments {
        id: id.clone(),
        listener,
        server: Arc::new(trust.server_config(ALPN).expect("a server")),
        client: Arc::new(trust.client_config(ALPN).expect("a client")),
        services: Arc::new(Services),
        clock: Clock::start(),
    };
    let (handle, changes) = ControlHandle::start(arguments).await.expect("starts");
    (id, address, handle, changes)
}

async fn until(changes: &mut mpsc::Receiver<PeerChange>, wanted: impl Fn(&PeerChange) -> bool) {
    let waiting = async { while !wanted(&changes.recv().await.expect("goes on")) {} };
    tokio::time::timeout(PATIENCE, waiting).await.expect("comes in time");
}

#[tokio::test]
async fn a_peer_is_asked_over_its_link_and_only_then() {
    let (id, address, control, mut changes) = start("reserving").await;
    let (peer, peer_address, peer_control, _changes) = start("reserved-at").await;
    let reservations = ControlReservations::default();
    let release = || PoolRequest::Release { reservation: ReservationId(1) };
    let ask = |node: &NodeName, request, within| reservations.ask(node, request, within);
    assert_eq!(ask(&peer.name, release(), PATIENCE).await, Err(NoAnswer::NotAsked), "no control plane yet");
    reservations.reach_by(control.clone());
    assert_eq!(ask(&peer.name, release(), PATIENCE).await, Err(NoAnswer::NotAsked), "no link yet");

    control.members(vec![Member { id: peer.clone(), control: peer_address }]);
    peer_control.members(vec![Member { id, control: address }]);
    until(&mut changes, |change| matches!(change, PeerChange::Up(_))).await;
    assert_eq!(ask(&peer.name, release(), PATIENCE).await, Ok(PoolReply::Released));
    let reserve = PoolRequest::Reserve {
        model: "m".into(),
        digest: "d".into(),
        session: starling_protocol::SessionId::random(),
        ttl_ms: 1,
        failover: false,
        trace: None,
    };
    let briefly = Duration::from_millis(50);
    assert_eq!(ask(&peer.name, reserve, briefly).await, Err(NoAnswer::Silent));

    peer_control.stop().await;
    until(&mut changes, |change| matches!(change, PeerChange::Lost { .. })).await;
    assert_eq!(ask(&peer.name, release(), PATIENCE).await, Err(NoAnswer::NotAsked), "the link is gone");
    control.stop().await;
}
