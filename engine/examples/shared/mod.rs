//! The engines that examples try, as hosts are told of them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use starling_protocol::lease::{EngineKind, HostSpec, LEASE_PROTOCOL};

/// One thread of `vosk` or `moonshine`, with the model that `cargo xtask setup` fetches into `STARLING_HOME`, or `.starling`.
pub(crate) fn spec(engine: &str) -> Result<HostSpec> {
    let (engine, model, library) = match engine {
        "vosk" => (EngineKind::Vosk, "vosk-ko-small", "vosk"),
        "moonshine" => (EngineKind::Moonshine, "moonshine-tiny-en", "onnxruntime"),
        _ => bail!("{engine} is neither vosk nor moonshine"),
    };
    let home = PathBuf::from(std::env::var("STARLING_HOME").unwrap_or_else(|_| ".starling".to_owned()));
    let path = |folder: &str, name: &str| home.join(folder).join(name).display().to_string();
    Ok(HostSpec {
        protocol: LEASE_PROTOCOL,
        engine,
        model: model.to_owned(),
        model_dir: path("models", model),
        library_dir: path("lib", library),
        sample_rate: 16_000,
        threads: 1,
        slots: 1,
        prewarm: 0,
        recognizer_audio_budget_s: 0,
        memory_budget_bytes: 0,
        nice: 0,
        digest: String::new(),
    })
}
