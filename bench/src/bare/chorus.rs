//! Streams at the pace of speech, with partials where they are told to be made: what a cluster did for the same streams, by the
//! engine alone.

use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use starling_engine::{Engine, Recognizer, Step, warmup};
use tokio::time::Instant;

use super::permits::Permits;
use super::{engines, together};
use crate::audio::{Audio, RATE, STEP, seconds};
use crate::live::{Outcome, STAGGER};
use crate::process;

/// Sound that every recognizer hears before anything counts: as long as the longest segment, so that no buffer grows later.
const WARM_MS: u32 = 15_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Arguments {
    pub(crate) home: PathBuf,
    pub(crate) voice: Voice,
    /// As many as may decode at once.
    pub(crate) threads: usize,
    pub(crate) streams: Vec<Stream>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Voice {
    /// The English recording, by Moonshine.
    English,
    /// The long Korean one, by Vosk.
    Korean,
}

impl Voice {
    pub(crate) fn recording(self, audio: &Audio) -> &[i16] {
        match self {
            Self::English => &audio.english,
            Self::Korean => &audio.korean_long,
        }
    }
}

/// A part of the recording.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) from: usize,
    pub(crate) samples: usize,
    /// Samples behind which a partial is made.
    pub(crate) partials: Vec<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let audio = Audio::load(&arguments.home)?;
    let recording = arguments.voice.recording(&audio);
    let engine: Box<dyn Engine> = match arguments.voice {
        Voice::English => Box::new(engines::english(&arguments.home)?),
        Voice::Korean => Box::new(engines::korean(&arguments.home)?),
    };
    let mut recognizers = Vec::new();
    for _ in &arguments.streams {
        let mut recognizer = engine.open(&engines::options())?;
        warmup::warm(recognizer.as_mut(), RATE, WARM_MS)?;
        recognizers.push(recognizer);
    }
    let permits = Permits::new(arguments.threads);
    let (start, cpu) = (Instant::now(), process::cpu_seconds(std::process::id())?);
    thread::scope(|scope| {
        let singers: Vec<_> = recognizers
            .into_iter()
            .zip(&arguments.streams)
            .enumerate()
            .map(|(index, (mut recognizer, stream))| {
                let permits = &permits;
                scope.spawn(move || {
                    let start = start + STAGGER * u32::try_from(index)?;
                    sing(recognizer.as_mut(), recording, stream, start, permits)
                })
            })
            .collect();
        together(singers.into_iter().map(ScopedJoinHandle::join), start, cpu)
    })
}

fn sing(
    recognizer: &mut dyn Recognizer,
    recording: &[i16],
    stream: &Stream,
    start: Instant,
    permits: &Permits,
) -> Result<Outcome> {
    let mut partials = stream.partials.iter().copied().peekable();
    let (mut at, mut letters, mut shown) = (0, 0, Vec::new());
    let mut due = start;
    for step in recording[stream.from..stream.from + stream.samples].chunks(STEP) {
        due += Duration::from_millis(100);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        at += step.len() as u64;
        letters += permits.with(|| match recognizer.accept(step)? {
            Step::Endpoint(_) => anyhow::Ok(recognizer.finish()?.text.chars().count()),
            Step::Speech => Ok(0),
        })?;
        while partials.next_if(|until| *until <= at).is_some() {
            permits.with(|| recognizer.partial())?;
            shown.push(at);
        }
    }
    letters += permits.with(|| recognizer.finish())?.text.chars().count();
    let after_end = Instant::now().saturating_duration_since(due);
    Ok(Outcome {
        audio_s: seconds(stream.samples),
        after_end_ms: vec![after_end.as_secs_f64() * 1_000.0],
        partials_per_s: vec![shown.len() as f64 / seconds(stream.samples)],
        shown: vec![shown],
        letters,
        ..Outcome::default()
    })
}
