//! Which packets of each sender were heard before.
//!
//! Owns: for each sender its latest run and which of that run's packets came. Must never: hear of a packet whose seal was not
//! checked, since its sender could be anybody.
//!
//! A receiver that has just started has heard nothing, so it can be told once what others heard long ago; what it believes
//! then is put right by the next probe of whoever it was told of.

use std::collections::BTreeMap;

use starling_protocol::{Generation, NodeId, NodeName};
use thiserror::Error;

use crate::sabotage::{Bug, is};

/// How far packets of one sender may overtake each other. A sender's packets go to all nodes in one sequence and a
/// few dozen of them a second; on their way to one node they overtake each other by milliseconds.
const WINDOW: u64 = 128;

/// A packet that is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum ReplayError {
    /// It was heard before.
    #[error("heard before")]
    Replayed,
    /// So many later ones were heard that nobody knows.
    #[error("too old to tell whether it was heard before")]
    TooOld,
    /// Its sender has been started again since, as this generation.
    #[error("of a run before generation {0}")]
    OldGeneration(Generation),
}

/// What was heard of every sender.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplayWindows {
    senders: BTreeMap<NodeName, Window>,
    most_senders: usize,
    heard: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Window {
    generation: Generation,
    highest: u64,
    /// Bit n: `highest - n` was heard.
    seen: u128,
    last_heard: u64,
}

impl ReplayWindows {
    /// Windows for so many senders; past them, the one that was silent longest is forgotten.
    #[must_use]
    pub const fn new(most_senders: usize) -> Self {
        Self { senders: BTreeMap::new(), most_senders, heard: 0 }
    }

    /// Judges a packet and remembers it.
    ///
    /// # Errors
    /// See [`ReplayError`]; nothing was remembered.
    pub fn accept(&mut self, sender: &NodeId, sequence: u64) -> Result<(), ReplayError> {
        self.heard += 1;
        if let Some(window) = self.senders.get_mut(&sender.name)
            && sender.generation <= window.generation
        {
            if sender.generation < window.generation && !is(Bug::OldRunHeard) {
                return Err(ReplayError::OldGeneration(window.generation));
            }
            window.accept(sequence)?;
            window.last_heard = self.heard;
            return Ok(());
        }
        let fresh =
            Window { generation: sender.generation, highest: sequence, seen: 1, last_heard: self.heard };
        self.senders.insert(sender.name.clone(), fresh);
        self.forget_the_silent();
        Ok(())
    }

    /// The latest run of a sender that was heard.
    #[must_use]
    pub fn generation_of(&self, name: &NodeName) -> Option<Generation> {
        self.senders.get(name).map(|window| window.generation)
    }

    fn forget_the_silent(&mut self) {
        while self.senders.len() > self.most_senders {
            let silent = self.senders.iter().min_by_key(|(_, window)| window.last_heard);
            let Some(name) = silent.map(|(name, _)| name.clone()) else { return };
            self.senders.remove(&name);
        }
    }
}

impl Window {
    fn accept(&mut self, sequence: u64) -> Result<(), ReplayError> {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.seen = if ahead >= WINDOW { 1 } else { self.seen << ahead | 1 };
            self.highest = sequence;
            return Ok(());
        }
        let behind = self.highest - sequence;
        if behind >= WINDOW {
            return Err(ReplayError::TooOld);
        }
        let bit = 1 << behind;
        if self.seen & bit != 0 && !is(Bug::ReplayWindowIgnored) {
            return Err(ReplayError::Replayed);
        }
        self.seen |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, generation: u64) -> NodeId {
        NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(generation) }
    }

    #[test]
    fn a_packet_is_heard_once_and_packets_may_overtake_each_other() {
        let mut windows = ReplayWindows::new(8);
        let a = node("a", 1);
        for sequence in [5, 3, 4, 130] {
            assert_eq!(windows.accept(&a, sequence), Ok(()), "{sequence}");
            assert_eq!(windows.accept(&a, sequence), Err(ReplayError::Replayed), "{sequence}");
        }
        assert_eq!(windows.accept(&a, 2), Err(ReplayError::TooOld));
        assert_eq!(windows.accept(&a, 6), Ok(()));
    }

    #[test]
    fn a_later_run_begins_anew_and_ends_all_earlier_ones() {
        let mut windows = ReplayWindows::new(8);
        assert_eq!(windows.accept(&node("a", 1), 900), Ok(()));
        assert_eq!(windows.accept(&node("a", 2), 1), Ok(()));
        assert_eq!(windows.accept(&node("a", 1), 901), Err(ReplayError::OldGeneration(Generation(2))));
        assert_eq!(windows.accept(&node("b", 1), 1), Ok(()), "another sender");
        assert_eq!(windows.generation_of(&node("a", 0).name), Some(Generation(2)));
    }

    #[test]
    fn the_longest_silent_sender_is_forgotten_first() {
        let mut windows = ReplayWindows::new(2);
        for (name, sequence) in [("a", 1), ("b", 1), ("a", 2), ("c", 1)] {
            assert_eq!(windows.accept(&node(name, 1), sequence), Ok(()));
        }
        assert_eq!(windows.generation_of(&node("b", 0).name), None);
        assert_eq!(windows.accept(&node("a", 1), 2), Err(ReplayError::Replayed));
    }

    proptest! {
        /// Against a memory that forgets nothing: no packet is taken twice, none within the window is refused that was not.
        #[test]
        fn agrees_with_a_perfect_memory(
            heard in proptest::collection::vec((0u8..3, 1u64..4, 1u64..400), 1..300),
        ) {
            let mut windows = ReplayWindows::new(3);
            let mut taken: BTreeSet<(u8, u64, u64)> = BTreeSet::new();
            for (name, generation, sequence) in heard {
                let sender = node(["a", "b", "c"][usize::from(name)], generation);
                let of_sender = || taken.iter().filter(|(of, ..)| *of == name);
                let latest = of_sender().map(|(_, generation, _)| *generation).max().unwrap_or(0);
                let highest =
                    of_sender().filter(|(_, of, _)| *of == generation).map(|(.., sequence)| *sequence).max();
                let expected = if generation < latest {
                    Err(ReplayError::OldGeneration(Generation(latest)))
                } else if highest.is_some_and(|highest| sequence + WINDOW <= highest) {
                    Err(ReplayError::TooOld)
                } else if taken.contains(&(name, generation, sequence)) {
                    Err(ReplayError::Replayed)
                } else {
                    Ok(())
                };
                prop_assert_eq!(windows.accept(&sender, sequence), expected);
                if expected.is_ok() {
                    taken.insert((name, generation, sequence));
                }
            }
        }

        #[test]
        fn no_number_is_too_large(sequences in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut windows = ReplayWindows::new(1);
            for sequence in sequences {
                let _ = windows.accept(&node("a", 1), sequence);
            }
        }
    }
}
