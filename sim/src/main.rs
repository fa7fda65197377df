//! Runs seeds of the simulation: one and its log, or many side by side; shrinks what fails.

mod alarm;
mod entropy;
mod level;
mod many;
mod shrink;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use level::{Actors, Level, Whole, Wire};
use starling_core::sabotage::Bug;
use starling_sim::plan::{FaultKind, Schedule};

/// A run takes a second; one that takes so long hangs.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// The exit status of a run in which something did not hold.
const BROKEN: u8 = 1;

/// Simulated clusters, each a pure function of its seed.
#[derive(Debug, Clone, Parser)]
#[command(name = "starling-sim", bin_name = "cargo xtask sim")]
struct Cli {
    /// Membership and the control plane on a simulated network, in place of sessions on simulated seams
    #[arg(long)]
    wire: bool,
    /// Whole nodes on a simulated network: sessions behind the links that a node of the program has
    #[arg(long, conflicts_with = "wire")]
    whole: bool,
    /// Run this seed alone, and print what happens
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Do this instead of what the seed says, as crash:n1@3200+2000,cut:n0-n2@5000+900
    #[arg(long, requires = "seed")]
    schedule: Option<String>,
    /// Run so many seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Faults of this kind alone
    #[arg(long)]
    fault: Option<String>,
    /// Then so many seeds for each kind of fault alone
    #[arg(long, default_value_t = 0, conflicts_with_all = ["seed", "fault", "bug", "mutants"])]
    each: u64,
    /// Runs side by side [default: one for each core]
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// Have the product do this wrong, to see whether it is found: needs a build with the feature `sabotage`
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Try every such fault, and print how many seeds found each
    #[arg(long, conflicts_with_all = ["seed", "bug", "fault"])]
    mutants: bool,
    /// Print nothing of a run but what came of it
    #[arg(long, requires = "seed")]
    quiet: bool,
}

fn bug(text: &str) -> Result<Bug, String> {
    let all = || Bug::ALL.into_iter().chain(Bug::WIRE);
    let words = || all().map(Bug::word).collect::<Vec<_>>().join(", ");
    all().find(|bug| bug.word() == text).ok_or_else(|| format!("there are {}", words()))
}

#[cfg(feature = "sabotage")]
fn commit(bug: Bug) -> Result<()> {
    starling_core::sabotage::commit(bug);
    Ok(())
}

#[cfg(not(feature = "sabotage"))]
fn commit(_: Bug) -> Result<()> {
    anyhow::bail!(
        "this build has no deliberate faults; `cargo xtask sim` makes one that has when it is asked for them"
    )
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.wire, cli.whole) {
        (true, _) => run::<Wire>(&cli),
        (_, true) => run::<Whole>(&cli),
        _ => run::<Actors>(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run<L: Level>(cli: &Cli) -> Result<bool> {
    let fault = cli.fault.as_deref().map(L::Kind::of).transpose()?;
    match cli.seed {
        Some(seed) => one::<L>(seed, fault, cli),
        None if cli.mutants => many::mutants::<L>(cli),
        None => many::all::<L>(cli, fault),
    }
}

/// One run, in this process.
fn one<L: Level>(seed: u64, fault: Option<L::Kind>, cli: &Cli) -> Result<bool> {
    let schedule: Option<Schedule<L::Kind>> = cli.schedule.as_deref().map(str::parse).transpose()?;
    alarm::set();
    std::thread::spawn(|| {
        std::thread::sleep(HANGS_AFTER);
        println!("violation I7: the run hangs");
        #[expect(clippy::exit, reason = "whatever hangs can't be asked to end")]
        std::process::exit(i32::from(BROKEN));
    });
    if let Some(bug) = cli.bug {
        commit(bug)?;
    }
    entropy::seed(seed);
    // A new thread: what the standard library has drawn for its hashers in this one came before the seed.
    let echo = !cli.quiet;
    let running = std::thread::Builder::new()
        .name("world".to_owned())
        .spawn(move || L::run(seed, fault, schedule, echo));
    let outcome = running.context("no thread")?.join().map_err(|_| anyhow::anyhow!("the run panicked"))??;
    // What the product heals by itself is no less a fault of it.
    let violations = [outcome.violations, alarm::heard()].concat();
    for violation in &violations {
        println!("violation {violation}");
    }
    println!("seed {seed} log {:016x} time {:.1} s", outcome.hash, outcome.time.as_secs_f64());
    Ok(violations.is_empty())
}
