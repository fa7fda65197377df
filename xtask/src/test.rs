//! All tests, on real models.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command::{self, cargo, root, target};
use crate::setup;

pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::speech()?;
    setup::network()?;
    setup::prometheus()?;
    setup::clients::everything()?;
    let nextest = setup::nextest()?;
    // Tests start the programs themselves, also those of other packages, which their own build does not make.
    command::build_programs()?;
    let not_run = target().join("tests-not-run");
    // There is one only after tests that left something out.
    let _ = fs::remove_file(&not_run);
    let mut tested = command::run(
        Command::new(nextest)
            .current_dir(root())
            .args(["nextest", "run", "--workspace", "--profile", profile()])
            .args(command::FEATURES)
            .args(args)
            .env("TESTS_NOT_RUN", &not_run),
    );
    if tested.is_ok() && args.is_empty() {
        tested = command::run(cargo().args(["test", "--workspace", "--doc"]).args(command::FEATURES));
    }
    // Last, where it is read.
    tell_what_was_left_out(&not_run);
    tested
}

/// What tests could not try here: it has not failed, but not passed either.
fn tell_what_was_left_out(file: &Path) {
    let Ok(told) = fs::read_to_string(file) else { return };
    let mut lines: Vec<&str> = told.lines().collect();
    lines.sort_unstable();
    eprintln!("\nNot run, and so not passed:");
    for line in lines {
        eprintln!("  {line}");
        // A workflow's page shows these beside what failed.
        if std::env::var_os("GITHUB_ACTIONS").is_some() {
            println!("::warning title=Not run::{line}");
        }
    }
}

/// The profile in `.config/nextest.toml`.
fn profile() -> &'static str {
    if std::env::var_os("CI").is_some() { "ci" } else { "default" }
}
