//! What a run on the wire is, worked out of a seed.

use anyhow::{Result, bail};

use crate::plan::{Fault, FaultKind, Place, Schedule};
use crate::rng::Rng;

/// Faults begin between these: some while the nodes are still finding each other.
const FIRST_FAULT_MS: u64 = 1_000;
const LAST_FAULT_MS: u64 = 12_000;

/// Datagrams of a hundred that are lost all the time, at most. That explains nothing: what a node tells has to be as right.
pub const MOST_LOSS: u64 = 3;

/// The longest that anything takes from one node to another all the time, which explains nothing either.
pub const LONGEST_WAY_MS: u64 = 30;

/// The longest that one way between two may take for a while without that explaining anything.
pub const LONGEST_SLOW_WAY_MS: u64 = 250;

/// So long after all other faults a node is cut off while all say their last: 3 s after those faults nobody has anything new to say any more,
/// and what was missed is told only if it is said again.
const LAST_WORD_MS: u64 = 2_450;

/// For so long. All say something new in that time, and nobody is given up, whose return would have it said again.
const UNHEARD_MS: u64 = 650;

/// Whoever connects and says nothing stays for good, as far as it depends on him.
const FOR_GOOD_MS: u64 = 120_000;

/// What can be done to a cluster on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A node's process is killed; its machine lives, and closes its connections. A later run starts after a while.
    Crash,
    /// A node's machine is gone without a word. A later run starts after a while.
    PowerOff,
    /// A node leaves in order. A later run starts after a while.
    Leave,
    /// Nothing passes between two. What was on its way, and what is sent meanwhile, comes late.
    Cut,
    /// Nothing passes between two, and it is lost for good: connections don't go on afterwards.
    Sever,
    /// Nothing passes from one to the other, and it is lost for good.
    OneWay,
    /// A node is severed from all others.
    Alone,
    /// What passes between two takes longer by an amount in milliseconds.
    Slow,
    /// Of all datagrams from and to a node an amount of a hundred is lost, and as many of the rest come twice.
    Loss,
    /// A stranger sends an amount of datagrams again that were sent before.
    Echo,
    /// A stranger sends an amount of datagrams that nobody sealed, or that were changed.
    Forge,
    /// A stranger connects an amount of times to a control port and says nothing, or nonsense.
    Knock,
    /// An earlier run of a node, which was thought dead, wakes up elsewhere.
    Ghost,
}

impl FaultKind for Kind {
    const EACH: &'static [Self] = &[
        Self::Crash,
        Self::PowerOff,
        Self::Leave,
        Self::Cut,
        Self::Sever,
        Self::OneWay,
        Self::Alone,
        Self::Slow,
        Self::Loss,
        Self::Echo,
        Self::Forge,
        Self::Knock,
        Self::Ghost,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerOff => "off",
            Self::Leave => "leave",
            Self::Cut => "cut",
            Self::Sever => "sever",
            Self::OneWay => "oneway",
            Self::Alone => "alone",
            Self::Slow => "slow",
            Self::Loss => "loss",
            Self::Echo => "echo",
            Self::Forge => "forge",
            Self::Knock => "knock",
            Self::Ghost => "ghost",
        }
    }

    fn is_one_way(self) -> bool {
        self == Self::OneWay
    }
}

impl Kind {
    const fn is_between_two(self) -> bool {
        matches!(self, Self::Cut | Self::Sever | Self::OneWay | Self::Slow)
    }

    /// Whether the node it is done to ends by it.
    #[must_use]
    pub const fn ends_a_run(self) -> bool {
        matches!(self, Self::Crash | Self::PowerOff | Self::Leave)
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all comes from.
    pub seed: u64,
    /// When each node starts for the first time.
    pub starts_ms: Vec<u64>,
    /// The longest that anything takes from one node to another, unless it is slowed down.
    pub way_ms: u64,
    /// Datagrams of a hundred that are lost all the time.
    pub loss: u64,
    /// What is done.
    pub schedule: Schedule<Kind>,
}

impl Plan {
    /// What a seed gives; with `only`, one or two faults of that kind.
    #[must_use]
    pub fn of(seed: u64, only: Option<Kind>) -> Self {
        let mut rng = Rng::new(seed, 11);
        let count = rng.between(3, 5);
        let mut plan = Self {
            seed,
            starts_ms: (0..count).map(|_| rng.below(800)).collect(),
            way_ms: rng.between(2, LONGEST_WAY_MS),
            loss: rng.pick(&[0, 0, 1, 2, MOST_LOSS]),
            schedule: Schedule::default(),
        };
        let mut rng = Rng::new(seed, 12);
        let faults = if only.is_some() { rng.between(1, 2) } else { rng.between(1, 5) };
        let faults = (0..faults).map(|_| {
            let kind = only.unwrap_or_else(|| rng.pick(Kind::EACH));
            plan.fault(kind, &mut rng)
        });
        let mut faults: Vec<Fault<Kind>> = faults.collect();
        faults.sort_by_key(|fault| fault.at_ms);
        plan.schedule = Schedule(faults);
        let mut rng = Rng::new(seed, 15);
        if only.is_none() && rng.chance(20) {
            let alone = plan.fault(Kind::Alone, &mut rng);
            let at_ms = plan.over_ms() + LAST_WORD_MS;
            plan.schedule.0.push(Fault { at_ms, for_ms: UNHEARD_MS, ..alone });
        }
        plan
    }

    /// The nodes that there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.starts_ms.len()
    }

    fn fault(&self, kind: Kind, rng: &mut Rng) -> Fault<Kind> {
        let nodes = self.nodes() as u64;
        let node = rng.below(nodes) as usize;
        let other = (node + rng.between(1, nodes - 1) as usize) % nodes as usize;
        let (amount, for_ms) = match kind {
            Kind::Crash | Kind::PowerOff | Kind::Leave => (0, rng.pick(&[50, 700, 3_000, 6_000])),
            Kind::Cut | Kind::Sever | Kind::OneWay | Kind::Alone => (0, rng.between(100, 6_000)),
            Kind::Slow => (rng.between(40, LONGEST_SLOW_WAY_MS), rng.between(1_000, 6_000)),
            Kind::Loss => (rng.between(10, 60), rng.between(1_000, 6_000)),
            Kind::Echo | Kind::Forge => (rng.between(20, 200), 0),
            // Twice as many as may wait to prove who they are.
            Kind::Knock => (rng.pick(&[8, 64, 128]), rng.pick(&[3_000, FOR_GOOD_MS])),
            Kind::Ghost => (0, rng.between(3_000, 6_000)),
        };
        Fault {
            kind,
            place: Place::Node(node),
            other: kind.is_between_two().then_some(Place::Node(other)),
            amount,
            at_ms: rng.between(FIRST_FAULT_MS, LAST_FAULT_MS),
            for_ms,
        }
    }

    /// Checks that a schedule from outside speaks of who is there.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<()> {
        let nodes = self.nodes();
        for fault in &self.schedule.0 {
            let known = |place| matches!(place, Place::Node(index) if index < nodes);
            for place in std::iter::once(fault.place).chain(fault.other) {
                if !known(place) {
                    bail!("{fault}: there is no {place}; the seed has {nodes} nodes");
                }
            }
            if fault.kind.is_between_two() != fault.other.is_some() || fault.other == Some(fault.place) {
                let to = if fault.kind.is_between_two() {
                    "a way between two, like n0-n1"
                } else {
                    "a node, like n0"
                };
                bail!("{fault}: {} is done to {to}", fault.kind.word());
            }
        }
        Ok(())
    }

    /// When all is over that takes time to get over: no stranger's silence does, and the cut at nodes' last words is to meet them when
    /// they believe that all is over.
    #[must_use]
    pub fn over_ms(&self) -> u64 {
        let end = |fault: &Fault<Kind>| match fault.kind {
            Kind::Knock => fault.at_ms,
            _ => fault.at_ms + fault.for_ms,
        };
        let over = |faults: &[Fault<Kind>]| {
            faults.iter().map(end).chain(self.starts_ms.iter().copied()).max().unwrap_or(0)
        };
        let all = &self.schedule.0;
        match all.split_last() {
            Some((last, others)) if last.kind == Kind::Alone && last.at_ms == over(others) + LAST_WORD_MS => {
                over(others)
            }
            _ => over(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_they_are_written() {
        for seed in 0..500 {
            let plan = Plan::of(seed, None);
            let text = plan.schedule.to_string();
            assert_eq!(text.parse::<Schedule<Kind>>().expect("is one"), plan.schedule, "{text}");
            plan.check().expect("speaks of who is there");
        }
    }

    #[test]
    fn what_can_t_be_done_is_named() {
        let mut plan = Plan::of(1, None);
        for (bad, said) in [
            ("crash:n9@5", "there is no n9"),
            ("cut:n0@5+5", "a way between two"),
            ("crash:n0-n1@5", "a node, like n0"),
            ("cut:n0-n0@5+5", "a way between two"),
            ("crash:c0@5", "there is no c0"),
        ] {
            plan.schedule = bad.parse().expect("is one");
            let problem = plan.check().expect_err(bad).to_string();
            assert!(problem.contains(said), "{problem}");
        }
        let problem = "jump:n0@5".parse::<Schedule<Kind>>().expect_err("is none").to_string();
        assert!(problem.contains("there are crash, off"), "{problem}");
    }
}
