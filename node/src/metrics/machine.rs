//! What this process and the machine under it take, out of /proc.
//!
//! Owns: reading it. Must never: fail a scrape; what can't be read keeps its last value.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::process::Resource;

use super::counters::SecondsCounter;
use super::gauges::SecondsGauge;
use super::labels::ModeLabel;
use super::{add, whole};

/// What the first figures of a `cpu` line in /proc/stat are (proc(5)); the rest is of guests, and counted in these.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// As it is at one moment; what could not be read is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MachineFacts {
    process: Option<ProcessFacts>,
    /// In the order of [`MODES`].
    cpu_seconds: Vec<f64>,
    cpus: usize,
    /// Of the machine, all and what could be had.
    memory: Option<[u64; 2]>,
    /// Of the disk, all and what could be had.
    disk: Option<[u64; 2]>,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct ProcessFacts {
    cpu_seconds: f64,
    /// In seconds since 1970.
    started: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: u64,
    open_fds: u64,
    max_fds: Option<u64>,
}

impl MachineFacts {
    /// Reads it, with the room on the disk that `folder` is on.
    #[must_use]
    pub(super) fn read(folder: &Path) -> Self {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let stat = read("/proc/stat");
        let fields = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
        let cpu_seconds =
            fields.split_whitespace().take(MODES.len()).filter_map(|field| field.parse::<f64>().ok());
        let cpus = stat.lines().filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        });
        let memory = read("/proc/meminfo");
        let memory = kilobytes(&memory, "MemTotal").zip(kilobytes(&memory, "MemAvailable"));
        // The folder is made when the first model is fetched.
        let disk = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok()).map(|disk| {
            [disk.f_blocks.saturating_mul(disk.f_frsize), disk.f_bavail.saturating_mul(disk.f_frsize)]
        });
        Self {
            process: ProcessFacts::read(&stat, ticks),
            cpu_seconds: cpu_seconds.map(|spent| spent / ticks).collect(),
            cpus: cpus.count(),
            memory: memory.map(|(total, available)| [total, available]),
            disk,
        }
    }
}

impl ProcessFacts {
    fn read(machine: &str, ticks: f64) -> Option<Self> {
        let stat = read("/proc/self/stat");
        // The name stands in parentheses and may have any character in it; the third field follows.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let booted =
            machine.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        let status = read("/proc/self/status");
        let threads = value(&status, "Threads")?.parse().ok()?;
        // The folder is open itself while it is read.
        let open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count().saturating_sub(1));
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            started: booted + field(22)? / ticks,
            resident_bytes: kilobytes(&status, "VmRSS")?,
            virtual_bytes: kilobytes(&status, "VmSize")?,
            threads,
            open_fds: open_fds as u64,
            max_fds: rustix::process::getrlimit(Resource::Nofile).current,
        })
    }
}

/// Empty when it can't be read.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// What stands behind `key`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    value(text, key)?.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

#[derive(Default)]
pub(super) struct MachineMetrics {
    cpu: SecondsCounter,
    started: SecondsGauge,
    resident: Gauge,
    virtually: Gauge,
    threads: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    machine_cpu: Family<ModeLabel, SecondsCounter>,
    cpus: Gauge,
    memory: Gauge,
    memory_available: Gauge,
    disk: Gauge,
    disk_available: Gauge,
}

impl MachineMetrics {
    /// By the names that all of Prometheus' client libraries give them.
    pub(super) fn register_process(&self, registry: &mut Registry) {
        let help = "CPU time of this process, without its decoder hosts";
        add(registry, "process_cpu_seconds", help, &self.cpu);
        let help = "When this process was started, in seconds since 1970";
        add(registry, "process_start_time_seconds", help, &self.started);
        let help = "Resident memory of this process, without its decoder hosts";
        add(registry, "process_resident_memory_bytes", help, &self.resident);
        add(registry, "process_virtual_memory_bytes", "Virtual memory of this process", &self.virtually);
        add(registry, "process_threads", "Threads of this process", &self.threads);
        add(registry, "process_open_fds", "Open file descriptors", &self.open_fds);
        add(registry, "process_max_fds", "Most file descriptors that may be open", &self.max_fds);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "CPU time of the machine, all its CPUs together, by what it went to";
        add(registry, "machine_cpu_seconds", help, &self.machine_cpu);
        add(registry, "machine_cpus", "CPUs of the machine", &self.cpus);
        add(registry, "machine_memory_bytes", "Memory of the machine", &self.memory);
        let help = "Memory of the machine that could be had without swapping";
        add(registry, "machine_memory_available_bytes", help, &self.memory_available);
        add(registry, "machine_disk_bytes", "The disk that models are on", &self.disk);
        let help = "Room on the disk that models are on";
        add(registry, "machine_disk_available_bytes", help, &self.disk_available);
    }

    pub(super) fn set(&self, facts: &MachineFacts) {
        if let Some(process) = &facts.process {
            store(&self.cpu, process.cpu_seconds);
            self.started.set(process.started);
            self.resident.set(whole(process.resident_bytes));
            self.virtually.set(whole(process.virtual_bytes));
            self.threads.set(whole(process.threads));
            self.open_fds.set(whole(process.open_fds));
            self.max_fds.set(process.max_fds.map_or(i64::MAX, whole));
        }
        for (mode, seconds) in MODES.into_iter().zip(&facts.cpu_seconds) {
            store(&self.machine_cpu.get_or_create(&ModeLabel { mode }), *seconds);
        }
        self.cpus.set(whole(facts.cpus));
        for (both, gauges) in [
            (facts.memory, [&self.memory, &self.memory_available]),
            (facts.disk, [&self.disk, &self.disk_available]),
        ] {
            for (bytes, gauge) in both.into_iter().flatten().zip(gauges) {
                gauge.set(whole(bytes));
            }
        }
    }
}

/// The kernel counts, so that there is nothing to add. Its sums of modes are known to step back by a hair; a counter must not.
fn store(counter: &Counter<f64, AtomicU64>, seconds: f64) {
    let seconds = seconds.max(counter.get());
    counter.inner().store(seconds.to_bits(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_machine_can_be_read() {
        let facts = MachineFacts::read(Path::new("/"));
        let process = facts.process.expect("Linux");
        assert!(process.cpu_seconds >= 0.0 && process.started > 1.0e9, "{process:?}");
        assert!((1 << 20..1 << 40).contains(&process.resident_bytes), "{process:?}");
        assert!(process.virtual_bytes >= process.resident_bytes, "{process:?}");
        assert!(process.threads >= 1 && process.open_fds >= 3, "{process:?}");
        assert_eq!(facts.cpu_seconds.len(), MODES.len());
        assert!(facts.cpus >= 1);
        for [all, available] in [facts.memory, facts.disk].map(|both| both.expect("can be read")) {
            assert!(available <= all && all > 1 << 20, "{all} {available}");
        }
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        assert_eq!(MachineFacts::read(Path::new("nowhere")).disk, None, "a path to nothing");
        let below = MachineFacts::read(Path::new("/nowhere/at/all"));
        assert!(below.disk.is_some(), "it would be made on the disk of what is above it");
        let text = "MemTotal:       16384 kB\nHugePages_Total:       3\n";
        assert_eq!(kilobytes(text, "MemTotal"), Some(16 << 20));
        assert_eq!((kilobytes(text, "HugePages_Total"), kilobytes(text, "Mem")), (None, None));
        assert_eq!(value(text, "HugePages_Total"), Some("3"));
    }
}
