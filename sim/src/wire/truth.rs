//! What was really done to a cluster, and when: what a node tells is held against it.

use std::time::Duration;

use starling_protocol::{NodeId, NodeName};

use super::ways::HostId;

/// A run of a node, by the order of their starts.
pub type RunId = usize;

/// One run of one node.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its name and generation.
    pub id: NodeId,
    /// Where it is.
    pub host: HostId,
    /// An earlier run that woke up again.
    pub is_ghost: bool,
    /// When it began.
    pub began: Duration,
    /// When it began to end: others may tell that it is gone.
    pub ending: Option<Duration>,
    /// When it was over: others have to tell that it is gone.
    pub gone: Option<Duration>,
}

/// What does not pass as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// All between two.
    Between(HostId, HostId),
    /// Datagrams from and to one.
    Datagrams(HostId),
}

#[derive(Debug, Clone)]
struct Disturbance {
    way: Way,
    from: Duration,
    until: Option<Duration>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    runs: Vec<Run>,
    disturbances: Vec<Disturbance>,
}

impl Truth {
    /// A run begins.
    pub fn began(&mut self, id: NodeId, host: HostId, is_ghost: bool, now: Duration) -> RunId {
        self.runs.push(Run { id, host, is_ghost, began: now, ending: None, gone: None });
        self.runs.len() - 1
    }

    /// The run on a host that has not ended, if there is one.
    #[must_use]
    pub fn running_on(&self, host: HostId) -> Option<RunId> {
        self.runs.iter().rposition(|run| run.host == host && run.gone.is_none())
    }

    /// One run.
    #[must_use]
    pub fn run(&self, run: RunId) -> &Run {
        &self.runs[run]
    }

    /// The run of this name and generation, if there ever was one.
    #[must_use]
    pub fn find(&self, id: &NodeId) -> Option<&Run> {
        self.runs.iter().find(|run| run.id == *id)
    }

    /// A run is about to end.
    pub fn ending(&mut self, run: RunId, now: Duration) {
        self.runs[run].ending.get_or_insert(now);
    }

    /// A run is over.
    pub fn gone(&mut self, run: RunId, now: Duration) {
        self.ending(run, now);
        self.runs[run].gone.get_or_insert(now);
    }

    /// The runs that live, by the order of their starts.
    pub fn living(&self) -> impl Iterator<Item = (RunId, &Run)> {
        self.runs.iter().enumerate().filter(|(_, run)| run.gone.is_none())
    }

    /// The runs that live or were killed.
    pub fn not_left(&self) -> impl Iterator<Item = &Run> {
        // One that is killed has no time to end in.
        self.runs.iter().filter(|run| run.gone.is_none() || run.gone == run.ending)
    }

    /// Something does not pass from now on, or does again.
    pub fn disturbed(&mut self, way: Way, now: Duration, begins: bool) {
        if begins {
            self.disturbances.push(Disturbance { way, from: now, until: None });
            return;
        }
        let open = |disturbance: &&mut Disturbance| disturbance.way == way && disturbance.until.is_none();
        if let Some(over) = self.disturbances.iter_mut().find(open) {
            over.until = Some(now);
        }
    }

    /// Whether the way between two was disturbed between these times.
    #[must_use]
    pub fn was_disturbed(&self, one: HostId, other: HostId, since: Duration, now: Duration) -> bool {
        self.any(since, now, |way| match way {
            Way::Between(a, b) => (a, b) == (one, other) || (b, a) == (one, other),
            Way::Datagrams(_) => false,
        })
    }

    /// Whether datagrams of a node got lost between these times, more than always do.
    #[must_use]
    pub fn lost_datagrams(&self, since: Duration, now: Duration) -> bool {
        self.any(since, now, |way| matches!(way, Way::Datagrams(_)))
    }

    /// How many others a host could reach undisturbed all the time between these.
    #[must_use]
    pub fn reached_by(&self, host: HostId, nodes: usize, since: Duration, now: Duration) -> usize {
        let others = (0..nodes).filter(|other| *other != host);
        others.filter(|other| !self.was_disturbed(host, *other, since, now)).count()
    }

    fn any(&self, since: Duration, now: Duration, is_it: impl Fn(Way) -> bool) -> bool {
        self.disturbances.iter().any(|disturbance| {
            let ended = disturbance.until.is_some_and(|until| until < since);
            !ended && disturbance.from <= now && is_it(disturbance.way)
        })
    }

    /// Whether a later run of this name than the one of this generation has begun.
    #[must_use]
    pub fn has_later(&self, name: &NodeName, generation: starling_protocol::Generation) -> bool {
        self.runs.iter().any(|run| run.id.name == *name && run.id.generation > generation)
    }
}
