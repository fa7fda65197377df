//! What control groups leave to this process: version 2, version 1, and both at once.
//!
//! Owns: where the figures stand and what they mean. Must never: open a file itself; whoever calls says how.
//!
//! A limit counts for all groups below it, so that every group from the process's own up to the root is looked at. In a container the path
//! that the kernel names is often that of the machine and not there; the root of what is mounted is the container's own group then.

/// What there is; `None` where there is no limit, or none that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// CPU time for each second of time, in milliseconds.
    pub cpu_millis: Option<u64>,
    /// The lowest limit of memory, in bytes.
    pub memory: Option<u64>,
    /// What is left below the limit that is nearest, in bytes. Files that the kernel could drop count as left.
    pub memory_available: Option<u64>,
}

/// Version 1 says "no limit" by the largest number of pages; no machine has an exbibyte.
const NO_LIMIT: u64 = 1 << 60;

/// Where groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

impl Limits {
    /// Reads them, through `read`: a file's text by its path, if it is there.
    pub fn read(read: impl Fn(&str) -> Option<String>) -> Self {
        let own = read("/proc/self/cgroup").unwrap_or_default();
        let mut limits = Self::default();
        for line in own.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            if controllers.is_empty() {
                groups(ROOT, path).iter().for_each(|group| limits.add_v2(&read, group));
            }
            for controller in controllers.split(',') {
                let mounted = format!("{ROOT}/{controller}");
                let all = || groups(&mounted, path);
                match controller {
                    "cpu" => all().iter().for_each(|group| limits.add_cpu_v1(&read, group)),
                    "memory" => all().iter().for_each(|group| limits.add_memory_v1(&read, group)),
                    _ => {}
                }
            }
        }
        limits
    }

    fn add_v2(&mut self, read: &impl Fn(&str) -> Option<String>, group: &str) {
        let file = |name: &str| read(&format!("{group}/{name}"));
        if let Some(cpu) = file("cpu.max") {
            let mut parts = cpu.split_whitespace().map(str::parse::<u64>);
            // The first is "max" where there is none.
            if let (Some(Ok(quota)), Some(Ok(period))) = (parts.next(), parts.next()) {
                self.add_cpu(quota, period);
            }
        }
        let limit = file("memory.max").and_then(|text| number(&text));
        let used = file("memory.current").and_then(|text| number(&text));
        self.add_memory(limit, used, file("memory.stat").and_then(|stat| field(&stat, "inactive_file")));
    }

    fn add_cpu_v1(&mut self, read: &impl Fn(&str) -> Option<String>, group: &str) {
        let file = |name: &str| read(&format!("{group}/{name}")).and_then(|text| number(&text));
        // A quota of -1 is none.
        if let (Some(quota), Some(period)) = (file("cpu.cfs_quota_us"), file("cpu.cfs_period_us")) {
            self.add_cpu(quota, period);
        }
    }

    fn add_memory_v1(&mut self, read: &impl Fn(&str) -> Option<String>, group: &str) {
        let file = |name: &str| read(&format!("{group}/{name}"));
        let figure = |name: &str| file(name).and_then(|text| number(&text));
        let limit = figure("memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT);
        let droppable = file("memory.stat").and_then(|stat| field(&stat, "total_inactive_file"));
        self.add_memory(limit, figure("memory.usage_in_bytes"), droppable);
    }

    fn add_cpu(&mut self, quota_us: u64, period_us: u64) {
        let millis = quota_us.saturating_mul(1_000).checked_div(period_us);
        self.cpu_millis = least(self.cpu_millis, millis);
    }

    fn add_memory(&mut self, limit: Option<u64>, used: Option<u64>, droppable: Option<u64>) {
        self.memory = least(self.memory, limit);
        let held = used.map(|used| used.saturating_sub(droppable.unwrap_or_default()));
        let left = limit.zip(held).map(|(limit, held)| limit.saturating_sub(held));
        self.memory_available = least(self.memory_available, left);
    }
}

/// The folders of a group and of all above it.
fn groups(mounted: &str, path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let folder = |depth: usize| {
        let inner = parts[..depth].iter().map(|part| format!("/{part}"));
        std::iter::once(mounted.to_owned()).chain(inner).collect::<String>()
    };
    (0..=parts.len()).rev().map(folder).collect()
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| number(line.strip_prefix(name)?.strip_prefix(' ')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: &[(&str, &str)]) -> Limits {
        let found = |path: &str| files.iter().find(|(name, _)| *name == path);
        Limits::read(|path| found(path).map(|(_, text)| format!("{text}\n")))
    }

    const OWN: &str = "/proc/self/cgroup";

    #[test]
    fn without_groups_or_limits_there_are_none() {
        assert_eq!(limits(&[]), Limits::default());
        let two =
            [(OWN, "0::/"), ("/sys/fs/cgroup/cpu.max", "max 100000"), ("/sys/fs/cgroup/memory.max", "max")];
        assert_eq!(limits(&two), Limits::default());
        let one = [
            (OWN, "4:memory:/a\n1:cpu:/\nno line of its kind\n0::/"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712"),
            ("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "5000"),
        ];
        assert_eq!(limits(&one), Limits::default());
    }

    #[test]
    fn version_2_with_a_limit_above_the_own_group() {
        let files = [
            (OWN, "0::/pods/one"),
            ("/sys/fs/cgroup/pods/one/cpu.max", "250000 100000"),
            ("/sys/fs/cgroup/pods/one/memory.max", "1000"),
            ("/sys/fs/cgroup/pods/one/memory.current", "700"),
            ("/sys/fs/cgroup/pods/one/memory.stat", "anon 400\ninactive_file 200\nactive_file 9"),
            ("/sys/fs/cgroup/pods/cpu.max", "150000 100000"),
            ("/sys/fs/cgroup/pods/memory.max", "3000"),
            ("/sys/fs/cgroup/pods/memory.current", "2900"),
        ];
        let expected = Limits { cpu_millis: Some(1_500), memory: Some(1_000), memory_available: Some(100) };
        assert_eq!(limits(&files), expected);
    }

    #[test]
    fn version_1_in_a_container_where_the_path_is_the_machines() {
        let files = [
            (OWN, "9:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "300000"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1500"),
            ("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 600"),
        ];
        let expected = Limits { cpu_millis: Some(3_000), memory: Some(2_000), memory_available: Some(1_100) };
        assert_eq!(limits(&files), expected);
    }

    #[test]
    fn both_versions_at_once_and_what_is_no_number() {
        let files = [
            (OWN, "4:memory:/a\n0::/a"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "500"),
            ("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "?"),
            ("/sys/fs/cgroup/a/cpu.max", "1 0"),
            ("/sys/fs/cgroup/a/memory.max", "800"),
            ("/sys/fs/cgroup/a/memory.current", "900"),
        ];
        let expected = Limits { cpu_millis: None, memory: Some(500), memory_available: Some(0) };
        assert_eq!(limits(&files), expected);
    }
}
