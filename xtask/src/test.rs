//! All tests, on real models.

use std::process::Command;

use anyhow::Result;

use crate::command::{self, cargo, root};
use crate::setup;

pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::speech()?;
    setup::network()?;
    setup::prometheus()?;
    setup::clients::everything()?;
    let nextest = setup::nextest()?;
    // Tests start the programs themselves, also those of other packages, which their own build does not make.
    command::build_programs()?;
    command::run(
        Command::new(nextest)
            .current_dir(root())
            .args(["nextest", "run", "--workspace", "--profile", profile()])
            .args(command::FEATURES)
            .args(args),
    )?;
    if args.is_empty() {
        command::run(cargo().args(["test", "--workspace", "--doc"]).args(command::FEATURES))?;
    }
    Ok(())
}

/// The profile in `.config/nextest.toml`.
fn profile() -> &'static str {
    if std::env::var_os("CI").is_some() { "ci" } else { "default" }
}
