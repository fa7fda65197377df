//! The demonstration: a decoder killed in mid-sentence, and the transcript going on.

use anyhow::{Result, bail};

use crate::command::{self, cargo};
use crate::setup;

pub(crate) fn run() -> Result<()> {
    setup::speech()?;
    command::run(cargo().args([
        "build",
        "--release",
        "--package",
        "starling-engine",
        "--package",
        "starling",
    ]))?;
    drive()
}

fn drive() -> Result<()> {
    bail!("the demonstration itself is not written yet; engines, models and programs are ready")
}
