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

    /// Those who wait for a slot that any session may have.
    pub(super) fn len_shared(&self) -> usize {
        self.new.len() + self.shared.len()
    }

    /// Those who have a session already, and wait to go on.
    pub(super) fn len_continuing(&self) -> usize {
        self.shared.len() + self.quarantine.len()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Move {
        Begin,
        Continue(LeaseKind),
        Withdraw(u8),
        TakeNew,
        TakeContinue(LeaseKind),
        Wait(u16),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let kind = prop::sample::select(vec![LeaseKind::Shared, LeaseKind::Quarantine]);
        let one = prop_oneof![
            4 => Just(Move::Begin),
            3 => kind.clone().prop_map(Move::Continue),
            1 => any::<u8>().prop_map(Move::Withdraw),
            2 => Just(Move::TakeNew),
            2 => kind.prop_map(Move::TakeContinue),
            2 => (0u16..1_500).prop_map(Move::Wait),
        ];
        proptest::collection::vec(one, 0..120)
    }

    const LONGEST: Duration = Duration::from_secs(2);

    proptest! {
        /// Against one list of all who wait: nobody overtakes who came before and wants the same, and nobody is forgotten.
        #[test]
        fn each_queue_is_served_in_the_order_of_coming(moves in moves()) {
            let mut queue = Admission::default();
            let mut model: Vec<(Option<LeaseKind>, Waiting)> = Vec::new();
            let (mut now, mut next) = (Timestamp::default(), 0u64);
            for step in moves {
                let waiting = |kind: Option<LeaseKind>, model: &[(Option<LeaseKind>, Waiting)]| {
                    model.iter().position(|(of, _)| *of == kind)
                };
                match step {
                    Move::Begin => {
                        next += 1;
                        let entry = Waiting { request: RequestId(next), since: now };
                        let begins = model.iter().filter(|(kind, _)| kind.is_none()).count();
                        let expected = if begins < 4 { Ok(()) } else { Err(Refusal::QueueFull) };
                        prop_assert_eq!(queue.wait_new(entry, 4), expected);
                        if expected.is_ok() {
                            model.push((None, entry));
                        }
                    }
                    Move::Continue(kind) => {
                        next += 1;
                        let entry = Waiting { request: RequestId(next), since: now };
                        queue.wait_continue(entry, kind);
                        model.push((Some(kind), entry));
                    }
                    Move::Withdraw(which) => {
                        let request = RequestId(u64::from(which) % (next + 1));
                        let before = model.len();
                        model.retain(|(_, entry)| entry.request != request);
                        prop_assert_eq!(queue.withdraw(request), model.len() < before);
                    }
                    Move::TakeNew => {
                        let expected = waiting(None, &model).map(|index| model.remove(index).1);
                        prop_assert_eq!(queue.next_new(), expected);
                    }
                    Move::TakeContinue(kind) => {
                        let expected = waiting(Some(kind), &model).map(|index| model.remove(index).1);
                        prop_assert_eq!(queue.next_continue(kind), expected);
                    }
                    Move::Wait(ms) => {
                        now = now.plus(Duration::from_millis(u64::from(ms)));
                        let late = |(kind, entry): &(Option<LeaseKind>, Waiting)| {
                            kind.is_none() && now >= entry.since.plus(LONGEST)
                        };
                        let expected: Vec<Waiting> =
                            model.iter().filter(|waiting| late(waiting)).map(|(_, entry)| *entry).collect();
                        model.retain(|waiting| !late(waiting));
                        prop_assert_eq!(queue.expired(now, LONGEST), expected);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                let of = |kind| model.iter().filter(|(waits, _)| *waits == kind).count();
                prop_assert_eq!(queue.len_continuing(), model.len() - of(None));
                prop_assert_eq!(queue.waits_to_begin(), of(None) > 0);
                for kind in [LeaseKind::Shared, LeaseKind::Quarantine] {
                    prop_assert_eq!(queue.waits_to_continue(kind), of(Some(kind)));
                }
                let first = model.iter().find(|(kind, _)| kind.is_none());
                prop_assert_eq!(queue.next_expiry(LONGEST), first.map(|(_, entry)| entry.since.plus(LONGEST)));
            }
        }
    }
}
