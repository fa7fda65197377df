//! What has to hold before a change may go in, besides the tests.

use std::process::Command;

use anyhow::Result;

use crate::command::{self, cargo, root};
use crate::{readme, setup};

pub(crate) fn run() -> Result<()> {
    command::run(cargo().args(["fmt", "--all", "--check"]))?;
    command::run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    let deny = setup::cargo_deny()?;
    command::run(Command::new(deny).current_dir(root()).args(["check", "bans", "licenses", "sources"]))?;
    // The whole of its rules and its layout are in clients/ruff.toml.
    let ruff = setup::clients::python()?.join("bin").join("ruff");
    for how in [&["check"][..], &["format", "--check"]] {
        command::run(Command::new(&ruff).current_dir(root()).args(how).args([
            "--quiet",
            "--no-cache",
            "clients",
        ]))?;
    }
    readme::check()
}
