//! Slots that are kept for leases to come.

use std::time::Duration;

use starling_protocol::SessionId;
use starling_protocol::control::ReservationId;

use super::super::hosts::Reservation;
use super::super::messages::{Claim, HostId, Purpose, Refusal};
use super::PoolMachine;
use crate::Timestamp;
use crate::session::LeaseKind;

/// Longest time that a slot is kept, whatever is asked for: a reservation is to last for a round trip or two.
const LONGEST: Duration = Duration::from_secs(5);

impl PoolMachine {
    /// Turns a reservation into a place for a lease, if it is there and good for that.
    pub(super) fn claimed(&mut self, claim: Claim, purpose: Purpose) -> Option<HostId> {
        let (reservation, _) = self.hosts.reserved_for(claim.session)?;
        if reservation != claim.reservation {
            return None;
        }
        let (host, kept) = self.hosts.take_reserved(reservation)?;
        let good = match purpose {
            Purpose::New => !kept.failover,
            Purpose::Continue(kind) => kind == LeaseKind::Shared,
            Purpose::Standby { .. } => false,
        };
        good.then_some(host)
    }

    /// Keeps a slot for a session. Whoever waits for one already goes first.
    pub(super) fn reserve(
        &mut self,
        now: Timestamp,
        reservation: ReservationId,
        session: SessionId,
        ttl: Duration,
        failover: bool,
    ) -> Result<(ReservationId, Duration), Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        let ttl = ttl.min(LONGEST);
        let until = now.plus(ttl);
        if let Some((old, kept)) = self.hosts.reserved_for(session) {
            if failover || !kept.failover {
                kept.until = until;
                return Ok((old, ttl));
            }
            // A slot in the reserve is none for a session that begins.
            self.hosts.take_reserved(old);
        }
        let free = if failover {
            let first = self.waiting.waits_to_continue(LeaseKind::Shared) == 0;
            first.then(|| self.hosts.emptiest(2 * usize::from(self.config.slots_per_host))).flatten()
        } else {
            let first = !self.waiting.waits_to_begin() && self.headroom() > 0;
            first.then(|| self.free_slot()).flatten()
        };
        let host = free.and_then(|host| self.hosts.by_id.get_mut(&host)).ok_or(Refusal::QueueFull)?;
        host.reserved.insert(reservation, Reservation { session, until, failover });
        Ok((reservation, ttl))
    }
}
