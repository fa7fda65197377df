//! What an operator asks of the models of all nodes.
//!
//! Owns: the question to each node. Must never: count a node that does not answer as one that has done what was asked.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use starling_actors::control::ControlHandle;
use starling_protocol::NodeId;
use starling_protocol::control::{ModelOffer, NodeAgent, NodeReply, NodeRequest};

use super::Cluster;
use super::operate::UnknownNode;
use crate::models::LiveModels;

/// A node reads every file of a model before it takes it: two gigabytes in this time, off a slow disk.
const ANSWER: Duration = Duration::from_secs(10);

/// What a node made of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutcome {
    /// Which node.
    pub node: String,
    /// What became of the model there: added, replacing, unchanged, restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// The digest of its files there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Why it was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Cluster {
    /// The models of this node, once it has any.
    pub fn manage(&self, models: Arc<LiveModels>) {
        // A node has one.
        let _ = self.operating.models.set(models);
    }

    /// Has one node serve a model, or all that can be asked; this one too.
    ///
    /// # Errors
    /// There is no such node.
    pub async fn add_model(
        &self,
        node: Option<&str>,
        offer: &ModelOffer,
    ) -> Result<Vec<ModelOutcome>, UnknownNode> {
        let wanted = |name: &str| node.is_none_or(|node| node == name);
        let control = self.operating.control.get();
        let peers = control.map(ControlHandle::peers).unwrap_or_default();
        let others = peers.iter().filter(|peer| wanted(peer.name.as_str()));
        let others = others.filter_map(|peer| Some(ask(control?, peer, offer)));
        let own = async {
            let name = self.node().name.to_string();
            let models = self.operating.models.get().filter(|_| wanted(&name))?;
            Some(outcome(name, Ok(models.answer(offer).await)))
        };
        let (own, others) = tokio::join!(own, join_all(others));
        let mut outcomes: Vec<ModelOutcome> = own.into_iter().chain(others).collect();
        outcomes.sort_by(|one, other| one.node.cmp(&other.node));
        match node {
            Some(node) if outcomes.is_empty() => Err(self.unknown_node(node)),
            _ => Ok(outcomes),
        }
    }
}

async fn ask(control: &ControlHandle, peer: &NodeId, offer: &ModelOffer) -> ModelOutcome {
    let request = NodeRequest::AddModel(offer.clone());
    let answer = control.request::<NodeAgent>(peer, &request, ANSWER).await;
    outcome(peer.name.to_string(), answer.map_err(|problem| problem.to_string()))
}

fn outcome(node: String, answer: Result<NodeReply, String>) -> ModelOutcome {
    let failed = |error| (None, None, Some(error));
    let (change, digest, error) = match answer {
        Ok(NodeReply::ModelTaken { change, digest }) => (Some(change), Some(digest), None),
        Ok(NodeReply::ModelRefused { reason }) => failed(reason),
        Ok(NodeReply::Busy) => failed("it is asked too much; try again".to_owned()),
        Ok(NodeReply::Unknown { .. }) => failed("its version does not know how".to_owned()),
        Ok(other) => failed(format!("it said {other:?}")),
        Err(problem) => failed(format!("it does not answer, and may do it yet: {problem}")),
    };
    ModelOutcome { node, change, digest, error }
}
