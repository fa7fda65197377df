//! How many hosts there are: more at once, fewer by parking the emptiest.
//!
//! A host that is one too many is parked: it takes nothing new, what it decodes goes on, and it is stopped when it has been empty
//! for a while. When more are wanted before that, it is taken back with its model in memory and its recognizers warm.

use std::time::Duration;

use super::super::hosts::{Host, HostState};
use super::super::messages::{HostId, PoolAction, StartCause};
use super::PoolMachine;
use crate::Timestamp;
use crate::admission::least_total;
use crate::scaling::Demand;
use crate::session::LeaseKind;

impl PoolMachine {
    /// So many hosts there should be, those of the settings at least.
    pub(super) fn resized(&mut self, now: Timestamp, hosts: u16) {
        if self.draining {
            return;
        }
        let cause = if self.wanted == 0 { StartCause::Wake } else { StartCause::Scaling };
        self.wanted = usize::from(hosts.max(self.config.hosts));
        while self.hosts.kept() < self.wanted {
            if !self.unpark() {
                // Nothing died: no reason to wait.
                self.hosts.add(now, cause, None);
            }
        }
    }

    /// What is asked of this model's decoders, so many of which are to be idle.
    #[must_use]
    pub fn demand(&self, idle_target: u32) -> Demand {
        let (busy, waiting) = (count(self.hosts.held()), count(self.waiting.len_shared()));
        let new = busy.saturating_add(waiting).saturating_add(idle_target);
        // Who is alone with what killed a host will need a slot again, wherever that is.
        let alone =
            count(self.streams() - self.hosts.held() - self.waiting.waits_to_continue(LeaseKind::Shared));
        let streams = new.saturating_add(alone);
        let least = u32::try_from(least_total(streams, self.others)).unwrap_or(u32::MAX);
        Demand { busy, waiting, reserve: least.saturating_sub(new) }
    }

    /// The longest that a new session waits: where no host is there, one may have to load first.
    pub(super) fn longest_wait(&self) -> Duration {
        if self.is_cold() { self.config.cold_wait } else { self.config.queue_wait }
    }

    /// Whether no host is there, and callers wait for one to load.
    pub(super) fn is_cold(&self) -> bool {
        self.hosts.open() == 0 && self.config.cold_wait > self.config.queue_wait
    }

    /// Takes a parked host back, the fullest first; those that load still after those that are ready.
    pub(super) fn unpark(&mut self) -> bool {
        let parked = self.hosts.by_id.iter_mut().filter(|(_, host)| {
            host.parked && (host.is_ready() || matches!(host.state, HostState::Loading { .. }))
        });
        let found = parked.max_by_key(|(id, host)| (host.is_ready(), host.held(), std::cmp::Reverse(**id)));
        found.map(|(_, host)| host.parked = false).is_some()
    }

    pub(super) fn note_vacancies(&mut self, now: Timestamp) {
        for host in self.hosts.by_id.values_mut() {
            if host.held() > 0 {
                (host.vacant_since, host.used) = (None, true);
            } else if host.is_ready() && host.vacant_since.is_none() {
                host.vacant_since = Some(now);
            }
        }
    }

    /// Parks what is too many.
    pub(super) fn park_surplus(&mut self) {
        while let Some(id) = self.surplus() {
            match self.hosts.by_id.get_mut(&id) {
                Some(host) if !matches!(host.state, HostState::Waiting { .. }) => host.parked = true,
                // It has no process yet.
                _ => drop(self.hosts.by_id.remove(&id)),
            }
        }
    }

    /// A host that nobody needs: one that is not started, or else loads, or else the emptiest, the youngest among equals. All
    /// streams that there are must fit on those that stay without their reserve, and so must those of any other node that is lost.
    pub(super) fn surplus(&self) -> Option<HostId> {
        if self.hosts.kept() <= self.wanted {
            return None;
        }
        let rank = |host: &Host| match host.state {
            HostState::Waiting { .. } if host.replaces.is_none() => Some(0),
            HostState::Loading { .. } if host.replaces.is_none() => Some(1),
            HostState::Ready { .. } => Some(2),
            _ => None,
        };
        let kept = self.hosts.by_id.iter().filter(|(_, host)| host.is_kept());
        let ranked = kept.filter_map(|(id, host)| Some((rank(host)?, host.held(), std::cmp::Reverse(*id))));
        let (.., std::cmp::Reverse(found)) = ranked.min()?;
        let ready = self.hosts.by_id.get(&found).is_some_and(Host::is_ready);
        let staying = (self.hosts.open() - usize::from(ready)) * usize::from(self.config.slots_per_host);
        let needed = self.hosts.held() + self.waiting.len_shared();
        let for_others = least_total(count(self.streams()), self.others);
        let for_others = usize::try_from(for_others).unwrap_or(usize::MAX);
        (staying >= needed.max(for_others)).then_some(found)
    }

    /// When a host is to be stopped, if it stays as it is.
    pub(super) fn goes_at(&self, host: &Host) -> Option<Timestamp> {
        let ttl = if host.used { self.config.idle_ttl } else { self.config.unused_ttl };
        let parked = host.parked && host.is_ready();
        host.vacant_since.filter(|_| parked).map(|since| since.plus(ttl))
    }

    pub(super) fn retire_parked(&mut self, now: Timestamp, out: &mut Vec<PoolAction>) {
        let due = |host: &Host| self.goes_at(host).is_some_and(|at| at <= now);
        let due: Vec<HostId> =
            self.hosts.by_id.iter().filter(|(_, host)| due(host)).map(|(id, _)| *id).collect();
        for id in due {
            if let Some(host) = self.hosts.by_id.get_mut(&id) {
                host.state = HostState::Ending;
                out.push(PoolAction::StopHost { host: id });
            }
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
