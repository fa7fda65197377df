//! What nodes tell each other of themselves, in place of the membership protocol, which has tests of its own.

use std::time::Duration;

use starling_actors::NodeStatus;
use starling_core::placement::{Candidate, Keeper};
use starling_protocol::NodeName;

use crate::net::{HostId, Net};

/// How often they do.
pub const TELL_EVERY: Duration = Duration::from_millis(500);

/// Who was not heard of for so long counts as gone: as soon as SWIM tells of it.
pub const FRESH: Duration = Duration::from_millis(1_300);

/// One node's figures.
#[derive(Debug, Clone)]
pub struct Record {
    slots: u32,
    busy: u32,
    idle: u32,
    class: String,
    free_bytes: u64,
    draining: bool,
}

impl Record {
    /// Those of a status.
    #[must_use]
    pub fn of(status: &NodeStatus) -> Self {
        let model = status.models.first();
        let count = |count: Option<usize>| u32::try_from(count.unwrap_or(0)).unwrap_or(u32::MAX);
        Self {
            slots: count(model.map(|model| model.slots_total)),
            busy: count(model.map(|model| model.slots_busy + model.continuing)),
            idle: count(model.map(|model| model.slots_idle)),
            class: model.and_then(|model| model.determinism.clone()).unwrap_or_default(),
            free_bytes: status.copies_free_bytes,
            draining: status.draining,
        }
    }
}

/// A node's name.
///
/// # Panics
/// Never: the name is one.
#[must_use]
pub fn name_of(node: HostId) -> NodeName {
    NodeName::parse(&format!("n{node}")).expect("a name")
}

/// The node of a name.
#[must_use]
pub fn node_of(name: &NodeName) -> Option<HostId> {
    name.as_str().strip_prefix('n')?.parse().ok()
}

/// Who decodes, or has streams that wait for a decoder, as a node has heard.
#[must_use]
pub fn candidates(net: &Net, by: HostId) -> Vec<Candidate> {
    let decodes =
        net.heard_of(by, FRESH).into_iter().filter(|(_, record)| record.slots > 0 || record.busy > 0);
    let candidate = |(node, record): (HostId, Record)| Candidate {
        node: name_of(node),
        zone: format!("z{node}"),
        class: record.class,
        slots: record.slots,
        busy: record.busy,
        idle: record.idle,
        // The simulated nodes always have hosts.
        on_demand: false,
        draining: record.draining,
    };
    decodes.map(candidate).collect()
}

/// Who keeps copies, as a node has heard.
#[must_use]
pub fn keepers(net: &Net, by: HostId) -> Vec<Keeper> {
    let keeper = |(node, record): (HostId, Record)| Keeper {
        node: name_of(node),
        zone: format!("z{node}"),
        class: record.class,
        // As the directory of a node has it.
        weight: record.free_bytes.checked_ilog2().map_or(0, |bits| 1u64 << bits >> 20),
        draining: record.draining,
    };
    net.heard_of(by, FRESH).into_iter().map(keeper).collect()
}
