//! Nodes as processes: the other side of `control_peer.rs`.
#![allow(unreachable_pub)] // Its tests are its only users.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

pub const SECRET: &str = "a secret for control planes";

/// Longer than anything takes on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Process {
    pub id: String,
    pub address: SocketAddr,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub async fn start(name: &str, generation: u64) -> Self {
        Self::start_at(name, generation, "127.0.0.1:0", &[]).await
    }

    /// A node at `address`, started by `prefix` (`ip netns exec ..`).
    pub async fn start_at(name: &str, generation: u64, address: &str, prefix: &[&str]) -> Self {
        let program = env!("CARGO_BIN_EXE_control-peer");
        let generation_text = generation.to_string();
        let words: Vec<&str> =
            prefix.iter().copied().chain([program, name, &generation_text, address, SECRET]).collect();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start a node");
        let input = child.stdin.take().expect("stdin");
        let mut output = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let first = timeout(PATIENCE, output.next_line()).await.expect("in time").expect("reads");
        let first = first.expect("a line");
        let address = first.strip_prefix("listening ").expect("listening").parse().expect("address");
        Self { id: format!("{name}#{generation}"), address, child, input, output }
    }

    /// Tells the node which other nodes there are.
    pub async fn knows(&mut self, others: &[&Self]) {
        let words: Vec<String> = others.iter().map(|node| format!("{}={}", node.id, node.address)).collect();
        self.input.write_all(format!("{}\n", words.join(" ")).as_bytes()).await.expect("write");
    }

    /// The next thing that it says.
    pub async fn says(&mut self) -> String {
        let line = timeout(PATIENCE, self.output.next_line()).await.expect("in time").expect("reads");
        line.expect("the node lives")
    }

    /// The next thing that it says but for suspicions, which a busy machine may cause.
    pub async fn says_surely(&mut self) -> String {
        loop {
            let said = self.says().await;
            if !said.starts_with("suspected ") && !said.starts_with("cleared ") {
                return said;
            }
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().expect("it lives").try_into().expect("a process id");
        kill_process(Pid::from_raw(pid).expect("a process id"), signal).expect("kill");
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("kill");
    }
}

/// Two nodes that are up for each other. The first dials.
pub async fn pair(first: &str, second: &str) -> (Process, Process) {
    assert!(first < second);
    let (mut a, mut b) = (Process::start(first, 1).await, Process::start(second, 1).await);
    meet(&mut a, &mut b).await;
    (a, b)
}

pub async fn meet(a: &mut Process, b: &mut Process) {
    a.knows(&[b]).await;
    b.knows(&[a]).await;
    assert_eq!(a.says_surely().await, format!("up {}", b.id));
    assert_eq!(b.says_surely().await, format!("up {}", a.id));
}

/// `who` says that `peer` is first suspected and then lost for its silence. How long the loss took.
pub async fn falls_silent(who: &mut Process, peer: &str, since: Instant) -> Duration {
    let mut suspected = false;
    loop {
        let said = who.says().await;
        if said == format!("lost {peer} Silent") {
            assert!(suspected, "lost, but not suspected before");
            return since.elapsed();
        }
        suspected = said == format!("suspected {peer}");
        assert!(suspected || said == format!("cleared {peer}"), "{said}");
    }
}
