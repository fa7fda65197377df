//! Loops over whole recordings: `per-clip` makes a recognizer for each clip, as both of vosk-server's programs do, and decodes
//! on as many threads as there are cores, as they do; `warm` keeps one recognizer, which is the least that decoding can cost.

use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use starling_engine::{Engine, Recognizer, Step};
use tokio::time::Instant;

use super::permits::Permits;
use super::{engines, together};
use crate::audio::{Audio, STEP, seconds};
use crate::live::{Outcome, Pace, STAGGER, turn};
use crate::process;

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Arguments {
    pub(crate) home: PathBuf,
    pub(crate) work: Work,
    pub(crate) pace: Pace,
    pub(crate) clients: usize,
    pub(crate) rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Korean clips, a Vosk recognizer for each, the model as it is published: its graph in two halves.
    KoreanPublished,
    /// The same with the model as Starling prepares it: its graph composed.
    KoreanPrepared,
    /// The long Korean recording on one Vosk recognizer, no partials; the first round is not counted.
    KoreanWarm,
    /// The English recording on one Moonshine recognizer, no partials; the first round is not counted.
    EnglishWarm,
}

pub(super) fn run(arguments: &Arguments) -> Result<Outcome> {
    let audio = Audio::load(&arguments.home)?;
    let home = &arguments.home;
    match arguments.work {
        Work::KoreanPublished => {
            let folder = engines::published(home)?;
            per_clip(&engines::vosk(home, folder.path())?, &audio.korean, arguments)
        }
        Work::KoreanPrepared => per_clip(&engines::korean(home)?, &audio.korean, arguments),
        Work::KoreanWarm => warm(&engines::korean(home)?, &audio.korean_long, arguments.rounds),
        Work::EnglishWarm => warm(&engines::english(home)?, &audio.english, arguments.rounds),
    }
}

fn per_clip(engine: &dyn Engine, clips: &[Vec<i16>], arguments: &Arguments) -> Result<Outcome> {
    let permits = Permits::new(thread::available_parallelism().map_or(1, usize::from));
    let cpu = process::cpu_seconds(std::process::id())?;
    let start = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..arguments.clients)
            .map(|client| {
                scope.spawn({
                    let permits = &permits;
                    move || one_client(engine, clips, client, arguments, permits)
                })
            })
            .collect();
        together(clients.into_iter().map(ScopedJoinHandle::join), start, cpu)
    })
}

fn one_client(
    engine: &dyn Engine,
    clips: &[Vec<i16>],
    client: usize,
    arguments: &Arguments,
    permits: &Permits,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if arguments.pace == Pace::Live {
        thread::sleep(STAGGER * u32::try_from(client)?);
    }
    for round in 0..arguments.rounds {
        let clip = &clips[turn(client, round, clips.len())];
        let mut recognizer = permits.with(|| engine.open(&engines::options()))?;
        let start = Instant::now();
        let mut end = start;
        for (index, step) in clip.chunks(STEP).enumerate() {
            end = start + Duration::from_millis(100) * u32::try_from(index + 1)?;
            if arguments.pace == Pace::Live {
                thread::sleep(end.saturating_duration_since(Instant::now()));
            }
            outcome.letters += permits.with(|| step_with_partial(recognizer.as_mut(), step))?;
        }
        if arguments.pace == Pace::Free {
            end = Instant::now();
        }
        outcome.letters += permits.with(|| recognizer.finish())?.text.chars().count();
        outcome.after_end_ms.push(Instant::now().saturating_duration_since(end).as_secs_f64() * 1_000.0);
        outcome.audio_s += seconds(clip.len());
        permits.with(|| drop(recognizer));
    }
    Ok(outcome)
}

/// What vosk-server does with one message; the letters of a final that it gave.
fn step_with_partial(recognizer: &mut dyn Recognizer, step: &[i16]) -> Result<usize> {
    if let Step::Endpoint(_) = recognizer.accept(step)? {
        return Ok(recognizer.finish()?.text.chars().count());
    }
    recognizer.partial()?;
    Ok(0)
}

fn warm(engine: &dyn Engine, recording: &[i16], rounds: usize) -> Result<Outcome> {
    let mut recognizer = engine.open(&engines::options())?;
    let mut outcome = Outcome::default();
    for round in 0..=rounds {
        let (start, cpu) = (Instant::now(), process::cpu_seconds(std::process::id())?);
        let mut letters = 0;
        for step in recording.chunks(STEP) {
            if let Step::Endpoint(_) = recognizer.accept(step)? {
                letters += recognizer.finish()?.text.chars().count();
            }
        }
        letters += recognizer.finish()?.text.chars().count();
        if round > 0 {
            outcome.audio_s += seconds(recording.len());
            outcome.wall_s += start.elapsed().as_secs_f64();
            outcome.cpu_s += process::cpu_seconds(std::process::id())? - cpu;
            outcome.letters += letters;
        }
    }
    Ok(outcome)
}
