//! Which node tells of the end of a session that nobody came back to: its owner is gone, and its client stays away.
//!
//! Each keeper asks the others when its copy has run out, and tells if none of them knows better. The best copy tells, of equal
//! ones that of the node with the first name: whoever runs out first, one alone finds that nobody knows better.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_protocol::control::CopySummary;
use starling_protocol::{Epoch, NodeName, SessionId};

use super::keeper::KeeperMachine;
use crate::Timestamp;

/// What this node remembers of sessions of which it has no copy any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphans {
    max_sessions: usize,
    remember: Duration,
    known: BTreeMap<SessionId, (Timestamp, Known)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Its owner, who spoke for it as this, said that it is over.
    Over(Epoch),
    /// The copy that was here ran out.
    RanOut(CopySummary),
}

/// A copy that has run out on another node.
#[derive(Debug, Clone, Copy)]
pub struct RanOut<'a> {
    /// Whose.
    pub session: SessionId,
    /// What it was like.
    pub copy: CopySummary,
    /// The node that had it.
    pub by: &'a NodeName,
}

impl Orphans {
    /// Remembers so many sessions, each for so long beyond the time for which its copies are kept: longer than keepers notice
    /// an owner's loss one after the other.
    #[must_use]
    pub const fn new(max_sessions: usize, remember: Duration) -> Self {
        Self { max_sessions, remember, known: BTreeMap::new() }
    }

    /// A session's owner, here or elsewhere, has said that it is over. A keeper that it had given up, or not asked, may have an
    /// older copy for `keep` yet.
    pub fn over(&mut self, now: Timestamp, session: SessionId, epoch: Epoch, keep: Duration) {
        self.learn(now, session, keep, Known::Over(epoch));
    }

    /// The copy here has run out.
    pub fn ran_out(&mut self, now: Timestamp, session: SessionId, copy: CopySummary) {
        self.learn(now, session, Duration::ZERO, Known::RanOut(copy));
    }

    /// Whether this node, `own`, knows more of the session than the one whose copy has run out, and will tell or has told of its
    /// end, or knows that others do.
    #[must_use]
    pub fn knows_better(
        &self,
        now: Timestamp,
        keeper: &KeeperMachine,
        own: &NodeName,
        ran_out: &RanOut<'_>,
    ) -> bool {
        let RanOut { session, copy, by } = *ran_out;
        let is_better = |mine: CopySummary| mine > copy || (mine == copy && own < by);
        if keeper.is_written(session) || keeper.obeyed(session).is_some_and(|epoch| epoch > copy.epoch) {
            return true;
        }
        if let Some(held) = keeper.held(session) {
            return is_better(held);
        }
        match self.known.get(&session) {
            Some((until, known)) if now < *until => match known {
                Known::Over(epoch) => *epoch >= copy.epoch,
                Known::RanOut(mine) => is_better(*mine),
            },
            _ => false,
        }
    }

    fn learn(&mut self, now: Timestamp, session: SessionId, keep: Duration, known: Known) {
        if self.known.len() >= self.max_sessions {
            self.known.retain(|_, (until, _)| now < *until);
        }
        if self.known.len() >= self.max_sessions
            && let Some(first) =
                self.known.iter().min_by_key(|(_, (until, _))| *until).map(|(first, _)| *first)
        {
            self.known.remove(&first);
        }
        self.known.insert(session, (now.plus(keep.saturating_add(self.remember)), known));
    }
}
