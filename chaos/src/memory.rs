//! A limit on what decoder hosts may take, by a control group of the kernel's, that is met: the kernel kills them.
//!
//! Owns: the group, and what takes up its memory. Must never: put anything else into it.
//!
//! Hosts that are moved into a group bring nothing that is counted there, and those of the scripted engine hardly take more. So a process
//! beside them takes all that the group may have, and the kernel is told to choose them before it; as on a machine on which something
//! else grows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;
use tokio::time::{Instant, sleep};

/// Far more than a host of the scripted engine takes while it speaks.
const LIMIT_BYTES: u64 = 64 << 20;

/// The kernel kills within milliseconds; a busy machine may take longer to get so far.
const PATIENCE: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where groups are made, and what the two versions of the interface call things.
struct Kind {
    root: &'static str,
    limit: &'static str,
    kills: &'static str,
}

static SECOND: Kind = Kind { root: "/sys/fs/cgroup", limit: "memory.max", kills: "memory.events" };
static FIRST: Kind =
    Kind { root: "/sys/fs/cgroup/memory", limit: "memory.limit_in_bytes", kills: "memory.oom_control" };

fn kind() -> Result<&'static Kind> {
    ensure!(geteuid().is_root(), "only root limits memory");
    if Path::new(FIRST.root).join(FIRST.limit).exists() {
        return Ok(&FIRST);
    }
    let handed_on = fs::read_to_string(Path::new(SECOND.root).join("cgroup.subtree_control"));
    ensure!(
        handed_on.is_ok_and(|names| names.split_whitespace().any(|name| name == "memory")),
        "no control groups limit memory here: neither {} nor {}/cgroup.subtree_control has them",
        FIRST.root,
        SECOND.root
    );
    Ok(&SECOND)
}

pub(crate) fn is_possible() -> Result<()> {
    kind().map(drop)
}

/// Limits what these processes may take, takes it all, and waits until the kernel has killed them.
pub(crate) async fn squeeze(processes: &[u32]) -> Result<()> {
    let group = Group::make(processes)?;
    let mut eater = group.eat()?;
    let deadline = Instant::now() + PATIENCE;
    let due = processes.len() as u64;
    let mut killed = 0;
    while killed < due && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
        killed = group.kills()?;
    }
    // It may have come to its end.
    let _ = eater.kill();
    eater.wait().context("waiting for what took the memory")?;
    ensure!(killed >= due, "the kernel killed {killed} of {due} hosts within {PATIENCE:?}");
    group.remove().await
}

struct Group {
    folder: PathBuf,
    kind: &'static Kind,
}

impl Group {
    fn make(processes: &[u32]) -> Result<Self> {
        let kind = kind()?;
        let folder = Path::new(kind.root).join(format!("starling-chaos-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let group = Self { folder, kind };
        group.write(kind.limit, LIMIT_BYTES)?;
        for process in processes {
            group.write("cgroup.procs", u64::from(*process))?;
            // proc_pid_oom_score_adj(5): before all others. To spare the other one instead would take a capability.
            let path = format!("/proc/{process}/oom_score_adj");
            fs::write(&path, "1000").with_context(|| format!("writing 1000 to {path}"))?;
        }
        Ok(group)
    }

    fn write(&self, file: &str, value: u64) -> Result<()> {
        let path = self.folder.join(file);
        fs::write(&path, value.to_string()).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// Begins to take twice what there is, in one piece.
    fn eat(&self) -> Result<Child> {
        let line = format!(
            "echo $$ > {}/cgroup.procs && exec dd if=/dev/zero of=/dev/null bs={} count=1",
            self.folder.display(),
            LIMIT_BYTES * 2
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        shell.spawn().context("starting what takes the memory")
    }

    fn kills(&self) -> Result<u64> {
        let path = self.folder.join(self.kind.kills);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.with_context(|| format!("{} counts no oom_kill", path.display()))
    }

    async fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // The dead leave it some time after they are dead.
        while let Err(error) = fs::remove_dir(&self.folder) {
            if Instant::now() > deadline {
                bail!("{} stays: {error}", self.folder.display());
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
