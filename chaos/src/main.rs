//! Breaks running nodes on purpose, under load, and checks that nobody who spoke to them lost a word.
//!
//! Owns: scenarios, the nodes that it starts for them, callers on the SDK, the faults, and the judgement of what callers were told.
//! Must never: link to the node that it judges, judge by what nodes say of themselves alone, or harm a cluster that is not its
//! own without having been told so twice.

mod alarms;
mod apart;
mod budget;
mod callers;
mod cluster;
mod disk;
mod faults;
mod forge;
mod http;
mod losses;
mod memory;
mod network;
mod node;
mod noticed;
#[path = "../../bench/src/port.rs"]
mod port;
mod process;
mod report;
mod run;
mod scenario;
#[path = "../../node/src/load/score.rs"]
mod score;
mod script;
mod soak;
mod theirs;
mod timeline;
mod tool;
mod verdict;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::run::Bench;
use crate::scenario::Scenario;
use crate::theirs::Theirs;

/// Breaks nodes under load, and checks that no caller loses a word.
#[derive(Debug, Parser)]
#[command(subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    long: Option<Long>,
    /// Which scenarios; all when none is named
    scenarios: Vec<String>,
    /// Print the scenarios, and do nothing
    #[arg(long)]
    list: bool,
    /// Print what would be done and when, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// What decodes: the scripted engine, whose text can be worked out, or a real one with a recording [default: scripted; with --cluster real]
    #[arg(long, value_enum, global = true)]
    engine: Option<Engine>,
    /// So many callers rather than the scenarios' own numbers, or the four of a real engine
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    callers: Option<u32>,
    /// Folder of the built programs [default: the one that this program is in]
    #[arg(long, value_name = "DIR", global = true)]
    programs: Option<PathBuf>,
    /// Home folder of models and recordings [default: .starling of the checkout]
    #[arg(long, value_name = "DIR", global = true)]
    home: Option<PathBuf>,
    /// Folder of the scenarios [default: chaos/scenarios of the checkout]
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Folder of older programs: nodes of the scenarios that mix versions begin with them
    #[arg(long, value_name = "DIR")]
    previous: Option<PathBuf>,
    /// This process is in namespaces of its own, in which scenarios lay networks and mount disks
    #[arg(long, hide = true)]
    apart: bool,
    /// Where reports go [default: chaos/results of the checkout]
    #[arg(long, value_name = "DIR", global = true)]
    out: Option<PathBuf>,
    /// A cluster of your own rather than nodes started for it: a file that names its nodes and how each is killed. Nothing is done
    /// to it without --really
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// With --cluster: do it, after a --dry-run has shown what
    #[arg(long, requires = "cluster")]
    really: bool,
}

#[derive(Debug, Subcommand)]
enum Long {
    /// Mixed load for hours, with things going wrong all the time: no word is lost, and nothing is left behind
    Soak(soak::Options),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Scripted,
    Real,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = cli.from.clone().unwrap_or_else(|| checkout.join("scenarios"));
    let mut scenarios = Scenario::load(&folder, &cli.scenarios)?;
    // A cluster of somebody's own has a real engine, unless it was made to try this program.
    let real = cli.engine.map_or(cli.cluster.is_some(), |engine| engine == Engine::Real);
    for scenario in &mut scenarios {
        let most = if real { run::REAL_CALLERS } else { usize::MAX };
        let callers = cli.callers.map_or(scenario.load.callers.min(most), |callers| callers as usize);
        // As many as there will be: what is expected is expected of so many.
        scenario.with_callers(callers)?;
    }
    if cli.list {
        for scenario in &scenarios {
            println!("{:<24} {}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let theirs = cli.cluster.as_deref().map(Theirs::load).transpose()?;
    let dry = cli.dry_run || (theirs.is_some() && !cli.really);
    for scenario in &scenarios {
        budget::check(scenario, theirs.as_ref())?;
        if dry {
            print!("{}", budget::plan(scenario, theirs.as_ref()));
        }
    }
    if dry {
        if theirs.is_some() {
            println!("\nNothing was done. With --really it is.");
        }
        return Ok(());
    }
    let own = std::env::current_exe().context("finding this program")?;
    let programs = match cli.programs {
        Some(programs) => programs,
        None => own.parent().context("this program is in no folder")?.to_owned(),
    };
    let bench = Bench {
        programs,
        home: cli.home.unwrap_or_else(|| checkout.join("../.starling")),
        real,
        theirs,
        out: cli.out.unwrap_or_else(|| checkout.join("results")),
        scenarios: folder,
        previous: cli.previous,
        apart: cli.apart,
    };
    if let Some(Long::Soak(options)) = &cli.long {
        return soak::run(bench, options).await;
    }
    all(&bench, &scenarios, !cli.scenarios.is_empty()).await
}

/// Does them one after the other. Each that was `named` has to be done.
async fn all(bench: &Bench, scenarios: &[Scenario], named: bool) -> Result<()> {
    if bench.apart {
        apart::enter()?;
    } else {
        println!("{}", report::head());
    }
    let (mut failed, mut not_run) = (Vec::new(), Vec::new());
    for scenario in scenarios {
        if let Some(why) = apart::lacks(bench, scenario) {
            println!("{:<22} not run: {why}", scenario.name);
            not_run.push(&*scenario.name);
            continue;
        }
        let well = if scenario.is_apart() && !bench.apart {
            tokio::select! {
                well = apart::again(bench, scenario) => well?,
                // What was started in there ends with it.
                signal = run::interrupted() => bail!("interrupted by {signal}"),
            }
        } else {
            one(bench, scenario).await?
        };
        if !well {
            failed.push(&*scenario.name);
        }
    }
    if bench.apart {
        ensure!(failed.is_empty() && not_run.is_empty(), "it did not go well");
        return Ok(());
    }
    println!("\nReports and timelines are in {}", bench.out.display());
    if !not_run.is_empty() {
        println!("Not run, and so not passed: {}", not_run.join(", "));
    }
    if !failed.is_empty() {
        bail!("failed: {}; again with: cargo xtask chaos {}", failed.join(", "), failed.join(" "));
    }
    ensure!(not_run.is_empty() || !named, "not run: {}", not_run.join(", "));
    Ok(())
}

/// Does one, and prints its row. Whether it went well.
async fn one(bench: &Bench, scenario: &Scenario) -> Result<bool> {
    let report = run::run(bench, scenario).await.with_context(|| format!("scenario {}", scenario.name))?;
    println!("{}", report.row());
    report.write(&bench.out)?;
    for failure in &report.failures {
        println!("    {failure}");
    }
    Ok(report.failures.is_empty())
}
