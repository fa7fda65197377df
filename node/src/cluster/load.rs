//! What a node tells of its load.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use starling_actors::{LoadReport, ModelStatus, NodeStatus};
use starling_protocol::gossip::ModelLoad;

use super::Facts;
use crate::build;

/// The digest of each model's files, by its name.
pub type ModelDigests = BTreeMap<String, String>;

pub(super) fn report(facts: &Facts, status: Option<&NodeStatus>, stopping: bool) -> LoadReport {
    let models = status.map_or(&[][..], |status| &status.models);
    LoadReport {
        version: build::VERSION.to_owned(),
        zone: facts.zone.clone(),
        roles: facts.roles,
        draining: stopping || status.is_some_and(|status| status.draining),
        addresses: facts.addresses,
        replica_bytes_free: status.map_or(0, |status| status.copies_free_bytes),
        models: models.iter().map(|model| model_load(model, facts.models.get(&model.name))).collect(),
    }
}

fn model_load(model: &ModelStatus, digest: Option<&String>) -> ModelLoad {
    let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    let class = model.determinism.as_ref().zip(digest);
    ModelLoad {
        name: model.name.clone(),
        slots_total: count(model.slots_total),
        slots_busy: count(model.slots_busy),
        slots_idle: count(model.slots_idle),
        // Never negative, and no machine takes a thousand hours for one.
        real_time_factor_milli: model.real_time_factor.map(|factor| (factor * 1_000.0).round() as u32),
        determinism_class: class.map(|(host, digest)| determinism_class(host, digest)),
    }
}

/// Equal if the model's files, the engine's library and the CPU's class are: then the same audio gives the same text.
pub(super) fn determinism_class(host: &str, digest: &str) -> u64 {
    let hash = Sha256::digest(format!("{digest}\n{host}"));
    hash.iter().take(8).fold(0, |class, byte| class << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_of_the_model_and_of_the_host() {
        let class = determinism_class("vosk 0.3.45; haswell", "abc");
        assert_eq!(class, determinism_class("vosk 0.3.45; haswell", "abc"));
        assert_ne!(class, determinism_class("vosk 0.3.45; skylake", "abc"));
        assert_ne!(class, determinism_class("vosk 0.3.45; haswell", "abd"));
    }
}
