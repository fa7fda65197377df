//! The levels that can be simulated, as the program runs them.

use anyhow::Result;
use starling_core::sabotage::Bug;
use starling_sim::plan::{FaultKind, Kind, Plan, Schedule};
use starling_sim::world::{self, Outcome};
use starling_sim::{whole, wire};

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
        world::run(&planned(seed, only, schedule)?, echo)
    }
}

/// What a seed gives, or the same nodes and clients with another schedule.
fn planned(seed: u64, only: Option<Kind>, schedule: Option<Schedule>) -> Result<Plan> {
    let mut plan = Plan::of(seed, only);
    if let Some(schedule) = schedule {
        plan.schedule = schedule;
        plan.check()?;
    }
    Ok(plan)
}

/// Whole nodes on a simulated network.
pub(crate) struct Whole;

impl Level for Whole {
    type Kind = Kind;

    const ARGUMENTS: &'static [&'static str] = &["--whole"];
    const BUGS: &'static [Bug] = &Bug::ALL;

    fn schedule(seed: u64, only: Option<Kind>) -> Schedule {
        Plan::of(seed, only).schedule
    }

    fn run(seed: u64, only: Option<Kind>, schedule: Option<Schedule>, echo: bool) -> Result<Outcome> {
        whole::world::run(&planned(seed, only, schedule)?, echo)
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
