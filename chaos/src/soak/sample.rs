//! What nodes and decoder hosts take: by the system, and by the nodes' own gauges.
//!
//! Owns: the samples of each process's life. Must never: hold what it measures open, or wait for a node that stands still.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::http;
use crate::process;

/// What is measured of a process, by name. Not all are known at all times.
pub(crate) type Values = BTreeMap<&'static str, f64>;

/// Gauges of the nodes, under the names that they have here.
const GAUGES: [(&str, &str); 4] = [
    ("starling_sessions", "sessions"),
    ("starling_copies", "copies"),
    ("starling_copies_bytes", "copies_kib"),
    ("starling_tasks", "tasks"),
];

/// A node's process, as it was last started.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) http: String,
    pub(crate) paused: bool,
}

/// The nodes, as whoever breaks them last left them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(Arc<Mutex<Vec<Running>>>);

impl Roster {
    pub(crate) fn set(&self, running: Vec<Running>) {
        if let Ok(mut roster) = self.0.lock() {
            *roster = running;
        }
    }

    pub(crate) fn get(&self) -> Vec<Running> {
        self.0.lock().map(|roster| roster.clone()).unwrap_or_default()
    }
}

/// All samples of one process.
#[derive(Debug, Serialize)]
pub(crate) struct Life {
    /// `a` for a node, `a/host` for its hosts.
    pub(crate) of: String,
    pub(crate) pid: u32,
    /// Seconds since the load began, and what was measured.
    pub(crate) samples: Vec<(f64, Values)>,
}

#[derive(Debug, Default)]
pub(crate) struct Lives(pub(crate) Vec<Life>);

impl Lives {
    fn add(&mut self, of: &str, pid: u32, at_s: f64, values: Values) {
        let known = self.0.iter_mut().rev().find(|life| life.pid == pid && life.of == of);
        let sample = (at_s, values);
        match known {
            Some(life) => life.samples.push(sample),
            None => self.0.push(Life { of: of.to_owned(), pid, samples: vec![sample] }),
        }
    }

    /// Measures all that run.
    pub(crate) async fn take(&mut self, roster: &Roster, at_s: f64) {
        for node in roster.get() {
            let Some(mut values) = of_process(node.pid) else { continue };
            let hosts = process::hosts(node.pid);
            values.insert("hosts", hosts.len() as f64);
            values.insert("zombies", zombies(node.pid) as f64);
            for host in hosts {
                if let Some(values) = of_process(host) {
                    self.add(&format!("{}/host", node.name), host, at_s, values);
                }
            }
            if !node.paused {
                values.extend(gauges(&node.http).await);
            }
            self.add(&node.name, node.pid, at_s, values);
        }
    }
}

/// What one node takes now; nothing where it can't be told.
pub(crate) async fn of_node(node: &Running) -> Values {
    let mut values = of_process(node.pid).unwrap_or_default();
    values.insert("hosts", process::hosts(node.pid).len() as f64);
    values.insert("zombies", zombies(node.pid) as f64);
    values.extend(gauges(&node.http).await);
    values
}

fn of_process(pid: u32) -> Option<Values> {
    let folder = Path::new("/proc").join(pid.to_string());
    let mut values = Values::new();
    let rollup = fs::read_to_string(folder.join("smaps_rollup")).ok()?;
    for (field, name) in [("Rss:", "rss_mib"), ("Pss:", "pss_mib"), ("Anonymous:", "own_mib")] {
        values.insert(name, kib(&rollup, field)? / 1024.0);
    }
    values.insert("fds", fs::read_dir(folder.join("fd")).ok()?.count() as f64);
    values.insert("threads", fs::read_dir(folder.join("task")).ok()?.count() as f64);
    Some(values)
}

/// A line such as `Rss:    1234 kB`.
fn kib(text: &str, field: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn gauges(address: &str) -> Values {
    let mut values = Values::new();
    let Ok((200, text)) = http::ask(address, "GET", "/metrics").await else { return values };
    for (metric, name) in GAUGES {
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        if let Some(value) = line.and_then(|value| value.trim().parse::<f64>().ok()) {
            values.insert(name, if name == "copies_kib" { value / 1024.0 } else { value });
        }
    }
    values
}

/// Ended children that their parent has not asked for.
fn zombies(parent: u32) -> usize {
    let count = |state: &str, ppid: &str| state == "Z" && ppid == parent.to_string();
    processes().filter(|(_, state, ppid)| count(state, ppid)).count()
}

/// Processes of this program that belong to none of `parents`.
pub(crate) fn orphans(program: &Path, parents: &[u32]) -> Vec<u32> {
    let ours = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    let kept = |ppid: &str| parents.iter().any(|parent| parent.to_string() == ppid);
    processes()
        .filter(|(pid, state, ppid)| state != "Z" && !kept(ppid) && ours(*pid))
        .map(|(pid, ..)| pid)
        .collect()
}

/// Number, state and parent of each, by proc(5).
fn processes() -> impl Iterator<Item = (u32, String, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        Some((pid, fields.next()?.to_owned(), fields.next()?.to_owned()))
    })
}
