//! Nodes run as children, and what can be seen of them from outside.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::log::{self, Told};
use super::port::free_address;
use super::role_of;

/// Longest time for a node to load its model: a slow disk and a busy machine allowed for.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// How long decoders are watched to see which of them works.
const WATCH: Duration = Duration::from_millis(600);

/// How long a session may be without a decoder or a copy before something is killed again.
const SESSION_WITHIN: Duration = Duration::from_secs(10);

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It takes callers, and decodes nothing.
    Gateway,
    /// It takes callers and decodes.
    Both,
}

/// The one session that there is.
pub(super) struct Session {
    /// The node it lives on.
    pub(super) owner: String,
    /// The node that decodes it.
    pub(super) decoder: String,
}

/// The nodes, and where the logs of those that were killed are.
pub(super) struct Cluster {
    nodes: Vec<Node>,
    logs: Vec<(String, PathBuf)>,
}

impl Cluster {
    /// Starts the nodes and waits until each is ready and knows the others.
    pub(super) fn start(program: &Path, home: &Path, model: &str, count: usize) -> Result<Self> {
        let gossip = free_address()?.to_string();
        let mut nodes = Vec::new();
        for index in 0..count {
            let name = format!("node-{}", index + 1);
            let listen = if index == 0 { gossip.as_str() } else { "127.0.0.1:0" };
            let flags = [("--model", model), ("--cluster-listen", listen), ("--seeds", gossip.as_str())];
            nodes.push(Node::start(program, home, &name, &flags, role_of(index))?);
        }
        for node in &mut nodes {
            node.wait_until("ready", |node| {
                node.get("/readyz").is_some_and(|reply| reply.starts_with("HTTP/1.1 200"))
            })?;
        }
        let decoders = (0..count).filter(|index| role_of(*index) == Role::Both).count();
        for node in &mut nodes {
            node.wait_until("one of the cluster", |node| node.knows_decoders() == Some(decoders))?;
        }
        let logs = nodes.iter().map(|node| (node.name.clone(), node.log.clone())).collect();
        Ok(Self { nodes, logs })
    }

    /// Where callers reach the nodes.
    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("ws://{}", node.address)).collect()
    }

    /// The session, once it is decoded and, with two nodes left, has a copy.
    #[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
    pub(super) fn session(&self) -> Result<Session> {
        let deadline = Instant::now() + SESSION_WITHIN;
        loop {
            if let Some(session) = self.nodes.iter().find_map(|node| node.session(self.nodes.len() > 1)) {
                return Ok(session);
            }
            if Instant::now() > deadline {
                bail!("no session is decoded and safe after {SESSION_WITHIN:?}");
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// The process of a node that has used most CPU while it was watched, which is the one that somebody speaks to.
    pub(super) fn decoder_process(&self, name: &str) -> Result<u32> {
        let node = self.nodes.iter().find(|node| node.name == name);
        let node = node.with_context(|| format!("there is no node {name}"))?;
        let before = node.decoders();
        sleep(WATCH);
        let used = |(pid, ticks): &(u32, u64)| {
            let earlier = before.iter().find(|(other, _)| other == pid).map_or(0, |(_, ticks)| *ticks);
            ticks - earlier
        };
        let busiest = node.decoders().into_iter().max_by_key(used);
        busiest.map(|(pid, _)| pid).context("no decoder process is to be found")
    }

    /// Kills a node; returns which process that was. Its decoders end by themselves.
    pub(super) fn kill(&mut self, name: &str) -> Result<u32> {
        let index = self.nodes.iter().position(|node| node.name == name);
        let mut node = self.nodes.remove(index.with_context(|| format!("there is no node {name}"))?);
        node.process.kill()?;
        node.process.wait()?;
        Ok(node.process.id())
    }

    /// What all nodes logged.
    pub(super) fn told(&self) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        for (name, path) in &self.logs {
            told.extend(log::read(name, path)?);
        }
        told.sort_by_key(|told| told.when);
        Ok(told)
    }

    /// Leaves the nodes that live running.
    pub(super) fn keep(self) {
        for node in self.nodes {
            eprintln!("{} goes on at http://{}, process {}", node.name, node.address, node.process.id());
            // Its end would end the node.
            std::mem::forget(node);
        }
    }

    /// Asks the nodes to end, as a service manager would, and waits for them.
    pub(super) fn stop(self) -> Result<()> {
        self.nodes.into_iter().try_for_each(Node::stop)
    }
}

pub(super) struct Node {
    name: String,
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Node {
    fn start(program: &Path, home: &Path, name: &str, flags: &[(&str, &str)], role: Role) -> Result<Self> {
        let address = free_address()?;
        let log = home.join(format!("demo-{name}.log"));
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let process = Command::new(program)
            .arg("--home")
            .arg(home)
            .args(["serve", "--http", &address.to_string(), "--vosk", "off", "--node-id", name])
            .args(["--log-format", "json"])
            .args(flags.iter().flat_map(|(flag, value)| [flag, value]))
            .env("STARLING_CLUSTER__ROLES", if role == Role::Gateway { "gateway" } else { "gateway,decoder" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.to_owned(), process, address, log })
    }

    #[expect(clippy::disallowed_methods, reason = "a tool run by hand has no other clock")]
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !is_so(self) {
            if let Some(status) = self.process.try_wait()? {
                bail!("the node ended ({status}); {} says why", self.log.display());
            }
            if Instant::now() > deadline {
                bail!("the node is not {what} after {READY_WITHIN:?}; {} says why", self.log.display());
            }
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn cluster(&self) -> Option<Value> {
        let reply = self.get("/v1/cluster")?;
        serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()
    }

    /// How many nodes with free slots it knows.
    fn knows_decoders(&self) -> Option<usize> {
        let cluster = self.cluster()?;
        let nodes = cluster["nodes"].as_array()?.iter();
        let idle = |node: &&Value| node["models"][0]["slots"]["idle"].as_u64() > Some(0);
        Some(nodes.filter(idle).count())
    }

    /// The session that it or another node has, if that is decoded, and has a copy if it has to.
    fn session(&self, with_copy: bool) -> Option<Session> {
        let cluster = self.cluster()?;
        let session = cluster["sessions"].as_array()?.iter().find(|session| session["connected"] == true)?;
        let text = |key: &str| session[key].as_str().map(str::to_owned);
        let safe = !with_copy || session["durable"] == true;
        safe.then_some(Session { owner: text("owner")?, decoder: text("decoder")? })
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
