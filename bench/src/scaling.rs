//! Callers of days and weeks against the product's own decisions, in simulated time: what is refused, what stands idle.
//!
//! Owns: the traces, the time that a host takes to start, and the account. Must never: decide how many hosts there are, or who gets
//! which; that is `starling_core`'s pool and scaler, as every node has them.

pub(crate) mod run;
pub(crate) mod trace;

use std::time::Duration;

use starling_core::pool::PoolConfig;
use starling_core::restart::RestartLimits;
use starling_core::scaling::ScalingConfig;

/// What comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Hosts of one node, which it starts and parks itself.
    Hosts,
    /// Nodes, by what `GET /v1/scaling` says: any of them may be lost, and one that was told to go does not come back.
    Nodes,
}

/// What a policy is tried on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Supply {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Decoders that come and go together.
    pub(crate) slots: u16,
    /// From the decision to the first word.
    pub(crate) start: Duration,
}

/// A host on a machine that is there, and a machine that is not.
pub(crate) const SUPPLIES: [Supply; 2] = [
    Supply { name: "hosts of 4, 2 s to start", kind: Kind::Hosts, slots: 4, start: Duration::from_secs(2) },
    Supply {
        name: "nodes of 8, 3 min to start",
        kind: Kind::Nodes,
        slots: 8,
        start: Duration::from_secs(180),
    },
];

/// How the number of hosts is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// As many hosts as 95 of 100 moments of the trace need.
    Fixed,
    /// By who is there.
    Reactive,
    /// By who is expected, too.
    Predictive,
}

impl Policy {
    pub(crate) const ALL: [Self; 3] = [Self::Fixed, Self::Reactive, Self::Predictive];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Reactive => "reactive",
            Self::Predictive => "predictive",
        }
    }

    /// As nodes have it where nothing is set; `None` for always as many.
    fn scaling(self) -> Option<ScalingConfig> {
        let config = ScalingConfig { max: 400, ..ScalingConfig::default() };
        match self {
            Self::Fixed => None,
            Self::Reactive => Some(config),
            Self::Predictive => Some(ScalingConfig { predictive: true, ..config }),
        }
    }
}

/// A pool with the defaults of a node's settings.
fn pool(hosts: u16, supply: Supply) -> PoolConfig {
    let stays = |hosts| if supply.kind == Kind::Hosts { hosts } else { Duration::ZERO };
    PoolConfig {
        hosts,
        slots_per_host: supply.slots,
        queue_length: 64,
        queue_wait: Duration::from_secs(2),
        cold_wait: Duration::from_secs(20),
        idle_ttl: stays(Duration::from_secs(100)),
        unused_ttl: stays(Duration::from_secs(15 * 60)),
        retry_after: Duration::from_secs(2),
        load_deadline: Duration::from_secs(3_600),
        quarantine_hosts: 0,
        restarts: RestartLimits::default(),
        proved_after: Duration::from_secs(30),
    }
}
