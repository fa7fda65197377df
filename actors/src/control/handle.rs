//! The way to a node's control plane.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef, SpawnErr};
use starling_core::peer_links::PeerChange;
use starling_protocol::NodeId;
use starling_protocol::control::{EncodeError, Service, decode_reply, encode_call};
use thiserror::Error;
use tokio::sync::{mpsc, watch};

use super::actor::{
    ControlActor, ControlActorArguments, ControlArguments, ControlMessage, Member, PeerTable,
};
use super::remote::RemotePeer;
use crate::network::Streams;

/// Changes that may wait to be read. A peer makes a handful when it comes and goes, so a hundred peers fit.
const CHANGES: usize = 512;

/// How long links may take to close when the control plane ends.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// A running control plane. Clones lead to the same one.
#[derive(Clone)]
pub struct ControlHandle {
    own: NodeId,
    actor: ActorRef<ControlMessage>,
    table: watch::Receiver<PeerTable>,
}

impl ControlHandle {
    /// Starts a control plane. What becomes of peers is told on the channel; read it promptly. When it closes, the control
    /// plane has ended.
    ///
    /// # Errors
    /// Its actors can't start: most likely this run of this node is there already, in this process.
    pub async fn start<N: Streams>(
        arguments: ControlArguments<N>,
    ) -> Result<(Self, mpsc::Receiver<PeerChange>), ControlStartError> {
        let own = arguments.id.clone();
        let (table, peers) = watch::channel(PeerTable::new());
        let (changes, heard) = mpsc::channel(CHANGES);
        let arguments = ControlActorArguments { start: arguments, table, changes };
        let (actor, _) = Actor::spawn(None, ControlActor::new(), arguments).await?;
        Ok((Self { own, actor, table: peers }, heard))
    }

    /// These are the cluster's other nodes now. Those that are not among them are not dialled; links that there are stay.
    pub fn members(&self, members: Vec<Member>) {
        // A control plane that has ended has no use for them.
        let _ = self.actor.cast(ControlMessage::Members(members));
    }

    /// The peers that requests reach now.
    #[must_use]
    pub fn peers(&self) -> Vec<NodeId> {
        self.table.borrow().values().map(|peer| peer.id.clone()).collect()
    }

    /// Asks a service of this run of a peer: `handle.request::<ModelPool>(&peer, &PoolRequest::.., timeout)`.
    ///
    /// # Errors
    /// See [`RequestError`], which says whether the peer may have acted.
    pub async fn request<S: Service>(
        &self,
        peer: &NodeId,
        request: &S::Request,
        timeout: Duration,
    ) -> Result<S::Reply, RequestError> {
        let bytes = encode_call::<S>(&self.own, request)?;
        let remote = self.peer(peer).ok_or(RequestError::NotConnected)?;
        let reply = remote.ask::<S>(bytes, timeout).await?;
        Ok(decode_reply::<S>(&reply))
    }

    pub(super) fn peer(&self, peer: &NodeId) -> Option<Arc<RemotePeer>> {
        self.table.borrow().get(&peer.name).filter(|found| found.id == *peer).cloned()
    }

    /// Ends the control plane: peers see their links close.
    pub async fn stop(&self) {
        let _ = self.actor.stop_and_wait(None, Some(STOP_DEADLINE)).await;
    }
}

/// Why there is no control plane. Nothing was started.
#[derive(Debug, Error)]
#[error("the control plane can't start: {0}")]
pub struct ControlStartError(#[from] SpawnErr);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// There is no link to that run of that peer. Nothing was sent.
    #[error("there is no link to that node")]
    NotConnected,
    /// Too many requests are on their way to it. Nothing was sent.
    #[error("too many requests are on their way to that node")]
    TooMany,
    /// The request can't be written. Nothing was sent.
    #[error("{0}")]
    Request(#[from] EncodeError),
    /// No answer came. The peer may have acted.
    #[error("no answer within {within:?}")]
    Timeout {
        /// How long it was waited for.
        within: Duration,
    },
    /// The link ended before an answer came. The peer may have acted.
    #[error("the link to that node was lost")]
    Lost,
}
