//! The search through all states, and what it found in words.

use std::fmt;
use std::num::NonZero;

use stateright::{Checker, HasDiscoveries, Model};

use crate::model::Cluster;
use crate::state::Invariant;

/// What a search came to.
#[derive(Debug)]
pub struct Found {
    /// Different states.
    pub states: usize,
    /// The longest of the shortest ways to each of them, in steps.
    pub depth: usize,
    /// Whether the client can be told everything.
    pub can_end: bool,
    /// The shortest ways to what should not be; a search ends with the first of each kind.
    pub counterexamples: Vec<Counterexample>,
}

/// The shortest way to a state in which something does not hold.
#[derive(Debug)]
pub struct Counterexample {
    /// What does not hold.
    pub invariant: Invariant,
    /// In words.
    pub what: String,
    /// How it came to that, a line for each step.
    pub steps: Vec<String>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in (1..).zip(&self.steps) {
            writeln!(f, "{number:>3}  {step}")?;
        }
        write!(f, "{:?}: {}", self.invariant, self.what)
    }
}

impl Cluster {
    /// Goes through all states that can be reached; when something does not hold, only as far as that takes, and never beyond
    /// the steps that are looked ahead.
    #[must_use]
    pub fn search(self) -> Found {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut checker = self.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
        if let Some(steps) = self.most_steps {
            checker = checker.target_max_depth(steps);
        }
        let checker = checker.spawn_bfs().join();
        let (states, depth) = (checker.unique_state_count(), checker.max_depth());
        let mut found = Found { states, depth, can_end: false, counterexamples: Vec::new() };
        for (name, path) in checker.discoveries() {
            if name == crate::model::CAN_END {
                found.can_end = true;
                continue;
            }
            let path = path.into_vec();
            let steps = path.iter().filter_map(|(state, step)| step.map(|step| self.tell(state, step)));
            let broken = path.last().and_then(|(state, _)| self.verdict(state));
            if let Some((invariant, what)) = broken {
                found.counterexamples.push(Counterexample { invariant, what, steps: steps.collect() });
            }
        }
        found.counterexamples.sort_by_key(|found| (found.steps.len(), found.invariant));
        found
    }
}
