//! A node run as a child, and what can be seen of it from outside.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest time for a node to load its model: a slow disk and a busy machine allowed for.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// How long decoders are watched to see which of them works.
const WATCH: Duration = Duration::from_millis(600);

pub(super) struct Node {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Node {
    /// Starts a node and waits until it is ready.
    #[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
    pub(super) fn start(program: &Path, home: &Path, model: &str) -> Result<Self> {
        let address = free_address()?;
        let log = home.join("demo.log");
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let process = Command::new(program)
            .arg("--home")
            .arg(home)
            .args(["serve", "--http", &address.to_string(), "--vosk", "off", "--model", model])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut node = Self { process, address, log };
        let deadline = Instant::now() + READY_WITHIN;
        while node.get("/readyz").is_none_or(|reply| !reply.starts_with("HTTP/1.1 200")) {
            if let Some(status) = node.process.try_wait()? {
                bail!("the node ended ({status}); {} says why", node.log.display());
            }
            if Instant::now() > deadline {
                bail!("the node is not ready after {READY_WITHIN:?}; {} says why", node.log.display());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(node)
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The decoder process that has used most CPU while it was watched: the one that somebody speaks to.
    pub(super) fn busiest_decoder(&self) -> Result<u32> {
        let before = self.decoders();
        sleep(WATCH);
        let used = |(pid, ticks): &(u32, u64)| {
            let earlier = before.iter().find(|(other, _)| other == pid).map_or(0, |(_, ticks)| *ticks);
            ticks - earlier
        };
        let busiest = self.decoders().into_iter().max_by_key(used);
        busiest.map(|(pid, _)| pid).context("no decoder process is to be found")
    }

    /// Process ids of this node's decoders and the CPU ticks that each has used.
    fn decoders(&self) -> Vec<(u32, u64)> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Some((pid, self.decoder_ticks(pid)?))).collect()
    }

    fn decoder_ticks(&self, pid: u32) -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the name is in brackets and may hold spaces; parent, user and system ticks are fields 4, 14 and 15.
        let (name, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let parent: u32 = fields.get(1)?.parse().ok()?;
        if parent != self.process.id() || !name.contains("starling-dec") {
            return None;
        }
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    }

    /// What the node's log says of decoders that were lost and replaced.
    pub(super) fn failovers(&self) -> Result<String> {
        let log = fs::read_to_string(&self.log)?;
        let told = |line: &&str| line.contains("decoder host is gone") || line.contains("caught up");
        let lines: Vec<&str> = log.lines().filter(told).collect();
        Ok(format!("The node's log of it:\n  {}", lines.join("\n  ")))
    }

    /// Asks the node to end, as a service manager would, and waits for it.
    pub(super) fn stop(mut self) -> Result<()> {
        crate::command::quiet(Command::new("kill").args(["-TERM", &self.process.id().to_string()]))?;
        let status = self.process.wait()?;
        if !status.success() {
            bail!("the node did not end well ({status}); {} says why", self.log.display());
        }
        Ok(())
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        Some(reply)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // After `stop` it has ended; a demonstration that failed must not leave it behind.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(listener.local_addr()?)
}
