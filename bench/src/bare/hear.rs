//! What an engine hears under given cuts, and what it costs to hear each segment once more.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use starling_engine::{Engine, Recognizer, Step, warmup};
use starling_protocol::CutCause;
use starling_protocol::lease::{CutOptions, DecodeOptions};

use super::engines;
use crate::audio::{RATE, STEP, read};
use crate::process;

/// As long as the sound that warms a Moonshine recognizer has to be: its first buffers.
const WARM_MS: u32 = 1_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Arguments {
    pub(crate) home: PathBuf,
    pub(crate) ear: Ear,
    pub(crate) takes: Vec<Take>,
}

/// Which engine, and how it ends an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ear {
    /// English Moonshine.
    Moonshine,
    /// Korean Vosk with `FinalResult`, as decoder hosts end utterances.
    VoskFinalResult,
    /// Korean Vosk with `Result`, which keeps the adaptation to the speaker.
    VoskResult,
}

/// One stream, on a recognizer of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Take {
    /// Recordings, one after the other.
    pub(crate) recordings: Vec<PathBuf>,
    /// Silence after each, in samples.
    pub(crate) gap: usize,
    pub(crate) cuts: CutOptions,
    /// Audio between two partials, in steps; 0 for none.
    pub(crate) partial_steps: usize,
}

/// What came of a take.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Heard {
    pub(crate) segments: Vec<Segment>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub(crate) samples: usize,
    pub(crate) cause: CutCause,
    pub(crate) text: String,
    /// CPU time of its steps, its partials and its final: without partials, what its replay costs.
    pub(crate) cpu_s: f64,
}

pub(super) fn run(arguments: &Arguments) -> Result<Vec<Heard>> {
    let home = &arguments.home;
    let engine: Box<dyn Engine> = match arguments.ear {
        Ear::Moonshine => Box::new(engines::english(home)?),
        Ear::VoskFinalResult => Box::new(engines::korean(home)?),
        Ear::VoskResult => {
            let mut engine = engines::korean(home)?;
            engine.keep_adaptation();
            Box::new(engine)
        }
    };
    arguments.takes.iter().map(|take| hear(&*engine, take)).collect()
}

fn hear(engine: &dyn Engine, take: &Take) -> Result<Heard> {
    let mut audio = Vec::new();
    for recording in &take.recordings {
        audio.extend(read(recording)?);
        audio.extend(std::iter::repeat_n(0, take.gap));
    }
    let options = DecodeOptions { cuts: take.cuts, ..engines::options() };
    let mut recognizer = engine.open(&options)?;
    if engine.describe().capabilities.words {
        // Vosk needs no warming, and would adapt to it.
    } else {
        warmup::warm(recognizer.as_mut(), RATE, WARM_MS)?;
    }
    let mut heard = Heard::default();
    let (mut from, mut began) = (0, process::thread_cpu_seconds());
    let mut end = |recognizer: &mut dyn Recognizer, to: usize, cause| -> Result<()> {
        let text = recognizer.finish()?.text;
        let now = process::thread_cpu_seconds();
        heard.segments.push(Segment { samples: to - from, cause, text, cpu_s: now - began });
        (from, began) = (to, now);
        Ok(())
    };
    for (index, step) in audio.chunks(STEP).enumerate() {
        let to = index * STEP + step.len();
        if let Step::Endpoint(cause) = recognizer.accept(step)? {
            end(recognizer.as_mut(), to, cause)?;
        } else if take.partial_steps > 0 && (index + 1).is_multiple_of(take.partial_steps) {
            recognizer.partial()?;
        }
    }
    end(recognizer.as_mut(), audio.len(), CutCause::End)?;
    Ok(heard)
}
