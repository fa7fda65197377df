//! Scenarios that are done apart from the rest of the machine: in namespaces of their own for networks, mounts and processes, which
//! are gone with them.
//!
//! Owns: whether this system lets them be made, and starting over in there. Must never: let what can't be done count as done.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use crate::memory;
use crate::run::Bench;
use crate::scenario::{Deed, Ground, Scenario};

/// With these, whatever is started and made ends with this process.
const UNSHARE: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// What is missing for a scenario here; `None` if it can be done.
pub(crate) fn lacks(bench: &Bench, scenario: &Scenario) -> Option<String> {
    if scenario.nodes.iter().any(|node| node.previous) && bench.previous.is_none() {
        return Some("--previous names no folder of older programs".to_owned());
    }
    if scenario.does(Deed::LimitMemory)
        && let Err(error) = memory::is_possible()
    {
        return Some(format!("{error:#}"));
    }
    if !scenario.is_apart() || bench.apart {
        return None;
    }
    if !geteuid().is_root() {
        return Some("only root makes namespaces".to_owned());
    }
    let mut tools = vec![("unshare", "util-linux"), ("mount", "util-linux")];
    if scenario.network == Ground::Namespaces {
        tools.extend([("nsenter", "util-linux"), ("ip", "iproute2"), ("nft", "nftables")]);
    }
    for (tool, package) in tools {
        if !says_its_version(tool) {
            return Some(format!("`{tool}`, of {package}, is missing"));
        }
    }
    let tried = Command::new("unshare").args(UNSHARE).arg("true").output();
    match tried {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "this system makes no namespaces: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

fn says_its_version(tool: &str) -> bool {
    let mut command = Command::new(tool);
    command.arg(if tool == "ip" { "-V" } else { "--version" });
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Does it in a process that is apart, which prints its row of the table. Whether it went well.
pub(crate) async fn again(bench: &Bench, scenario: &Scenario) -> Result<bool> {
    let mut apart = tokio::process::Command::new("unshare");
    apart.args(UNSHARE).arg(std::env::current_exe().context("finding this program")?);
    apart.arg(&scenario.name).arg("--apart").args(["--callers", &scenario.load.callers.to_string()]);
    apart.args(["--engine", if bench.real { "real" } else { "scripted" }]);
    apart.arg("--programs").arg(&bench.programs).arg("--home").arg(&bench.home);
    apart.arg("--out").arg(&bench.out).arg("--from").arg(&bench.scenarios);
    if let Some(previous) = &bench.previous {
        apart.arg("--previous").arg(previous);
    }
    let status = apart.stdin(Stdio::null()).kill_on_drop(true).status().await;
    Ok(status.context("starting unshare")?.success())
}

/// The first thing that is done in there.
pub(crate) fn enter() -> Result<()> {
    // ip-netns(8): names of namespaces are files below /run/netns, which nobody else is to see.
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status();
    ensure!(mounted.context("starting mount")?.success(), "no /run of its own");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    ensure!(up.context("starting ip")?.success(), "no loopback device");
    Ok(())
}
