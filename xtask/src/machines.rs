//! Three machines with a systemd of their own, on which the playbooks install, upgrade and remove a cluster while callers speak.

use std::fs;
use std::process::Command;

use anyhow::Result;

use crate::command::{self, output_of, root, target};
use crate::setup::{self, deploy};

/// What a machine has that the playbooks ask for, and nothing that a node would need beside its programs.
const PACKAGES: [&str; 7] =
    ["systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "iproute2"];

/// Boots them and runs everything, or says what that would take.
pub(crate) fn run() -> Result<()> {
    if !setup::is_root() || output_of(Command::new("apt-get").arg("--version")).is_none() {
        eprintln!("playbooks and unit are not tried: that takes root, and a Debian made out of packages");
        return Ok(());
    }
    // A container's root may not.
    let apart = ["--mount", "--net", "--pid", "--fork", "true"];
    if output_of(Command::new("unshare").args(apart)).is_none() {
        eprintln!("playbooks and unit are not tried: no namespaces can be made here");
        return Ok(());
    }
    setup::network()?;
    setup::speech()?;
    deploy::ssh()?;
    let packages = deploy::plans()?;
    let debian = deploy::debian("machine", &PACKAGES)?;
    command::build_programs()?;
    let programs = target().join("machines");
    fs::create_dir_all(&programs)?;
    for name in ["starling", "starling-decoder"] {
        command::strip(&command::built(name), &programs.join(name))?;
    }
    // What is started and mounted in there goes with it.
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    apart
        .args(["python3", "deploy/checks/machines.py"])
        .arg(&programs)
        .arg(setup::home()?.root())
        .arg(debian);
    command::run(deploy::with_packages(&mut apart, &packages).current_dir(root()))
}
