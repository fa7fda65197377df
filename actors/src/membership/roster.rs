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
    /// With the round in which each was seen last.
    others: BTreeMap<NodeName, (Member, u64)>,
    round: u64,
}

impl Roster {
    pub(super) const fn new(me: NodeId, address: SocketAddr) -> Self {
        Self { me, address, others: BTreeMap::new(), round: 0 }
    }

    /// Looks at all members. Returns whether anything is different, were it only a detail that is no change.
    pub(super) fn update<'a>(
        &mut self,
        peers: impl Iterator<Item = (&'a Peer, State)>,
        records: &Records,
        changes: &mut Vec<ClusterChange>,
    ) -> bool {
        let mut different = false;
        self.round += 1;
        for (peer, state) in peers {
            let Some(id) = &peer.id else { continue };
            // Of our own name the protocol remembers runs that are over.
            if id.name == self.me.name {
                continue;
            }
            let load = records.of(&id.name).filter(|load| load.generation == id.generation);
            let state = state_of(state, load.as_deref());
            let before = self.others.get_mut(&id.name);
            // Almost always: this is done after each packet.
            if let Some((before, seen)) = before
                && is_same(before, id, peer.address, state, load.as_ref())
            {
                *seen = self.round;
                continue;
            }
            let now = Member { id: id.clone(), address: peer.address, state, load };
            compare(self.others.get(&id.name).map(|(before, _)| before), &now, changes);
            self.others.insert(id.name.clone(), (now, self.round));
            different = true;
        }
        let known = self.others.len();
        self.others.retain(|_, (_, seen)| *seen == self.round);
        different || self.others.len() != known
    }

    pub(super) fn knows(&self, name: &NodeName) -> bool {
        self.others.contains_key(name)
    }

    pub(super) fn others(&self) -> impl Iterator<Item = &Member> {
        self.others.values().map(|(member, _)| member)
    }

    pub(super) fn view(&self, own: Option<Arc<LoadRecord>>) -> ClusterView {
        let me = Member { id: self.me.clone(), address: self.address, state: MemberState::Alive, load: own };
        let mut members: Vec<Member> = self.others().cloned().collect();
        members.push(me);
        members.sort_by(|one, other| one.id.cmp(&other.id));
        ClusterView { me: self.me.clone(), members }
    }
}

fn is_same(
    before: &Member,
    id: &NodeId,
    address: SocketAddr,
    state: MemberState,
    load: Option<&Arc<LoadRecord>>,
) -> bool {
    let same_load = match (&before.load, load) {
        (Some(before), Some(now)) => Arc::ptr_eq(before, now),
        (before, now) => before.is_none() && now.is_none(),
    };
    before.id == *id && before.address == address && before.state == state && same_load
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
