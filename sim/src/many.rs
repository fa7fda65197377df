//! Many runs, each in a process of its own.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use starling_core::sabotage::Bug;
use starling_sim::plan::{FaultKind, Schedule};

use crate::level::Level;
use crate::{Cli, shrink};

/// Which run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Which<K> {
    pub(crate) seed: u64,
    pub(crate) fault: Option<K>,
    pub(crate) bug: Option<Bug>,
}

/// What came of one run.
pub(crate) struct Came {
    /// All held.
    pub(crate) well: bool,
    /// What it printed.
    pub(crate) said: String,
}

/// Runs one.
pub(crate) fn one<L: Level>(which: Which<L::Kind>, schedule: Option<&Schedule<L::Kind>>) -> Result<Came> {
    let program = std::env::current_exe().context("this program has no path")?;
    let mut command = Command::new(program);
    command.args(L::ARGUMENTS).args(["--quiet", "--seed", &which.seed.to_string()]);
    if let Some(fault) = which.fault {
        command.args(["--fault", fault.word()]);
    }
    if let Some(bug) = which.bug {
        command.args(["--bug", bug.word()]);
    }
    if let Some(schedule) = schedule {
        command.args(["--schedule", &schedule.to_string()]);
    }
    let output = command.output().context("a run cannot be started")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok(Came { well: output.status.success(), said })
}

/// A run that does not hold.
type Broken<K> = (Which<K>, Came);

/// The first of so many seeds that does not hold, if one does not. All before it were run.
fn first_broken<L: Level>(
    cli: &Cli,
    fault: Option<L::Kind>,
    bug: Option<Bug>,
) -> Result<Option<Broken<L::Kind>>> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = cli.jobs.map_or(cores, std::num::NonZero::get);
    let (next, stop) = (AtomicU64::new(cli.from), AtomicBool::new(false));
    let end = cli.from.saturating_add(cli.seeds);
    let broken: Mutex<BTreeMap<u64, Result<Broken<L::Kind>>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let which = Which { seed, fault, bug };
                    let came = one::<L>(which, None);
                    if came.as_ref().is_ok_and(|came| came.well) {
                        continue;
                    }
                    stop.store(true, Ordering::Relaxed);
                    let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                    broken.insert(seed, came.map(|came| (which, came)));
                }
            });
        }
    });
    // Of those that were run at once the lowest, so that the same one is named each time.
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.into_values().next().transpose()
}

/// All that were asked for, and then each kind alone. True if all held in all.
pub(crate) fn all<L: Level>(cli: &Cli, fault: Option<L::Kind>) -> Result<bool> {
    if !run::<L>(cli, fault)? {
        return Ok(false);
    }
    for kind in L::Kind::EACH.iter().filter(|_| cli.each > 0) {
        let alone = Cli { seeds: cli.each, ..cli.clone() };
        if !run::<L>(&alone, Some(*kind))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// All of one kind that were asked for.
fn run<L: Level>(cli: &Cli, fault: Option<L::Kind>) -> Result<bool> {
    let begun = now();
    let found = first_broken::<L>(cli, fault, cli.bug)?;
    let took = begun.elapsed().as_secs_f64();
    let kind = fault.map_or_else(|| "of all kinds".to_owned(), |kind| format!("of the kind {}", kind.word()));
    let Some((which, came)) = found else {
        let pace = cli.seeds as f64 / took * 60.0;
        println!(
            "{} seeds from {} with faults {kind}: all held. {pace:.0} seeds a minute",
            cli.seeds, cli.from
        );
        return Ok(true);
    };
    let seed = which.seed;
    println!("seed {seed} with faults {kind} does not hold:\n{}", came.said);
    let schedule = L::schedule(seed, fault);
    println!("schedule: {schedule}");
    let least = shrink::shrink::<L>(which, &schedule, &came)?;
    println!("it does not hold with this alone: {least}");
    let level: String = L::ARGUMENTS.iter().map(|argument| format!(" {argument}")).collect();
    let fault = fault.map_or_else(String::new, |kind| format!(" --fault {}", kind.word()));
    let bug = cli.bug.map_or_else(String::new, |bug| format!(" --bug {}", bug.word()));
    println!("replay: cargo xtask sim{level} --seed {seed}{fault}{bug} --schedule '{least}'");
    Ok(false)
}

/// Every deliberate fault, and the number of seeds it took to find it. True if all were found.
pub(crate) fn mutants<L: Level>(cli: &Cli) -> Result<bool> {
    println!("| deliberate fault | seeds | what did not hold |\n|---|---|---|");
    let mut all = true;
    for bug in L::BUGS {
        match first_broken::<L>(cli, None, Some(*bug))? {
            Some((which, came)) => {
                let seeds = which.seed - cli.from + 1;
                let what = shrink::what(&came.said).unwrap_or("it panicked").to_owned();
                println!("| {} | {seeds} | {what} |", bug.word());
            }
            None => {
                println!("| {} | not in {} | |", bug.word(), cli.seeds);
                all = false;
            }
        }
    }
    Ok(all)
}

#[expect(clippy::disallowed_methods, reason = "for the pace that is printed, which decides nothing")]
fn now() -> Instant {
    Instant::now()
}
