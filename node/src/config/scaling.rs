//! How many decoders there are.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units;

/// `[scaling]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScalingSettings {
    /// Whether a model that is prepared and not listed is loaded for whoever asks for it.
    pub on_demand: bool,
}

/// `[model.scaling]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelScalingSettings {
    /// Whether this node's hosts become more and fewer.
    pub enabled: bool,
    /// Fewest decoders of this node.
    pub min: u32,
    /// Most decoders of this node; 0 for what its cores can decode.
    pub max: u32,
    /// Decoders that are to be idle.
    pub idle_target: u32,
    /// For so long nothing may have asked for a decoder before it is given up.
    #[serde(with = "units::duration")]
    pub cooldown: Duration,
    /// How often it is decided whether there are too many.
    #[serde(with = "units::duration")]
    pub check_interval: Duration,
    /// How long a host that is one too many stays after its last work ...
    #[serde(with = "units::duration")]
    pub idle_ttl: Duration,
    /// ... and one that never had any.
    #[serde(with = "units::duration")]
    pub unused_ttl: Duration,
    /// How long a caller waits for the first host to load.
    #[serde(with = "units::duration")]
    pub load_wait: Duration,
    /// Whether who is expected counts, too.
    pub predictive: bool,
}

impl Default for ModelScalingSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            min: 0,
            max: 0,
            // As contact centres have run recognition for years; and so are the times below.
            idle_target: 5,
            cooldown: Duration::from_secs(100),
            check_interval: Duration::from_secs(60),
            idle_ttl: Duration::from_secs(100),
            unused_ttl: Duration::from_secs(15 * 60),
            // Ten times what a small model takes to be verified and loaded.
            load_wait: Duration::from_secs(20),
            predictive: false,
        }
    }
}
