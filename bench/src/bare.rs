//! What Starling is compared with: the engine in a loop, with nothing around it. A process of its own, so that its memory
//! and CPU are its own, with the environment that a decoder host has.
//!
//! Owns: the way there and back, which is a question in JSON on its standard input and the answer on its standard output. Must
//! never: know a node.

pub(crate) mod chorus;
pub(crate) mod clips;
mod engines;
pub(crate) mod hear;
mod permits;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_engine::pin;
use tokio::time::Instant;

use crate::live::Outcome;
use crate::process;

/// What the process is asked to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Recordings as fast as can be, or live. Answered by an [`Outcome`](crate::live::Outcome).
    Clips(clips::Arguments),
    /// Streams at the pace of speech. Answered by an [`Outcome`](crate::live::Outcome).
    Chorus(chorus::Arguments),
    /// What is heard in recordings, and at what cost. Answered by [`hear::Heard`], one for each take.
    Hear(hear::Arguments),
}

/// What the threads of one run did together.
fn together(
    joined: impl Iterator<Item = std::thread::Result<Result<Outcome>>>,
    start: Instant,
    cpu_s: f64,
) -> Result<Outcome> {
    let mut all = Outcome::default();
    for outcome in joined {
        let Ok(outcome) = outcome else { bail!("a thread of the loop panicked") };
        all = all.and(outcome?);
    }
    all.wall_s = start.elapsed().as_secs_f64();
    all.cpu_s = process::cpu_seconds(std::process::id())? - cpu_s;
    Ok(all)
}

/// Has a process of its own answer.
pub(crate) fn ask<A: DeserializeOwned>(own: &Path, question: &Question) -> Result<A> {
    let mut child = Command::new(own)
        .arg("bare")
        .envs(pin::blas_environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the bare loop")?;
    let mut stdin = child.stdin.take().context("no pipe to the bare loop")?;
    // It reads to the end before it does anything; dropping the pipe is that end.
    let written = stdin.write_all(&serde_json::to_vec(question)?);
    drop(stdin);
    let output = child.wait_with_output().context("waiting for the bare loop")?;
    if !output.status.success() {
        bail!("the bare loop ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    written.context("asking the bare loop")?;
    let text = String::from_utf8(output.stdout).context("reading the bare loop")?;
    // libvosk may print lines of its own before ours.
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("reading {line:?}"))
}

/// The process's own main.
pub(crate) fn answer() -> Result<()> {
    let mut question = Vec::new();
    std::io::stdin().read_to_end(&mut question).context("reading the question")?;
    let answer = match serde_json::from_slice(&question).context("the question is none")? {
        Question::Clips(arguments) => serde_json::to_string(&clips::run(&arguments)?)?,
        Question::Chorus(arguments) => serde_json::to_string(&chorus::run(&arguments)?)?,
        Question::Hear(arguments) => serde_json::to_string(&hear::run(&arguments)?)?,
    };
    println!("{answer}");
    Ok(())
}
