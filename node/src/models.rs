//! From a model's name in the settings to what its hosts are started with.

use std::sync::Arc;

use anyhow::anyhow;
use serde::Serialize;
use starling_actors::{Capabilities, Keep, MemoryKnown, ModelArguments, ModelScaling};
use starling_core::scaling::ScalingConfig;
use starling_engine::catalogue::{self, Catalogue, Home, ModelHold, PrepareError, PreparedModel};
use starling_protocol::lease::EngineKind;

use crate::config::{ModelSettings, Settings};
use crate::exit::{Exit, Failure};
use crate::room::cores;

mod live;
mod on_demand;
mod restart;

pub use live::{LiveModels, ReadSettings, as_decoded};
pub use on_demand::OnDemand;

/// What is served when nothing is said, the default first: each that is prepared.
pub const DEFAULT_MODELS: [&str; 2] = ["moonshine-tiny-en", "vosk-ko-small"];

/// Finds and verifies every model that is to be served.
///
/// # Errors
/// One is unknown, missing or damaged; or none is named and none is there.
pub async fn resolve(home: &Home, settings: &Settings) -> Result<Vec<ModelArguments>, Failure> {
    resolve_models(home, settings.models.clone()).await
}

async fn resolve_models(home: &Home, models: Vec<ModelSettings>) -> Result<Vec<ModelArguments>, Failure> {
    let home = home.clone();
    // Verifying reads every file.
    let resolved = tokio::task::spawn_blocking(move || resolve_now(&home, &models)).await;
    resolved.map_err(|error| Failure::new(Exit::Software, error))?
}

fn resolve_now(home: &Home, models: &[ModelSettings]) -> Result<Vec<ModelArguments>, Failure> {
    let catalogue = Catalogue::load(home).map_err(|error| Failure::new(Exit::Data, error))?;
    if models.is_empty() {
        return defaults(home, &catalogue);
    }
    models.iter().map(|model| verified(home, &catalogue, model)).collect()
}

fn defaults(home: &Home, catalogue: &Catalogue) -> Result<Vec<ModelArguments>, Failure> {
    let mut served = Vec::new();
    for name in DEFAULT_MODELS {
        let entry = catalogue.get(name).map_err(|error| Failure::new(Exit::Software, error))?;
        if matches!(home.prepared(entry), Err(PrepareError::Missing { .. })) {
            continue;
        }
        served.push(verified(home, catalogue, &ModelSettings::named(name))?);
    }
    if served.is_empty() {
        let error = anyhow!(
            "no model is prepared in {}; get one with: starling models fetch {}  (or {})",
            home.root().display(),
            DEFAULT_MODELS[0],
            DEFAULT_MODELS[1],
        );
        return Err(Failure::new(Exit::NoInput, error));
    }
    Ok(served)
}

fn verified(home: &Home, catalogue: &Catalogue, settings: &ModelSettings) -> Result<ModelArguments, Failure> {
    let entry = catalogue.get(&settings.name).map_err(|error| Failure::new(Exit::Usage, error))?;
    let (prepared, hold) = home.held(entry).map_err(|error| {
        let exit = match error {
            PrepareError::Missing { .. } => Exit::NoInput,
            PrepareError::NotAModel { .. } => Exit::Usage,
            _ => Exit::Data,
        };
        Failure::new(exit, error)
    })?;
    Ok(served(prepared, hold, settings))
}

fn served(prepared: PreparedModel, hold: Option<ModelHold>, settings: &ModelSettings) -> ModelArguments {
    let capabilities = capabilities(&prepared);
    ModelArguments {
        name: prepared.name,
        digest: prepared.digest,
        language: prepared.language,
        engine: engine(prepared.engine),
        model_dir: prepared.dir,
        library_dir: prepared.library_dir.unwrap_or_default(),
        sample_rate: prepared.sample_rate_hz,
        capabilities,
        hosts: settings.hosts,
        scaling: scaling(settings, cores()),
        slots_per_host: settings.slots,
        threads_per_host: threads(settings, cores()),
        prewarm_per_host: settings.prewarm,
        recognizer_audio_budget: settings.recognizer_audio_budget,
        memory_budget_bytes: settings.memory_budget,
        load_deadline: settings.load_deadline,
        nice: settings.nice,
        environment: Vec::new(),
        // Its hosts may be started anew at any time, whatever is fetched under its name meanwhile.
        keep: Keep(hold.map(|hold| Arc::new(hold) as Arc<_>)),
    }
}

const fn engine(kind: catalogue::EngineKind) -> EngineKind {
    match kind {
        catalogue::EngineKind::Vosk => EngineKind::Vosk,
        catalogue::EngineKind::Moonshine => EngineKind::Moonshine,
        catalogue::EngineKind::Scripted => EngineKind::Scripted,
    }
}

/// What a model can be asked for, as its files say.
fn capabilities(prepared: &PreparedModel) -> Capabilities {
    let starling_engine::Capabilities { words, confidences, alternatives, phrases, punctuation } =
        prepared.capabilities();
    Capabilities { words, confidences, alternatives, phrases, punctuation }
}

/// What can be asked of a model, as it is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Capable {
    words: bool,
    confidences: bool,
    alternatives: bool,
    phrases: bool,
    punctuation: bool,
}

impl Capable {
    /// Of a prepared model.
    #[must_use]
    pub fn of(prepared: &PreparedModel) -> Self {
        capabilities(prepared).into()
    }

    /// The names of what it can, in a row.
    #[must_use]
    pub fn names(&self) -> String {
        let Self { words, confidences, alternatives, phrases, punctuation } = *self;
        let all = [
            ("words", words),
            ("confidences", confidences),
            ("alternatives", alternatives),
            ("phrases", phrases),
            ("punctuation", punctuation),
        ];
        let names: Vec<&str> = all.into_iter().filter(|(_, can)| *can).map(|(name, _)| name).collect();
        names.join(", ")
    }
}

impl From<Capabilities> for Capable {
    fn from(capabilities: Capabilities) -> Self {
        let Capabilities { words, confidences, alternatives, phrases, punctuation } = capabilities;
        Self { words, confidences, alternatives, phrases, punctuation }
    }
}

/// Live streams that a core decodes, where nobody says how many: what Vosk takes of one for a second of new speech is 0.23 s, and
/// others take less.
const DECODERS_PER_CORE: u32 = 4;

/// The most decoders of a model on this node.
fn most_decoders(settings: &ModelSettings, cores: u32) -> u32 {
    let always = u32::from(settings.hosts) * u32::from(settings.slots);
    match settings.scaling.max {
        0 => cores.saturating_mul(DECODERS_PER_CORE).max(settings.scaling.min),
        max => max,
    }
    .max(always)
}

fn scaling(settings: &ModelSettings, cores: u32) -> ModelScaling {
    let of = &settings.scaling;
    ModelScaling {
        enabled: of.enabled,
        policy: ScalingConfig {
            idle_target: of.idle_target,
            min: of.min,
            max: most_decoders(settings, cores),
            cooldown: of.cooldown,
            check_interval: of.check_interval,
            predictive: of.predictive,
        },
        idle_ttl: of.idle_ttl,
        unused_ttl: of.unused_ttl,
        load_wait: of.load_wait,
        memory: MemoryKnown::unknown(),
    }
}

/// More threads than cores decode no faster and make each wait longer.
fn threads(settings: &ModelSettings, cores: u32) -> u16 {
    if settings.threads > 0 {
        return settings.threads;
    }
    let hosts = if settings.scaling.enabled {
        most_decoders(settings, cores).div_ceil(u32::from(settings.slots.max(1)))
    } else {
        settings.hosts.into()
    };
    u16::try_from((cores / hosts.max(1)).max(1)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(hosts: u16, slots: u16, max: u32) -> ModelSettings {
        let mut settings = ModelSettings { hosts, slots, ..ModelSettings::named("m") };
        (settings.scaling.enabled, settings.scaling.max) = (true, max);
        settings
    }

    #[test]
    fn cores_bound_the_decoders_where_nobody_says_how_many() {
        for (hosts, slots, max, cores, expected) in
            [(2, 4, 0, 2, 8), (1, 4, 0, 8, 32), (0, 4, 0, 1, 4), (2, 16, 0, 2, 32), (1, 4, 6, 64, 6)]
        {
            assert_eq!(most_decoders(&scaled(hosts, slots, max), cores), expected);
        }
    }

    #[test]
    fn threads_are_shared_out_among_the_hosts_that_there_may_be() {
        assert_eq!(threads(&ModelSettings::named("m"), 8), 4);
        assert_eq!(threads(&scaled(2, 4, 32), 8), 1);
        assert_eq!(threads(&scaled(0, 4, 8), 8), 4);
        assert_eq!(threads(&ModelSettings { threads: 3, ..scaled(0, 4, 8) }, 8), 3);
    }
}
