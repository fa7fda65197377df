//! Nodes that know each other, on loopback: started, killed, stopped and started again.
//!
//! Owns: their processes and addresses, and when the cluster is whole. Must never: decide what is measured.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::log::{self, Line};
use crate::node::{LISTEN, Model, Node, Plan, get};
use crate::port::free_address;
use crate::process;

/// Starting a node, loading its model, and the others' noticing takes a few seconds; this is far beyond.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node as it is to be.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// `gateway`, `decoder`, or both with a comma between.
    pub(crate) roles: &'static str,
    /// Further lines of `[cluster]`.
    pub(crate) cluster: &'static str,
    pub(crate) model: Model,
}

/// What all of them are told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Common {
    /// Lines of `[sessions]`.
    pub(crate) sessions: &'static str,
    /// Whole tables.
    pub(crate) tables: &'static str,
    /// Whether they log what happens to sessions, in a form that can be read.
    pub(crate) logs: bool,
}

struct Member {
    part: Part,
    plan: Plan,
    node: Option<Node>,
}

impl Member {
    fn decodes(&self) -> bool {
        self.part.roles.contains("decoder")
    }
}

pub(crate) struct Cluster {
    members: Vec<Member>,
    programs: PathBuf,
    home: PathBuf,
}

impl Cluster {
    /// Starts the nodes and waits until the cluster is whole.
    pub(crate) async fn start(
        programs: PathBuf,
        home: PathBuf,
        parts: &[Part],
        common: Common,
    ) -> Result<Self> {
        let gossip: Vec<SocketAddr> = parts.iter().map(|_| free_address()).collect::<Result<_>>()?;
        let seeds: Vec<String> = gossip.iter().map(|address| format!("{:?}", address.to_string())).collect();
        let seeds = seeds.join(", ");
        let mut cluster = Self { members: Vec::new(), programs, home };
        for (part, gossip) in parts.iter().zip(gossip) {
            let roles: Vec<String> = part.roles.split(',').map(|role| format!("{role:?}")).collect();
            let level = if common.logs { "info" } else { "warn" };
            let tables = format!(
                "{}\n[log]\nformat = \"json\"\nlevel = \"{level}\"\n\n[cluster]\nnode_id = \"{}\"\nroles = [{}]\n\
                 listen = \"{gossip}\"\nseeds = [{seeds}]\n{}",
                common.tables,
                part.name,
                roles.join(", "),
                part.cluster,
            );
            let plan = Plan {
                http: free_address()?,
                vosk: free_address()?,
                models: vec![part.model.clone()],
                listen: LISTEN.to_owned(),
                sessions: common.sessions.to_owned(),
                tables,
            };
            cluster.members.push(Member { part: part.clone(), plan, node: None });
            cluster.launch(part.name)?;
        }
        cluster.whole().await?;
        Ok(cluster)
    }

    /// Starts a node that was killed.
    pub(crate) fn launch(&mut self, name: &str) -> Result<()> {
        let node = Node::launch(&self.programs, &self.home, &self.member(name)?.plan)?;
        let member = self.members.iter_mut().find(|member| member.part.name == name);
        member.context("no such node")?.node = Some(node);
        Ok(())
    }

    /// SIGKILL to a node. Its hosts end by themselves.
    pub(crate) fn kill(&mut self, name: &str) -> Result<()> {
        process::kill(self.node(name)?.pid())?;
        let member = self.members.iter_mut().find(|member| member.part.name == name);
        // Dropped, it is waited for.
        drop(member.and_then(|member| member.node.take()));
        Ok(())
    }

    pub(crate) fn signal(&self, name: &str, with: Signal) -> Result<()> {
        process::signal(self.node(name)?.pid(), with)
    }

    pub(crate) fn url(&self, name: &str) -> Result<String> {
        Ok(format!("ws://{}", self.member(name)?.plan.http))
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.member(name)?.node.as_ref().with_context(|| format!("{name} does not run"))
    }

    fn member(&self, name: &str) -> Result<&Member> {
        let found = self.members.iter().find(|member| member.part.name == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    fn running(&self) -> impl Iterator<Item = (&Member, &Node)> {
        self.members.iter().filter_map(|member| Some((member, member.node.as_ref()?)))
    }

    pub(crate) fn log(&self, name: &str) -> Result<Vec<Line>> {
        Ok(log::parse(&self.node(name)?.log()))
    }

    /// CPU time of all nodes, and of their hosts, in seconds.
    pub(crate) fn cpu(&self) -> Result<(f64, f64)> {
        self.running().try_fold((0.0, 0.0), |(nodes, hosts), (_, node)| {
            let (own, below) = node.cpu()?;
            Ok((nodes + own, hosts + below))
        })
    }

    /// Waits until every node is ready, sees every other as it is, can ask it, and has no slot in use.
    pub(crate) async fn whole(&mut self) -> Result<()> {
        let deadline = Instant::now() + WHOLE_TIMEOUT;
        loop {
            for member in &mut self.members {
                if let Some(node) = &mut member.node {
                    node.fail_if_ended()?;
                }
            }
            let missing = match self.missing() {
                Ok(None) => return Ok(()),
                Ok(Some(missing)) => missing,
                // One that listens to nobody yet.
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("the cluster was not whole in {WHOLE_TIMEOUT:?}: {missing}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What is not as it should be.
    fn missing(&self) -> Result<Option<String>> {
        let mut reports = Vec::new();
        for (member, node) in self.running() {
            let hosts = if member.decodes() { f64::from(member.part.model.hosts) } else { 0.0 };
            if get(node.http, "/readyz")?.0 != 200 {
                return Ok(Some(format!("{} is not ready", member.part.name)));
            }
            if hosts > 0.0 && node.metric("starling_hosts_ready")? < hosts {
                return Ok(Some(format!("a host of {} is not ready", member.part.name)));
            }
            let (status, body) = get(node.http, "/v1/cluster")?;
            ensure!(status == 200, "/v1/cluster of {} answered {status}", member.part.name);
            reports.push((member, node, Report::read(&body)?));
        }
        // Each node knows best which run of it this is.
        let runs: HashMap<&str, u64> = reports
            .iter()
            .filter_map(|(member, _, report)| {
                Some((member.part.name, report.nodes.get(member.part.name)?.generation))
            })
            .collect();
        for (member, node, report) in &reports {
            let me = member.part.name;
            let linked = linked(&log::parse(&node.log()));
            for (other, _, _) in &reports {
                let name = other.part.name;
                let Some(seen) = report.nodes.get(name) else {
                    return Ok(Some(format!("{me} does not know {name}")));
                };
                if seen.state != "alive" || runs.get(name) != Some(&seen.generation) {
                    return Ok(Some(format!("{me} sees {name} {} in run {}", seen.state, seen.generation)));
                }
                if other.decodes() && (seen.busy > 0 || seen.idle == 0) {
                    return Ok(Some(format!(
                        "{me} sees {} slots of {name} busy, {} idle",
                        seen.busy, seen.idle
                    )));
                }
                let id = format!("{name}#{}", seen.generation);
                if name != me && linked.as_ref().is_some_and(|linked| !linked.contains(&id)) {
                    return Ok(Some(format!("{me} has no link to {id}, but to {linked:?}")));
                }
            }
        }
        Ok(None)
    }
}

/// Peers that a node has a control link to, by its log; `None` when it does not log that.
fn linked(log: &[Line]) -> Option<Vec<String>> {
    let mut linked: Vec<String> = Vec::new();
    let mut logs = false;
    for line in log {
        logs |= line.says("listening for gossip");
        let peer = line.text("peer");
        if line.says("peer is up") {
            linked.push(peer.to_owned());
        } else if line.says("peer is lost") {
            linked.retain(|other| other != peer);
        }
    }
    logs.then_some(linked)
}

/// What `/v1/cluster` says of each node.
struct Report {
    nodes: HashMap<String, Seen>,
}

struct Seen {
    generation: u64,
    state: String,
    busy: u64,
    idle: u64,
}

impl Report {
    fn read(body: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(body).context("/v1/cluster is no JSON")?;
        let nodes = report.get("nodes").and_then(Value::as_array).context("/v1/cluster has no nodes")?;
        let seen = nodes.iter().filter_map(|node| {
            let slots = |which: &str| -> u64 {
                let models = node.get("models").and_then(Value::as_array).into_iter().flatten();
                models.filter_map(|model| model.get("slots")?.get(which)?.as_u64()).sum()
            };
            let seen = Seen {
                generation: node.get("generation")?.as_u64()?,
                state: node.get("state")?.as_str()?.to_owned(),
                busy: slots("busy"),
                idle: slots("idle"),
            };
            Some((node.get("name")?.as_str()?.to_owned(), seen))
        });
        Ok(Self { nodes: seen.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_those_that_were_not_lost_again() {
        let line = |message: &str, peer: &str| {
            format!(
                r#"{{"timestamp":"2026-11-24T03:27:31.1Z","message":"{message}","peer":"{peer}"}}{}"#,
                '\n'
            )
        };
        let mut log = line("listening for gossip", "");
        assert_eq!(linked(&log::parse(&log)), Some(vec![]));
        log += &(line("peer is up", "a#1") + &line("peer is up", "b#1") + &line("peer is lost", "a#1"));
        log += &line("peer is up", "a#2");
        assert_eq!(linked(&log::parse(&log)), Some(vec!["b#1".to_owned(), "a#2".to_owned()]));
        assert_eq!(linked(&log::parse("")), None);
    }

    #[test]
    fn a_report_is_read_by_name() {
        let body = r#"{"node":"a","nodes":[
            {"name":"a","generation":7,"state":"alive","models":[{"slots":{"total":4,"busy":1,"idle":3}}]},
            {"name":"b","generation":8,"state":"down","models":[]}]}"#;
        let report = Report::read(body).unwrap();
        let seen = |name: &str| {
            let seen = &report.nodes[name];
            (seen.generation, &*seen.state, seen.busy, seen.idle)
        };
        assert_eq!((seen("a"), seen("b")), ((7, "alive", 1, 3), (8, "down", 0, 0)));
        assert!(Report::read("{}").is_err());
    }
}
