//! What has to hold before a change may go in, besides the tests.

use std::process::Command;

use anyhow::Result;

use crate::command::{self, cargo, root};
use crate::{image, k8s, readme, setup};

pub(crate) fn run() -> Result<()> {
    command::run(cargo().args(["fmt", "--all", "--check"]))?;
    command::run(
        cargo()
            .args(["clippy", "--workspace", "--all-targets"])
            .args(command::FEATURES)
            .args(["--", "--deny", "warnings"]),
    )?;
    let deny = setup::cargo_deny()?;
    command::run(Command::new(deny).current_dir(root()).args(["check", "bans", "licenses", "sources"]))?;
    // The whole of its rules and its layout are in clients/ruff.toml.
    let ruff = setup::clients::python()?.join("bin").join("ruff");
    for how in [&["check"][..], &["format", "--check"]] {
        command::run(Command::new(&ruff).current_dir(root()).args(how).args([
            "--quiet",
            "--no-cache",
            "--config",
            "clients/ruff.toml",
            "clients",
            "k8s/checks",
            "deploy/checks",
        ]))?;
    }
    k8s::check()?;
    plans()?;
    // Minutes, and only where the system lets it: for whoever changes a line elsewhere there are `cargo xtask image --check` and
    // `cargo xtask k8s roll`.
    if std::env::var_os("CI").is_some() {
        image::check()?;
        k8s::roll()?;
    }
    readme::check()
}

/// Terraform, Ansible and the unit, as far as can be without a cloud.
fn plans() -> Result<()> {
    let packages = setup::deploy::plans()?;
    let mut check = Command::new("python3");
    command::run(
        setup::deploy::with_packages(&mut check, &packages).current_dir(root()).arg("deploy/check.py"),
    )
}
