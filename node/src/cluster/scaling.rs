//! How many decoders each model should have in the whole cluster: `GET /v1/scaling`.
//!
//! Owns: the policy over all nodes, as this one hears of them. Must never: start or stop anything; that is for whoever asks, and for each
//! node's own pools.
//!
//! Every node works it out for itself from what is gossiped, so that any of them can be asked. They agree but for a second's news: what a
//! node waited for before it was started is all that another may know beside.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use starling_actors::{ClusterView, ModelStatus, NodeStatus};
use starling_core::Timestamp;
use starling_core::scaling::{CountedScaler, Demand, ScalingConfig, node_reserve};

use super::Cluster;

/// What the cluster needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalingReport {
    /// Who says it.
    pub node: String,
    /// How many nodes of the cluster it counted, itself too.
    pub nodes: usize,
    /// What is needed of each model, by their names.
    pub models: Vec<ModelScalingReport>,
}

/// What is needed of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelScalingReport {
    /// Its name.
    pub name: String,
    /// Decoders of hosts that are ready, on all nodes.
    pub total: u32,
    /// Of those, the ones in use or promised.
    pub busy: u32,
    /// Those that a new session could have.
    pub idle: u32,
    /// Requests that wait for one, on this node.
    pub waiting: u32,
    /// Decoders that are kept for the loss of a node.
    pub reserve: u32,
    /// How many there should be on all nodes.
    pub desired: u32,
    /// Why: `minimum`, `demand`, `cooldown`, `forecast` or `maximum`.
    pub reason: String,
    /// How many callers are expected to need within the next quarters of an hour, if anything can be said of it.
    pub expected: Option<u32>,
    /// This node's part; `None` where it does not serve the model.
    pub own: Option<OwnScaling>,
}

/// What a node has of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnScaling {
    /// Decoders in use or promised.
    pub busy: u32,
    /// Those that a new session could have.
    pub idle: u32,
    /// How many it aims for.
    pub desired: u32,
    /// Why; `fixed` where its hosts are always as many.
    pub reason: String,
    /// Hosts that are ready.
    pub hosts: u32,
    /// Hosts that are one too many, and there still.
    pub parked: u32,
}

/// The policy, model by model.
#[derive(Debug, Default)]
pub(super) struct ClusterScaling {
    models: Mutex<BTreeMap<String, (ScalingConfig, CountedScaler)>>,
}

/// What all nodes have of a model.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    total: u32,
    busy: u32,
    idle: u32,
    /// Of the node that has most.
    largest: u32,
}

impl Cluster {
    /// What the cluster needs. To be asked every second at least, and at any time besides.
    #[must_use]
    pub fn scaling(&self, status: &NodeStatus) -> ScalingReport {
        let in_cluster = self.membership().is_some();
        self.scaling.observe(self.clock.now(), &self.view(status), in_cluster, status)
    }
}

impl ClusterScaling {
    fn observe(
        &self,
        now: Timestamp,
        view: &ClusterView,
        in_cluster: bool,
        status: &NodeStatus,
    ) -> ScalingReport {
        let sums = sums(view);
        let mut scalers = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        // A model that nobody serves any more is forgotten.
        scalers.retain(|name, _| sums.contains_key(name.as_str()));
        let models = sums.iter().map(|(name, sum)| {
            let own: Vec<&ModelStatus> = status.models.iter().filter(|model| model.name == *name).collect();
            let config = own.first().map_or_else(ScalingConfig::default, |model| model.policy);
            // How many there may be is a matter of nodes, and of whoever starts them.
            let config = ScalingConfig { min: 0, max: u32::MAX, ..config };
            let scaler = scalers.entry((*name).to_owned());
            let (known, scaler) = scaler.or_insert_with(|| (config, CountedScaler::new(now, config)));
            if *known != config {
                (*known, *scaler) = (config, CountedScaler::new(now, config));
            }
            let waiting = own.iter().map(|model| count(model.waiting)).sum();
            let new = sum.busy.saturating_add(waiting).saturating_add(config.idle_target);
            let reserve = if in_cluster { node_reserve(new, sum.largest) } else { 0 };
            let scale = scaler.observe(now, Demand { busy: sum.busy, waiting, reserve });
            ModelScalingReport {
                name: (*name).to_owned(),
                total: sum.total,
                busy: sum.busy,
                idle: sum.idle,
                waiting,
                reserve,
                desired: scale.desired,
                reason: scale.reason.label().to_owned(),
                expected: scaler.expected(),
                own: own_scaling(&own),
            }
        });
        let models = models.collect();
        ScalingReport { node: view.me.name.to_string(), nodes: view.active().count(), models }
    }
}

/// A node that leaves counts with what it decodes, which will have to go elsewhere, and not with what it has.
fn sums(view: &ClusterView) -> BTreeMap<&str, Sum> {
    let mut sums = BTreeMap::<&str, Sum>::new();
    for load in view.active().filter_map(|member| member.load.as_deref()) {
        let mut of_node = BTreeMap::<&str, u32>::new();
        for model in &load.models {
            let sum = sums.entry(&model.name).or_default();
            sum.busy += u32::from(model.slots_busy);
            if !load.draining && !load.leaving {
                sum.total += u32::from(model.slots_total);
                sum.idle += u32::from(model.slots_idle);
                *of_node.entry(&model.name).or_default() += u32::from(model.slots_total);
            }
        }
        for (name, total) in of_node {
            let sum = sums.entry(name).or_default();
            sum.largest = sum.largest.max(total);
        }
    }
    sums
}

fn own_scaling(pools: &[&ModelStatus]) -> Option<OwnScaling> {
    let first = pools.first()?;
    let sum = |of: fn(&ModelStatus) -> usize| pools.iter().map(|pool| count(of(pool))).sum();
    Some(OwnScaling {
        busy: sum(|pool| pool.slots_busy),
        idle: sum(|pool| pool.slots_idle),
        desired: sum(|pool| pool.slots_desired),
        reason: first.scaling.map_or("fixed", |own| own.scale.reason.label()).to_owned(),
        hosts: sum(|pool| pool.hosts_ready),
        parked: sum(|pool| pool.hosts_parked),
    })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
