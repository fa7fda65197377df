//! The two levels that can be simulated, as the program runs them.

use anyhow::Result;
use starling_core::sabotage::Bug;
use starling_sim::plan::{FaultKind, Kind, Plan, Schedule};
use starling_sim::wire;
use starling_sim::world::{self, Outcome};

/// One level.
pub(crate) trait Level {
    /// What can be done on it.
    type Kind: FaultKind + std::fmt::Debug;

    /// What the program is told to run it.
    const ARGUMENTS: &'static [&'static str];

    /// Deliberate faults that it has to find.
    const BUGS: &'static [Bug];

    /// What is done with a seed.
    fn schedule(seed: u64, only: Option<Self::Kind>) -> Schedule<Self::Kind>;

    /// Does a run.
    fn run(
        seed: u64,
        only: Option<Self::Kind>,
        schedule: Option<Schedule<Self::Kind>>,
        echo: bool,
    ) -> Result<Outcome>;
}

/// Sessions on simulated seams.
pub(crate) struct Actors;

impl Level for Actors {
    type Kind = Kind;

    const ARGUMENTS: &'static [&'static str] = &[];
    const BUGS: &'static [Bug] = &Bug::ALL;

    fn schedule(seed: u64, only: Option<Kind>) -> Schedule {
        Plan::of(seed, only).schedule
    }

    fn run(seed: u64, only: Option<Kind>, schedule: Option<Schedule>, echo: bool) -> Result<Outcome> {
        let mut plan = Plan::of(seed, only);
        if let Some(schedule) = schedule {
            plan.schedule = schedule;
            plan.check()?;
        }
        world::run(&plan, echo)
    }
}

/// Membership and the control plane on a simulated network.
pub(crate) struct Wire;

impl Level for Wire {
    type Kind = wire::plan::Kind;

    const ARGUMENTS: &'static [&'static str] = &["--wire"];
    const BUGS: &'static [Bug] = &Bug::WIRE;

    fn schedule(seed: u64, only: Option<Self::Kind>) -> Schedule<Self::Kind> {
        wire::plan::Plan::of(seed, only).schedule
    }

    fn run(
        seed: u64,
        only: Option<Self::Kind>,
        schedule: Option<Schedule<Self::Kind>>,
        echo: bool,
    ) -> Result<Outcome> {
        let mut plan = wire::plan::Plan::of(seed, only);
        if let Some(schedule) = schedule {
            plan.schedule = schedule;
            plan.check()?;
        }
        wire::world::run(&plan, echo)
    }
}
