//! The queue for decoders: those who go on before those who begin, each in the order they came.

use std::collections::VecDeque;
use std::time::Duration;

use super::messages::{Refusal, RequestId};
use crate::Timestamp;
use crate::session::LeaseKind;

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Waiting {
    pub(super) request: RequestId,
    pub(super) since: Timestamp,
}

/// Who waits for a lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Admission {
    new: VecDeque<Waiting>,
    shared: VecDeque<Waiting>,
    quarantine: VecDeque<Waiting>,
}

impl Admission {
    pub(super) fn len(&self) -> usize {
        self.new.len() + self.shared.len() + self.quarantine.len()
    }

    /// Lets a new session wait, if there is room.
    pub(super) fn wait_new(&mut self, entry: Waiting, longest: usize) -> Result<(), Refusal> {
        if self.new.len() >= longest {
            return Err(Refusal::QueueFull);
        }
        self.new.push_back(entry);
        Ok(())
    }

    /// Lets a session wait that is to go on. There are never more of these than sessions.
    pub(super) fn wait_continue(&mut self, entry: Waiting, kind: LeaseKind) {
        self.continuing(kind).push_back(entry);
    }

    /// Whether it waited.
    pub(super) fn withdraw(&mut self, request: RequestId) -> bool {
        let before = self.len();
        for queue in [&mut self.new, &mut self.shared, &mut self.quarantine] {
            queue.retain(|entry| entry.request != request);
        }
        self.len() < before
    }

    pub(super) fn next_continue(&mut self, kind: LeaseKind) -> Option<Waiting> {
        self.continuing(kind).pop_front()
    }

    pub(super) fn waits_to_continue(&self, kind: LeaseKind) -> usize {
        match kind {
            LeaseKind::Shared => self.shared.len(),
            LeaseKind::Quarantine => self.quarantine.len(),
        }
    }

    pub(super) fn waits_to_begin(&self) -> bool {
        !self.new.is_empty()
    }

    pub(super) fn next_new(&mut self) -> Option<Waiting> {
        self.new.pop_front()
    }

    /// New sessions that have waited too long by `now`.
    pub(super) fn expired(&mut self, now: Timestamp, longest: Duration) -> Vec<Waiting> {
        let late = self.new.iter().take_while(|entry| now >= entry.since.plus(longest)).count();
        self.new.drain(..late).collect()
    }

    pub(super) fn next_expiry(&self, longest: Duration) -> Option<Timestamp> {
        self.new.front().map(|entry| entry.since.plus(longest))
    }

    fn continuing(&mut self, kind: LeaseKind) -> &mut VecDeque<Waiting> {
        match kind {
            LeaseKind::Shared => &mut self.shared,
            LeaseKind::Quarantine => &mut self.quarantine,
        }
    }
}
