//! What a cluster has been through, out of looks at it: who came and went, and what each node tells.
//!
//! Owns: the difference between one look and the next, and the order of events. Must never: ask anybody, read a clock, or grow.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use starling_protocol::control::NodeEvent;

use super::report::{ClusterReport, NodeReport};

/// Events that are kept for those who come later, or read slowly.
const KEPT: usize = 256;

/// Something that happened in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterEvent {
    /// Counts what this node has told, from 1.
    pub id: u64,
    /// The node that it happened on.
    pub node: String,
    /// For what happened to a session: the node that it lived on before, if that was another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// What a node told, and which run of it.
#[derive(Debug, Clone)]
pub(super) struct NodeTold {
    /// Its name.
    pub(super) node: String,
    /// Which run.
    pub(super) generation: u64,
    /// Its events, the oldest first.
    pub(super) events: Vec<NodeEvent>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// The number of the last event.
    last: u64,
    events: VecDeque<ClusterEvent>,
    /// Of each node: its run, and the number of its last event that was told.
    heard: BTreeMap<String, (u64, u64)>,
    /// States of nodes at the last look.
    states: BTreeMap<String, (u64, String)>,
    /// Owners of sessions at the last look.
    owners: BTreeMap<String, String>,
    looked: bool,
}

impl Story {
    /// Takes in a look at the cluster at `now_ms`, and what its nodes told.
    pub(super) fn look(&mut self, report: &ClusterReport, told: Vec<NodeTold>, now_ms: u64) {
        let mut news: Vec<ClusterEvent> = Vec::new();
        for NodeTold { node, generation, events } in told {
            let after = self.heard(&node, generation);
            for event in events.into_iter().filter(|event| event.sequence > after) {
                self.heard.insert(node.clone(), (generation, event.sequence));
                let owner = event.session.and_then(|session| self.owners.get(&session.to_string()));
                let before = owner.filter(|owner| **owner != node).cloned();
                news.push(ClusterEvent { id: 0, node: node.clone(), before, event });
            }
        }
        if self.looked {
            news.extend(report.nodes.iter().filter_map(|node| self.change(node, now_ms)));
        }
        self.looked = true;
        self.states = report.nodes.iter().map(state_of).collect();
        let owners = report.sessions.iter().map(|session| (session.session.clone(), session.owner.clone()));
        self.owners = owners.collect();
        // Of several nodes: as it was, as far as their clocks agree.
        news.sort_by_key(|event| event.event.at_ms);
        for event in news {
            self.last += 1;
            if self.events.len() >= KEPT {
                self.events.pop_front();
            }
            self.events.push_back(ClusterEvent { id: self.last, ..event });
        }
    }

    /// Events after the one with this number, the oldest first.
    pub(super) fn after(&self, id: u64) -> impl Iterator<Item = &ClusterEvent> {
        self.events.iter().filter(move |event| event.id > id)
    }

    /// The last event of this run of a node that is known; 0 for none.
    #[must_use]
    pub(super) fn heard(&self, node: &str, generation: u64) -> u64 {
        self.heard.get(node).filter(|(run, _)| *run == generation).map_or(0, |(_, sequence)| *sequence)
    }

    fn change(&self, node: &NodeReport, now_ms: u64) -> Option<ClusterEvent> {
        let kind = match (self.states.get(&node.name), node.state.as_str()) {
            (None, "alive") => "node_joined",
            (Some((generation, _)), "alive") if *generation != node.generation => "node_joined",
            (Some((_, before)), now) if before != now => match now {
                "alive" => "node_back",
                "draining" => "node_draining",
                "suspected" => "node_suspected",
                "down" => "node_down",
                "left" => "node_left",
                _ => return None,
            },
            _ => return None,
        };
        let event = NodeEvent { at_ms: now_ms, kind: kind.to_owned(), ..NodeEvent::default() };
        Some(ClusterEvent { id: 0, node: node.name.clone(), before: None, event })
    }
}

fn state_of(node: &NodeReport) -> (String, (u64, String)) {
    (node.name.clone(), (node.generation, node.state.clone()))
}

#[cfg(test)]
mod tests;
