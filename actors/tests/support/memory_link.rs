//! Nodes in one process that reach each other through memory, so that tests of several can run on paused time. A test can
//! cut the way between two: silently, as a network does, or by breaking what is open, as a dead process does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use starling_actors::{
    CopyPeers, IncomingStream, IncomingStreams, LinkError, LinkedPeers, NoAnswer, NodeHandle, PeerLink,
    PeerStream, Peers, Reservations,
};
use starling_core::placement::{Candidate, Keeper};
use starling_protocol::control::{CopySummary, ModelPool, PoolReply, PoolRequest, ReplicaReply, Service};
use starling_protocol::lease::TraceContext;
use starling_protocol::{Epoch, Generation, NodeId, NodeName, SessionId};
use tokio::sync::{mpsc, watch};

/// What a stream's pipe holds.
const PIPE_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Silent,
    Broken,
}

type Pair = (NodeName, NodeName);

#[derive(Clone, Default)]
pub struct Net {
    nodes: Arc<Mutex<HashMap<NodeName, mpsc::Sender<IncomingStream>>>>,
    ways: Arc<Mutex<HashMap<Pair, watch::Sender<Way>>>>,
    candidates: Arc<Mutex<Vec<Candidate>>>,
    pools: Arc<Mutex<HashMap<NodeName, Pool>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// Who has which files, where a test says so.
    by_digest: Arc<Mutex<HashMap<String, Vec<Candidate>>>>,
}

/// How a node answers on its control plane.
#[derive(Clone)]
enum Pool {
    Asks(NodeHandle),
    /// It is of a version that knows no reservations.
    Older,
}

/// What was asked over the control plane, and answered.
#[derive(Debug, Clone)]
pub struct Asked {
    pub node: NodeName,
    pub request: PoolRequest,
    pub reply: Result<PoolReply, NoAnswer>,
}

/// Nodes in memory as keepers of copies. Each is in a zone of its own, so that copies spread.
pub struct MemoryCopies {
    net: Net,
    link: Arc<MemoryLink>,
    handles: Handles,
}

/// Nodes by name, for whoever asks them to obey.
pub type Handles = Arc<Mutex<HashMap<NodeName, NodeHandle>>>;

impl MemoryCopies {
    pub fn new(net: &Net, link: &Arc<MemoryLink>, handles: &Handles) -> Self {
        Self { net: net.clone(), link: Arc::clone(link), handles: Arc::clone(handles) }
    }

    fn is_open(&self, node: &NodeName) -> bool {
        *self.net.way(&self.link.own, node).borrow() == Way::Open
    }
}

impl CopyPeers for MemoryCopies {
    fn keepers(&self, _: &str) -> Vec<Keeper> {
        let handles = self.handles.lock().expect("no panic");
        let others = handles.keys().filter(|node| **node != self.link.own);
        let keeper = |node: &NodeName| Keeper {
            node: node.clone(),
            zone: node.to_string(),
            class: String::new(),
            weight: 1,
            draining: false,
        };
        others.map(keeper).collect()
    }

    fn own_zone(&self) -> String {
        self.link.own.to_string()
    }

    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        self.link.open(node)
    }

    fn promote(
        &self,
        node: &NodeName,
        session: SessionId,
        epoch: Epoch,
        _: Option<TraceContext>,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        let handle = self.handles.lock().expect("no panic").get(node).cloned().filter(|_| self.is_open(node));
        Box::pin(async move { Some(handle?.promote(session, epoch).await) })
    }

    fn held(&self, node: &NodeName, session: SessionId) -> BoxFuture<'static, Option<ReplicaReply>> {
        let handle = self.handles.lock().expect("no panic").get(node).cloned().filter(|_| self.is_open(node));
        Box::pin(async move { Some(handle?.held(session).await) })
    }

    fn ran_out(
        &self,
        node: &NodeName,
        session: SessionId,
        copy: CopySummary,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        let handle = self.handles.lock().expect("no panic").get(node).cloned().filter(|_| self.is_open(node));
        let own = self.link.own.clone();
        Box::pin(async move { Some(handle?.ran_out(session, copy, own).await) })
    }

    fn run_of(&self, node: &NodeName) -> Option<NodeId> {
        let is_there = self.handles.lock().expect("no panic").contains_key(node);
        is_there.then(|| NodeId { name: node.clone(), generation: Generation(1) })
    }

    fn client_address(&self, node: &NodeName) -> Option<String> {
        Some(format!("{node}:1"))
    }
}

pub fn name(text: &str) -> NodeName {
    NodeName::parse(text).expect("a name")
}

pub fn candidate(node: &str, idle: u32) -> Candidate {
    let (zone, class) = ("z".into(), String::new());
    Candidate {
        node: name(node),
        zone,
        class,
        slots: idle.max(1),
        busy: 0,
        idle,
        on_demand: false,
        draining: false,
    }
}

impl Net {
    /// A node that others can reach.
    pub fn join(&self, node: &str) -> (Arc<MemoryLink>, IncomingStreams) {
        let (sender, streams) = mpsc::channel(8);
        self.nodes.lock().expect("no panic").insert(name(node), sender);
        (Arc::new(MemoryLink { net: self.clone(), own: name(node) }), streams)
    }

    /// What everybody hears of who decodes.
    pub fn gossip(&self, candidates: Vec<Candidate>) {
        *self.candidates.lock().expect("no panic") = candidates;
    }

    /// From now on this is who answers for a node on its control plane. Nobody does before.
    pub fn answers(&self, node: &str, handle: NodeHandle) {
        self.pools.lock().expect("no panic").insert(name(node), Pool::Asks(handle));
    }

    /// A node does not understand what its pool is asked.
    pub fn is_older(&self, node: &str) {
        self.pools.lock().expect("no panic").insert(name(node), Pool::Older);
    }

    /// A node has no control plane.
    pub fn has_no_link(&self, node: &str) {
        self.pools.lock().expect("no panic").remove(&name(node));
    }

    /// All that was asked over the control plane.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// What everybody hears of who decodes with these files. Whoever else is gossiped of has none of them.
    pub fn gossip_of(&self, digest: &str, candidates: Vec<Candidate>) {
        self.by_digest.lock().expect("no panic").insert(digest.to_owned(), candidates);
    }

    /// The peers of a node.
    pub fn peers(&self, link: &Arc<MemoryLink>) -> Arc<dyn Peers> {
        let (candidates, own) = (Arc::clone(&self.candidates), link.own.clone());
        let reservations: Option<Arc<dyn Reservations>> = Some(Arc::clone(link) as Arc<dyn Reservations>);
        let link: Arc<dyn PeerLink> = Arc::clone(link) as Arc<dyn PeerLink>;
        let by_digest = Arc::clone(&self.by_digest);
        let directory = move |_: &str, digest: &str| {
            let by_digest = by_digest.lock().expect("no panic");
            let all = candidates.lock().expect("no panic");
            let all = by_digest.get(digest).unwrap_or(&all);
            all.iter().filter(|candidate| candidate.node != own).cloned().collect()
        };
        Arc::new(LinkedPeers { link, directory, reservations })
    }

    /// From now on nothing passes between the two, and what was open breaks.
    pub fn cut(&self, a: &str, b: &str) {
        self.way(&name(a), &name(b)).send_replace(Way::Broken);
    }

    /// The way between the two is open again.
    pub fn mend(&self, a: &str, b: &str) {
        self.way(&name(a), &name(b)).send_replace(Way::Open);
    }

    /// From now on nothing passes between the two, and nobody is told.
    pub fn silence(&self, a: &str, b: &str) {
        self.way(&name(a), &name(b)).send_replace(Way::Silent);
    }

    fn way(&self, a: &NodeName, b: &NodeName) -> watch::Sender<Way> {
        let pair = if a < b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
        let mut ways = self.ways.lock().expect("no panic");
        ways.entry(pair).or_insert_with(|| watch::Sender::new(Way::Open)).clone()
    }
}

pub struct MemoryLink {
    net: Net,
    own: NodeName,
}

impl PeerLink for MemoryLink {
    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        let sender = self.net.nodes.lock().expect("no panic").get(node).cloned();
        let (way, own, node) = (self.net.way(&self.own, node), self.own.clone(), node.clone());
        Box::pin(async move {
            let sender = sender.ok_or_else(|| LinkError::Unknown { node: node.clone() })?;
            let mut state = way.subscribe();
            if *state.borrow() == Way::Silent {
                std::future::pending::<()>().await;
            }
            if *state.borrow() == Way::Broken {
                return Err(LinkError::Unreachable { node, message: "it is broken".into() });
            }
            let (ours, mut near) = tokio::io::duplex(PIPE_BYTES);
            let (theirs, mut far) = tokio::io::duplex(PIPE_BYTES);
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    _ = state.wait_for(|way| *way != Way::Open) => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                }
                let _ = state.wait_for(|way| *way == Way::Broken).await;
            });
            let incoming = IncomingStream { from: own, stream: split(theirs) };
            let gone = |_| LinkError::Unreachable { node, message: "it is gone".into() };
            sender.send(incoming).await.map_err(gone)?;
            Ok(split(ours))
        })
    }

    fn peer_lost(&self, node: &NodeName) {
        self.net.way(&self.own, node).send_replace(Way::Broken);
    }
}

impl Reservations for MemoryLink {
    fn ask(
        &self,
        node: &NodeName,
        request: PoolRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<PoolReply, NoAnswer>> {
        let pool = self.net.pools.lock().expect("no panic").get(node).cloned();
        let way = *self.net.way(&self.own, node).borrow();
        let (asked, node) = (Arc::clone(&self.net.asked), node.clone());
        Box::pin(async move {
            let reply = match (way, pool) {
                (Way::Open, Some(Pool::Asks(pool))) => {
                    let asking = tokio::time::timeout(within, pool.ask_pool(request.clone()));
                    asking.await.map_err(|_| NoAnswer::Silent)
                }
                (Way::Open, Some(Pool::Older)) => Ok(ModelPool::unknown()),
                (Way::Silent, Some(_)) => {
                    tokio::time::sleep(within).await;
                    Err(NoAnswer::Silent)
                }
                (Way::Broken, _) | (_, None) => Err(NoAnswer::NotAsked),
            };
            asked.lock().expect("no panic").push(Asked { node, request, reply: reply.clone() });
            reply
        })
    }
}

fn split(stream: tokio::io::DuplexStream) -> PeerStream {
    let (reader, writer) = tokio::io::split(stream);
    PeerStream { reader: Box::new(reader), writer: Box::new(writer) }
}
