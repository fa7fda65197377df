//! How full a pool is, and what must hold of it.

use std::collections::BTreeSet;

use starling_protocol::LeaseId;

use super::super::hosts::{Host, HostState};
use super::super::messages::PoolCounts;
use super::PoolMachine;
use crate::admission::{NodeSlots, headroom};
use crate::sabotage::{Bug, is};

impl PoolMachine {
    /// How full the pool is.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        let ready: Vec<_> = self.hosts.by_id.values().filter(|host| host.is_open()).collect();
        let slots = usize::from(self.config.slots_per_host);
        let idle: usize = ready.iter().map(|host| slots.saturating_sub(host.held())).sum();
        PoolCounts {
            hosts_ready: ready.len(),
            hosts_wanted: self.wanted,
            hosts_loading: self.hosts.by_id.values().filter(|host| host.is_loading()).count(),
            hosts_parked: self.hosts.by_id.values().filter(|host| host.parked).count(),
            slots: ready.len() * slots,
            leases: self.hosts.by_id.values().map(|host| host.leases.len()).sum(),
            reserved: self.hosts.by_id.values().map(|host| host.reserved.len()).sum(),
            idle: idle.min(usize::try_from(self.headroom()).unwrap_or(usize::MAX)),
            waiting: self.waiting.len(),
            continuing: self.waiting.len_continuing(),
            failures: self.failures,
        }
    }

    /// Checks what must hold after every event (I6: caps; I10: nothing held by nobody). For tests and debug builds.
    ///
    /// # Errors
    /// A sentence that names what is broken.
    pub fn check(&self) -> Result<(), String> {
        let slots = usize::from(self.config.slots_per_host);
        let mut sessions = BTreeSet::new();
        for (id, host) in &self.hosts.by_id {
            let limit = if host.quarantine { 1 } else { 2 * slots };
            if host.held() > limit {
                return Err(format!("I6: {id:?} holds {} slots, {limit} at most", host.held()));
            }
            if host.reserved.values().filter(|kept| !kept.failover).count() > slots {
                return Err(format!("I6: {id:?} keeps more than {slots} slots for new sessions"));
            }
            if !host.reserved.is_empty() && (host.quarantine || !host.is_ready()) {
                return Err(format!("I10: {id:?} keeps slots and is {:?}", host.state));
            }
            if let Some(twice) = host.reserved.values().find(|kept| !sessions.insert(kept.session)) {
                return Err(format!("I10: {} has two reservations", twice.session));
            }
            if !host.leases.is_empty()
                && matches!(host.state, HostState::Waiting { .. } | HostState::Loading { .. })
            {
                return Err(format!("I10: {id:?} holds leases and is {:?}", host.state));
            }
        }
        let leased = |lease: &LeaseId| self.hosts.by_id.values().any(|host| host.leases.contains(lease));
        if let Some(gone) = self.standbys.iter().find(|lease| !leased(lease)) {
            return Err(format!("I10: the standby {gone:?} has no slot"));
        }
        let kept = self.hosts.kept();
        if kept < self.wanted || self.surplus().is_some() {
            return Err(format!("I10: {kept} hosts are kept, {} wanted", self.wanted));
        }
        if self.wanted < usize::from(self.config.hosts) {
            return Err(format!("I10: {} hosts are wanted, {} configured", self.wanted, self.config.hosts));
        }
        if let Some(id) = self.hosts.by_id.iter().find(|(_, host)| host.parked && host.quarantine) {
            return Err(format!("I10: {id:?} is parked and in quarantine"));
        }
        Ok(())
    }

    /// Streams that have to be decoded: those that are, alone in quarantine too, those that a slot is kept for, and those that wait
    /// to go on. Who has lost a decoder holds no slot until there is another, and needs one all the same.
    pub(super) fn streams(&self) -> usize {
        let held: usize = self.hosts.by_id.values().map(Host::held).sum();
        held + self.waiting.len_continuing()
    }

    /// How many more sessions may begin here without the cluster's reserve being touched.
    pub(super) fn headroom(&self) -> u64 {
        if is(Bug::ReserveIgnored) {
            return u64::MAX;
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let own = NodeSlots {
            total: count(self.hosts.open() * usize::from(self.config.slots_per_host)),
            busy: count(self.streams()),
            // Whoever waits still when the node begins to leave is served as before.
            draining: false,
        };
        headroom(own, self.others)
    }
}
