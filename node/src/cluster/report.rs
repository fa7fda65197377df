//! The cluster as operators are told of it: `GET /v1/cluster`, `starling status`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use starling_actors::{ClusterView, Member, MemberState, NodeStatus};
use starling_protocol::gossip::{LoadRecord, ModelLoad, Roles};
use starling_protocol::{NodeId, NodeName};

use super::operate::Told;

/// All that one node knows of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Who says it.
    pub node: String,
    /// Everybody, in the order of their names.
    pub nodes: Vec<NodeReport>,
    /// What they serve together; nodes that are gone don't count.
    pub models: Vec<ModelReport>,
    /// Sessions, of the nodes that answered.
    #[serde(default)]
    pub sessions: Vec<SessionEntry>,
}

/// One session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Its id.
    pub session: String,
    /// The node that it lives on.
    pub owner: String,
    /// Which way its client came in.
    pub dialect: String,
    /// Its model.
    pub model: String,
    /// Nodes with a copy.
    pub copies: Vec<String>,
    /// Whether what its client was told is in two copies.
    pub durable: bool,
    /// Whether its client is there.
    pub connected: bool,
    /// The node that decodes it; `None` while there is none.
    pub decoder: Option<String>,
    /// The node that has its standby; `None` while there is none.
    #[serde(default)]
    pub standby: Option<String>,
    /// Which decoder the first of them is.
    pub attempt: u32,
    /// Which connection speaks for it.
    pub epoch: u64,
    /// Audio received and not decoded, in milliseconds.
    pub lag_ms: u64,
    /// Whose it is; empty where nobody has a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Audio received, in milliseconds.
    #[serde(default)]
    pub audio_ms: u64,
    /// How long it has lived on its owner, in milliseconds.
    #[serde(default)]
    pub age_ms: u64,
    /// Its trace, if it has one that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Which run of it: when it was started, in milliseconds since 1970.
    pub generation: u64,
    /// `alive`, `draining`, `suspected`, `down` or `left`.
    pub state: String,
    /// Where it stands.
    pub zone: String,
    /// What it does.
    pub roles: Vec<String>,
    /// The program's version; empty while not known.
    pub version: String,
    /// Where it gossips; `None` for a node on its own.
    pub gossip: Option<SocketAddr>,
    /// Where it takes clients, as other nodes reach it.
    pub http: Option<SocketAddr>,
    /// What it serves.
    pub models: Vec<ModelReport>,
}

/// A model, on one node or on all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Its name.
    pub name: String,
    /// Nodes that serve it.
    pub nodes: usize,
    /// Streams that can be decoded at once.
    pub slots: SlotsReport,
    /// CPU seconds for each second of audio, of several nodes the mean by their slots; `None` before any audio.
    pub real_time_factor: Option<f64>,
    /// Decoder hosts; of those nodes that told of them.
    #[serde(default)]
    pub hosts: HostsReport,
}

/// Decoder hosts of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsReport {
    /// Those that are ready.
    pub ready: u64,
    /// Those that there are to be.
    pub total: u64,
}

/// Slots of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsReport {
    /// All.
    pub total: u64,
    /// In use, those in the reserve counted.
    pub busy: u64,
    /// Free for new sessions.
    pub idle: u64,
}

impl ClusterReport {
    /// What `view` has, what nodes told, and of the node itself what `status` says.
    #[must_use]
    pub fn new(view: &ClusterView, told: Told, status: &NodeStatus) -> Self {
        let me = view.me.name.to_string();
        let mut report = Self {
            nodes: view.members.iter().map(|member| node(member, &view.me)).collect(),
            models: models(view.active().filter_map(|member| member.load.as_deref())),
            sessions: told.sessions,
            node: me.clone(),
        };
        let own = status.models.iter().map(|model| {
            let hosts = HostsReport { ready: model.hosts_ready as u64, total: model.hosts_total as u64 };
            (me.clone(), model.name.clone(), hosts)
        });
        for (node, model, hosts) in told.hosts.into_iter().chain(own) {
            report.add_hosts(&node, &model, hosts);
        }
        report
    }

    /// A node has two pools of a model while one takes the other's place.
    fn add_hosts(&mut self, node: &str, model: &str, hosts: HostsReport) {
        let of_node = self.nodes.iter_mut().filter(|one| one.name == node).flat_map(|one| &mut one.models);
        for report in of_node.chain(&mut self.models).filter(|report| report.name == model) {
            report.hosts.ready += hosts.ready;
            report.hosts.total += hosts.total;
        }
    }
}

fn node(member: &Member, me: &NodeId) -> NodeReport {
    let load = member.load.as_deref();
    let alone = member.id == *me && member.address.port() == 0;
    NodeReport {
        name: member.id.name.to_string(),
        generation: member.id.generation.0,
        state: state(member).to_owned(),
        zone: load.map(|load| load.zone.clone()).unwrap_or_default(),
        roles: load.map(|load| roles(load.roles)).unwrap_or_default(),
        version: load.map(|load| load.version.clone()).unwrap_or_default(),
        gossip: (!alone).then_some(member.address),
        http: load.and_then(|load| load.addresses.http),
        models: models(load),
    }
}

fn state(member: &Member) -> &'static str {
    match member.state {
        MemberState::Alive if member.is_draining() => "draining",
        state => state.label(),
    }
}

fn roles(roles: Roles) -> Vec<String> {
    let all = [("gateway", roles.gateway), ("decoder", roles.decoder)];
    all.into_iter().filter(|(_, has)| *has).map(|(role, _)| role.to_owned()).collect()
}

/// What nodes serve, by the models' names.
fn models<'a>(loads: impl IntoIterator<Item = &'a LoadRecord>) -> Vec<ModelReport> {
    let mut models: BTreeMap<&str, Vec<(&NodeName, &ModelLoad)>> = BTreeMap::new();
    for load in loads {
        for model in &load.models {
            models.entry(&model.name).or_default().push((&load.name, model));
        }
    }
    models.values().filter_map(|loads| together(loads)).collect()
}

/// Of one model, on any number of nodes. A node has two loads of it while it replaces one pool by another.
fn together(loads: &[(&NodeName, &ModelLoad)]) -> Option<ModelReport> {
    let (_, first) = loads.first()?;
    let nodes: BTreeSet<&str> = loads.iter().map(|(node, _)| node.as_str()).collect();
    let sum = |of: fn(&ModelLoad) -> u16| loads.iter().map(|(_, load)| u64::from(of(load))).sum();
    let measured = loads.iter().filter_map(|(_, load)| {
        let factor = f64::from(load.real_time_factor_milli?) / 1_000.0;
        Some((factor, f64::from(load.slots_total.max(1))))
    });
    let (weighted, weight) =
        measured.fold((0.0, 0.0), |(sum, all), (factor, slots)| (sum + factor * slots, all + slots));
    Some(ModelReport {
        name: first.name.clone(),
        nodes: nodes.len(),
        slots: SlotsReport {
            // What is leaving has those that are still taken.
            total: sum(|load| if load.leaving { load.slots_busy } else { load.slots_total }),
            busy: sum(|load| load.slots_busy),
            idle: sum(|load| load.slots_idle),
        },
        real_time_factor: (weight > 0.0).then(|| weighted / weight),
        hosts: HostsReport::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_add_up_and_the_real_time_factor_is_a_mean_by_slots() {
        let load = |total, busy, factor| ModelLoad {
            name: "m".to_owned(),
            slots_total: total,
            slots_busy: busy,
            slots_idle: total - busy,
            real_time_factor_milli: factor,
            determinism_class: None,
            files: None,
            leaving: false,
            on_demand: false,
        };
        let nodes = ["a", "b", "c"].map(|name| NodeName::parse(name).expect("a name"));
        let loads = [load(6, 1, Some(100)), load(2, 2, Some(500)), load(4, 0, None)];
        let mut of_nodes: Vec<_> = nodes.iter().zip(&loads).collect();
        let all = together(&of_nodes).expect("some");
        assert_eq!(all.slots, SlotsReport { total: 12, busy: 3, idle: 9 });
        assert_eq!((all.nodes, all.real_time_factor), (3, Some(0.2)));
        assert_eq!(together(&of_nodes[2..]).and_then(|one| one.real_time_factor), None);

        let leaving = ModelLoad { slots_idle: 0, leaving: true, ..load(6, 1, None) };
        of_nodes.push((&nodes[0], &leaving));
        let all = together(&of_nodes).expect("some");
        assert_eq!((all.nodes, all.slots), (3, SlotsReport { total: 13, busy: 4, idle: 9 }));
    }
}
