//! What a run is: the cluster, its clients, and what is done to them, all worked out of a seed.

use anyhow::{Result, bail};

mod chains;
mod schedule;

pub use self::schedule::{Fault, FaultKind, Kind, Place, Schedule};
use crate::rng::Rng;

/// Faults begin after this: sessions have begun.
const FIRST_FAULT_MS: u64 = 600;

/// Faults begin before this: most clients still speak.
const LAST_FAULT_MS: u64 = 11_000;

/// One seed of so many has a crowd of clients, one faults that follow from a request of a client's, one such as make copies differ,
/// and one the loss of a node just after a session went there.
const CROWDED: u64 = 8;

/// Blocks of audio that clients hold to send again: a minute's, as the SDK does.
const RING_BLOCKS: u64 = 600;

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
    /// Utterances of which it wants the final when it has said their words, by number.
    pub finalizes: Vec<usize>,
    /// Blocks of audio that it holds to send again.
    pub ring_blocks: u64,
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
        plan.ask_for_finals(&mut Rng::new(seed, 5));
        let mut rng = Rng::new(seed, 6);
        let chain = match seed % CROWDED {
            1 if only.is_none() => plan.follow(&mut rng),
            3 if only.is_none() => plan.chase(&mut rng),
            5 if only.is_none() => plan.part(&mut rng),
            _ => None,
        };
        if let Some(mut faults) = chain {
            faults.sort_by_key(|fault| fault.at_ms);
            plan.schedule = Schedule(faults);
            return plan;
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

    /// Some clients that can come back ask for finals; those of dialects have no word for it here.
    fn ask_for_finals(&mut self, rng: &mut Rng) {
        for client in self.clients.iter_mut().filter(|client| client.speaks == Speaks::Native) {
            let often = rng.pick(&[0, 0, 30, 60]);
            client.finalizes = (0..client.utterances.len()).filter(|_| rng.chance(often)).collect();
        }
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

    /// Somebody's place on the network: nodes come first.
    #[must_use]
    pub const fn host_of(&self, place: Place) -> usize {
        match place {
            Place::Node(node) => node,
            Place::Client(client) => self.nodes.len() + client,
        }
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
    ClientPlan {
        speaks,
        start_ms,
        utterances: utterances.collect(),
        finalizes: Vec::new(),
        ring_blocks: RING_BLOCKS,
        home: rng.below(3) as usize,
    }
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
