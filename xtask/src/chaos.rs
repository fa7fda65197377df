//! The scenarios of `chaos/` and its soak, on programs built as they are installed.

use anyhow::Result;

use crate::command::{self, cargo};
use crate::setup;

pub(crate) fn run(args: &[String]) -> Result<()> {
    // What only prints needs no nodes.
    let prints = args.iter().any(|arg| arg == "--list" || arg == "--dry-run" || arg == "--help");
    start(&[], args, !prints, true)
}

/// Hours of load. With `--debug` on programs that are built quicker.
pub(crate) fn soak(args: &[String]) -> Result<()> {
    let debug = args.iter().any(|arg| arg == "--debug");
    let args: Vec<String> = args.iter().filter(|arg| *arg != "--debug").cloned().collect();
    start(&["soak"], &args, !args.iter().any(|arg| arg == "--help"), !debug)
}

fn start(first: &[&str], args: &[String], nodes: bool, release: bool) -> Result<()> {
    if args.iter().any(|arg| arg == "real" || arg == "--engine=real") {
        setup::speech()?;
    }
    let packages = ["--package", "starling-engine", "--package", "starling", "--package", "starling-chaos"];
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    if nodes {
        setup::network()?;
        command::run(cargo().args(["build", "--bins"]).args(profile).args(packages))?;
    }
    let mut run = cargo();
    run.args(["run", "--quiet"]).args(profile).args(["--package", "starling-chaos", "--"]);
    command::run(run.args(first).args(args))
}
