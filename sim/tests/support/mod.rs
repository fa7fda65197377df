//! The program, run as anybody would.

use std::process::{Command, Output};

pub(crate) fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling-sim")).args(args).output().expect("starts")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
