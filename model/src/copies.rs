//! A session's copies, as its actor has them made: streams to keepers, and what is let out because of them.

use std::collections::VecDeque;
use std::time::Duration;

use starling_core::placement::{Copies, Keeper, keepers};
use starling_core::replica::{
    OpenFailure, ReplicationAction, ReplicationConfig, ReplicationEvent, ReplicationMachine, Tries,
};
use starling_core::session::SessionEvent;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, NodeName, Segment, SessionId, SourceOffset};

use crate::model::Mistake;
use crate::parts::{Copy, Message};
use crate::state::{Invariant, Link, Node, State, ToKeeper, ToOwner, name, number};

const COPIES: ReplicationConfig = ReplicationConfig {
    copies: 1,
    patience: Duration::from_secs(2),
    retry: Duration::from_secs(1),
    stalled: Duration::from_secs(2),
    // What waits for more audio only comes later; here everything may come later.
    gather: Duration::ZERO,
    piece_frames: 16_384,
    window: 32,
};

impl State {
    pub(crate) fn begin_copies(&mut self, node: Node, id: SessionId, view: View, epoch: Epoch) {
        let now = self.now(node);
        let Some(owner) = self.owner(node, id) else { return };
        let mut out = Vec::new();
        let standing = owner.standing();
        owner.copies = Some(ReplicationMachine::new(now, COPIES, epoch, view, &standing, &mut out));
        self.perform_copies(node, id, out);
    }

    pub(crate) fn replicate(&mut self, node: Node, id: SessionId, event: ReplicationEvent) {
        let now = self.now(node);
        let Some(owner) = self.owner(node, id) else { return };
        let Some(copies) = &mut owner.copies else { return };
        let mut out = Vec::new();
        copies.handle(now, event, &mut out);
        self.perform_copies(node, id, out);
        if let Some(owner) = self.owner(node, id) {
            owner.let_go();
        }
    }

    fn perform_copies(&mut self, node: Node, id: SessionId, actions: Vec<ReplicationAction>) {
        let mut actions: VecDeque<ReplicationAction> = actions.into();
        while let Some(action) = actions.pop_front() {
            match action {
                ReplicationAction::FindKeepers { excluded, count } => {
                    let nodes = self.find_keepers(node, id, &excluded, count);
                    let (now, mut out) = (self.now(node), Vec::new());
                    if let Some(copies) = self.owner(node, id).and_then(|owner| owner.copies.as_mut()) {
                        copies.handle(now, ReplicationEvent::KeepersFound { nodes }, &mut out);
                    }
                    actions.extend(out);
                }
                ReplicationAction::Open { tries, node: keeper, epoch } => {
                    self.open_stream(node, id, tries, number(&keeper), epoch);
                }
                ReplicationAction::Send { tries, item } => {
                    let Some(message) = self.owner(node, id).and_then(|owner| owner.message(id, item)) else {
                        self.breaks(Invariant::I4, "what is to be sent to a keeper is gone");
                        continue;
                    };
                    let sent = ToKeeper::Says(Message::new(message));
                    if let Some(link) =
                        self.link(node, id, tries).and_then(|link| self.net().links.get_mut(&link))
                        && link.keeper_listens
                    {
                        link.to_keeper.push_back(sent);
                    }
                }
                ReplicationAction::Close { tries } => {
                    let Some(found) = self.link(node, id, tries) else { continue };
                    self.owner_hangs_up(found);
                }
                ReplicationAction::SetDurable { .. } => {
                    let Some(owner) = self.owner(node, id) else { continue };
                    let (conn, set) = (owner.conn, owner.set(node));
                    if let Some(conn) = conn {
                        self.with_conn(conn, |outbox| outbox.view = Some(set));
                    }
                }
                ReplicationAction::ReleaseAck { until } => {
                    self.check_release(node, id, until, Segment(0));
                    self.tell_ack(node, id, until);
                }
                ReplicationAction::ReleaseFinals { through } => {
                    self.check_release(node, id, SourceOffset(0), through.next());
                    self.push_finals(node, id);
                }
                ReplicationAction::Fence { .. } => {
                    let left = self.owner(node, id).and_then(|owner| owner.as_copy(id));
                    if let Some(copy) = left.filter(|_| self.mistake != Some(Mistake::FencedOwnerForgets)) {
                        self.offer(node, id, Copy::new(copy));
                    }
                    self.drive(node, id, SessionEvent::Superseded);
                }
            }
        }
    }

    /// I4 where it is decided: what a durable session lets go out is with every keeper of its set. A keeper that was lost is
    /// not noticed at once, and one that obeys another owner keeps what that one tells it.
    fn check_release(&mut self, node: Node, id: SessionId, audio: SourceOffset, segments: Segment) {
        let Some(owner) = self.owner(node, id) else { return };
        let (epoch, set) = (owner.session.last_epoch(), owner.set(node));
        if !set.durable || self.client.done {
            return;
        }
        for keeper in set.keepers {
            let peer = &self.nodes[keeper];
            if !peer.up || peer.keeper.obeyed(id).is_some_and(|obeyed| obeyed > epoch) {
                continue;
            }
            let held = peer.copies.get(&id).map(|copy| (copy.get().audio_end(), copy.get().next_segment()));
            if held.is_none_or(|held| held.0 < audio || held.1 < segments) {
                let what = format!("{} is told of what {} lacks", name(node), name(keeper));
                return self.breaks(Invariant::I4, what);
            }
        }
    }

    fn find_keepers(&self, node: Node, id: SessionId, excluded: &[NodeName], count: usize) -> Vec<NodeName> {
        let up = (0..self.nodes.len()).filter(|&other| self.nodes[other].up);
        let all: Vec<Keeper> = up
            .map(|other| Keeper {
                node: name(other).clone(),
                zone: String::new(),
                class: String::new(),
                weight: 1,
                draining: false,
            })
            .collect();
        let copies = Copies { session: id, owner: name(node), owner_zone: "", class: "", excluded, count };
        keepers(&copies, &all).into_iter().cloned().collect()
    }

    fn open_stream(&mut self, node: Node, id: SessionId, tries: Tries, keeper: Node, epoch: Epoch) {
        let up = self.nodes[keeper].up;
        let new = self.net().next_id();
        let mut link = Link {
            session: id,
            owner: node,
            tries,
            keeper,
            stream: None,
            to_keeper: VecDeque::from([ToKeeper::Open(epoch)]),
            to_owner: VecDeque::new(),
            owner_listens: true,
            keeper_listens: up,
        };
        if !up {
            link.to_keeper.clear();
            link.to_owner.push_back(ToOwner::Refused(OpenFailure::Unreachable));
        }
        self.net().links.insert(new, link);
    }

    fn link(&self, node: Node, id: SessionId, tries: Tries) -> Option<u32> {
        let is =
            |link: &Link| (link.owner, link.session, link.tries) == (node, id, tries) && link.owner_listens;
        self.net.links.iter().find(|(_, link)| is(link)).map(|(&found, _)| found)
    }

    fn owner_hangs_up(&mut self, id: u32) {
        if let Some(link) = self.net().links.get_mut(&id) {
            link.owner_listens = false;
            link.to_owner.clear();
            if link.keeper_listens {
                link.to_keeper.push_back(ToKeeper::Closed);
            }
        }
        self.forget_link(id);
    }

    /// The owner reads what a keeper said.
    pub(crate) fn owner_reads(&mut self, id: u32) {
        let Some(link) = self.net().links.get_mut(&id) else { return };
        let (node, session, tries) = (link.owner, link.session, link.tries);
        let Some(said) = link.to_owner.pop_front() else { return };
        let event = match said {
            ToOwner::Opened => {
                let Some(owner) = self.owner(node, session) else { return };
                ReplicationEvent::Opened { tries, standing: owner.standing() }
            }
            ToOwner::Applied(count) => ReplicationEvent::Applied { tries, count },
            ToOwner::Refused(failure) | ToOwner::Lost(failure) => {
                link.owner_listens = false;
                self.forget_link(id);
                if matches!(said, ToOwner::Refused(_)) {
                    ReplicationEvent::OpenFailed { tries, failure }
                } else {
                    ReplicationEvent::Lost { tries, failure }
                }
            }
        };
        self.replicate(node, session, event);
    }
}
