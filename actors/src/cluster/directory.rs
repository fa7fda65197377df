//! Which peers decode what, and where they are reached.
//!
//! Owns: the reading of what the others gossip, for whoever places a decoder. Must never: choose among them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use starling_core::placement::{Candidate, Keeper};
use starling_protocol::gossip::{LoadRecord, ModelLoad};
use starling_protocol::{NodeId, NodeName};
use tokio::sync::watch;

use super::load::{determinism_class, files};
use crate::{ClusterView, Member, NodeStatus};

/// What this node knows of its peers. Knows nobody until it has been given the cluster's view.
#[derive(Debug, Default)]
pub struct Directory {
    view: OnceLock<watch::Receiver<Arc<ClusterView>>>,
    /// This node's own determinism classes, by model: as they are gossiped, with what its hosts call them.
    classes: RwLock<Classes>,
    /// Where nodes take clients, or took them: pages that came from there are still open when a node is gone.
    pages: RwLock<BTreeSet<SocketAddr>>,
}

/// Addresses of nodes that are remembered: far more than a cluster has within a node's run.
const MOST_PAGES: usize = 4_096;

type Classes = BTreeMap<String, BTreeMap<u64, String>>;

impl Directory {
    /// Begins to follow the cluster's view.
    pub fn follow(&self, view: watch::Receiver<Arc<ClusterView>>) {
        // A node has one membership, so this comes once.
        let _ = self.view.set(view);
    }

    /// Takes note of what this node's own hosts decode alike with, and of where the others serve pages.
    pub fn learn(&self, status: &NodeStatus) {
        let mut known = Classes::new();
        for model in &status.models {
            if let Some(class) = model.determinism.clone() {
                let gossiped = determinism_class(&class, &model.digest);
                known.entry(model.name.clone()).or_default().insert(gossiped, class);
            }
        }
        // Whoever panicked with it had read it.
        *self.classes.write().unwrap_or_else(PoisonError::into_inner) = known;
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        if pages.len() < MOST_PAGES {
            pages.extend(self.http_addresses().into_iter().map(|(_, address)| address));
        }
    }

    /// Whether a node of the cluster takes clients there, or did.
    #[must_use]
    pub fn has_served(&self, address: SocketAddr) -> bool {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).contains(&address)
    }

    /// Where a peer's data plane is.
    #[must_use]
    pub fn address_of(&self, node: &NodeName) -> Option<SocketAddr> {
        let view = self.view.get()?.borrow().clone();
        view.active().find(|member| member.id.name == *node)?.load.as_ref()?.addresses.data
    }

    /// Peers that decode a model with these files, load it for whoever asks, or have streams of it that wait for a decoder, as last
    /// heard of. Who does not tell of files is one: it is asked with the whole digest, and says itself.
    #[must_use]
    pub fn candidates(&self, model: &str, digest: &str) -> Vec<Candidate> {
        let Some(view) = self.view.get() else { return Vec::new() };
        let view = view.borrow().clone();
        let peers = view.active().filter(|member| member.id != view.me);
        peers.filter_map(|member| self.candidate(member, model, files(digest))).collect()
    }

    /// Peers that keep copies of others' sessions, and the class that each decodes a model in.
    #[must_use]
    pub fn keepers(&self, model: &str) -> Vec<Keeper> {
        let Some(view) = self.view.get() else { return Vec::new() };
        let view = view.borrow().clone();
        let peers = view.active().filter(|member| member.id != view.me);
        peers.filter_map(|member| self.keeper(member, model)).collect()
    }

    fn keeper(&self, member: &Member, model: &str) -> Option<Keeper> {
        let record: &LoadRecord = member.load.as_deref()?;
        record.addresses.data?;
        // Powers of two: a weight that changes with every message would move copies about.
        let weight = record.replica_bytes_free.checked_ilog2().map_or(0, |bits| 1u64 << bits >> 20);
        let load = record.models.iter().find(|load| load.name == model);
        Some(Keeper {
            node: member.id.name.clone(),
            zone: record.zone.clone(),
            class: load.map(|load| self.class(load)).unwrap_or_default(),
            weight,
            draining: record.draining || record.leaving,
        })
    }

    /// The latest run of a peer.
    #[must_use]
    pub fn run_of(&self, node: &NodeName) -> Option<NodeId> {
        let view = self.view.get()?.borrow().clone();
        view.get(node).map(|member| member.id.clone())
    }

    /// The run of a peer that is there.
    #[must_use]
    pub fn active_run_of(&self, node: &NodeName) -> Option<NodeId> {
        let view = self.view.get()?.borrow().clone();
        view.active().find(|member| member.id.name == *node).map(|member| member.id.clone())
    }

    /// Where clients reach a peer.
    #[must_use]
    pub fn http_of(&self, node: &NodeName) -> Option<SocketAddr> {
        let view = self.view.get()?.borrow().clone();
        view.get(node)?.load.as_ref()?.addresses.http
    }

    /// Nodes of the cluster and where clients reach them, as far as is known.
    #[must_use]
    pub fn http_addresses(&self) -> Vec<(NodeName, SocketAddr)> {
        let Some(view) = self.view.get() else { return Vec::new() };
        let view = view.borrow().clone();
        let reached = view
            .active()
            .filter_map(|member| Some((member.id.name.clone(), member.load.as_ref()?.addresses.http?)));
        reached.collect()
    }

    fn candidate(&self, member: &Member, model: &str, wanted: Option<u32>) -> Option<Candidate> {
        let record: &LoadRecord = member.load.as_deref()?;
        let fits = |load: &&ModelLoad| {
            load.name == model && (wanted.is_none() || load.files.is_none() || load.files == wanted)
        };
        let load = record.models.iter().find(fits)?;
        let on_demand = load.on_demand && load.slots_total == 0;
        // One whose hosts are gone still has the streams that they decoded.
        let counts = load.slots_total > 0 || load.slots_busy > 0 || on_demand;
        let decodes = record.roles.decoder && counts && record.addresses.data.is_some();
        decodes.then(|| Candidate {
            node: member.id.name.clone(),
            zone: record.zone.clone(),
            class: self.class(load),
            slots: u32::from(load.slots_total),
            busy: u32::from(load.slots_busy),
            idle: u32::from(load.slots_idle),
            on_demand,
            draining: record.draining || record.leaving,
        })
    }

    /// A class in the words of this node's hosts if it is theirs; empty where nothing can be said.
    fn class(&self, load: &ModelLoad) -> String {
        let classes = self.classes.read().unwrap_or_else(PoisonError::into_inner);
        match (classes.get(&load.name), load.determinism_class) {
            (Some(own), Some(class)) => {
                own.get(&class).cloned().unwrap_or_else(|| format!("class {class:016x}"))
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests;
