//! From a host's specification to a loaded engine.
//!
//! Owns: the choice of engine, and the checks that hold for all. Must never: fetch or repair anything.

#[cfg(any(feature = "vosk", feature = "moonshine"))]
use std::path::Path;

use starling_protocol::lease::{EngineKind, HostSpec};
use starling_protocol::limits::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};

use crate::{Engine, LoadError, scripted};

/// Loads what the specification names. Takes seconds for a large model.
///
/// # Errors
/// See [`LoadError`].
pub fn load(spec: &HostSpec) -> Result<Box<dyn Engine>, LoadError> {
    if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&spec.sample_rate) {
        let allowed = format!("{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} are allowed");
        return Err(LoadError::SampleRate { given: spec.sample_rate, allowed });
    }
    match spec.engine {
        EngineKind::Scripted if spec.sample_rate == scripted::SAMPLE_RATE => {
            Ok(Box::new(scripted::Scripted::new()))
        }
        EngineKind::Scripted => Err(LoadError::SampleRate {
            given: spec.sample_rate,
            allowed: format!("the scripted engine takes {}", scripted::SAMPLE_RATE),
        }),
        #[cfg(feature = "vosk")]
        EngineKind::Vosk => Ok(Box::new(crate::vosk::Vosk::load(
            Path::new(&spec.library_dir),
            Path::new(&spec.model_dir),
            spec.sample_rate,
        )?)),
        #[cfg(feature = "moonshine")]
        EngineKind::Moonshine => Ok(Box::new(crate::moonshine::Moonshine::load(
            Path::new(&spec.library_dir),
            Path::new(&spec.model_dir),
            spec.sample_rate,
        )?)),
        other => Err(LoadError::NotBuilt(other)),
    }
}

/// How much sound takes an engine's recognizers past their first use, in milliseconds. Where Vosk composes its graph as it goes,
/// 300 ms cost 0.9 s of CPU and halve the cost of the first real clip; 1,500 ms cost 1.6 to 2.0 s and help no more. The others
/// have no state that grows.
#[must_use]
pub const fn warmup_ms(engine: EngineKind) -> u32 {
    match engine {
        EngineKind::Vosk => 300,
        EngineKind::Moonshine => 1_000,
        _ => 0,
    }
}

/// The first file of `names` that is not in `folder`.
#[cfg(any(feature = "vosk", feature = "moonshine"))]
pub(crate) fn require(folder: &Path, names: &[&str], what: &'static str) -> Result<(), LoadError> {
    for name in names {
        let path = folder.join(name);
        if !path.is_file() {
            return Err(LoadError::Missing { what, path: path.display().to_string() });
        }
    }
    Ok(())
}
