//! What changed between one state of the membership protocol and the next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use foca::State;
use starling_protocol::gossip::LoadRecord;
use starling_protocol::{NodeId, NodeName};

use super::peer::Peer;
use super::records::Records;
use super::view::{ClusterChange, ClusterView, Member, MemberState};

/// Everybody but ourselves, as last looked at.
pub(super) struct Roster {
    me: NodeId,
    address: SocketAddr,
    others: BTreeMap<NodeName, Member>,
}

impl Roster {
    pub(super) const fn new(me: NodeId, address: SocketAddr) -> Self {
        Self { me, address, others: BTreeMap::new() }
    }

    /// Looks at all members. Returns whether anything is different, were it only a detail that is no change.
    pub(super) fn update<'a>(
        &mut self,
        peers: impl Iterator<Item = (&'a Peer, State)>,
        records: &Records,
        changes: &mut Vec<ClusterChange>,
    ) -> bool {
        let mut different = false;
        let mut gone: Vec<NodeName> = self.others.keys().cloned().collect();
        for (peer, state) in peers {
            let Some(id) = &peer.id else { continue };
            // Of our own name the protocol remembers runs that are over.
            if id.name == self.me.name {
                continue;
            }
            gone.retain(|name| *name != id.name);
            let load = records.of(&id.name).filter(|load| load.generation == id.generation);
            let state = state_of(state, load.as_deref());
            let now = Member { id: id.clone(), address: peer.address, state, load };
            let before = self.others.get(&id.name);
            if before != Some(&now) {
                compare(before, &now, changes);
                self.others.insert(id.name.clone(), now);
                different = true;
            }
        }
        for name in &gone {
            self.others.remove(name);
            different = true;
        }
        different
    }

    pub(super) fn knows(&self, name: &NodeName) -> bool {
        self.others.contains_key(name)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &Member> {
        self.others.values()
    }

    pub(super) fn view(&self, own: Option<Arc<LoadRecord>>) -> ClusterView {
        let me = Member { id: self.me.clone(), address: self.address, state: MemberState::Alive, load: own };
        let mut members: Vec<Member> = self.others.values().cloned().collect();
        members.push(me);
        members.sort_by(|one, other| one.id.cmp(&other.id));
        ClusterView { me: self.me.clone(), members }
    }
}

fn state_of(state: State, load: Option<&LoadRecord>) -> MemberState {
    match state {
        State::Alive => MemberState::Alive,
        State::Suspect => MemberState::Suspected,
        State::Down if load.is_some_and(|load| load.leaving) => MemberState::Left,
        State::Down => MemberState::Down,
    }
}

fn compare(before: Option<&Member>, now: &Member, changes: &mut Vec<ClusterChange>) {
    let id = || now.id.clone();
    let same_run = before.filter(|before| before.id == now.id);
    if let (Some(before), None) = (before, same_run)
        && before.state.is_active()
    {
        let left = before.load.as_ref().is_some_and(|load| load.leaving);
        let end = if left { ClusterChange::Left } else { ClusterChange::Down };
        changes.push(end(before.id.clone()));
    }
    let was = same_run.map(|before| before.state);
    let was_active = was.is_some_and(MemberState::is_active);
    match now.state {
        MemberState::Alive if was == Some(MemberState::Suspected) => {
            changes.push(ClusterChange::Trusted(id()));
        }
        MemberState::Alive | MemberState::Suspected if !was_active => {
            changes.push(ClusterChange::Joined(id()));
        }
        MemberState::Down if was_active => changes.push(ClusterChange::Down(id())),
        MemberState::Left if was_active => changes.push(ClusterChange::Left(id())),
        _ => {}
    }
    if now.state == MemberState::Suspected && was != Some(MemberState::Suspected) {
        changes.push(ClusterChange::Suspected(id()));
    }
    if !now.state.is_active() {
        return;
    }
    let before_load = same_run.and_then(|before| before.load.as_deref());
    let Some(load) = now.load.as_deref() else { return };
    if load.draining && !before_load.is_some_and(|before| before.draining) {
        changes.push(ClusterChange::Draining(id()));
    }
    let news = |before: &LoadRecord| LoadRecord { revision: before.revision, ..load.clone() } != *before;
    if before_load.is_none_or(news) {
        changes.push(ClusterChange::Updated(id()));
    }
}

#[cfg(test)]
mod tests;
