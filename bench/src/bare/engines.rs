//! The engines, loaded from the home folder as a decoder host loads them.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use starling_engine::moonshine::Moonshine;
use starling_engine::vosk::Vosk;
use starling_protocol::lease::DecodeOptions;

use crate::audio::RATE;

/// The Korean model in the home folder.
const KOREAN: &str = "models/vosk-ko-small";

pub(super) fn korean(home: &Path) -> Result<Vosk> {
    vosk(home, &home.join(KOREAN))
}

pub(super) fn vosk(home: &Path, model: &Path) -> Result<Vosk> {
    Ok(Vosk::load(&home.join("lib/vosk"), model, RATE)?)
}

/// The prepared Korean model's parts as their makers laid them out, with their settings but for the dither.
pub(super) fn published(home: &Path) -> Result<tempfile::TempDir> {
    let prepared = home.join(KOREAN);
    let folder = tempfile::tempdir().context("making a folder")?;
    for (name, part) in [("am", "am"), ("conf", "conf"), ("ivector", "ivector"), ("graph", "phrases/graph")] {
        let part = prepared.join(part);
        ensure!(part.is_dir(), "{} is not there; run `cargo xtask setup`", part.display());
        symlink(std::path::absolute(part)?, folder.path().join(name)).context("linking a model")?;
    }
    Ok(folder)
}

pub(super) fn english(home: &Path) -> Result<Moonshine> {
    Ok(Moonshine::load(&home.join("lib/onnxruntime"), &home.join("models/moonshine-tiny-en"), RATE)?)
}

/// What sessions ask for when nobody says anything else.
pub(super) fn options() -> DecodeOptions {
    DecodeOptions { words: false, ..DecodeOptions::default() }
}
