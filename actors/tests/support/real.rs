//! Real decoder hosts: processes of `starling-decoder`.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use starling_actors::{NodeHandle, ProcessLauncher};
use tokio::time::Instant;

/// The decoder host's program, which lies beside the test's own.
pub fn launcher() -> ProcessLauncher {
    let test = std::env::current_exe().expect("a test has a path");
    let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/test").to_path_buf();
    let program = folder.join("starling-decoder");
    assert!(
        program.exists(),
        "{} is missing: build it with `cargo build -p starling-engine`",
        program.display()
    );
    ProcessLauncher { program }
}

/// Process ids of this process's decoder hosts.
pub fn host_pids() -> Vec<u32> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").expect("Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| is_host_of(*pid, own)).collect()
}

fn is_host_of(pid: u32, parent: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))) else { return false };
    let Some((name, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_whitespace();
    let (state, ppid) = (fields.next(), fields.next());
    name.contains("starling-dec") && state != Some("Z") && ppid == Some(&parent.to_string())
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("not zero");
    // It may have gone by itself.
    let _ = kill_process(pid, signal);
}

pub async fn wait_for_hosts(node: &NodeHandle, hosts: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.status().await.models[0].hosts_ready < hosts {
        assert!(Instant::now() < deadline, "hosts are not ready: {:?}", node.status().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
