//! Rounds in which others are judged by their silence, and which of them may accuse.
//!
//! Owns: when the last round was. Must never: let a round accuse that came late by our own clock: what the others said may
//! be lying unread.

use std::time::Duration;

use crate::Timestamp;

/// A round later than this by our own clock accuses nobody.
pub const LATE: Duration = Duration::from_millis(100);

/// What a round may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Round {
    /// Nothing: one that piled up behind the last while this node stalled. What was said may lie behind it.
    Piled,
    /// Nothing: this node did not listen for so long.
    Late(Duration),
    /// Accuse.
    OnTime,
}

/// Tells rounds apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rounds {
    every: Duration,
    last: Timestamp,
}

impl Rounds {
    /// Rounds that are to be held this often from now on.
    pub(crate) const fn new(now: Timestamp, every: Duration) -> Self {
        Self { every, last: now }
    }

    /// A round is held.
    pub(crate) fn hold(&mut self, now: Timestamp) -> Round {
        let gap = now.since(self.last);
        if gap < self.every / 2 {
            return Round::Piled;
        }
        self.last = now;
        if gap > self.every + LATE { Round::Late(gap) } else { Round::OnTime }
    }
}
