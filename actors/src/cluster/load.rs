//! What a node tells of its load.

use sha2::{Digest, Sha256};
use starling_core::lineup::Stage;
use starling_protocol::gossip::{Addresses, ModelLoad, Roles};

use crate::{LoadReport, ModelStatus, NodeStatus};

/// What does not change while a node runs.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The program's version.
    pub version: String,
    /// Where it stands.
    pub zone: String,
    /// What it does.
    pub roles: Roles,
    /// Where it listens, as others reach it.
    pub addresses: Addresses,
}

/// What a node tells the others of itself; little, as long as nothing runs on it.
#[must_use]
pub fn load_report(facts: &Facts, status: Option<&NodeStatus>, stopping: bool) -> LoadReport {
    let models = status.map_or(&[][..], |status| &status.models);
    LoadReport {
        version: facts.version.clone(),
        zone: facts.zone.clone(),
        roles: facts.roles,
        draining: stopping || status.is_some_and(|status| status.draining),
        addresses: facts.addresses,
        replica_bytes_free: status.map_or(0, |status| status.copies_free_bytes),
        models: models.iter().filter_map(model_load).collect(),
    }
}

/// What is told of a pool; nothing of one that nobody can have yet, or any more.
fn model_load(model: &ModelStatus) -> Option<ModelLoad> {
    let leaving = match model.stage {
        Stage::Current => false,
        Stage::Leaving => true,
        Stage::Loading | Stage::Ending => return None,
    };
    let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
    Some(ModelLoad {
        name: model.name.clone(),
        slots_total: count(model.slots_total),
        // A stream without a decoder needs one all the same.
        slots_busy: count(model.slots_busy + model.continuing),
        // A session that goes on there is given a slot all the same.
        slots_idle: if leaving { 0 } else { count(model.slots_idle) },
        // Never negative, and no machine takes a thousand hours for one.
        real_time_factor_milli: model.real_time_factor.map(|factor| (factor * 1_000.0).round() as u32),
        determinism_class: model.determinism.as_ref().map(|host| determinism_class(host, &model.digest)),
        files: files(&model.digest),
        leaving,
        on_demand: !leaving && is_asleep(model),
    })
}

/// Whether it has no host and loads one for whoever asks. While it tries and fails, others are better asked; once nobody waits for it
/// any more, who comes next has it tried again.
fn is_asleep(model: &ModelStatus) -> bool {
    let waits = model.scaling.is_some_and(|scaling| scaling.on_demand) && model.slots_total == 0;
    waits && (model.last_error.is_none() || model.hosts_total == 0)
}

/// The first 32 bits of a digest in hex, as they are gossiped.
pub(super) fn files(digest: &str) -> Option<u32> {
    u32::from_str_radix(digest.get(..8)?, 16).ok()
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
    fn files_are_told_of_by_the_beginning_of_their_digest() {
        assert_eq!(files("0123456789abcdef"), Some(0x0123_4567));
        assert_eq!((files("0123"), files("no digest")), (None, None));
    }

    #[test]
    fn a_class_is_of_the_model_and_of_the_host() {
        let class = determinism_class("vosk 0.3.45; haswell", "abc");
        assert_eq!(class, determinism_class("vosk 0.3.45; haswell", "abc"));
        assert_ne!(class, determinism_class("vosk 0.3.45; skylake", "abc"));
        assert_ne!(class, determinism_class("vosk 0.3.45; haswell", "abd"));
    }
}
