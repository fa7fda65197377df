//! What room a node has for one session more, and in which order room is looked for.

use super::{Candidate, Own};
use crate::pool::Purpose;
use crate::session::LeaseKind;

/// Room for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A slot that is idle.
    Idle,
    /// None at all, but one that is loaded for whoever asks. It takes seconds.
    OnDemand,
    /// Whatever a node has that decodes the model: idle slots, a reserve for those who lost their decoder, or a queue.
    Crowded,
}

impl Room {
    pub(super) const fn is_own(self, own: &Own<'_>) -> bool {
        match self {
            Self::Idle => own.idle > 0,
            // What this node loads itself it is not asked for: its pool does so for whoever waits there.
            Self::OnDemand => false,
            Self::Crowded => true,
        }
    }

    pub(super) const fn is_at(self, candidate: &Candidate) -> bool {
        match self {
            Self::Idle => candidate.idle > 0,
            Self::OnDemand => candidate.on_demand,
            Self::Crowded => !candidate.on_demand,
        }
    }
}

/// All peers are asked once for any of these rooms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// What will do, the best first.
    pub rooms: &'static [Room],
    /// Whether it will in another class.
    pub any_class: bool,
}

impl Round {
    const fn of(rooms: &'static [Room]) -> Self {
        Self { rooms, any_class: true }
    }
}

/// The rounds of a search. `own_hosts` says whether this node has decoders of its own, or loads some.
///
/// Who begins is better off with a host that loads than in a queue that may end in a refusal. Who has lost a decoder is
/// let into the reserves at once, those of its class before what is idle in another, and has something loaded only where nobody
/// decodes any more. A node with decoders of its own has those who begin wait in its own queue, and loads what it needs itself.
#[must_use]
pub const fn search_order(purpose: Purpose, own_hosts: bool) -> &'static [Round] {
    use Room::{Crowded, Idle, OnDemand};
    const IDLE: Round = Round::of(&[Idle]);
    const IN_CLASS: Round = Round { rooms: &[Idle], any_class: false };
    const LOADING: Round = Round::of(&[OnDemand]);
    const CROWDED: Round = Round::of(&[Idle, Crowded]);
    const WHATEVER: Round = Round::of(&[Idle, Crowded, OnDemand]);
    match (purpose, own_hosts) {
        (Purpose::New, false) => &[IDLE, LOADING, CROWDED],
        (Purpose::New | Purpose::Standby { .. }, _) => &[IDLE],
        // Idle slots say nothing of hosts that are started for one segment alone.
        (Purpose::Continue(LeaseKind::Quarantine), _) => &[WHATEVER],
        (Purpose::Continue(LeaseKind::Shared), false) => &[IN_CLASS, WHATEVER],
        (Purpose::Continue(LeaseKind::Shared), true) => &[IN_CLASS, CROWDED],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooms(rounds: &[Round]) -> Vec<Room> {
        rounds.iter().flat_map(|round| round.rooms).copied().collect()
    }

    #[test]
    fn loading_is_the_last_resort_but_one_for_those_who_begin_and_the_last_for_those_who_go_on() {
        let flat = |purpose, own| rooms(search_order(purpose, own));
        let place = |rooms: &[Room], room| rooms.iter().position(|found| *found == room);
        let new = flat(Purpose::New, false);
        assert!(place(&new, Room::Idle) < place(&new, Room::OnDemand));
        assert!(place(&new, Room::OnDemand) < place(&new, Room::Crowded));
        for kind in [LeaseKind::Shared, LeaseKind::Quarantine] {
            assert_eq!(flat(Purpose::Continue(kind), false).last(), Some(&Room::OnDemand));
        }
    }

    #[test]
    fn who_goes_on_stays_in_the_class_as_long_as_there_is_any_room_in_it() {
        for own_hosts in [false, true] {
            let rounds = search_order(Purpose::Continue(LeaseKind::Shared), own_hosts);
            let leaving = rounds.iter().find(|round| round.any_class).map(|round| round.rooms);
            assert!(leaving.is_some_and(|rooms| rooms.contains(&Room::Crowded)), "{leaving:?}");
        }
    }

    #[test]
    fn a_node_with_decoders_of_its_own_has_none_loaded_elsewhere() {
        for purpose in [Purpose::New, Purpose::Continue(LeaseKind::Shared), Purpose::Standby { avoid: None }]
        {
            assert!(!rooms(search_order(purpose, true)).contains(&Room::OnDemand), "{purpose:?}");
        }
        assert_eq!(rooms(search_order(Purpose::New, true)), [Room::Idle], "the queue is its own");
    }
}
