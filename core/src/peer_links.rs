//! Which links a node keeps to its peers, and what it tells the rest of itself about them.
//!
//! Owns: who is dialled and when, which link to a peer counts, what was last told of each peer. Must never: tell of a peer
//! that it is up twice without a loss between, or keep two links to one peer up.
//!
//! Of two nodes the one whose name sorts first dials, so that two nodes which find each other at the same moment don't make
//! two links. It dials only while it has no link: when it dials again it knows that the last one is gone, and so the other
//! side takes the new link and drops the old, which it may not have noticed to be dead.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use starling_protocol::{Generation, NodeId, NodeName};

use crate::Timestamp;
use crate::redial::Redial;
use crate::sabotage::{Bug, is};

/// A link that ends sooner after it was up counts as a failed attempt: a peer that throws us out each time would else be
/// dialled without a pause.
pub const PROVED_AFTER: Duration = Duration::from_secs(1);

/// A link, counted within a node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Which side made the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This node.
    Dialled,
    /// The peer.
    Accepted,
}

/// Why a link ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerLoss {
    /// Its connection was closed. So it is when the peer's process ends, in whatever way.
    Closed,
    /// It didn't answer for [`SILENCE`](crate::peer_watch::SILENCE).
    Silent,
    /// It said what can't be.
    Protocol,
    /// A later run of the same node is up.
    Restarted,
    /// The peer made a new connection: it had lost this one.
    Replaced,
}

/// What the rest of a node is told of its peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerChange {
    /// Requests reach it.
    Up(NodeId),
    /// It is silent and may be lost.
    Suspected(NodeId),
    /// It was suspected, and has answered.
    Cleared(NodeId),
    /// It is lost: what it held for us, and we for it, is to be looked for elsewhere.
    Lost {
        /// Which run of which node.
        peer: NodeId,
        /// Why.
        cause: PeerLoss,
    },
}

/// What happens to links.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerLinksEvent {
    /// These are the cluster's other nodes, as far as gossip tells.
    Members(Vec<NodeId>),
    /// A connection to `peer` exists, and TLS has proved who it is.
    Connected {
        /// Who is at the other end.
        peer: NodeName,
        /// The link.
        link: LinkId,
        /// Who made it.
        side: Side,
    },
    /// An attempt to dial failed.
    DialFailed {
        /// Who was dialled.
        peer: NodeName,
        /// Any number, for jitter.
        random: u32,
    },
    /// Requests pass over the link.
    Up {
        /// The link.
        link: LinkId,
        /// Which run of the peer it leads to.
        peer: NodeId,
    },
    /// The peer is silent.
    Suspected(LinkId),
    /// The peer was silent, and has answered.
    Cleared(LinkId),
    /// The link is gone.
    Ended {
        /// The link.
        link: LinkId,
        /// Why.
        cause: PeerLoss,
        /// Any number, for jitter.
        random: u32,
    },
    /// The time that [`PeerLinksMachine::next_timeout`] gave has come.
    Timeout,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PeerLinksAction {
    /// Connect to this peer; answer with `Connected` or `DialFailed`.
    Dial(NodeName),
    /// Close this link; answer with `Ended`.
    Close(LinkId),
    /// Tell the rest of the node.
    Tell(PeerChange),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Dial {
    #[default]
    Idle,
    At(Timestamp),
    InProgress,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Current {
    link: LinkId,
    id: NodeId,
    since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Peer {
    /// The latest run that gossip told of, while it is a member.
    member: Option<Generation>,
    dial: Dial,
    redial: Redial,
    /// Links that are made and not up yet, and such as are being closed.
    others: BTreeSet<LinkId>,
    current: Option<Current>,
}

/// Keeps one link to every other node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerLinksMachine {
    own: NodeName,
    peers: BTreeMap<NodeName, Peer>,
}

impl PeerLinksMachine {
    /// No peers yet.
    #[must_use]
    pub const fn new(own: NodeName) -> Self {
        Self { own, peers: BTreeMap::new() }
    }

    /// When to hand in `Timeout`.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let due = |peer: &Peer| if let Dial::At(at) = peer.dial { Some(at) } else { None };
        self.peers.values().filter_map(due).min()
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Timestamp, event: PeerLinksEvent, out: &mut Vec<PeerLinksAction>) {
        match event {
            PeerLinksEvent::Members(ids) => self.members(now, ids),
            PeerLinksEvent::Connected { peer, link, side } => self.connected(peer, link, side, out),
            PeerLinksEvent::DialFailed { peer, random } => {
                let in_progress = |peer: &&mut Peer| peer.dial == Dial::InProgress;
                if let Some(peer) = self.peers.get_mut(&peer).filter(in_progress) {
                    peer.dial = Dial::Idle;
                    peer.dial_later(now, random);
                }
            }
            PeerLinksEvent::Up { link, peer } => self.up(now, link, peer, out),
            PeerLinksEvent::Suspected(link) => self.tell(link, PeerChange::Suspected, out),
            PeerLinksEvent::Cleared(link) => self.tell(link, PeerChange::Cleared, out),
            PeerLinksEvent::Ended { link, cause, random } => self.ended(now, link, cause, random, out),
            PeerLinksEvent::Timeout => {}
        }
        for (name, peer) in &mut self.peers {
            if matches!(peer.dial, Dial::At(at) if at <= now) {
                peer.dial = Dial::InProgress;
                out.push(PeerLinksAction::Dial(name.clone()));
            }
        }
        self.peers.retain(|_, peer| peer.is_of_interest());
    }

    fn members(&mut self, now: Timestamp, ids: Vec<NodeId>) {
        let mut before: BTreeMap<NodeName, Option<Generation>> =
            self.peers.iter_mut().map(|(name, peer)| (name.clone(), peer.member.take())).collect();
        for id in ids.into_iter().filter(|id| id.name != self.own) {
            let known = before.remove(&id.name).flatten();
            let dials = self.own < id.name;
            let peer = self.peers.entry(id.name).or_default();
            peer.member = peer.member.max(Some(id.generation));
            // A new run of it is likely to be there now, however often the one before was not.
            if dials && known < peer.member && !peer.has_link() && peer.dial != Dial::InProgress {
                peer.redial.reached();
                peer.dial = Dial::At(now);
            }
        }
        for peer in self.peers.values_mut() {
            if peer.member.is_none() && matches!(peer.dial, Dial::At(_)) {
                peer.dial = Dial::Idle;
            }
        }
    }

    fn connected(&mut self, name: NodeName, link: LinkId, side: Side, out: &mut Vec<PeerLinksAction>) {
        let ours = if self.own < name { Side::Dialled } else { Side::Accepted };
        let peer = self.peers.entry(name).or_default();
        if side == Side::Dialled {
            peer.dial = Dial::Idle;
        }
        // Those that are not up yet are not what the peer goes by any more.
        let outdated = std::mem::replace(&mut peer.others, BTreeSet::from([link]));
        out.extend(outdated.iter().map(|link| PeerLinksAction::Close(*link)));
        peer.others.extend(outdated);
        if side != ours {
            out.push(PeerLinksAction::Close(link));
        }
    }

    fn up(&mut self, now: Timestamp, link: LinkId, id: NodeId, out: &mut Vec<PeerLinksAction>) {
        let Some(peer) = self.peers.get_mut(&id.name) else { return out.push(PeerLinksAction::Close(link)) };
        let current = peer.current.as_ref().map(|current| current.id.generation);
        if current.max(peer.member) > Some(id.generation) {
            // An earlier run that still lives: the name is another's now.
            return out.push(PeerLinksAction::Close(link));
        }
        peer.others.remove(&link);
        if let Some(Current { link, id: before, .. }) = peer.current.take() {
            let cause = if before == id { PeerLoss::Replaced } else { PeerLoss::Restarted };
            peer.others.insert(link);
            out.push(PeerLinksAction::Close(link));
            out.push(PeerLinksAction::Tell(PeerChange::Lost { peer: before, cause }));
        }
        peer.current = Some(Current { link, id: id.clone(), since: now });
        peer.dial = if peer.dial == Dial::InProgress { Dial::InProgress } else { Dial::Idle };
        out.push(PeerLinksAction::Tell(PeerChange::Up(id)));
    }

    fn ended(
        &mut self,
        now: Timestamp,
        link: LinkId,
        cause: PeerLoss,
        random: u32,
        out: &mut Vec<PeerLinksAction>,
    ) {
        let Some((name, peer)) = self.peers.iter_mut().find(|(_, peer)| peer.has(link)) else { return };
        peer.others.remove(&link);
        let was_current = peer.current.take_if(|current| current.link == link);
        let proved = was_current.as_ref().is_some_and(|current| now.since(current.since) >= PROVED_AFTER);
        if let Some(Current { id, .. }) = was_current {
            out.push(PeerLinksAction::Tell(PeerChange::Lost { peer: id, cause }));
        }
        if self.own < *name && !peer.has_link() && peer.dial == Dial::Idle && !is(Bug::LinkNotMadeAnew) {
            if proved && peer.member.is_some() {
                peer.redial.reached();
                peer.dial = Dial::At(now);
            } else {
                peer.dial_later(now, random);
            }
        }
    }

    fn tell(&self, link: LinkId, change: impl FnOnce(NodeId) -> PeerChange, out: &mut Vec<PeerLinksAction>) {
        let current = self.peers.values().filter_map(|peer| peer.current.as_ref());
        if let Some(current) = current.into_iter().find(|current| current.link == link) {
            out.push(PeerLinksAction::Tell(change(current.id.clone())));
        }
    }
}

impl Peer {
    fn has(&self, link: LinkId) -> bool {
        self.others.contains(&link) || self.current.as_ref().is_some_and(|current| current.link == link)
    }

    fn has_link(&self) -> bool {
        self.current.is_some() || !self.others.is_empty()
    }

    fn dial_later(&mut self, now: Timestamp, random: u32) {
        if self.member.is_some() && !self.has_link() {
            self.dial = Dial::At(now.plus(self.redial.failed(random)));
        }
    }

    fn is_of_interest(&self) -> bool {
        self.member.is_some() || self.has_link() || self.dial == Dial::InProgress
    }
}

#[cfg(test)]
mod tests;
