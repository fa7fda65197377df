//! The real models and recordings that `cargo xtask setup` lays out.

use std::path::PathBuf;
use std::time::Duration;

use starling_actors::{Capabilities, Keep, ModelArguments, ModelScaling};
use starling_engine::catalogue::{Catalogue, Home};
use starling_protocol::lease::EngineKind;

pub fn model(name: &str, hosts: u16, slots: u16) -> ModelArguments {
    let home = Home::discover(None).expect("a home folder");
    let catalogue = Catalogue::load(&home).expect("the catalogue");
    let prepared = home.verified(catalogue.get(name).expect("is in the catalogue"));
    let prepared = prepared.unwrap_or_else(|error| panic!("{error}; run `cargo xtask setup` first"));
    let engine = match prepared.engine {
        starling_engine::catalogue::EngineKind::Vosk => EngineKind::Vosk,
        starling_engine::catalogue::EngineKind::Moonshine => EngineKind::Moonshine,
        starling_engine::catalogue::EngineKind::Scripted => EngineKind::Scripted,
    };
    ModelArguments {
        name: prepared.name,
        digest: prepared.digest,
        language: prepared.language,
        engine,
        model_dir: prepared.dir,
        library_dir: prepared.library_dir.unwrap_or_default(),
        sample_rate: prepared.sample_rate_hz,
        capabilities: Capabilities {
            words: engine == EngineKind::Vosk,
            alternatives: false,
            phrases: false,
            ..Capabilities::default()
        },
        hosts,
        scaling: ModelScaling::default(),
        slots_per_host: slots,
        threads_per_host: 1,
        prewarm_per_host: slots,
        recognizer_audio_budget: Duration::ZERO,
        memory_budget_bytes: 0,
        load_deadline: Duration::from_secs(60),
        nice: 0,
        environment: Vec::new(),
        keep: Keep::default(),
    }
}

/// A recording of `.starling/audio`, 16 kHz mono.
pub fn recording(name: &str) -> Vec<i16> {
    let home = Home::discover(None).expect("a home folder");
    let path: PathBuf = home.root().join("audio").join(name);
    let mut reader = hound::WavReader::open(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run `cargo xtask setup` first", path.display()));
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (16_000, 1));
    reader.samples::<i16>().map(|sample| sample.expect("PCM16")).collect()
}
