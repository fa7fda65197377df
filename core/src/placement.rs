//! Which node serves what: decoders by load, copies by hashing, standbys where they protect most.
//!
//! Owns: the order of preference among nodes. Must never: believe that a slot is there because gossip said so; a choice is
//! where to ask first, and the node asked has the last word.
//!
//! A decoder goes to the node itself while it has an idle slot, then to one of two nodes drawn at random, the emptier one:
//! many nodes that act on the same stale figures don't all run to the same peer. Where no host is and one has to load, all go to
//! the same peer: rendezvous hashing of the model says to which. A copy goes where rendezvous hashing of the session puts it, so
//! that a node that comes or goes moves only what it has to.

mod pace;
mod room;
mod standby;

use starling_protocol::{NodeName, SessionId};

pub use self::pace::SeekPace;
pub use self::room::{Room, Round, search_order};
pub use self::standby::{StandbyWant, cluster_idle, has_room, place_standby};
use crate::admission::NodeSlots;

/// A peer that serves the wanted model, as last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub node: NodeName,
    /// Where it stands.
    pub zone: String,
    /// What it decodes alike with; empty when that is not known.
    pub class: String,
    /// Slots for new sessions, free or not.
    pub slots: u32,
    /// Streams that it decodes, keeps a slot for, or is to decode again.
    pub busy: u32,
    /// Slots that a new session could have: none that is kept for another session, or for other nodes' streams.
    pub idle: u32,
    /// Whether it has no host of the model, and loads one for whoever asks.
    pub on_demand: bool,
    /// Whether it takes nothing new.
    pub draining: bool,
}

impl Candidate {
    /// Whether it has hosts that decode. One that has none now may have streams that wait for one.
    #[must_use]
    pub const fn decodes(&self) -> bool {
        self.slots > 0
    }

    /// Whether a session may be sent there, as far as its hosts go.
    #[must_use]
    pub const fn serves(&self) -> bool {
        self.decodes() || self.on_demand
    }

    /// What it has, as admission counts it.
    #[must_use]
    pub const fn node_slots(&self) -> NodeSlots {
        NodeSlots { total: self.slots, busy: self.busy, draining: self.draining }
    }
}

/// This node's own decoders for the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own<'a> {
    /// Slots that a new session could have.
    pub idle: u32,
    /// What they decode alike with; empty when that is not known.
    pub class: &'a str,
}

/// What is wanted of a decoder's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want<'a> {
    /// This node's own decoders, if it has any.
    pub own: Option<Own<'a>>,
    /// The class that decoded the session's text so far; empty for none yet.
    pub class: &'a str,
    /// A zone to keep out of: that of the node which was just lost.
    pub avoid_zone: Option<&'a str>,
    /// Nodes that just failed at this.
    pub excluded: &'a [NodeName],
    /// What room will do, the best first; an idle slot alone if nothing is said.
    pub rooms: &'a [Room],
    /// Whether another class will do.
    pub any_class: bool,
    /// Whose decoder it is to be: of nodes that would have to load it, the one that all nodes send those to who want this model.
    pub model: &'a str,
}

/// Where to ask for a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// On this node.
    Own,
    /// At a peer.
    Peer(&'a Candidate),
}

impl Default for Want<'_> {
    fn default() -> Self {
        Self {
            own: None,
            class: "",
            avoid_zone: None,
            excluded: &[],
            rooms: &[Room::Idle],
            any_class: true,
            model: "",
        }
    }
}

/// Chooses where to ask. `random` decides between equals; the same number gives the same choice.
///
/// The class comes before room, because another class may hear other words; within it comes the better room first, and this
/// node before its peers.
#[must_use]
pub fn place<'a>(want: &Want<'_>, candidates: &'a [Candidate], random: u64) -> Option<Place<'a>> {
    let same_class = |class: &str| want.class.is_empty() || class.is_empty() || class == want.class;
    let usable: Vec<&Candidate> = candidates
        .iter()
        .filter(|candidate| {
            candidate.serves() && !candidate.draining && !want.excluded.contains(&candidate.node)
        })
        .collect();
    let classes: &[bool] = if want.any_class { &[true, false] } else { &[true] };
    for &in_class in classes {
        for room in want.rooms {
            let own = want.own.filter(|own| same_class(own.class) == in_class && room.is_own(own));
            if own.is_some() {
                return Some(Place::Own);
            }
            let fit =
                |candidate: &&&Candidate| same_class(&candidate.class) == in_class && room.is_at(candidate);
            let fitting: Vec<&Candidate> = usable.iter().filter(fit).copied().collect();
            let elsewhere: Vec<&Candidate> = fitting
                .iter()
                .filter(|candidate| want.avoid_zone != Some(&candidate.zone))
                .copied()
                .collect();
            let choose = |among: &[&'a Candidate]| match room {
                Room::OnDemand => agreed(among, want.model),
                Room::Idle | Room::Crowded => two_choices(among, random),
            };
            if let Some(candidate) = choose(&elsewhere).or_else(|| choose(&fitting)) {
                return Some(Place::Peer(candidate));
            }
        }
    }
    None
}

/// The one that every node chooses: one host that loads is enough for those who come meanwhile, wherever they come in.
fn agreed<'a>(candidates: &[&'a Candidate], model: &str) -> Option<&'a Candidate> {
    let score = |candidate: &Candidate| score(model.as_bytes(), &candidate.node, 1);
    candidates.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)).then_with(|| b.node.cmp(&a.node)))
}

/// The emptier of two that are drawn; the first drawn of two alike.
fn two_choices<'a>(candidates: &[&'a Candidate], random: u64) -> Option<&'a Candidate> {
    let count = candidates.len() as u64;
    if count < 2 {
        return candidates.first().copied();
    }
    let first = (random & 0xffff_ffff) % count;
    let other = (first + 1 + (random >> 32) % (count - 1)) % count;
    let (first, other) = (candidates[first as usize], candidates[other as usize]);
    Some(if other.idle > first.idle { other } else { first })
}

/// A node that could hold copies of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeper {
    /// Its name.
    pub node: NodeName,
    /// Where it stands.
    pub zone: String,
    /// What it decodes alike with; empty when that is not known.
    pub class: String,
    /// Its share among the keepers; 0 for none. Coarse figures move less when they change.
    pub weight: u64,
    /// Whether it takes nothing new.
    pub draining: bool,
}

/// What is wanted of a session's copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies<'a> {
    /// Whose journal it is.
    pub session: SessionId,
    /// The node that the session lives on.
    pub owner: &'a NodeName,
    /// Where that stands.
    pub owner_zone: &'a str,
    /// The class that decodes the session; empty for none yet.
    pub class: &'a str,
    /// Nodes that just failed at this.
    pub excluded: &'a [NodeName],
    /// How many copies.
    pub count: usize,
}

/// The nodes that hold a session's copies, best first; fewer than wanted when there are no more. A copy stands in another
/// zone than its owner if it can, in the session's class among those, and where the session's id hashes to among these.
#[must_use]
pub fn keepers<'a>(copies: &Copies<'_>, all: &'a [Keeper]) -> Vec<&'a NodeName> {
    let able = |keeper: &&Keeper| {
        keeper.node != *copies.owner
            && !keeper.draining
            && keeper.weight > 0
            && !copies.excluded.contains(&keeper.node)
    };
    let rank = |keeper: &Keeper| {
        let other_class =
            !copies.class.is_empty() && !keeper.class.is_empty() && keeper.class != copies.class;
        (keeper.zone == copies.owner_zone, other_class)
    };
    let mut able: Vec<&Keeper> = all.iter().filter(able).collect();
    let score = |keeper: &Keeper| score(copies.session.0.as_bytes(), &keeper.node, keeper.weight);
    able.sort_by(|a, b| {
        let scores = score(b).total_cmp(&score(a));
        rank(a).cmp(&rank(b)).then(scores).then_with(|| a.node.cmp(&b.node))
    });
    able.into_iter().take(copies.count).map(|keeper| &keeper.node).collect()
}

/// A node's claim to a key: weighted rendezvous hashing, by the logarithmic method. The highest wins, and each node wins in
/// proportion to its weight.
#[must_use]
pub fn score(key: &[u8], node: &NodeName, weight: u64) -> f64 {
    // 53 bits are what a double holds; the half keeps the logarithm away from 0 and 1.
    let unit = ((hash(key, node) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    weight as f64 / -unit.ln()
}

/// FNV-1a over key and name, mixed by the finalizer of SplitMix64. Written out here because it must be the same on every
/// node and in every version: a library's hash may change with a release.
fn hash(key: &[u8], node: &NodeName) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    // A byte that no name has stands between the two.
    for byte in key.iter().chain(&[0]).chain(node.as_str().as_bytes()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
