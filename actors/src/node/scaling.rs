//! What a pool is told of its scaling, and what it says of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use starling_core::scaling::{HostsConfig, Scale, ScalingConfig};

use super::arguments::ModelArguments;

/// How the hosts of a model become more and fewer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelScaling {
    /// Whether they do. The policy counts for what the cluster is said to need all the same.
    pub enabled: bool,
    /// The policy, in decoders of this node.
    pub policy: ScalingConfig,
    /// A host that is one too many ends when it has decoded nothing for so long ...
    pub idle_ttl: Duration,
    /// ... or for so long, if it never has.
    pub unused_ttl: Duration,
    /// The longest that a caller waits where no host is there and one has to load, here or at a peer.
    pub load_wait: Duration,
    /// What the machine has left.
    pub memory: MemoryKnown,
}

impl Default for ModelScaling {
    /// As many hosts as are configured, always.
    fn default() -> Self {
        Self {
            enabled: false,
            policy: ScalingConfig::default(),
            idle_ttl: Duration::from_secs(100),
            unused_ttl: Duration::from_secs(15 * 60),
            load_wait: Duration::from_secs(20),
            memory: MemoryKnown::unknown(),
        }
    }
}

impl ModelScaling {
    pub(crate) const fn hosts_config(&self, model: &ModelArguments) -> HostsConfig {
        HostsConfig { policy: self.policy, slots_per_host: model.slots_per_host, static_hosts: model.hosts }
    }
}

/// Says how much memory could be had, in bytes, if that is known. Called in an actor: must not wait. Makes no difference to what a
/// model is.
#[derive(Clone)]
pub struct MemoryKnown(pub Arc<dyn Fn() -> Option<u64> + Send + Sync>);

impl MemoryKnown {
    /// Nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        Self(Arc::new(|| None))
    }
}

impl PartialEq for MemoryKnown {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for MemoryKnown {}

impl fmt::Debug for MemoryKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryKnown")
    }
}

/// How a pool is scaled now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolScale {
    /// How many decoders there should be on this node, in whole hosts, and why.
    pub scale: Scale,
    /// Decoders that callers are expected to need within the next quarters of an hour, if anything can be said of it.
    pub expected: Option<u32>,
    /// Whether there need not be any: the first caller has one loaded.
    pub on_demand: bool,
}
