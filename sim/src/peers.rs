//! The ways from a node's actors to other nodes: the seams that QUIC and the control plane fill in a real one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_actors::{
    CopyPeers, LinkError, LinkedPeers, NoAnswer, NodeHandle, PeerLink, PeerStream, Peers, Reservations,
};
use starling_core::placement::Keeper;
use starling_protocol::control::{CopySummary, PoolReply, PoolRequest, ReplicaReply, ReplicaRequest};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::TraceContext;
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::{Epoch, Generation, NodeId, NodeName, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gossip;
use crate::net::{HostId, Incoming, Net, Port, address_of};
use crate::pipe::{PipeReader, PipeWriter};

/// As long as a node waits for the answer of another on its control plane.
const ANSWER: Duration = Duration::from_millis(700);

/// See the module.
pub struct SimLink {
    net: Net,
    own: HostId,
}

/// What is asked on the control plane.
#[derive(Debug, Serialize, serde::Deserialize)]
enum Question {
    Replica(ReplicaRequest),
    /// The same, where it matters who asks.
    By(NodeName, ReplicaRequest),
    Pool(PoolRequest),
}

impl SimLink {
    /// A node's.
    #[must_use]
    pub fn new(net: &Net, own: HostId) -> Arc<Self> {
        Arc::new(Self { net: net.clone(), own })
    }

    /// Where it may have decoders.
    #[must_use]
    pub fn peers(self: &Arc<Self>) -> Arc<dyn Peers> {
        let (net, own) = (self.net.clone(), self.own);
        let link: Arc<dyn PeerLink> = Arc::clone(self) as Arc<dyn PeerLink>;
        let reservations: Option<Arc<dyn Reservations>> = Some(Arc::clone(self) as Arc<dyn Reservations>);
        Arc::new(LinkedPeers {
            link,
            directory: move |_: &str, _: &str| gossip::candidates(&net, own),
            reservations,
        })
    }

    fn ask<R: DeserializeOwned + Send + 'static>(
        &self,
        node: &NodeName,
        question: Question,
        within: Duration,
    ) -> BoxFuture<'static, Result<R, NoAnswer>> {
        let opened = gossip::node_of(node).and_then(|to| self.net.open(self.own, to, Port::Control));
        Box::pin(async move {
            let (mut reader, mut writer) = opened.ok_or(NoAnswer::NotAsked)?;
            let asking = async {
                say(&mut writer, &question).await?;
                hear(&mut reader).await
            };
            let answered = tokio::time::timeout(within, asking).await;
            answered.ok().and_then(Result::ok).ok_or(NoAnswer::Silent)
        })
    }
}

impl PeerLink for SimLink {
    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        let opened = gossip::node_of(node).and_then(|to| self.net.open(self.own, to, Port::Data));
        let node = node.clone();
        Box::pin(async move {
            let message = "the link is lost".to_owned();
            let (reader, writer) = opened.ok_or(LinkError::Unreachable { node, message })?;
            Ok(PeerStream { reader: Box::new(reader), writer: Box::new(writer) })
        })
    }

    fn peer_lost(&self, _: &NodeName) {}
}

impl Reservations for SimLink {
    fn ask(
        &self,
        node: &NodeName,
        request: PoolRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<PoolReply, NoAnswer>> {
        Self::ask(self, node, Question::Pool(request), within)
    }
}

impl CopyPeers for SimLink {
    fn keepers(&self, _: &str) -> Vec<Keeper> {
        gossip::keepers(&self.net, self.own)
    }

    fn own_zone(&self) -> String {
        format!("z{}", self.own)
    }

    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        PeerLink::open(self, node)
    }

    fn promote(
        &self,
        node: &NodeName,
        session: SessionId,
        epoch: Epoch,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        let question = Question::Replica(ReplicaRequest::Promote { session, epoch, trace });
        let asked = Self::ask(self, node, question, ANSWER);
        Box::pin(async move { asked.await.ok() })
    }

    fn held(&self, node: &NodeName, session: SessionId) -> BoxFuture<'static, Option<ReplicaReply>> {
        let asked = Self::ask(self, node, Question::Replica(ReplicaRequest::Status { session }), ANSWER);
        Box::pin(async move { asked.await.ok() })
    }

    fn ran_out(
        &self,
        node: &NodeName,
        session: SessionId,
        copy: CopySummary,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        let (question, by) = (ReplicaRequest::RanOut { session, copy }, gossip::name_of(self.own));
        let asked = Self::ask(self, node, Question::By(by, question), ANSWER);
        Box::pin(async move { asked.await.ok() })
    }

    fn run_of(&self, node: &NodeName) -> Option<NodeId> {
        let is_there = gossip::keepers(&self.net, self.own).iter().any(|keeper| keeper.node == *node);
        is_there.then(|| NodeId { name: node.clone(), generation: Generation(1) })
    }

    fn client_address(&self, node: &NodeName) -> Option<String> {
        Some(address_of(gossip::node_of(node)?))
    }
}

/// Answers one question of another node's.
pub async fn answer(incoming: Incoming, node: NodeHandle) {
    let Incoming { mut reader, mut writer, .. } = incoming;
    let Ok(question) = hear::<Question>(&mut reader).await else { return };
    let said = match question {
        Question::Replica(ReplicaRequest::Promote { session, epoch, .. }) => {
            say(&mut writer, &node.promote(session, epoch).await).await
        }
        Question::Replica(ReplicaRequest::Status { session }) => {
            say(&mut writer, &node.held(session).await).await
        }
        Question::By(by, ReplicaRequest::RanOut { session, copy }) => {
            say(&mut writer, &node.ran_out(session, copy, by).await).await
        }
        Question::Replica(_) | Question::By(..) => Ok(()),
        Question::Pool(request) => say(&mut writer, &node.ask_pool(request).await).await,
    };
    // Who asked may have gone.
    let _ = said;
}

async fn say<M: Serialize>(writer: &mut PipeWriter, message: &M) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(message, MAX_LEASE_FRAME_BYTES, &mut bytes).map_err(io::Error::other)?;
    writer.write_all(&bytes).await
}

async fn hear<M: DeserializeOwned>(reader: &mut PipeReader) -> io::Result<M> {
    let mut frames = FrameReader::new(MAX_LEASE_FRAME_BYTES);
    let mut buffer = [0; 4_096];
    loop {
        if let Some(message) = frames.next().map_err(io::Error::other)? {
            return Ok(message);
        }
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.push(&buffer[..count]);
    }
}
