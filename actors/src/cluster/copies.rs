//! Other nodes as keepers of copies: who they are, how they are asked, where clients reach them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_core::placement::Keeper;
use starling_protocol::control::{CopySummary, Replica, ReplicaReply, ReplicaRequest};
use starling_protocol::lease::TraceContext;
use starling_protocol::{Epoch, NodeId, NodeName, SessionId};

use super::Directory;
use crate::control::ControlHandle;
use crate::{CopyPeers, LinkError, PeerLink, PeerStream};

/// How long a node may take to say what it has, and whether it obeys a new owner. A caller waits; a dead node's link is closed before.
const ANSWER: Duration = Duration::from_millis(700);

/// See the module.
pub struct ClusterCopies {
    directory: Arc<Directory>,
    link: Arc<dyn PeerLink>,
    zone: String,
    control: OnceLock<ControlHandle>,
}

impl ClusterCopies {
    /// Peers reached over `link`. Nobody is asked before [`ClusterCopies::ask_over`].
    #[must_use]
    pub const fn new(directory: Arc<Directory>, link: Arc<dyn PeerLink>, zone: String) -> Self {
        Self { directory, link, zone, control: OnceLock::new() }
    }

    /// The control plane, once there is one.
    pub fn ask_over(&self, control: ControlHandle) {
        // A node has one.
        let _ = self.control.set(control);
    }
}

impl ClusterCopies {
    fn ask(
        &self,
        node: &NodeName,
        session: SessionId,
        request: ReplicaRequest,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        let asked = self.directory.run_of(node).zip(self.control.get().cloned());
        async move {
            let (run, control) = asked?;
            match control.request::<Replica>(&run, &request, ANSWER).await {
                Ok(reply) => Some(reply),
                Err(problem) => {
                    tracing::debug!(%session, %run, %problem, "a node does not say whether it has a copy");
                    None
                }
            }
        }
        .boxed()
    }
}

impl CopyPeers for ClusterCopies {
    fn keepers(&self, model: &str) -> Vec<Keeper> {
        self.directory.keepers(model)
    }

    fn own_zone(&self) -> String {
        self.zone.clone()
    }

    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        self.link.open(node)
    }

    fn promote(
        &self,
        node: &NodeName,
        session: SessionId,
        epoch: Epoch,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        self.ask(node, session, ReplicaRequest::Promote { session, epoch, trace })
    }

    fn held(&self, node: &NodeName, session: SessionId) -> BoxFuture<'static, Option<ReplicaReply>> {
        self.ask(node, session, ReplicaRequest::Status { session })
    }

    fn ran_out(
        &self,
        node: &NodeName,
        session: SessionId,
        copy: CopySummary,
    ) -> BoxFuture<'static, Option<ReplicaReply>> {
        self.ask(node, session, ReplicaRequest::RanOut { session, copy })
    }

    fn run_of(&self, node: &NodeName) -> Option<NodeId> {
        self.directory.active_run_of(node)
    }

    fn client_address(&self, node: &NodeName) -> Option<String> {
        self.directory.http_of(node).map(|address: SocketAddr| address.to_string())
    }
}
