//! What an operator asks of the whole cluster: its sessions, and that a node should go.
//!
//! Owns: the questions to the other nodes. Must never: answer for a node that does not answer.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use starling_actors::control::ControlHandle;
use starling_protocol::NodeName;
use starling_protocol::control::{KilledDecoder, NodeAgent, NodeReply, NodeRequest, SessionReport};
use thiserror::Error;

use super::Cluster;
use super::report::{HostsReport, SessionEntry};
use super::retire::{DrainOrder, Retiring};
use crate::models::LiveModels;
use crate::sessions::Sessions;

/// A node that does not answer for so long is left out: whoever asks wants to see the rest.
pub(super) const ANSWER: Duration = Duration::from_millis(500);

/// A node that is asked to drain answers at once.
const DRAIN_ANSWER: Duration = Duration::from_secs(2);

/// Sessions of one node that are shown. More are counted, and of no use to a person.
const MOST_SESSIONS: usize = starling_protocol::control::MAX_STATUS_SESSIONS;

/// The ways to operate: set once the node has them.
#[derive(Default)]
pub(super) struct Operating {
    pub(super) control: OnceLock<ControlHandle>,
    pub(super) models: OnceLock<Arc<LiveModels>>,
    pub(super) retiring: Retiring,
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

impl DrainError {
    /// It said something else.
    pub(super) fn said(name: &str, reply: &NodeReply) -> Self {
        Self::Unanswered { name: name.to_owned(), problem: format!("it said {reply:?}") }
    }
}

/// No decoder host was killed.
#[derive(Debug, Error)]
pub enum KillError {
    /// See [`UnknownNode`].
    #[error(transparent)]
    Unknown(#[from] UnknownNode),
    /// The node does not want to, or has none.
    #[error("node {name} kills no decoder: {reason}")]
    Refused {
        /// Who.
        name: String,
        /// Why.
        reason: String,
    },
    /// It did not say whether it has.
    #[error("node {name} does not answer: {problem}")]
    Unanswered {
        /// Who.
        name: String,
        /// Why.
        problem: String,
    },
}

/// What nodes tell of themselves when they are asked, beyond what they gossip.
#[derive(Debug, Default)]
pub struct Told {
    /// Their sessions.
    pub sessions: Vec<SessionEntry>,
    /// Of each peer and model: its decoder hosts.
    pub hosts: Vec<(String, String, HostsReport)>,
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

    /// This node is to go.
    pub fn request_drain(&self, deadline: Duration) {
        self.operating.retiring.order(DrainOrder { deadline, stay: None });
    }

    /// What all nodes that answer tell of themselves.
    pub async fn told(&self, own: &dyn Sessions) -> Told {
        let owner = self.node().name.clone();
        let asked = self.operating.control.get().map_or_else(Vec::new, |control| {
            control.peers().into_iter().map(|peer| (control.clone(), peer)).collect()
        });
        let others = asked.into_iter().map(|(control, peer)| async move {
            match control.request::<NodeAgent>(&peer, &NodeRequest::Status, ANSWER).await {
                Ok(NodeReply::Status(report)) => Some((peer.name, *report)),
                _ => None,
            }
        });
        let (own, others) = tokio::join!(own.session_reports(MOST_SESSIONS), join_all(others));
        let mut told = Told { sessions: entries(&owner, own), hosts: Vec::new() };
        for (peer, report) in others.into_iter().flatten() {
            told.sessions.extend(entries(&peer, report.sessions));
            let hosts = report.models.into_iter().map(|model| {
                let hosts = HostsReport { ready: model.hosts_ready.into(), total: model.hosts_total.into() };
                (peer.to_string(), model.model, hosts)
            });
            told.hosts.extend(hosts);
        }
        told.sessions.sort_by(|a, b| (&a.owner, &a.session).cmp(&(&b.owner, &b.session)));
        told
    }

    /// Kills a decoder host of a node.
    ///
    /// # Errors
    /// See [`KillError`].
    pub async fn kill_decoder(&self, name: &str, model: Option<String>) -> Result<KilledDecoder, KillError> {
        let unanswered = |problem: String| KillError::Unanswered { name: name.to_owned(), problem };
        let reply = if name == self.node().name.as_str() {
            let models = self.operating.models.get();
            models.ok_or_else(|| unanswered("it has none".to_owned()))?.kill_decoder(model.as_deref()).await
        } else {
            let control = self.operating.control.get();
            let peers = control.map(ControlHandle::peers).unwrap_or_default();
            let found = control.zip(peers.iter().find(|peer| peer.name.as_str() == name));
            let Some((control, peer)) = found else { return Err(self.unknown_node(name).into()) };
            let request = NodeRequest::KillDecoder { model };
            let asked = control.request::<NodeAgent>(peer, &request, DRAIN_ANSWER).await;
            asked.map_err(|problem| unanswered(problem.to_string()))?
        };
        match reply {
            NodeReply::DecoderKilled(killed) => Ok(killed),
            NodeReply::KillRefused { reason } => Err(KillError::Refused { name: name.to_owned(), reason }),
            other => Err(unanswered(format!("it said {other:?}"))),
        }
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
        let deadline_ms = milliseconds(deadline);
        match self.ask_to_go(name, &NodeRequest::Drain { deadline_ms }).await? {
            NodeReply::Draining => Ok(()),
            other => Err(DrainError::said(name, &other)),
        }
    }

    /// Asks a peer something that it answers at once.
    pub(super) async fn ask_to_go(&self, name: &str, request: &NodeRequest) -> Result<NodeReply, DrainError> {
        let control = self.operating.control.get();
        let peers = control.map(ControlHandle::peers).unwrap_or_default();
        let found = control.zip(peers.iter().find(|peer| peer.name.as_str() == name));
        let Some((control, peer)) = found else { return Err(self.unknown_node(name).into()) };
        let asked = control.request::<NodeAgent>(peer, request, DRAIN_ANSWER).await;
        asked
            .map_err(|problem| DrainError::Unanswered { name: name.to_owned(), problem: problem.to_string() })
    }

    pub(super) fn unknown_node(&self, name: &str) -> UnknownNode {
        let peers = self.operating.control.get().map(ControlHandle::peers).unwrap_or_default();
        let known = peers.iter().map(|peer| &peer.name).chain([&self.node().name]);
        let mut known: Vec<String> = known.map(NodeName::to_string).collect();
        known.sort();
        UnknownNode { name: name.to_owned(), known }
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn entries(owner: &NodeName, reports: Vec<SessionReport>) -> Vec<SessionEntry> {
    reports.into_iter().map(|report| entry(owner, report)).collect()
}

/// A session as operators are told of it.
pub(crate) fn entry(owner: &NodeName, report: SessionReport) -> SessionEntry {
    SessionEntry {
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
        tenant: report.tenant,
        audio_ms: report.audio_ms,
        age_ms: report.age_ms,
        trace_id: report.trace_id,
    }
}
