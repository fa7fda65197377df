//! How many new sessions a cluster can take and still survive the loss of any one node.
//!
//! Owns: the rule. Must never: look at anything but slots; whose turn it is, and on which host, is the pool's business.
//!
//! A node decodes twice as many streams as it admits: half of its room is a reserve for those that lost their decoder
//! elsewhere. When a node is lost, all streams there are have to fit on the others. Nodes of a like size always leave that
//! much room; a small node beside a large one can't take over all that the large one could hold, so that less is admitted.
//! Where nobody else decodes, nothing could be kept, and nothing is.

/// One node's slots for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeSlots {
    /// Slots that new sessions may have, free or not.
    pub total: u32,
    /// Streams that it decodes or has promised to, those in the reserve counted.
    pub busy: u32,
    /// Whether it takes nothing any more. What it decodes will have to go elsewhere.
    pub draining: bool,
}

impl NodeSlots {
    /// Streams that it could decode at once.
    #[must_use]
    pub const fn capacity(self) -> u64 {
        if self.draining { 0 } else { 2 * self.total as u64 }
    }
}

/// All other nodes that decode a model, together. Collected from their [`NodeSlots`]; default for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Others {
    capacity: u64,
    busy: u64,
    /// The largest capacity among those that decode something: the worst of them to lose.
    worst: Option<u64>,
}

impl FromIterator<NodeSlots> for Others {
    fn from_iter<I: IntoIterator<Item = NodeSlots>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::default(), |mut all, node| {
            all.capacity += node.capacity();
            all.busy += u64::from(node.busy);
            if node.busy > 0 {
                all.worst = all.worst.max(Some(node.capacity()));
            }
            all
        })
    }
}

/// How many sessions the node `own` may take beside those it has, so that after the loss of any one node all streams would
/// still have room on the others. `u64::MAX` for a node that is on its own.
#[must_use]
pub fn headroom(own: NodeSlots, others: Others) -> u64 {
    let streams = u64::from(own.busy) + others.busy;
    let without_own = (others.capacity > 0).then_some(others.capacity);
    let without_worst = others.worst.map(|worst| own.capacity() + others.capacity - worst);
    let room = [without_own, without_worst].into_iter().flatten().min();
    room.map_or(u64::MAX, |room| room.saturating_sub(streams))
}

/// The fewest slots that a node must have which decodes `busy` streams, so that it and the others could take over those of any
/// other node. Without others it is none.
#[must_use]
pub fn least_total(busy: u32, others: Others) -> u64 {
    let streams = u64::from(busy) + others.busy;
    // Each slot decodes two when it has to.
    others.worst.map_or(0, |worst| streams.saturating_sub(others.capacity.saturating_sub(worst)).div_ceil(2))
}

#[cfg(test)]
pub(crate) mod tests;
