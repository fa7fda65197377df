//! The simulated cluster of `sim/`.

use anyhow::Result;

use crate::command::{self, cargo};

pub(crate) fn run(args: &[String]) -> Result<()> {
    let mut program = cargo();
    program.args(["run", "--quiet", "--profile", "sim", "--package", "starling-sim"]);
    // Deliberate faults are in no other build than this.
    if args.iter().any(|arg| arg == "--mutants" || arg == "--bug" || arg.starts_with("--bug=")) {
        program.args(["--features", "sabotage"]);
    }
    command::run(program.arg("--").args(args))
}
