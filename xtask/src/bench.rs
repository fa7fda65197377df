//! The benchmarks, built as they would be installed.

use anyhow::Result;

use crate::command::{self, cargo};
use crate::setup;

pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::speech()?;
    command::run(cargo().args(["build", "--profile", "dist", "--workspace", "--bins"]))?;
    command::run(cargo().args(["run", "--profile", "dist", "--package", "starling-bench", "--"]).args(args))
}
