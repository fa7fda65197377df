//! From a model's name in the settings to what its hosts are started with.

use std::num::NonZero;
use std::sync::Arc;

use anyhow::anyhow;
use starling_actors::{Capabilities, Keep, ModelArguments};
use starling_engine::catalogue::{self, Catalogue, Home, ModelHold, PrepareError, PreparedModel};
use starling_protocol::lease::EngineKind;

use crate::config::{ModelSettings, Settings};
use crate::exit::{Exit, Failure};

mod live;
mod restart;

pub use live::{LiveModels, ReadSettings, as_decoded};

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
    let (engine, capabilities) = engine(prepared.engine);
    ModelArguments {
        name: prepared.name,
        digest: prepared.digest,
        language: prepared.language,
        engine,
        model_dir: prepared.dir,
        library_dir: prepared.library_dir.unwrap_or_default(),
        sample_rate: prepared.sample_rate_hz,
        capabilities,
        hosts: settings.hosts,
        slots_per_host: settings.slots,
        threads_per_host: threads(settings),
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

fn engine(kind: catalogue::EngineKind) -> (EngineKind, Capabilities) {
    let of = |words, alternatives, phrases| Capabilities { words, alternatives, phrases };
    match kind {
        catalogue::EngineKind::Vosk => (EngineKind::Vosk, of(true, true, true)),
        catalogue::EngineKind::Moonshine => (EngineKind::Moonshine, of(false, false, false)),
        catalogue::EngineKind::Scripted => (EngineKind::Scripted, of(true, false, false)),
    }
}

/// More threads than cores decode no faster and make each wait longer.
fn threads(settings: &ModelSettings) -> u16 {
    if settings.threads > 0 {
        return settings.threads;
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let share = (cores / usize::from(settings.hosts)).max(1);
    u16::try_from(share).unwrap_or(u16::MAX)
}
