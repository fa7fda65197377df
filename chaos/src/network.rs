//! A network of a scenario's own: each node in a namespace, the callers in another, and a switch between them.
//!
//! Owns: the cables, what is cut, lost and late on them, and that it is mended. Must never: touch the machine's own network; all
//! of it is made in namespaces of this process (`apart.rs`) and goes with them.
//!
//! ```text
//!   node-a            switch              node-b
//!   eth0 ── p0 ──┐              ┌── p1 ── eth0      10.88.0.N  where nodes and callers speak
//!                └─── floor ────┘                   10.88.1.N  where the runner reads figures and shows tokens, which is never cut
//!                       │
//!                       pc ── eth0      callers
//! ```
//!
//! What is dropped is dropped by nftables on the switch, so that whoever sent it is not told.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::rules::Rule;
use self::slow::Slow;
use crate::http::Door;
use crate::scenario::Way;

mod line;
mod rules;
mod slow;

const SWITCH: &str = "switch";
const FLOOR: &str = "floor";

/// Of its two networks, where the runner and the callers are.
const CALLERS: u8 = 254;

const HTTP_PORT: u16 = 8080;
const GOSSIP_PORT: u16 = 7400;

/// Where a node is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What it listens to for callers.
    pub(crate) listen: SocketAddr,
    /// Where callers reach it.
    pub(crate) http: SocketAddr,
    /// Where the runner does.
    pub(crate) asked: SocketAddr,
    pub(crate) gossip: SocketAddr,
    /// Its network namespace, if it has one.
    pub(crate) namespace: Option<String>,
}

impl Place {
    pub(crate) const fn on_loopback(http: SocketAddr, gossip: SocketAddr) -> Self {
        Self { listen: http, http, asked: http, gossip, namespace: None }
    }

    /// Where an operator's requests are taken.
    pub(crate) fn door(&self) -> Door {
        match &self.namespace {
            Some(namespace) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.asked.port()));
                Door::Within { namespace: namespace.clone(), address }
            }
            None => Door::Address(self.asked.to_string()),
        }
    }
}

/// What a node is cut from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Far {
    Node(String),
    Callers,
    Nodes,
    All,
}

impl Far {
    /// As a scenario says it.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Node(name) => name,
            Self::Callers => "callers",
            Self::Nodes => "nodes",
            Self::All => "all",
        }
    }
}

pub(crate) struct Network {
    nodes: Vec<String>,
    rules: Vec<(String, Vec<Rule>)>,
    slow: BTreeMap<String, Slow>,
    delays_by: Option<&'static str>,
    /// Packets that were dropped under rules that are no more.
    dropped: u64,
}

impl Network {
    /// Lays it, for nodes of these names.
    pub(crate) fn lay(nodes: Vec<String>) -> Result<Self> {
        ensure!(nodes.len() < usize::from(CALLERS), "{} nodes are too many for one network", nodes.len());
        let lines =
            ["netns add switch", "-n switch link add floor type bridge", "-n switch link set floor up"];
        lines.iter().try_for_each(|line| ip(line))?;
        for (index, node) in nodes.iter().enumerate() {
            let space = namespace(node);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link add p{index} netns {SWITCH} type veth peer name eth0 netns {space}"))?;
            plug(&format!("p{index}"), FLOOR)?;
            address(&format!("-n {space} "), index as u8 + 1)?;
        }
        ip(&format!("link add pc netns {SWITCH} type veth peer name eth0"))?;
        plug("pc", FLOOR)?;
        address("", CALLERS)?;
        Ok(Self { nodes, rules: Vec::new(), slow: BTreeMap::new(), delays_by: None, dropped: 0 })
    }

    /// Where the `index`th node is.
    pub(crate) fn place(&self, index: usize) -> Place {
        let host = index as u8 + 1;
        Place {
            // All of its addresses: what is told to others is that of its gossip.
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, HTTP_PORT)),
            http: SocketAddr::from((speaks_at(host), HTTP_PORT)),
            asked: SocketAddr::from((Ipv4Addr::new(10, 88, 1, host), HTTP_PORT)),
            gossip: SocketAddr::from((speaks_at(host), GOSSIP_PORT)),
            namespace: Some(namespace(&self.nodes[index])),
        }
    }

    /// What packets were made late by, if any were.
    pub(crate) const fn delays_by(&self) -> Option<&'static str> {
        self.delays_by
    }

    /// How many packets were dropped so far, as the switch counts them.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped + if self.rules.is_empty() { 0 } else { counted() }
    }

    /// Drops what goes between a node and others. `label` is to be given to [`mend`](Self::mend).
    pub(crate) fn cut(&mut self, label: &str, node: &str, far: &Far, way: Way) -> Result<()> {
        let own = speaks_at(self.host(node)?);
        let mut rules = Vec::new();
        for other in self.addresses(node, far)? {
            if way != Way::From {
                rules.push(Rule::Drop { from: other, to: own });
            }
            if way != Way::To {
                rules.push(Rule::Drop { from: own, to: other });
            }
        }
        self.change(|all| all.push((label.to_owned(), rules)))
    }

    /// Loses some of what goes to and from a node, and lets the rest come late.
    pub(crate) fn disturb(&mut self, label: &str, node: &str, loss: u8, jitter: Duration) -> Result<()> {
        let host = self.host(node)?;
        if !jitter.is_zero() {
            let slow = Slow::lay(usize::from(host) - 1, &namespace(node), jitter)?;
            self.delays_by = Some(slow.name());
            self.slow.insert(label.to_owned(), slow);
        }
        if loss > 0 {
            let rules = vec![Rule::Lose { of: speaks_at(host), percent: loss }];
            self.change(|all| all.push((label.to_owned(), rules)))?;
        }
        Ok(())
    }

    /// Undoes what was done under this label.
    pub(crate) fn mend(&mut self, label: &str) -> Result<()> {
        self.change(|all| all.retain(|(other, _)| other != label))?;
        self.slow.remove(label).map_or(Ok(()), Slow::remove)
    }

    fn host(&self, node: &str) -> Result<u8> {
        let index = self.nodes.iter().position(|known| known == node);
        Ok(index.with_context(|| format!("there is no node {node}"))? as u8 + 1)
    }

    fn addresses(&self, node: &str, far: &Far) -> Result<Vec<Ipv4Addr>> {
        let callers = speaks_at(CALLERS);
        let others = || {
            let others = self.nodes.iter().filter(|other| *other != node);
            others.map(|other| self.host(other).map(speaks_at)).collect::<Result<Vec<_>>>()
        };
        Ok(match far {
            Far::Node(other) => vec![speaks_at(self.host(other)?)],
            Far::Callers => vec![callers],
            Far::Nodes => others()?,
            Far::All => others()?.into_iter().chain([callers]).collect(),
        })
    }

    /// Changes the rules. Their counters begin anew with that.
    fn change(&mut self, change: impl FnOnce(&mut Vec<(String, Vec<Rule>)>)) -> Result<()> {
        self.dropped = self.dropped();
        change(&mut self.rules);
        self.apply()
    }

    fn apply(&self) -> Result<()> {
        let text = rules::ruleset(self.rules.iter().flat_map(|(_, rules)| rules));
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", SWITCH, "nft", "-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = nft.spawn().context("starting ip, of iproute2")?;
        child.stdin.take().context("no way into nft")?.write_all(text.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "nft did not take\n{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// What the switch counts of packets that it drops.
fn counted() -> u64 {
    let mut nft = Command::new("ip");
    nft.args(["netns", "exec", SWITCH, "nft", "list", "table", "bridge", "chaos"]).stdin(Stdio::null());
    nft.output().map_or(0, |output| rules::packets(&String::from_utf8_lossy(&output.stdout)))
}

const fn speaks_at(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, host)
}

/// Beside a namespace of the runner's that has the same name.
fn namespace(node: &str) -> String {
    format!("node-{node}")
}

fn address(space: &str, host: u8) -> Result<()> {
    ip(&format!("{space}addr add {}/24 dev eth0", speaks_at(host)))?;
    ip(&format!("{space}addr add 10.88.1.{host}/24 dev eth0"))?;
    ip(&format!("{space}link set lo up"))?;
    ip(&format!("{space}link set eth0 up"))
}

/// Puts a device of the switch's into one of its bridges.
fn plug(device: &str, bridge: &str) -> Result<()> {
    ip(&format!("-n {SWITCH} link set {device} master {bridge} up"))
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

/// Runs it, and fails with what it said.
fn run(program: &str, arguments: &str) -> Result<()> {
    let output = Command::new(program).args(arguments.split(' ')).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {program}, of iproute2"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {arguments}` failed: {}", said.trim());
    Ok(())
}
