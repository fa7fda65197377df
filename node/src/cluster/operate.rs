//! What an operator asks of the whole cluster: its sessions, and that a node should go.
//!
//! Owns: the questions to the other nodes. Must never: answer for a node that does not answer.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use starling_actors::control::ControlHandle;
use starling_protocol::NodeName;
use starling_protocol::control::{NodeAgent, NodeReply, NodeRequest, SessionReport};
use thiserror::Error;
use tokio::sync::watch;

use super::Cluster;
use super::report::SessionEntry;
use crate::models::LiveModels;
use crate::sessions::Sessions;

/// A node that does not answer for so long is left out: whoever asks wants to see the rest.
const ANSWER: Duration = Duration::from_millis(500);

/// A node that is asked to drain answers at once.
const DRAIN_ANSWER: Duration = Duration::from_secs(2);

/// Sessions of one node that are shown. More are counted, and of no use to a person.
const MOST_SESSIONS: usize = starling_protocol::control::MAX_STATUS_SESSIONS;

/// The ways to operate: set once the node has them.
pub(super) struct Operating {
    pub(super) control: OnceLock<ControlHandle>,
    pub(super) models: OnceLock<Arc<LiveModels>>,
    drain: watch::Sender<Option<Duration>>,
}

impl Default for Operating {
    fn default() -> Self {
        Self { control: OnceLock::new(), models: OnceLock::new(), drain: watch::Sender::new(None) }
    }
}

/// A node was not told to drain. Nothing has changed.
#[derive(Debug, Error)]
pub enum DrainError {
    /// See [`UnknownNode`].
    #[error(transparent)]
    Unknown(#[from] UnknownNode),
    /// It did not say that it drains; it may.
    #[error("node {name} does not answer: {problem}")]
    Unanswered {
        /// Who.
        name: String,
        /// Why.
        problem: String,
    },
}

/// There is no such node, or it can't be asked. Nothing has changed.
#[derive(Debug, Error)]
#[error("node {name:?} is not one that can be asked; those that can are {}", .known.join(", "))]
pub struct UnknownNode {
    name: String,
    known: Vec<String>,
}

impl Cluster {
    /// The control plane, once there is one.
    pub fn operate_over(&self, control: ControlHandle) {
        // A node has one.
        let _ = self.operating.control.set(control);
    }

    /// Resolves when an operator wants this node to go, with how long that may take.
    pub async fn drain_requested(&self) -> Duration {
        let mut asked = self.operating.drain.subscribe();
        let deadline = asked.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
        match deadline {
            Some(deadline) => deadline,
            // The sender lives as long as the cluster.
            None => std::future::pending().await,
        }
    }

    /// This node is to go.
    pub fn request_drain(&self, deadline: Duration) {
        self.operating.drain.send_replace(Some(deadline));
    }

    /// Who tells this node that it is to go.
    pub(super) fn drain_sender(&self) -> watch::Sender<Option<Duration>> {
        self.operating.drain.clone()
    }

    /// The sessions of all nodes that answer.
    pub async fn sessions(self: &Arc<Self>, own: &dyn Sessions) -> Vec<SessionEntry> {
        let owner = self.node().name.clone();
        let asked = self.operating.control.get().map_or_else(Vec::new, |control| {
            control.peers().into_iter().map(|peer| (control.clone(), peer)).collect()
        });
        let others = asked.into_iter().map(|(control, peer)| async move {
            match control.request::<NodeAgent>(&peer, &NodeRequest::Status, ANSWER).await {
                Ok(NodeReply::Status(report)) => entries(&peer.name, report.sessions),
                _ => Vec::new(),
            }
        });
        let (own, others) = tokio::join!(own.session_reports(MOST_SESSIONS), join_all(others));
        let mut all = entries(&owner, own);
        all.extend(others.into_iter().flatten());
        all.sort_by(|a, b| (&a.owner, &a.session).cmp(&(&b.owner, &b.session)));
        all
    }

    /// Tells a node of the cluster to go.
    ///
    /// # Errors
    /// See [`DrainError`].
    pub async fn drain(&self, name: &str, deadline: Duration) -> Result<(), DrainError> {
        if name == self.node().name.as_str() {
            self.request_drain(deadline);
            return Ok(());
        }
        let control = self.operating.control.get();
        let peers = control.map(ControlHandle::peers).unwrap_or_default();
        let found = control.zip(peers.iter().find(|peer| peer.name.as_str() == name));
        let Some((control, peer)) = found else { return Err(self.unknown_node(name).into()) };
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        let unanswered = |problem: String| DrainError::Unanswered { name: name.to_owned(), problem };
        match control.request::<NodeAgent>(peer, &NodeRequest::Drain { deadline_ms }, DRAIN_ANSWER).await {
            Ok(NodeReply::Draining) => Ok(()),
            Ok(other) => Err(unanswered(format!("it said {other:?}"))),
            Err(problem) => Err(unanswered(problem.to_string())),
        }
    }

    pub(super) fn unknown_node(&self, name: &str) -> UnknownNode {
        let peers = self.operating.control.get().map(ControlHandle::peers).unwrap_or_default();
        let known = peers.iter().map(|peer| &peer.name).chain([&self.node().name]);
        let mut known: Vec<String> = known.map(NodeName::to_string).collect();
        known.sort();
        UnknownNode { name: name.to_owned(), known }
    }
}

fn entries(owner: &NodeName, reports: Vec<SessionReport>) -> Vec<SessionEntry> {
    let entry = |report: SessionReport| SessionEntry {
        session: report.session.to_string(),
        owner: owner.to_string(),
        dialect: report.dialect,
        model: report.model,
        copies: report.replicas.iter().map(NodeName::to_string).collect(),
        durable: report.durable,
        connected: report.connected,
        decoder: report.decoder.map(|node| node.to_string()),
        standby: report.standby.map(|node| node.to_string()),
        attempt: report.attempt,
        epoch: report.epoch.0,
        lag_ms: report.lag_ms,
    };
    reports.into_iter().map(entry).collect()
}
