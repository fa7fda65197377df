//! The scenarios of `chaos/`, on programs built as they are installed.

use anyhow::Result;

use crate::command::{self, cargo};
use crate::setup;

pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "real" || arg == "--engine=real") {
        setup::speech()?;
    }
    let packages = ["--package", "starling-engine", "--package", "starling", "--package", "starling-chaos"];
    // What only prints needs no nodes.
    if !args.iter().any(|arg| arg == "--list" || arg == "--dry-run" || arg == "--help") {
        command::run(cargo().args(["build", "--release", "--bins"]).args(packages))?;
    }
    command::run(
        cargo().args(["run", "--quiet", "--release", "--package", "starling-chaos", "--"]).args(args),
    )
}
