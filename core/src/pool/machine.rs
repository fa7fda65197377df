//! The pool's decisions.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_protocol::LeaseId;

use super::admission::{Admission, Waiting};
use super::hosts::{Host, HostState, Hosts};
use super::messages::{
    Claim, HostEnd, HostId, PoolAction, PoolConfig, PoolEvent, Purpose, Refusal, Refused, RequestId,
    StartCause,
};
use super::retry::RetryAfter;
use crate::Timestamp;
use crate::admission::Others;
use crate::restart::RestartIntensity;
use crate::session::LeaseKind;

mod account;
mod reservations;
mod sizing;
mod standbys;

/// How often to look at the other nodes while it is for their sake alone that sessions wait. They tell of themselves every
/// second.
const LOOK_AROUND: Duration = Duration::from_millis(200);

/// One model's decoders.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolMachine {
    config: PoolConfig,
    hosts: Hosts,
    /// Hosts to keep now.
    wanted: usize,
    waiting: Admission,
    restarts: RestartIntensity,
    quarantine_restarts: RestartIntensity,
    next_lease: LeaseId,
    /// Leases that were given to standbys and not asked back.
    standbys: BTreeSet<LeaseId>,
    draining: bool,
    failures: u64,
    retry: RetryAfter,
    others: Others,
    /// When they were looked at last.
    looked_around: Timestamp,
}

impl PoolMachine {
    /// A pool that starts its hosts.
    #[must_use]
    pub fn new(now: Timestamp, config: PoolConfig, out: &mut Vec<PoolAction>) -> Self {
        let mut pool = Self {
            config,
            hosts: Hosts::default(),
            wanted: usize::from(config.hosts),
            waiting: Admission::default(),
            restarts: RestartIntensity::new(config.restarts),
            quarantine_restarts: RestartIntensity::new(config.restarts),
            next_lease: LeaseId(0),
            standbys: BTreeSet::new(),
            draining: false,
            failures: 0,
            retry: RetryAfter::new(config.retry_after),
            others: Others::default(),
            looked_around: now,
        };
        for _ in 0..config.hosts {
            pool.hosts.add(now, StartCause::Start, None);
        }
        pool.start_due(now, out);
        pool
    }

    /// Takes an event and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: PoolEvent, out: &mut Vec<PoolAction>) {
        self.hosts.drop_expired(now);
        match event {
            PoolEvent::Requested { request, purpose, claim } => {
                self.requested(now, request, purpose, claim, out);
            }
            PoolEvent::Withdrawn { request } => drop(self.waiting.withdraw(request)),
            PoolEvent::PatienceEnded { request } => {
                if self.waiting.withdraw(request) {
                    out.push(self.refusal(now, request, Refusal::WaitedTooLong));
                }
            }
            PoolEvent::ReservationRequested { request, reservation, session, ttl, failover } => {
                let kept = self.reserve(now, reservation, session, ttl, failover);
                out.push(match kept {
                    Ok((reservation, ttl)) => PoolAction::Reserve { request, reservation, ttl },
                    Err(reason) => self.refusal(now, request, reason),
                });
            }
            PoolEvent::ReservationReleased { reservation } => drop(self.hosts.take_reserved(reservation)),
            PoolEvent::OthersChanged { others } => {
                self.others = others;
                self.looked_around = now;
            }
            PoolEvent::Released { lease } => self.released(now, lease, out),
            PoolEvent::HostReady { host } => self.ready(now, host, out),
            PoolEvent::HostRetiring { host } => self.retiring(now, host, out),
            PoolEvent::HostEnded { host, end, suspects } => self.ended(now, host, end, &suspects, out),
            PoolEvent::Resized { hosts } => self.resized(now, hosts),
            PoolEvent::Draining => self.draining = true,
            PoolEvent::TimedOut => self.looked_around = now,
        }
        self.replace_missing(now);
        self.start_due(now, out);
        self.replace_missing(now);
        self.assign(now, out);
        // After that: who waited for a host to load may wait for less once it has.
        self.expire(now, out);
        self.note_vacancies(now);
        self.park_surplus();
        self.retire_parked(now, out);
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let hosts = self.hosts.by_id.values().filter_map(|host| match host.state {
            HostState::Waiting { start_at } => Some(start_at),
            HostState::Loading { since } => Some(since.plus(self.config.load_deadline)),
            _ => None,
        });
        let held_back = self.waiting.waits_to_begin() && self.free_slot().is_some();
        let look_around = held_back.then(|| self.looked_around.plus(LOOK_AROUND));
        let queue = self.waiting.next_expiry(self.longest_wait());
        let parked = self.hosts.by_id.values().filter_map(|host| self.goes_at(host));
        hosts.chain(queue).chain(self.hosts.next_expiry()).chain(look_around).chain(parked).min()
    }

    fn requested(
        &mut self,
        now: Timestamp,
        request: RequestId,
        purpose: Purpose,
        claim: Option<Claim>,
        out: &mut Vec<PoolAction>,
    ) {
        let entry = Waiting { request, since: now };
        if let Some(host) = claim.and_then(|claim| self.claimed(claim, purpose)) {
            self.grant(now, entry, host, out);
            return;
        }
        let slots = usize::from(self.config.slots_per_host);
        let refused = match purpose {
            Purpose::Continue(kind) => {
                if kind == LeaseKind::Shared && self.hosts.emptiest(2 * slots).is_none() {
                    self.reclaim_standby(out);
                }
                self.waiting.wait_continue(entry, kind);
                None
            }
            Purpose::Standby { avoid } => match self.free_for_standby(avoid) {
                Some(host) => {
                    let lease = self.grant(now, entry, host, out);
                    self.standbys.insert(lease);
                    None
                }
                None => Some(Refusal::QueueFull),
            },
            Purpose::New if self.draining => Some(Refusal::Draining),
            Purpose::New => {
                // The queue is for those who find no slot; whoever finds one is in it for no time. Where no host is there, somebody
                // has to ask for one.
                let slot = self.headroom() > 0 && self.free_slot().is_some();
                let longest = self.config.queue_length.max(usize::from(slot || self.is_cold()));
                let refused = self.waiting.wait_new(entry, longest).err();
                if !slot && refused.is_none() {
                    self.reclaim_standby(out);
                }
                refused
            }
        };
        if let Some(reason) = refused {
            out.push(self.refusal(now, request, reason));
        }
    }

    fn refusal(&self, now: Timestamp, request: RequestId, reason: Refusal) -> PoolAction {
        let retry_after = self.retry.estimate(now, self.waiting.len());
        PoolAction::Refuse { request, refused: Refused { reason, retry_after } }
    }

    /// A host with a slot for a new session.
    fn free_slot(&self) -> Option<HostId> {
        self.hosts.emptiest(usize::from(self.config.slots_per_host))
    }

    fn released(&mut self, now: Timestamp, lease: LeaseId, out: &mut Vec<PoolAction>) {
        let Some((id, host)) = self.hosts.of_lease(lease) else { return };
        host.leases.remove(&lease);
        self.standbys.remove(&lease);
        if host.is_open() {
            self.retry.slot_freed(now);
        }
        let unneeded = host.quarantine || host.state == HostState::Retiring { replaced: true };
        if host.leases.is_empty() && unneeded && host.state != HostState::Ending {
            host.state = HostState::Ending;
            out.push(PoolAction::StopHost { host: id });
        }
    }

    fn ready(&mut self, now: Timestamp, id: HostId, out: &mut Vec<PoolAction>) {
        let Some(host) = self.hosts.by_id.get_mut(&id) else { return };
        if !matches!(host.state, HostState::Loading { .. }) {
            return;
        }
        host.state = HostState::Ready { since: now };
        if host.quarantine {
            // What it dies of later is its lease's doing.
            self.quarantine_restarts.proved();
        }
        if let Some(old) = host.replaces.take() {
            self.replaced(old, out);
        }
    }

    /// A host's leases are to go elsewhere, and then it is.
    fn replaced(&mut self, old: HostId, out: &mut Vec<PoolAction>) {
        let Some(host) = self.hosts.by_id.get_mut(&old) else { return };
        if host.leases.is_empty() {
            host.state = HostState::Ending;
            out.push(PoolAction::StopHost { host: old });
        } else {
            host.state = HostState::Retiring { replaced: true };
            out.extend(host.leases.iter().map(|lease| PoolAction::Move { lease: *lease }));
        }
    }

    fn retiring(&mut self, now: Timestamp, id: HostId, out: &mut Vec<PoolAction>) {
        let Some(host) = self.hosts.by_id.get_mut(&id) else { return };
        let (HostState::Ready { since }, false) = (host.state, host.quarantine) else { return };
        host.reserved.clear();
        if host.parked {
            // One too many is not replaced.
            self.replaced(id, out);
            return;
        }
        host.state = HostState::Retiring { replaced: false };
        // A budget that a new host has spent already would have hosts replaced without end.
        let proved = now.since(since) >= self.config.proved_after;
        let start_at = if proved { now } else { self.restarts.died(now) };
        self.hosts.add(start_at, StartCause::Replacement, Some(id));
    }

    fn ended(
        &mut self,
        now: Timestamp,
        id: HostId,
        end: HostEnd,
        suspects: &[LeaseId],
        out: &mut Vec<PoolAction>,
    ) {
        let Some(host) = self.hosts.by_id.remove(&id) else { return };
        for lease in host.leases {
            self.standbys.remove(&lease);
            out.push(PoolAction::Lose { lease, cause: end.loss(suspects.contains(&lease)) });
        }
        if end != HostEnd::Stopped {
            self.failures += 1;
        }
        if let HostState::Ready { since } = host.state
            && now.since(since) >= self.config.proved_after
        {
            self.restarts.proved();
        }
        if let Some(successor) = self.hosts.by_id.values_mut().find(|other| other.replaces == Some(id)) {
            // With its predecessor gone it is simply one of the hosts to keep.
            successor.replaces = None;
        } else if let Some(old) = host.replaces.filter(|old| self.hosts.by_id.contains_key(old)) {
            let start_at = self.restarts.died(now);
            self.hosts.add(start_at, StartCause::Replacement, Some(old));
        }
    }

    /// Keeps as many hosts as are wanted, counting those that are about to be.
    fn replace_missing(&mut self, now: Timestamp) {
        while self.hosts.kept() < self.wanted {
            if self.unpark() {
                continue;
            }
            let start_at = self.restarts.died(now);
            self.hosts.add(start_at, StartCause::Respawn, None);
        }
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<PoolAction>) {
        for entry in self.waiting.expired(now, self.longest_wait()) {
            out.push(self.refusal(now, entry.request, Refusal::WaitedTooLong));
        }
    }

    fn start_due(&mut self, now: Timestamp, out: &mut Vec<PoolAction>) {
        let (mut there, used) = self.hosts.quarantine_counts();
        let wanted = used + self.waiting.waits_to_continue(LeaseKind::Quarantine);
        while there < wanted.min(usize::from(self.config.quarantine_hosts)) {
            let start_at = self.quarantine_restarts.died(now);
            self.hosts.add(start_at, StartCause::Quarantine, None);
            there += 1;
        }
        for (id, host) in &mut self.hosts.by_id {
            match host.state {
                HostState::Waiting { start_at } if start_at <= now => {
                    host.state = HostState::Loading { since: now };
                    let Host { quarantine, cause, .. } = *host;
                    out.push(PoolAction::StartHost { host: *id, quarantine, cause });
                }
                HostState::Loading { since } if now.since(since) >= self.config.load_deadline => {
                    host.state = HostState::Ending;
                    out.push(PoolAction::KillHost { host: *id });
                }
                _ => {}
            }
        }
    }

    fn assign(&mut self, now: Timestamp, out: &mut Vec<PoolAction>) {
        let slots = usize::from(self.config.slots_per_host);
        while let Some(host) = self.hosts.free_quarantine() {
            let Some(entry) = self.waiting.next_continue(LeaseKind::Quarantine) else { break };
            self.grant(now, entry, host, out);
        }
        while let Some(host) = self.hosts.emptiest(2 * slots) {
            let Some(entry) = self.waiting.next_continue(LeaseKind::Shared) else { break };
            self.grant(now, entry, host, out);
        }
        while self.headroom() > 0
            && let Some(host) = self.free_slot()
        {
            let Some(entry) = self.waiting.next_new() else { break };
            self.grant(now, entry, host, out);
        }
        self.stop_unwanted_quarantine(out);
    }

    /// A suspect whose client has gone leaves a host behind that nobody asked for.
    fn stop_unwanted_quarantine(&mut self, out: &mut Vec<PoolAction>) {
        if self.waiting.waits_to_continue(LeaseKind::Quarantine) > 0 {
            return;
        }
        if let Some(id) = self.hosts.free_quarantine()
            && let Some(host) = self.hosts.by_id.get_mut(&id)
        {
            host.state = HostState::Ending;
            out.push(PoolAction::StopHost { host: id });
        }
    }

    fn grant(&mut self, now: Timestamp, entry: Waiting, host: HostId, out: &mut Vec<PoolAction>) -> LeaseId {
        let lease = self.next_lease;
        self.next_lease = lease.next();
        if let Some(holder) = self.hosts.by_id.get_mut(&host) {
            holder.leases.insert(lease);
        }
        out.push(PoolAction::Grant { request: entry.request, lease, host, waited: now.since(entry.since) });
        lease
    }
}
