//! What the actuator asks of the nodes, and what it tells of itself.

use std::collections::HashMap;

use async_trait::async_trait;
use starling_core::scaling::{ActuatorAction, ModelNeed, Standing};
use thiserror::Error;

/// The nodes, as one of them knows them. Each answer comes within seconds.
#[async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// How all of them are.
    async fn look(&self) -> FleetView;

    /// Has a node take nobody new, let those go whom it has, and stay until its pod is taken away. To be asked again changes nothing.
    ///
    /// # Errors
    /// The node was not told, or did not say that it does so; it may.
    async fn drain(&self, node: &str) -> Result<(), FleetError>;

    /// Has a node that has drained and stays end, to be started anew.
    ///
    /// # Errors
    /// The node was not told, or did not say that it does so; it may.
    async fn recall(&self, node: &str) -> Result<(), FleetError>;

    /// Takes note of what the actuator does.
    fn note(&self, fact: &ActuatorFact);
}

/// A node did not say that it does what it was asked.
#[derive(Debug, Error)]
#[error("node {node} was not told: {problem}")]
pub struct FleetError {
    /// Which.
    pub node: String,
    /// Why.
    pub problem: String,
}

/// All nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetView {
    /// What is needed of each model that is served.
    pub needs: Vec<ModelNeed>,
    /// The members, by their names, which are those of their pods.
    pub nodes: HashMap<String, NodeState>,
}

/// A member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It has no model yet.
    Loading,
    /// It serves.
    Serving,
    /// It drains, and will end by itself; or it drains, and did not say why.
    Leaving,
    /// It was asked to by [`Fleet::drain`], and has somebody left.
    Draining,
    /// It has nobody left, and stays.
    Drained,
}

/// What the actuator did or learnt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActuatorFact {
    /// Whether this node leads.
    Leads(bool),
    /// How the StatefulSet is, as the leader sees it.
    Looked {
        /// Pods that it is to have.
        replicas: u32,
        /// Pods that it should have.
        wanted: u32,
        /// Why nothing more is done.
        standing: Standing,
    },
    /// Something was decided.
    Acted(ActuatorAction, Outcome),
    /// The API server could not be asked how the StatefulSet is.
    Blind,
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It would have been done.
    DryRun,
    /// Somebody else changed the StatefulSet meanwhile; it is looked at again.
    Conflict,
    /// It failed, and is tried again at the next look.
    Failed,
}

impl Outcome {
    /// Every name that [`Self::label`] gives.
    pub const LABELS: [&'static str; 4] = ["done", "dry_run", "conflict", "failed"];

    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::DryRun => "dry_run",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
        }
    }
}
