//! Measures the built programs from outside: `starling serve` as a user starts it, driven over its own protocols, next to
//! what it is compared with, in one run on one machine.
//!
//! Owns: the cases, the bare loop they are compared with, the table and `bench/results/`. Must never: measure a debug
//! build, report a number that was not taken in this run, or reach any address but loopback.

mod audio;
mod bare;
mod cases;
mod clock;
mod cluster;
mod files;
mod live;
mod log;
mod machine;
mod native;
mod node;
mod port;
mod process;
mod report;
mod scaling;
mod score;
mod speech;
mod vosk;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use starling_engine::catalogue::Home;

use crate::audio::Audio;
use crate::cases::Bench;
use crate::report::Report;
use crate::speech::Speech;

/// Measures Starling on this machine.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// Which cases; all when none is named
    cases: Vec<Case>,
    /// Fewer rounds: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// Name of the file in bench/results
    #[arg(long, default_value = "latest")]
    name: String,
    /// The day of the run, kept with the results
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<String>,
    /// Folder of the built programs [default: the one this program is in]
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Home folder of models and libraries [default: the nearest .starling upwards]
    #[arg(long)]
    home: Option<PathBuf>,
    /// For `scaling`, a recorded trace: a line for each call with the second it began and the seconds it lasted, a comma between
    #[arg(long, value_name = "FILE")]
    calls: Option<PathBuf>,
    /// Folder of English recordings with a transcripts.tsv [default: ../shared/audio/en beside the checkout, else the
    /// recordings in the home folder]
    #[arg(long)]
    speech: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The engine with nothing around it; run by this program itself
    #[command(hide = true)]
    Bare,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Korean Vosk: throughput against a recognizer per clip
    Throughput,
    /// Korean Vosk: real-time streams held against a recognizer per clip
    Streams,
    /// English Moonshine: real-time streams held with partials
    English,
    /// CPU of sessions, actors and host protocol, on one node and on three
    Overhead,
    /// Opening, respawn, replay
    Latency,
    /// Memory of an idle session and of each host
    Memory,
    /// Faults in a cluster: what callers notice of them
    Failover,
    /// Word errors by where segments are cut, and what catching up costs
    Accuracy,
    /// Hosts that become more and fewer: policies side by side over days of callers, and how long it takes until one more is there
    Scaling,
    /// Ways in: sessions opened and closed, answered live, held while idle, up to 10,000
    Gateway,
    /// 10,000 connections that never say anything: their memory, and what others notice of them
    Silent,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Part::Bare) = cli.part {
        return bare::answer();
    }
    if cfg!(debug_assertions) {
        bail!("this is a debug build; run `cargo xtask bench`");
    }
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<()> {
    let home = Home::discover(cli.home.as_deref())?;
    let own = std::env::current_exe().context("finding this program")?;
    let programs = match cli.programs {
        Some(programs) => programs,
        None => own.parent().context("this program is in no folder")?.to_owned(),
    };
    let bench = Bench {
        audio: Audio::load(home.root())?,
        home: home.root().to_owned(),
        programs,
        own,
        speech: Speech::find(cli.speech.as_deref(), home.root())?,
        quick: cli.quick,
    };
    let mut report = Report::new(machine::describe(cli.date), cli.quick);
    let wanted = |case| cli.cases.is_empty() || cli.cases.contains(&case);
    if wanted(Case::Throughput) {
        cases::korean::throughput(&bench, &mut report).await.context("throughput")?;
    }
    if wanted(Case::Streams) {
        cases::korean::streams(&bench, &mut report).await.context("streams")?;
    }
    if wanted(Case::English) {
        cases::english::streams(&bench, &mut report).await.context("english")?;
    }
    if wanted(Case::Overhead) {
        cases::overhead::run(&bench, &mut report).await.context("overhead")?;
    }
    if wanted(Case::Latency) {
        cases::latency::run(&bench, &mut report).await.context("latency")?;
    }
    if wanted(Case::Memory) {
        cases::memory::run(&bench, &mut report).await.context("memory")?;
    }
    if wanted(Case::Failover) {
        cases::failover::run(&bench, &mut report).await.context("failover")?;
    }
    if wanted(Case::Accuracy) {
        cases::accuracy::run(&bench, &mut report).await.context("accuracy")?;
    }
    if wanted(Case::Gateway) {
        cases::gateway::run(&bench, &mut report).await.context("gateway")?;
    }
    if wanted(Case::Silent) {
        cases::gateway::silent(&bench, &mut report).await.context("silent")?;
    }
    if wanted(Case::Scaling) {
        cases::scaling::run(&bench, &mut report, cli.calls.as_deref()).await.context("scaling")?;
    }
    report.finish(&cli.name)
}
