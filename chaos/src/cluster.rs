//! The nodes of a scenario, ours or theirs: what is done to them, and what they say.
//!
//! Owns: which of them run, and when the cluster is whole. Must never: choose whom a fault befalls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::alarms;
use crate::forge::{self, Ear};
use crate::http::{self, Access, Door, Session};
use crate::losses::Losses;
use crate::memory;
use crate::network::{Network, Place};
use crate::node::{Common, Node};
use crate::noticed::Noticed;
use crate::port::free_address;
use crate::process;
use crate::run::Bench;
use crate::scenario::{Deed, Ground, Scenario};
use crate::theirs::{BACK_TIMEOUT, TheirNode, Theirs};

/// Starting nodes, loading models, and their noticing each other takes seconds; this is far beyond.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(90);

/// A drain ends a node within this; its sessions of the SDK leave in a second or two.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

/// Beyond the deadline, for what is left to close.
const DRAIN_MARGIN: Duration = Duration::from_secs(15);

/// Enough for a node that was just started again to be known to all. Shorter than the minute that a session outlives its client by:
/// what is left after this was forgotten.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) enum Cluster {
    Ours(Ours),
    Theirs(Theirs),
}

/// What was started for a scenario.
pub(crate) struct Ours {
    nodes: Vec<Node>,
    /// Theirs alone; otherwise they are on loopback.
    network: Option<Network>,
    /// Where they believe another node to be, if somebody listens there.
    ear: Option<Ear>,
    /// What nodes are upgraded to.
    programs: PathBuf,
}

impl Ours {
    fn start(bench: &Bench, scenario: &Scenario) -> Result<Self> {
        let names = || scenario.nodes.iter().map(|plan| plan.name.clone()).collect();
        let network = (scenario.network == Ground::Namespaces).then(|| Network::lay(names())).transpose()?;
        let place = |index: usize| -> Result<Place> {
            match &network {
                Some(network) => Ok(network.place(index)),
                None => Ok(Place::on_loopback(free_address()?, free_address()?)),
            }
        };
        let places: Vec<Place> = (0..scenario.nodes.len()).map(place).collect::<Result<_>>()?;
        let ear = scenario.does(Deed::Forge).then(Ear::open).transpose()?;
        let mut seeds: Vec<SocketAddr> = places.iter().map(|place| place.gossip).collect();
        if let Some(ear) = &ear {
            seeds.push(ear.address()?);
        }
        let common = Common {
            model: bench.model(),
            seeds: &seeds,
            settings: &scenario.settings,
            programs: &bench.programs,
            previous: bench.previous.as_deref(),
            home: &bench.home,
            disk_mib: scenario.disk_mib,
        };
        let start = |(plan, place)| Node::start(plan, place, &common);
        let nodes = scenario.nodes.iter().zip(places).map(start).collect::<Result<_>>()?;
        Ok(Self { nodes, network, ear, programs: bench.programs.clone() })
    }
}

impl Cluster {
    pub(crate) fn start(bench: &Bench, scenario: &Scenario) -> Result<Self> {
        match &bench.theirs {
            Some(theirs) => Ok(Self::Theirs(theirs.clone())),
            None => Ours::start(bench, scenario).map(Self::Ours),
        }
    }

    /// The nodes that were started here.
    pub(crate) fn own(&self) -> &[Node] {
        match self {
            Self::Ours(ours) => &ours.nodes,
            Self::Theirs(_) => &[],
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Ours(ours) => ours.nodes.iter().map(|node| node.plan.name.clone()).collect(),
            Self::Theirs(theirs) => theirs.nodes.iter().map(|node| node.name.clone()).collect(),
        }
    }

    /// `HOST:PORT` of the nodes that take callers.
    pub(crate) fn gateways(&self) -> Vec<String> {
        match self {
            Self::Ours(ours) => {
                let gateways = ours.nodes.iter().filter(|node| node.plan.takes_callers());
                gateways.map(|node| node.place.http.to_string()).collect()
            }
            // A WebSocket's address is told by the same word for TLS.
            Self::Theirs(theirs) => {
                let address = |node: &TheirNode| match node.http.strip_prefix("http") {
                    Some(rest) if rest.contains("://") => format!("ws{rest}"),
                    _ => node.http.clone(),
                };
                theirs.nodes.iter().map(address).collect()
            }
        }
    }

    /// How nodes let somebody in.
    pub(crate) fn access(&self) -> Access {
        match self {
            Self::Ours(_) => Access::default(),
            Self::Theirs(theirs) => theirs.access.clone(),
        }
    }

    /// Names of the nodes that can be asked and where, as far as it is known here.
    fn running(&self) -> Vec<(String, Door)> {
        match self {
            Self::Ours(ours) => {
                let running = ours.nodes.iter().filter(|node| node.runs());
                running.map(|node| (node.plan.name.clone(), node.place.door())).collect()
            }
            Self::Theirs(theirs) => {
                theirs.nodes.iter().map(|node| (node.name.clone(), node.door())).collect()
            }
        }
    }

    fn node(&mut self, name: &str) -> Result<Option<&mut Node>> {
        match self {
            Self::Ours(ours) => {
                let node = ours.nodes.iter_mut().find(|node| node.plan.name == name);
                Ok(Some(node.with_context(|| format!("there is no node {name}"))?))
            }
            Self::Theirs(_) => Ok(None),
        }
    }

    /// Waits until these nodes can be harmed: of somebody's own, when all that are down are no more than may be.
    pub(crate) async fn afford(&self, names: &[&str]) -> Result<()> {
        match self {
            Self::Theirs(theirs) => theirs.afford(names).await,
            Self::Ours(_) => Ok(()),
        }
    }

    async fn command(&self, which: &str, name: &str) -> Result<()> {
        match self {
            Self::Theirs(theirs) => theirs.run(which, name).await,
            Self::Ours(_) => bail!("{name} has no commands"),
        }
    }

    pub(crate) async fn kill(&mut self, name: &str) -> Result<()> {
        match self.node(name)? {
            Some(node) => node.kill(),
            None => self.command("kill", name).await,
        }
    }

    /// SIGKILL to all of these at once, so that none lives on while another is reaped. They are still to be [killed](Self::kill).
    pub(crate) fn strike(&mut self, names: &[&str]) -> Result<()> {
        let Self::Ours(ours) = self else { return Ok(()) };
        let struck = ours.nodes.iter().filter(|node| names.contains(&&*node.plan.name));
        struck.filter_map(Node::pid).try_for_each(|pid| process::signal(pid, Signal::KILL))
    }

    pub(crate) async fn launch(&mut self, name: &str) -> Result<()> {
        match self.node(name)? {
            Some(node) => node.launch(),
            None => self.command("start", name).await,
        }
    }

    pub(crate) async fn pause(&mut self, name: &str, pause: bool) -> Result<()> {
        match self.node(name)? {
            Some(node) => node.pause(pause),
            None => self.command(if pause { "pause" } else { "resume" }, name).await,
        }
    }

    /// The network that was laid for the nodes.
    pub(crate) fn network(&mut self) -> Result<&mut Network> {
        let Self::Ours(Ours { network, .. }) = self else { bail!("the network is not ours") };
        network.as_mut().context("the nodes are on loopback")
    }

    /// What packets were made late by, if any were.
    pub(crate) fn delays_by(&self) -> Option<&'static str> {
        let Self::Ours(Ours { network: Some(network), .. }) = self else { return None };
        network.delays_by()
    }

    /// From now on a node is started from the programs that are tried.
    pub(crate) fn upgrade(&mut self, name: &str) -> Result<()> {
        let Self::Ours(ours) = self else { bail!("{name} has programs of its own") };
        let node = ours.nodes.iter_mut().find(|node| node.plan.name == name);
        node.with_context(|| format!("there is no node {name}"))?.upgrade(&ours.programs);
        Ok(())
    }

    /// Fills the disk of a node, or takes away what fills it.
    pub(crate) fn fill_disk(&mut self, name: &str, fill: bool) -> Result<()> {
        let node = self.node(name)?.context("the disk is not ours")?;
        let disk = node.disk.as_ref().with_context(|| format!("{name} has no disk of its own"))?;
        if fill { disk.fill().map(drop) } else { disk.empty() }
    }

    /// Has the kernel kill the hosts of a node for want of memory.
    pub(crate) async fn limit_memory(&mut self, name: &str) -> Result<()> {
        let hosts = self.hosts(name)?.context("the hosts are not ours")?;
        ensure!(!hosts.is_empty(), "{name} has no decoder hosts");
        memory::squeeze(&hosts).await
    }

    /// Shows all nodes packets and tokens that are not what they seem. What came of it, in words.
    pub(crate) async fn forge(&mut self) -> Result<String> {
        let caller = self.sessions().await?.into_iter().find(|session| session.connected);
        let caller = caller.context("no caller is there whose session could be stolen")?.session;
        let Self::Ours(Ours { nodes, ear: Some(ear), .. }) = self else { bail!("nobody listens") };
        let mark = |node: &Node| forge::Mark {
            name: node.plan.name.clone(),
            http: node.place.asked.to_string(),
            gossip: node.place.gossip,
        };
        let marks: Vec<forge::Mark> = nodes.iter().map(mark).collect();
        let (packets, packets_refused) = forge::send_packets(ear, &marks).await?;
        let (tokens, tokens_refused) = forge::show_tokens(&marks, &caller).await?;
        Ok(format!(
            "{packets_refused} of {packets} packets and {tokens_refused} of {tokens} tokens were counted as refused"
        ))
    }

    /// The decoder hosts that a node of ours has now.
    fn hosts(&mut self, name: &str) -> Result<Option<Vec<u32>>> {
        let Some(node) = self.node(name)? else { return Ok(None) };
        let hosts = process::hosts(node.pid().with_context(|| format!("{name} does not run"))?);
        Ok(Some(hosts))
    }

    /// Does this to the hosts that a node has now.
    pub(crate) async fn signal_hosts(&mut self, name: &str, with: Signal) -> Result<()> {
        let Some(hosts) = self.hosts(name)? else {
            let which = match with {
                Signal::STOP => "pause_hosts",
                Signal::CONT => "resume_hosts",
                _ => "kill_hosts",
            };
            return self.command(which, name).await;
        };
        ensure!(!hosts.is_empty() || with == Signal::CONT, "{name} has no decoder hosts");
        for host in hosts {
            // One that was paused may have been killed by its node meanwhile.
            let sent = process::signal(host, with);
            if with != Signal::CONT {
                sent?;
            }
        }
        Ok(())
    }

    /// Tells a node to go, waits for its end, and starts it again.
    pub(crate) async fn drain(&mut self, name: &str) -> Result<()> {
        let before = self.generation(name).await;
        let mut patience = DRAIN_DEADLINE + DRAIN_MARGIN;
        if let Self::Theirs(theirs) = self
            && theirs.command("drain").is_some()
        {
            theirs.run("drain", name).await?;
            patience = BACK_TIMEOUT;
        } else {
            let running = self.running();
            let other = running.iter().find(|(other, _)| other != name).or(running.first());
            let (_, address) = other.context("no node runs")?;
            let path = format!("/v1/cluster/drain?node={name}&deadline_ms={}", DRAIN_DEADLINE.as_millis());
            let (status, body) = self.access().ask(address, "POST", &path).await?;
            ensure!(status == 202, "{name} was not told to drain: {status} {body}");
        }
        let deadline = Instant::now() + patience;
        while !self.has_ended(name, before).await? {
            ensure!(
                Instant::now() < deadline,
                "{name} was told to drain and did not end within {patience:?}"
            );
            sleep(LOOK_EVERY).await;
        }
        self.undrain(name).await
    }

    /// Has a node that was drained come back.
    pub(crate) async fn undrain(&mut self, name: &str) -> Result<()> {
        match self {
            Self::Theirs(theirs) if theirs.command("undrain").is_some() => theirs.run("undrain", name).await,
            _ => self.launch(name).await,
        }
    }

    /// Of somebody's own a node may be back before it was seen to be away: then it is another run of it.
    async fn has_ended(&mut self, name: &str, before: Option<u64>) -> Result<bool> {
        if let Some(node) = self.node(name)? {
            return node.ended();
        }
        let now = self.generation(name).await;
        Ok(now.is_none() || now != before)
    }

    /// Which run of a node answers, if one does.
    async fn generation(&self, name: &str) -> Option<u64> {
        let (_, address) = self.running().into_iter().find(|(other, _)| other == name)?;
        let seen = self.access().cluster(&address).await.ok()?.nodes;
        seen.into_iter().find(|seen| seen.name == name).map(|seen| seen.generation)
    }

    /// All sessions, by the first node that can be asked.
    pub(crate) async fn sessions(&self) -> Result<Vec<Session>> {
        let mut last = None;
        for (_, address) in self.running() {
            match self.access().cluster(&address).await {
                Ok(cluster) => return Ok(cluster.sessions),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no node runs")))
    }

    /// Waits until every node is ready and sees all others as they are, with slots free where there are any.
    pub(crate) async fn whole(&mut self) -> Result<()> {
        self.wait(WHOLE_TIMEOUT, None).await
    }

    /// The same, and until nothing is left of any session; on a cluster of somebody's own, which others call too, of `sessions`.
    pub(crate) async fn clean(&mut self, sessions: &[String]) -> Result<()> {
        let patience = if matches!(self, Self::Theirs(_)) { BACK_TIMEOUT } else { CLEAN_TIMEOUT };
        self.wait(patience, Some(sessions)).await
    }

    async fn wait(&mut self, patience: Duration, clean: Option<&[String]>) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            if let Self::Ours(ours) = self {
                for node in &mut ours.nodes {
                    let ran = node.pid().is_some();
                    ensure!(!(node.ended()? && ran), "{} has ended", node.plan.name);
                }
            }
            let missing = match self.missing(clean).await {
                Ok(None) => return Ok(()),
                Ok(Some(missing)) => missing,
                // One that does not listen yet.
                Err(error) => format!("{error:#}"),
            };
            ensure!(Instant::now() < deadline, "after {patience:?}: {missing}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// What is not as it should be.
    async fn missing(&self, clean: Option<&[String]>) -> Result<Option<String>> {
        let (running, access) = (self.running(), self.access());
        let ours = matches!(self, Self::Ours(_));
        let mut reports = Vec::new();
        for (name, address) in &running {
            let (status, body) = access.ask(address, "GET", "/readyz").await?;
            if status != 200 {
                return Ok(Some(format!("{name} is not ready: {body}")));
            }
            reports.push((name, access.cluster(address).await?));
        }
        // Each knows best which run of it this is.
        let own = |(name, report): &(&String, http::Cluster)| {
            let seen = report.nodes.iter().find(|seen| seen.name == **name)?;
            Some(((*name).clone(), seen.generation))
        };
        let runs: HashMap<String, u64> = reports.iter().filter_map(own).collect();
        for (me, report) in &reports {
            for (name, _) in &running {
                let Some(seen) = report.nodes.iter().find(|seen| seen.name == *name) else {
                    return Ok(Some(format!("{me} does not know {name}")));
                };
                if seen.state != "alive" || runs.get(name) != Some(&seen.generation) {
                    return Ok(Some(format!("{me} sees {name} {}", seen.state)));
                }
                let sum = |which: fn(&http::Slots) -> u64| {
                    seen.models.iter().map(|model| which(&model.slots)).sum::<u64>()
                };
                let (busy, idle) = (sum(|slots| slots.busy), sum(|slots| slots.idle));
                if self.decodes(name) && idle == 0 {
                    return Ok(Some(format!("{me} sees no idle slot of {name}")));
                }
                if clean.is_some() && ours && busy > 0 {
                    return Ok(Some(format!("{me} sees {busy} slots of {name} in use")));
                }
            }
            let Some(gone) = clean else { continue };
            let left =
                report.sessions.iter().filter(|session| ours || gone.contains(&session.session)).count();
            if left > 0 {
                return Ok(Some(format!("{me} knows of {left} sessions")));
            }
        }
        Ok(None)
    }

    fn decodes(&self, name: &str) -> bool {
        match self {
            Self::Ours(ours) => ours.nodes.iter().any(|node| node.plan.name == name && node.plan.decodes()),
            // What it has is not known here; that it is ready is.
            Self::Theirs(_) => false,
        }
    }

    /// The decoders that nodes say they have lost so far; nothing of nodes whose logs are elsewhere.
    pub(crate) fn losses(&self) -> Option<Losses> {
        let Self::Ours(Ours { nodes, .. }) = self else { return None };
        let mut losses = Losses::default();
        nodes.iter().for_each(|node| losses.count(&node.log()));
        Some(losses)
    }

    /// What nodes say they have noticed so far; nothing of nodes whose logs are elsewhere.
    pub(crate) fn noticed(&self) -> Option<Noticed> {
        let Self::Ours(Ours { nodes, .. }) = self else { return None };
        let mut noticed = Noticed::default();
        nodes.iter().for_each(|node| noticed.count(&node.log()));
        Some(noticed)
    }

    /// Packets that the network lost on purpose, if it is ours.
    pub(crate) fn packets_dropped(&self) -> Option<u64> {
        let Self::Ours(Ours { network: Some(network), .. }) = self else { return None };
        Some(network.dropped())
    }

    /// What the nodes that were started here logged and had no reason to.
    pub(crate) fn alarms(&self, allowed: &[String]) -> Vec<String> {
        self.own().iter().flat_map(|node| alarms::of(&node.plan.name, &node.log(), allowed)).collect()
    }

    /// Writes all logs to `NAME-NODE.log` in a folder.
    pub(crate) fn keep_logs(&self, folder: &Path, name: &str) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for node in self.own() {
            let path = folder.join(format!("{name}-{}.log", node.plan.name));
            std::fs::write(&path, node.log()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// The ends of all logs, for messages.
    pub(crate) fn log_tails(&self) -> String {
        let Self::Ours(Ours { nodes, .. }) = self else { return String::new() };
        let tails = nodes.iter().map(|node| format!("--- {}\n{}\n", node.plan.name, node.log_tail()));
        tails.collect()
    }
}
