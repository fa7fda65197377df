//! `cargo xtask`: all that a newcomer needs to set up, show, test, check and measure Starling.
//!
//! Owns the order of those steps, and nothing that the product itself does: models are fetched by the same code that
//! `starling models` uses. Every command can be run again at once, and says in one sentence what is missing.

mod bench;
mod chaos;
mod check;
mod command;
mod demo;
mod image;
mod k8s;
mod leaks;
mod machines;
mod progress;
mod readme;
mod setup;
mod sim;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "Sets up, shows, tests, checks and measures Starling"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch engines, models, recordings and tools into .starling/
    Setup,
    /// Show decoders and nodes killed in mid-sentence, and the transcript going on
    Demo(demo::Options),
    /// Run all tests
    Test {
        /// Passed on to the test runner, such as the name of a test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Check formatting, lints, dependencies and the README's commands
    Check,
    /// Measure, and compare with what the engines do alone
    Bench {
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Render manifests from the chart, or check all that Starling is deployed with
    #[command(subcommand)]
    K8s(k8s::Task),
    /// Boot three machines in namespaces; install, upgrade and remove a cluster on them by Ansible while callers speak
    Machines,
    /// Build the images, with buildah, docker or podman
    Image(image::Options),
    /// Break nodes under load, and check that no caller loses a word
    Chaos {
        /// Scenarios by name, --list, --dry-run and others: passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run simulated clusters, each a pure function of its seed; replay one
    Sim {
        /// --seeds N --from S, --fault KIND, --seed N --schedule S, --wire, --mutants and others: passed on
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Mixed load for hours, with things going wrong all the time: no word is lost, and nothing is left behind
    Soak {
        /// --hours, --minutes, --seed, --callers and others: passed on; --debug for programs that are built quicker
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Look with valgrind for memory that sessions of real engines leave behind; takes minutes
    Leaks {
        /// vosk, moonshine; both when none is named
        engines: Vec<String>,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup => setup::everything(),
        Task::Demo(options) => demo::run(&options),
        Task::Test { args } => test::run(&args),
        Task::Check => check::run(),
        Task::Bench { args } => bench::run(&args),
        Task::K8s(task) => k8s::run(task),
        Task::Machines => machines::run(),
        Task::Image(options) => image::run(&options),
        Task::Chaos { args } => chaos::run(&args),
        Task::Sim { args } => sim::run(&args),
        Task::Soak { args } => chaos::soak(&args),
        Task::Leaks { engines } => leaks::run(&engines),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
