//! What a run is: the cluster, its clients, and what is done to them, all worked out of a seed.
//!
//! A fault is written `KIND:WHERE[*AMOUNT]@AT[+FOR]`, times in milliseconds: `crash:n1@3200+2000`, `cut:n0-n2@5000+900`,
//! `oneway:n0>c1@700+300`, `slow:n0-n1*300@900+4000`.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::rng::Rng;

/// Faults begin after this: sessions have begun.
const FIRST_FAULT_MS: u64 = 600;

/// Faults begin before this: most clients still speak.
const LAST_FAULT_MS: u64 = 11_000;

/// One seed of so many has a crowd of clients.
const CROWDED: u64 = 8;

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A node's process is killed; its machine lives, and says so. It starts again after a while, empty.
    Crash,
    /// A node's machine is gone without a word. It starts again after a while, empty.
    PowerOff,
    /// A node is stopped in order, with no time for its sessions, and starts again after a while.
    Restart,
    /// Nothing passes between two, and nobody is told.
    Cut,
    /// Nothing passes from one to the other; the way back is open.
    OneWay,
    /// A node stands still, with its sockets open, and goes on.
    Pause,
    /// What passes between two takes longer by an amount in milliseconds.
    Slow,
    /// A node's clocks jump ahead by an amount in milliseconds.
    Jump,
    /// A node is drained, stopped, and starts again after a while.
    Drain,
    /// A client reads nothing for a while.
    Stall,
    /// A decoder host is killed.
    Die,
    /// A decoder host dies of itself.
    Abort,
    /// A decoder's native call does not return.
    Hang,
    /// A decoder host stands still, with its socket open.
    Freeze,
    /// A client's audio kills what decodes it; the amount is the number of the block that does.
    Poison,
    /// A node has hardly any memory for copies, from its start.
    Full,
}

impl Kind {
    /// Each of them.
    pub const ALL: [Self; 16] = [
        Self::Crash,
        Self::PowerOff,
        Self::Restart,
        Self::Cut,
        Self::OneWay,
        Self::Pause,
        Self::Slow,
        Self::Jump,
        Self::Drain,
        Self::Stall,
        Self::Die,
        Self::Abort,
        Self::Hang,
        Self::Freeze,
        Self::Poison,
        Self::Full,
    ];

    /// The word for it in schedules.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::PowerOff => "off",
            Self::Restart => "restart",
            Self::Cut => "cut",
            Self::OneWay => "oneway",
            Self::Pause => "pause",
            Self::Slow => "slow",
            Self::Jump => "jump",
            Self::Drain => "drain",
            Self::Stall => "stall",
            Self::Die => "die",
            Self::Abort => "abort",
            Self::Hang => "hang",
            Self::Freeze => "freeze",
            Self::Poison => "poison",
            Self::Full => "full",
        }
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words = || Self::ALL.map(Self::word).join(", ");
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        found.with_context(|| format!("{text:?} is no fault; there are {}", words()))
    }
}

/// Somebody in the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A node.
    Node(usize),
    /// A client.
    Client(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(index) => write!(f, "n{index}"),
            Self::Client(index) => write!(f, "c{index}"),
        }
    }
}

impl FromStr for Place {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let index = |text: &str| text.parse().ok();
        let place = match text.split_at_checked(1) {
            Some(("n", rest)) => index(rest).map(Self::Node),
            Some(("c", rest)) => index(rest).map(Self::Client),
            _ => None,
        };
        place.with_context(|| format!("{text:?} is neither a node, like n0, nor a client, like c0"))
    }
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// To whom.
    pub place: Place,
    /// And to whom else, for ways between two.
    pub other: Option<Place>,
    /// See [`Kind`].
    pub amount: u64,
    /// When, since the start.
    pub at_ms: u64,
    /// For how long.
    pub for_ms: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.place)?;
        if let Some(other) = self.other {
            write!(f, "{}{other}", if self.kind == Kind::OneWay { '>' } else { '-' })?;
        }
        if self.amount > 0 {
            write!(f, "*{}", self.amount)?;
        }
        write!(f, "@{}", self.at_ms)?;
        if self.for_ms > 0 {
            write!(f, "+{}", self.for_ms)?;
        }
        Ok(())
    }
}

impl FromStr for Fault {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || format!("{text:?} is no fault; one is KIND:WHERE[*AMOUNT]@AT[+FOR], as crash:n1@3200+2000");
        let (kind, rest) = text.split_once(':').with_context(bad)?;
        let (place, time) = rest.split_once('@').with_context(bad)?;
        let (place, amount) = place.split_once('*').unwrap_or((place, "0"));
        let (place, other) = match place.split_once(['-', '>']) {
            Some((place, other)) => (place, Some(other.parse()?)),
            None => (place, None),
        };
        let (at, length) = time.split_once('+').unwrap_or((time, "0"));
        Ok(Self {
            kind: kind.parse()?,
            place: place.parse()?,
            other,
            amount: amount.parse().with_context(bad)?,
            at_ms: at.parse().with_context(bad)?,
            for_ms: length.parse().with_context(bad)?,
        })
    }
}

/// All that is done, in the order of time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Schedule(pub Vec<Fault>);

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&faults.join(","))
    }
}

impl FromStr for Schedule {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let faults = text.split(',').filter(|fault| !fault.is_empty());
        faults.map(|fault| fault.trim().parse()).collect::<Result<_>>().map(Self)
    }
}

/// A node as it is configured.
#[derive(Debug, Clone, Copy)]
pub struct NodePlan {
    /// Decoder hosts; none for a node that only has sessions.
    pub hosts: u16,
    /// Slots of each.
    pub slots: u16,
}

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// The native protocol: it comes back.
    Native,
    /// A dialect that can't come back.
    Thin,
}

/// A client.
#[derive(Debug, Clone)]
pub struct ClientPlan {
    /// How it speaks.
    pub speaks: Speaks,
    /// When it comes.
    pub start_ms: u64,
    /// Its utterances: words, and blocks of silence after each.
    pub utterances: Vec<(u32, u32)>,
    /// The node that it asks first.
    pub home: usize,
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all comes from.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<NodePlan>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// Copies of each session beside its owner's.
    pub copies: u8,
    /// Whether sessions have a second decoder.
    pub standby: bool,
    /// Whether texts say which attempt they are of.
    pub marked: bool,
    /// What is done.
    pub schedule: Schedule,
}

impl Plan {
    /// What a seed gives; with `only`, one fault of that kind.
    #[must_use]
    pub fn of(seed: u64, only: Option<Kind>) -> Self {
        let mut rng = Rng::new(seed, 1);
        let mut nodes: Vec<NodePlan> = (0..3)
            .map(|_| NodePlan { hosts: rng.between(1, 2) as u16, slots: rng.between(2, 3) as u16 })
            .collect();
        if rng.chance(20) {
            // A node that only has sessions; the others decode for it.
            let bare = rng.below(3) as usize;
            nodes[bare].hosts = 0;
            nodes.iter_mut().for_each(|node| node.slots += 1);
        }
        let count = rng.between(2, 4) as usize;
        let mut clients: Vec<ClientPlan> = (0..count).map(|_| client(&mut rng, Speaks::Native)).collect();
        clients.push(client(&mut rng, Speaks::Thin));
        let mut plan = Self {
            seed,
            nodes,
            clients,
            copies: if rng.chance(25) { 2 } else { 1 },
            standby: rng.chance(25),
            marked: rng.chance(50),
            schedule: Schedule::default(),
        };
        if seed % CROWDED == CROWDED - 1 {
            plan.crowd(&mut rng);
        }
        let mut rng = Rng::new(seed, 2);
        let count = if only.is_some() { rng.between(1, 2) } else { rng.between(1, 5) };
        let faults = (0..count).map(|_| {
            let kind = only.unwrap_or_else(|| rng.pick(&Kind::ALL));
            plan.fault(kind, &mut rng)
        });
        let mut faults: Vec<Fault> = faults.collect();
        faults.sort_by_key(|fault| fault.at_ms);
        plan.schedule = Schedule(faults);
        plan
    }

    /// More clients than could go on after the loss of the largest node, which come one after the other.
    fn crowd(&mut self, rng: &mut Rng) {
        self.standby = false;
        let large = rng.below(3) as usize;
        for (index, node) in self.nodes.iter_mut().enumerate() {
            *node = NodePlan { hosts: 1, slots: if index == large { 5 } else { 1 } };
        }
        self.clients = (0..6)
            .map(|turn| ClientPlan { start_ms: 1_500 + turn * 1_300, ..client(rng, Speaks::Native) })
            .collect();
    }

    /// Most sessions that may be admitted: so many that all could go on if the largest node were lost.
    #[must_use]
    pub fn most_sessions(&self) -> usize {
        let capacities = self.nodes.iter().map(|node| 2 * usize::from(node.hosts * node.slots));
        capacities.clone().sum::<usize>() - capacities.max().unwrap_or(0)
    }

    fn fault(&self, kind: Kind, rng: &mut Rng) -> Fault {
        let nodes = self.nodes.len() as u64;
        let clients = self.clients.len() as u64;
        let node = rng.below(nodes) as usize;
        let other = (node + rng.between(1, nodes - 1) as usize) % nodes as usize;
        let client = rng.below(clients) as usize;
        let mut fault = Fault {
            kind,
            place: Place::Node(node),
            other: None,
            amount: 0,
            at_ms: rng.between(FIRST_FAULT_MS, LAST_FAULT_MS),
            for_ms: 0,
        };
        match kind {
            Kind::Crash | Kind::PowerOff | Kind::Restart | Kind::Drain => {
                fault.for_ms = rng.between(200, 4_000);
            }
            Kind::Cut | Kind::OneWay => {
                // Most are between nodes; those of a client's own way are the others.
                fault.other = Some(if rng.chance(70) { Place::Node(other) } else { Place::Client(client) });
                if kind == Kind::OneWay && rng.chance(50) {
                    (fault.place, fault.other) = (fault.other.unwrap_or(fault.place), Some(fault.place));
                }
                fault.for_ms = rng.between(100, 5_000);
            }
            Kind::Pause => fault.for_ms = rng.between(100, 6_000),
            Kind::Slow => {
                fault.other = Some(if rng.chance(50) { Place::Node(other) } else { Place::Client(client) });
                (fault.amount, fault.for_ms) = (rng.between(20, 400), rng.between(1_000, 6_000));
            }
            Kind::Jump => fault.amount = rng.between(50, 5_000),
            Kind::Stall => {
                fault.place = Place::Client(client);
                fault.for_ms = rng.between(500, 8_000);
            }
            Kind::Die | Kind::Abort | Kind::Hang | Kind::Freeze => {}
            Kind::Poison => {
                fault.place = Place::Client(client);
                (fault.amount, fault.at_ms) = (rng.between(2, 40), 0);
            }
            Kind::Full => fault.at_ms = 0,
        }
        fault
    }

    /// Checks that a schedule from outside speaks of who is there.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<()> {
        for fault in &self.schedule.0 {
            for place in std::iter::once(fault.place).chain(fault.other) {
                let known = match place {
                    Place::Node(index) => index < self.nodes.len(),
                    Place::Client(index) => index < self.clients.len(),
                };
                if !known {
                    let (nodes, clients) = (self.nodes.len(), self.clients.len());
                    bail!("{fault}: there is no {place}; the seed has {nodes} nodes and {clients} clients");
                }
            }
            let two = matches!(fault.kind, Kind::Cut | Kind::OneWay | Kind::Slow);
            let of_client = matches!(fault.kind, Kind::Stall | Kind::Poison);
            let client = matches!(fault.place, Place::Client(_));
            if two != fault.other.is_some() || (!two && of_client != client) {
                bail!(
                    "{fault}: {} is done to {}",
                    fault.kind.word(),
                    match (two, of_client) {
                        (true, _) => "a way between two, like n0-n1",
                        (_, true) => "a client, like c0",
                        _ => "a node, like n0",
                    }
                );
            }
        }
        Ok(())
    }

    /// The block of a client's audio that kills, if one does.
    #[must_use]
    pub fn poison(&self, client: usize) -> Option<u64> {
        let of = |fault: &&Fault| fault.kind == Kind::Poison && fault.place == Place::Client(client);
        self.schedule.0.iter().find(of).map(|fault| fault.amount)
    }

    /// Whether a node has hardly any memory for copies.
    #[must_use]
    pub fn is_full(&self, node: usize) -> bool {
        self.schedule.0.iter().any(|fault| fault.kind == Kind::Full && fault.place == Place::Node(node))
    }
}

fn client(rng: &mut Rng, speaks: Speaks) -> ClientPlan {
    let start_ms = rng.between(300, 2_500);
    let utterances = (0..rng.between(3, 6)).map(|_| {
        // Seven blocks of silence are an endpoint, three only a pause.
        (rng.between(1, 24) as u32, rng.pick(&[7, 7, 7, 3, 12]))
    });
    ClientPlan { speaks, start_ms, utterances: utterances.collect(), home: rng.below(3) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_they_are_written() {
        for seed in 0..500 {
            let mut plan = Plan::of(seed, None);
            let text = plan.schedule.to_string();
            assert_eq!(text.parse::<Schedule>().expect("is one"), plan.schedule, "{text}");
            plan.check().expect("speaks of who is there");
            plan.schedule = Schedule::default();
            assert_eq!("".parse::<Schedule>().expect("is one"), plan.schedule);
        }
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        for (text, said) in [
            ("crash", "KIND:WHERE"),
            ("smash:n1@5", "there are crash"),
            ("crash:x1@5", "neither a node"),
            ("crash:n1@soon", "KIND:WHERE"),
        ] {
            let problem = format!("{:#}", text.parse::<Schedule>().expect_err("is none"));
            assert!(problem.contains(said), "{problem}");
        }
        let mut plan = Plan::of(1, None);
        for bad in ["crash:n9@5", "crash:c0@5", "cut:n0@5+5", "stall:n0@5+5"] {
            plan.schedule = bad.parse().expect("is one");
            assert!(plan.check().is_err(), "{bad}");
        }
    }
}
