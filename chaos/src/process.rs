//! Processes by their number: whose children they are, and signals to them.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// The decoder hosts of a node.
pub(crate) fn hosts(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_host_of(*pid, parent)).collect()
}

fn is_host_of(pid: u32, parent: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): the name is in brackets, cut to 15 letters, and may hold anything; state and parent follow it.
    let Some((name, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let lives = fields.next().is_some_and(|state| state != "Z");
    lives && name.contains("starling-dec") && fields.next() == Some(&parent.to_string())
}

pub(crate) fn signal(pid: u32, with: Signal) -> Result<()> {
    let raw = i32::try_from(pid).context("a pid")?;
    let pid = Pid::from_raw(raw).context("a pid is never 0")?;
    kill_process(pid, with).with_context(|| format!("{with:?} to process {raw}"))
}
