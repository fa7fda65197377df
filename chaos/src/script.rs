//! What callers say, and what has to be heard of it.
//!
//! Owns: the audio of each caller and its text. Must never: take the text from a node, where it can be worked out.

use std::path::Path;

use anyhow::{Context, Result};
use starling_engine::scripted::{BLOCK_SAMPLES, Harm, SAMPLE_RATE, encode_from, harm, silence};

use crate::scenario::Load;

/// Half a second ends a segment of the scripted engine; one block more, wherever the grid lies.
const PAUSE_BLOCKS: usize = 6;

/// One caller's part.
#[derive(Debug)]
pub(crate) struct Script {
    /// Mono PCM16.
    pub(crate) audio: Vec<u8>,
    /// Its words; nothing where a real engine has to tell them first.
    pub(crate) words: Option<Vec<String>>,
    /// The words of the segment that nobody survives.
    pub(crate) poisoned: Vec<String>,
}

pub(crate) const RATE: u32 = SAMPLE_RATE;

impl Script {
    /// Words that nobody else says, one for each block, with a pause after each phrase.
    pub(crate) fn scripted(number: usize, load: &Load) -> Self {
        let blocks =
            |seconds: f64| ((seconds * f64::from(RATE) / BLOCK_SAMPLES as f64).round() as usize).max(1);
        let (all, phrase) = (blocks(load.seconds), blocks(load.phrase_s));
        let numbers: Vec<usize> = (0..all).collect();
        let word = |place: usize| format!("{number}.{place}");
        let mut samples = Vec::new();
        let (mut words, mut poisoned) = (Vec::new(), Vec::new());
        for (index, places) in numbers.chunks(phrase).enumerate() {
            // The second phrase, so that something is committed before and something comes after.
            let deadly = number < load.poisoned && index == 1;
            for place in places {
                if deadly && *place == places[places.len() / 2] {
                    samples.extend(harm(*place as u32, Harm::Abort, None));
                    continue;
                }
                samples.extend(encode_from(*place as u32, &[word(*place)]));
                let heard = format!("{place}:{}", word(*place));
                if deadly { poisoned.push(heard) } else { words.push(heard) }
            }
            samples.extend(silence(PAUSE_BLOCKS));
        }
        Self { audio: bytes(&samples), words: Some(words), poisoned }
    }

    /// A recording.
    pub(crate) fn real(home: &Path) -> Result<Self> {
        let path = home.join("audio/two_cities.wav");
        let mut reader = hound::WavReader::open(&path)
            .with_context(|| format!("{}: fetch it with `cargo xtask setup`", path.display()))?;
        let samples: Result<Vec<i16>, _> = reader.samples().collect();
        let samples = samples.with_context(|| path.display().to_string())?;
        anyhow::ensure!(reader.spec().sample_rate == RATE, "{} is not of {RATE} Hz", path.display());
        Ok(Self { audio: bytes(&samples), words: None, poisoned: Vec::new() })
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.audio.len() as f64 / 2.0 / f64::from(RATE)
    }

    pub(crate) fn frames(&self) -> u64 {
        self.audio.len() as u64 / 2
    }
}

fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}
