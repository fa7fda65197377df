//! Nodes run as children, and what can be seen of them from outside.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Longest time for a node to load its model: a slow disk and a busy machine allowed for.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// How long decoders are watched to see which of them works.
const WATCH: Duration = Duration::from_millis(600);

/// The nodes: the first takes callers, the others decode.
pub(super) struct Cluster {
    front: Node,
    back: Vec<Node>,
}

impl Cluster {
    /// Starts three nodes and waits until each is ready.
    pub(super) fn start(program: &Path, home: &Path, model: &str) -> Result<Self> {
        let gossip = free_gossip()?;
        let start = |name: &str, role: &str, seeds: &str, listen: &str| {
            Node::start(
                program,
                home,
                name,
                &[("--model", model), ("--cluster-listen", listen), ("--seeds", seeds)],
                role,
            )
        };
        let mut front = start("front", "gateway", "", &gossip.to_string())?;
        let mut back = Vec::new();
        for name in ["one", "two"] {
            back.push(start(name, "decoder", &gossip.to_string(), "127.0.0.1:0")?);
        }
        for node in back.iter_mut().chain([&mut front]) {
            node.wait_until_ready()?;
        }
        Ok(Self { front, back })
    }

    /// The node that takes callers.
    pub(super) const fn front(&self) -> &Node {
        &self.front
    }

    /// The decoder process that has used most CPU while it was watched, which is the one that somebody speaks to, and its
    /// node's name.
    pub(super) fn busiest_decoder(&self) -> Result<(String, u32)> {
        let now = || -> Vec<(&Node, u32, u64)> {
            let of = |node| Node::decoders(node).into_iter().map(move |(pid, ticks)| (node, pid, ticks));
            self.back.iter().flat_map(of).collect()
        };
        let before = now();
        sleep(WATCH);
        let used = |(_, pid, ticks): &(&Node, u32, u64)| {
            let earlier = before.iter().find(|(_, other, _)| other == pid).map_or(0, |(_, _, ticks)| *ticks);
            ticks - earlier
        };
        let busiest = now().into_iter().max_by_key(used);
        busiest.map(|(node, pid, _)| (node.name.clone(), pid)).context("no decoder process is to be found")
    }

    /// Kills a node that decodes; returns which process that was. Its decoders end by themselves.
    pub(super) fn kill(&mut self, name: &str) -> Result<u32> {
        let index = self.back.iter().position(|node| node.name == name);
        let mut node = self.back.remove(index.with_context(|| format!("there is no node {name}"))?);
        node.process.kill()?;
        node.process.wait()?;
        Ok(node.process.id())
    }

    /// Asks the nodes to end, as a service manager would, and waits for them.
    pub(super) fn stop(self) -> Result<()> {
        self.front.stop()?;
        self.back.into_iter().try_for_each(Node::stop)
    }
}

pub(super) struct Node {
    name: String,
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Node {
    fn start(program: &Path, home: &Path, name: &str, flags: &[(&str, &str)], role: &str) -> Result<Self> {
        let address = free_address()?;
        let log = home.join(format!("demo-{name}.log"));
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let process = Command::new(program)
            .arg("--home")
            .arg(home)
            .args(["serve", "--http", &address.to_string(), "--vosk", "off", "--node-id", name])
            .args(flags.iter().flat_map(|(flag, value)| [flag, value]))
            .env("STARLING_CLUSTER__ROLES", role)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), process, address, log })
    }

    #[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while self.get("/readyz").is_none_or(|reply| !reply.starts_with("HTTP/1.1 200")) {
            if let Some(status) = self.process.try_wait()? {
                bail!("the node ended ({status}); {} says why", self.log.display());
            }
            if Instant::now() > deadline {
                bail!("the node is not ready after {READY_WITHIN:?}; {} says why", self.log.display());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}", self.address)
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

    /// What the node's log says of decoders and nodes that were lost, and of what came in their place.
    pub(super) fn failovers(&self) -> Result<String> {
        let log = fs::read_to_string(&self.log)?;
        let told = |line: &&str| {
            ["goes on at a peer", "is down", "caught up"].iter().any(|word| line.contains(word))
        };
        let lines: Vec<&str> = log.lines().filter(told).collect();
        Ok(format!("The log of the callers' node of it:\n  {}", lines.join("\n  ")))
    }

    /// Asks the node to end, as a service manager would, and waits for it.
    fn stop(mut self) -> Result<()> {
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

fn free_gossip() -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on loopback")?;
    Ok(socket.local_addr()?)
}
