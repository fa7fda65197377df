//! What a lineup is told and what it asks for.

use std::time::Duration;

/// Most pools of one model at once, those that are ending counted. Each holds the model in memory; who replaces a model again
/// and again under long sessions is told to wait.
pub const MOST_POOLS: usize = 4;

/// A pool of one node, counted from its start. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u64);

/// A model as it is to be served: its files, and how its pool is set up. Two that are equal are served by the same pool.
pub trait Offer: Clone + PartialEq {
    /// What clients call it.
    fn name(&self) -> &str;
    /// What its files are.
    fn digest(&self) -> &str;
}

/// How a node deals with what it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LineupConfig {
    /// How long a pool that was replaced is kept once nobody has a claim to it.
    pub keep: Duration,
}

/// What a pool is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It gets new sessions once one of its hosts is ready.
    Loading,
    /// New sessions get it.
    Current,
    /// The sessions that began with it go on; no new ones get it.
    Leaving,
    /// Its hosts were told to end.
    Ending,
}

impl Stage {
    /// The name that operators see.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Current => "current",
            Self::Leaving => "leaving",
            Self::Ending => "ending",
        }
    }
}

/// What became of a model that was offered, or that was not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was not served before.
    Added,
    /// Another pool is started, and takes the place of the one there is.
    Replacing,
    /// It is served already, or about to be.
    Unchanged,
    /// It is served again by the pool that was being replaced.
    Restored,
    /// No new sessions get it.
    Retired,
    /// It has [`MOST_POOLS`] already. It is served as before.
    Refused,
}

impl Change {
    /// The name that operators see.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Replacing => "replacing",
            Self::Unchanged => "unchanged",
            Self::Restored => "restored",
            Self::Retired => "retired",
            Self::Refused => "refused",
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LineupEvent<O> {
    /// These are to be served and no others, the default first.
    Named {
        /// Each name once.
        offers: Vec<O>,
    },
    /// This one is to be served beside the others.
    Added {
        /// The model.
        offer: O,
    },
    /// A pool can take sessions.
    Ready {
        /// Which.
        pool: PoolId,
    },
    /// Somebody has a claim to each of these pools and to no other.
    Claimed {
        /// Which.
        pools: Vec<PoolId>,
    },
    /// A pool and its hosts are gone.
    Ended {
        /// Which.
        pool: PoolId,
    },
    /// `next_timeout` has come.
    TimedOut,
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LineupAction {
    /// Start a pool.
    Start {
        /// Its name; what it is started with is its offer.
        pool: PoolId,
    },
    /// End a pool's hosts.
    End {
        /// Which.
        pool: PoolId,
    },
    /// Tell whoever asked what became of a model.
    Changed {
        /// The pool that serves it; the one that did, if it is retired.
        pool: PoolId,
        /// What became of it.
        change: Change,
    },
}
