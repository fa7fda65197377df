//! Slots of standbys: second decoders, which have what nobody else needs.

use starling_protocol::LeaseId;

use super::super::messages::{HostId, PoolAction};
use super::PoolMachine;

impl PoolMachine {
    /// A host for a standby beside the decoder that holds `avoid`: on another host, in a slot that a new session could have
    /// had, and only while nobody waits for one.
    pub(super) fn free_for_standby(&mut self, avoid: Option<LeaseId>) -> Option<HostId> {
        let first = avoid.and_then(|lease| self.hosts.of_lease(lease)).map(|(host, _)| host);
        let spare = !self.draining && self.waiting.len() == 0 && self.headroom() > 0;
        spare.then(|| self.hosts.emptiest_but(usize::from(self.config.slots_per_host), first)).flatten()
    }

    /// Asks for one standby's slot back, for a session that finds none: each is asked once. The pool is not told when a standby
    /// becomes its session's decoder; such a one moves at its next cut, to its own standby or to the reserve.
    pub(super) fn reclaim_standby(&mut self, out: &mut Vec<PoolAction>) {
        let slots = usize::from(self.config.slots_per_host);
        let helps = |lease: &LeaseId| {
            self.hosts
                .by_id
                .values()
                .any(|host| host.is_open() && host.held() <= slots && host.leases.contains(lease))
        };
        let found = self.standbys.iter().copied().find(|lease| helps(lease));
        if let Some(lease) = found.or_else(|| self.standbys.first().copied()) {
            self.standbys.remove(&lease);
            out.push(PoolAction::Move { lease });
        }
    }
}
