//! The hosts of a pool and what each holds.

use std::collections::{BTreeMap, BTreeSet};

use starling_protocol::control::ReservationId;
use starling_protocol::{LeaseId, SessionId};

use super::messages::{HostId, StartCause};
use crate::Timestamp;

/// What a host is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum HostState {
    /// It is to be started at this time.
    Waiting { start_at: Timestamp },
    /// Its process loads the model.
    Loading { since: Timestamp },
    /// It decodes.
    Ready { since: Timestamp },
    /// It decodes, but is to be replaced, or has been.
    Retiring { replaced: bool },
    /// It was told to exit or was killed.
    Ending,
}

/// A slot that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reservation {
    pub(super) session: SessionId,
    pub(super) until: Timestamp,
    /// Whether it may lie in the reserve.
    pub(super) failover: bool,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) state: HostState,
    pub(super) quarantine: bool,
    /// Why it was, or is to be, started.
    pub(super) cause: StartCause,
    pub(super) leases: BTreeSet<LeaseId>,
    /// Slots kept for leases that are still to come. They go with the host, and when it is to be replaced.
    pub(super) reserved: BTreeMap<ReservationId, Reservation>,
    /// The host this one was started to replace, until it is ready.
    pub(super) replaces: Option<HostId>,
    /// Whether it is one too many: it takes nothing new, and goes when it has been empty for long enough.
    pub(super) parked: bool,
    /// Since when it has held nothing; `None` while it holds something or can't yet.
    pub(super) vacant_since: Option<Timestamp>,
    /// Whether it has ever held anything.
    pub(super) used: bool,
}

impl Host {
    /// Whether this is one of the hosts to keep, rather than one too many for a while.
    pub(super) const fn is_kept(&self) -> bool {
        !self.quarantine
            && !self.parked
            && match self.state {
                HostState::Waiting { .. } | HostState::Loading { .. } => self.replaces.is_none(),
                HostState::Ready { .. } | HostState::Retiring { replaced: false } => true,
                HostState::Retiring { replaced: true } | HostState::Ending => false,
            }
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.state, HostState::Ready { .. })
    }

    /// Whether its process is there or about to be, and can't decode yet.
    pub(super) const fn is_loading(&self) -> bool {
        matches!(self.state, HostState::Waiting { .. } | HostState::Loading { .. })
    }

    /// Whether it may be given leases of any session.
    pub(super) const fn is_open(&self) -> bool {
        self.is_ready() && !self.quarantine && !self.parked
    }

    /// Slots that are taken, by a lease or for one.
    pub(super) fn held(&self) -> usize {
        self.leases.len() + self.reserved.len()
    }
}

/// All hosts of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Hosts {
    pub(super) by_id: BTreeMap<HostId, Host>,
    next: u64,
}

impl Hosts {
    pub(super) fn add(&mut self, start_at: Timestamp, cause: StartCause, replaces: Option<HostId>) -> HostId {
        let id = HostId(self.next);
        self.next += 1;
        let host = Host {
            state: HostState::Waiting { start_at },
            quarantine: cause == StartCause::Quarantine,
            cause,
            leases: BTreeSet::new(),
            reserved: BTreeMap::new(),
            replaces,
            parked: false,
            vacant_since: None,
            used: false,
        };
        self.by_id.insert(id, host);
        id
    }

    /// The open host that holds the least, and less than `limit`; the one that has been up longest among equals.
    pub(super) fn emptiest(&self, limit: usize) -> Option<HostId> {
        self.emptiest_but(limit, None)
    }

    /// As [`Hosts::emptiest`], one left out.
    pub(super) fn emptiest_but(&self, limit: usize, but: Option<HostId>) -> Option<HostId> {
        let others = self.by_id.iter().filter(|(id, _)| Some(**id) != but);
        let open = others.filter(|(_, host)| host.is_open());
        let room = open.filter(|(_, host)| host.held() < limit);
        room.min_by_key(|(id, host)| (host.held(), **id)).map(|(id, _)| *id)
    }

    /// Hosts that may be given leases of any session.
    pub(super) fn open(&self) -> usize {
        self.by_id.values().filter(|host| host.is_open()).count()
    }

    /// Slots that are taken on any host but those of suspects.
    pub(super) fn held(&self) -> usize {
        self.by_id.values().filter(|host| !host.quarantine).map(Host::held).sum()
    }

    pub(super) fn kept(&self) -> usize {
        self.by_id.values().filter(|host| host.is_kept()).count()
    }

    /// Quarantine hosts there are, and those among them that somebody has or has had.
    pub(super) fn quarantine_counts(&self) -> (usize, usize) {
        let all = self.by_id.values().filter(|host| host.quarantine);
        let used = |host: &&Host| !host.leases.is_empty() || host.state == HostState::Ending;
        (all.clone().count(), all.filter(used).count())
    }

    /// A ready quarantine host that nobody uses yet.
    pub(super) fn free_quarantine(&self) -> Option<HostId> {
        let free = |host: &Host| host.quarantine && host.is_ready() && host.leases.is_empty();
        self.by_id.iter().find(|(_, host)| free(host)).map(|(id, _)| *id)
    }

    pub(super) fn of_lease(&mut self, lease: LeaseId) -> Option<(HostId, &mut Host)> {
        self.by_id.iter_mut().find(|(_, host)| host.leases.contains(&lease)).map(|(id, host)| (*id, host))
    }

    /// What is kept for a session.
    pub(super) fn reserved_for(&mut self, session: SessionId) -> Option<(ReservationId, &mut Reservation)> {
        let mut all = self.by_id.values_mut().flat_map(|host| &mut host.reserved);
        all.find(|(_, reservation)| reservation.session == session)
            .map(|(id, reservation)| (*id, reservation))
    }

    /// Gives up a reservation; says what it was, and on which host.
    pub(super) fn take_reserved(&mut self, id: ReservationId) -> Option<(HostId, Reservation)> {
        self.by_id.iter_mut().find_map(|(host, held)| Some((*host, held.reserved.remove(&id)?)))
    }

    pub(super) fn drop_expired(&mut self, now: Timestamp) {
        for host in self.by_id.values_mut() {
            host.reserved.retain(|_, reservation| now < reservation.until);
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.by_id.values().flat_map(|host| host.reserved.values()).map(|reservation| reservation.until).min()
    }
}
