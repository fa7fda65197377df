//! What Starling is compared with: the engine in a loop, with nothing around it. A process of its own, so that its memory
//! and CPU are its own.
//!
//! `per-clip` makes a recognizer for each clip, as both of vosk-server's programs do, and decodes on as many threads as
//! there are cores, as they do; `warm` keeps one recognizer, which is the least that decoding can cost.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use starling_engine::moonshine::Moonshine;
use starling_engine::vosk::Vosk;
use starling_engine::{Engine, Recognizer, Step, pin};
use starling_protocol::lease::DecodeOptions;
use tokio::time::Instant;

use crate::audio::{Audio, RATE, STEP, seconds};
use crate::live::{Outcome, Pace, STAGGER, turn};
use crate::process;

/// The Korean model in the home folder.
const KOREAN: &str = "models/vosk-ko-small";

#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    pub(crate) home: PathBuf,
    #[arg(long, value_enum)]
    pub(crate) work: Work,
    #[arg(long, value_enum)]
    pub(crate) pace: Pace,
    #[arg(long)]
    pub(crate) clients: usize,
    #[arg(long)]
    pub(crate) rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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

/// Runs the loop in a process of its own, with the environment a decoder host has.
pub(crate) fn spawn(own: &Path, arguments: &Arguments) -> Result<Outcome> {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    };
    let output = Command::new(own)
        .arg("bare")
        .arg("--home")
        .arg(&arguments.home)
        .args(["--work", &name(arguments.work.to_possible_value())])
        .args(["--pace", &name(arguments.pace.to_possible_value())])
        .args(["--clients", &arguments.clients.to_string(), "--rounds", &arguments.rounds.to_string()])
        .envs(pin::blas_environment())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("starting the bare loop")?;
    if !output.status.success() {
        bail!("the bare loop ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("reading the bare loop")?;
    // libvosk may print lines of its own before ours.
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("reading {line:?}"))
}

/// The process's own main.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let audio = Audio::load(&arguments.home)?;
    let outcome = match arguments.work {
        Work::KoreanPublished => {
            let folder = published(&arguments.home.join(KOREAN))?;
            per_clip(&vosk(arguments, folder.path())?, &audio.korean, arguments)?
        }
        Work::KoreanPrepared => per_clip(&korean(arguments)?, &audio.korean, arguments)?,
        Work::KoreanWarm => warm(&korean(arguments)?, &audio.korean_long, arguments.rounds)?,
        Work::EnglishWarm => warm(&english(arguments)?, &audio.english, arguments.rounds)?,
    };
    println!("{}", serde_json::to_string(&outcome)?);
    Ok(())
}

fn korean(arguments: &Arguments) -> Result<Vosk> {
    vosk(arguments, &arguments.home.join(KOREAN))
}

fn vosk(arguments: &Arguments, model: &Path) -> Result<Vosk> {
    Ok(Vosk::load(&arguments.home.join("lib/vosk"), model, RATE)?)
}

/// The prepared model's parts as their makers laid them out, with their settings but for the dither.
fn published(prepared: &Path) -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir().context("making a folder")?;
    for (name, part) in [("am", "am"), ("conf", "conf"), ("ivector", "ivector"), ("graph", "phrases/graph")] {
        let part = prepared.join(part);
        ensure!(part.is_dir(), "{} is not there; run `cargo xtask setup`", part.display());
        symlink(std::path::absolute(part)?, folder.path().join(name)).context("linking a model")?;
    }
    Ok(folder)
}

fn english(arguments: &Arguments) -> Result<Moonshine> {
    let home = &arguments.home;
    Ok(Moonshine::load(&home.join("lib/onnxruntime"), &home.join("models/moonshine-tiny-en"), RATE)?)
}

fn options() -> DecodeOptions {
    DecodeOptions { words: false, ..DecodeOptions::default() }
}

/// The right to decode: as many as there are cores.
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Permits {
    fn with<T>(&self, work: impl FnOnce() -> T) -> T {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        drop(free);
        let done = work();
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.freed.notify_one();
        done
    }
}

fn per_clip(engine: &dyn Engine, clips: &[Vec<i16>], arguments: &Arguments) -> Result<Outcome> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let permits = Permits { free: Mutex::new(cores), freed: Condvar::new() };
    let cpu = process::cpu_seconds(std::process::id())?;
    let start = Instant::now();
    let outcomes = thread::scope(|scope| {
        let clients: Vec<_> = (0..arguments.clients)
            .map(|client| {
                scope.spawn({
                    let permits = &permits;
                    move || one_client(engine, clips, client, arguments, permits)
                })
            })
            .collect();
        let joined = clients.into_iter().map(|client| match client.join() {
            Ok(outcome) => outcome,
            Err(_) => bail!("a client panicked"),
        });
        joined.collect::<Result<Vec<Outcome>>>()
    })?;
    let mut all = Outcome { wall_s: start.elapsed().as_secs_f64(), ..Outcome::default() };
    for outcome in outcomes {
        all.audio_s += outcome.audio_s;
        all.letters += outcome.letters;
        all.after_end_ms.extend(outcome.after_end_ms);
    }
    all.cpu_s = process::cpu_seconds(std::process::id())? - cpu;
    Ok(all)
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
        let mut recognizer = permits.with(|| engine.open(&options()))?;
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
    let mut recognizer = engine.open(&options())?;
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
