//! What the kernel says of a process: CPU time, memory, children.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{field, kibibytes};

/// User and system time of a living process, all its threads, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let (_, fields) = stat(pid).with_context(|| format!("process {pid} is gone"))?;
    // Counted from the state, which is field 3 of proc(5): utime is field 14, stime 15.
    let ticks = |index: usize| fields.get(index).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64)
}

/// CPU time of this thread, in seconds and far finer than [`cpu_seconds`].
pub(crate) fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Resident memory, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let value = field(&format!("/proc/{pid}/status"), "VmRSS");
    value.as_deref().and_then(kibibytes).with_context(|| format!("process {pid} is gone"))
}

/// Resident memory that is the process's own and no file's, in bytes.
pub(crate) fn own_bytes(pid: u32) -> Result<u64> {
    let value = field(&format!("/proc/{pid}/status"), "RssAnon");
    value.as_deref().and_then(kibibytes).with_context(|| format!("process {pid} is gone"))
}

/// Living children, oldest first.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: Vec<u32> = pids
        .filter(|pid| {
            stat(*pid).is_some_and(|(_, fields)| {
                let is_zombie = fields.first().is_some_and(|state| state == "Z");
                !is_zombie && fields.get(1).and_then(|value| value.parse().ok()) == Some(parent)
            })
        })
        .collect();
    children.sort_unstable();
    children
}

/// The name, and the fields after it. The name may hold anything, a closing bracket too.
fn stat(pid: u32) -> Option<(String, Vec<String>)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = text.rsplit_once(')')?;
    Some((name.to_owned(), rest.split_whitespace().map(str::to_owned).collect()))
}

/// Ends a process with SIGKILL.
pub(crate) fn kill(pid: u32) -> Result<()> {
    signal(pid, Signal::KILL)
}

pub(crate) fn signal(pid: u32, with: Signal) -> Result<()> {
    let raw = i32::try_from(pid).context("a pid")?;
    let pid = Pid::from_raw(raw).context("a pid is never 0")?;
    kill_process(pid, with).with_context(|| format!("{with:?} to process {raw}"))
}
