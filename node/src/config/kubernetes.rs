//! `[kubernetes]`: how the nodes scale the StatefulSet that they are the pods of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ModelSettings, units};

/// `[kubernetes]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesSettings {
    /// Whether this node takes part in choosing one that scales, and scales if it is chosen.
    pub enabled: bool,
    /// The StatefulSet whose pods decode.
    pub stateful_set: String,
    /// Where it is; empty for where this pod is.
    pub namespace: String,
    /// The Lease by which a node is chosen; empty for one that is named after the StatefulSet.
    pub lease: String,
    /// Fewest pods.
    pub min_pods: u32,
    /// Most pods.
    pub max_pods: u32,
    /// Decoders of one pod, of each model; 0 for what the models' settings come to.
    pub decoders_per_pod: u32,
    /// How often it is looked whether there are too few or too many.
    #[serde(with = "units::duration")]
    pub check_interval: Duration,
    /// How long the sessions of a pod that is to go may last.
    #[serde(with = "units::duration")]
    pub drain_deadline: Duration,
    /// Whether nothing is done, and only told.
    pub dry_run: bool,
}

impl Default for KubernetesSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            stateful_set: String::new(),
            namespace: String::new(),
            lease: String::new(),
            // A copy of each session takes a second pod.
            min_pods: 2,
            max_pods: 10,
            decoders_per_pod: 0,
            // One small question to the API server each time, by one node.
            check_interval: Duration::from_secs(5),
            // Longer than most calls: there is no hurry, and who can't come back elsewhere may end in peace.
            drain_deadline: Duration::from_secs(600),
            dry_run: false,
        }
    }
}

impl KubernetesSettings {
    /// The Lease by which a node is chosen.
    #[must_use]
    pub fn lease_name(&self) -> String {
        if self.lease.is_empty() { format!("{}-scaler", self.stateful_set) } else { self.lease.clone() }
    }

    /// Whether the decoders of a pod are known: where it starts and ends hosts itself, only if it is told how many at most.
    #[must_use]
    pub fn knows_decoders(&self, models: &[ModelSettings]) -> bool {
        !self.enabled
            || self.decoders_per_pod > 0
            || models.iter().all(|model| !model.scaling.enabled || model.scaling.max > 0)
    }
}

/// A name of an object that is a part of its pods' names, too.
#[must_use]
pub fn is_object_name(name: &str, longest: usize) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    name.len() <= longest
        && name.chars().all(allowed)
        && edge(name.chars().next())
        && edge(name.chars().next_back())
}
