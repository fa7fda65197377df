//! One run on the wire: hosts, faults when they are due, and what has to hold at the end.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use starling_actors::packet_key;
use starling_protocol::{Generation, NodeId, NodeName};
use tokio::sync::{mpsc, watch};
use turmoil::Sim;

use super::air::Air;
use super::node::{self, CONTROL_PORT, GOSSIP_PORT, Phase, SECRET, Setup};
use super::oracle::Oracle;
use super::plan::{Kind, Plan};
use super::stranger::{self, Order};
use super::truth::Way;
use super::ways::{HostId, Ways};
use crate::plan::{Fault, Place};
use crate::rng::Rng;
use crate::world::Outcome;

/// What time moves by.
const TICK: Duration = Duration::from_millis(5);

/// How often it is looked for what should have been told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// After the last fault all nodes are one cluster again within this: nodes that gave each other up ask again every 5 s, and
/// announce themselves to their seeds every 12.5 s at most, of which each may be lost.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(25);

/// They are watched for so long at least, since alarms may come late.
const WATCHED: Duration = Duration::from_secs(3);

/// Nothing is asked or told any more for so long at least before the end is judged.
const QUIET: Duration = Duration::from_millis(1_500);

/// Then all leave, which takes no longer.
const LEAVING: Duration = Duration::from_secs(10);

/// Between the generations of two runs of a node; an earlier run that wakes up has one that no other had.
const BETWEEN_GENERATIONS: u64 = 10;

struct World {
    sim: Sim<'static>,
    plan: Plan,
    oracle: Oracle,
    air: Air,
    ways: Ways,
    addresses: Vec<IpAddr>,
    nodes: Vec<Node>,
    ghost: Arc<Mutex<Option<NodeId>>>,
    orders: mpsc::UnboundedSender<Order>,
    due: Vec<(Duration, Step)>,
    rng: Rng,
}

/// A host for the runs of one node.
struct Node {
    generation: Arc<Mutex<u64>>,
    phase: watch::Sender<Phase>,
    /// Faults that keep it down.
    down: u32,
}

#[derive(Debug, Clone)]
enum Step {
    Start(HostId),
    Do(Fault<Kind>),
    Undo(Fault<Kind>),
}

/// Does a run.
///
/// # Errors
/// It can't be begun, or a node can't start.
pub fn run(plan: &Plan, echo: bool) -> Result<Outcome> {
    let mut world = World::new(plan.clone(), echo);
    let over = Duration::from_millis(plan.over_ms());
    world.until(over + WATCHED)?;
    let end = over + WHOLE_WITHIN;
    world.until_whole(end)?;
    world.all_go_on(Phase::Quiet);
    world.until(world.sim.elapsed() + QUIET)?;
    world.until_whole(end)?;
    world.oracle.judge_the_whole();
    world.all_leave()?;
    let (hash, violations, time) = (world.oracle.hash(), world.oracle.violations(), world.sim.elapsed());
    Ok(Outcome { hash, violations, time })
}

impl World {
    fn new(plan: Plan, echo: bool) -> Self {
        let sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(plan.way_ms))
            // As many segments and datagrams as wait in a socket of the system's.
            .tcp_capacity(1_024)
            .udp_capacity(256)
            .rng_seed(plan.seed)
            .build();
        let oracle = Oracle::new(plan.nodes(), echo);
        oracle.log(&format!("seed {} schedule {}", plan.seed, plan.schedule));
        let mut names: Vec<String> = (0..plan.nodes()).map(|node| format!("n{node}")).collect();
        names.extend(["ghost", "stranger"].map(str::to_owned));
        let addresses: Vec<IpAddr> = names.iter().map(|name| sim.lookup(name.as_str())).collect();
        let seeds = addresses[..plan.nodes()].iter().map(|address| format!("{address}:{GOSSIP_PORT}"));
        let seeds: Vec<String> = seeds.collect();
        let air = Air::with_a_stranger(Rng::new(plan.seed, 13), addresses.clone(), plan.loss);
        let (orders, heard) = mpsc::unbounded_channel();
        let mut world = Self {
            nodes: Vec::new(),
            ghost: Arc::default(),
            ways: Ways::new(names.clone(), Duration::from_millis(plan.way_ms)),
            rng: Rng::new(plan.seed, 14),
            due: Vec::new(),
            orders,
            addresses,
            air,
            oracle,
            plan,
            sim,
        };
        for host in 0..world.plan.nodes() {
            world.add_node(host, &seeds);
        }
        world.add_ghost(&seeds);
        let heard = Mutex::new(Some(heard));
        world.sim.host("stranger", move || {
            let heard = heard.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { if let Some(heard) = heard { stranger::run(heard).await } else { Ok(()) } }
        });
        let starts = world.plan.starts_ms.iter().enumerate();
        let starts = starts.map(|(host, at)| (Duration::from_millis(*at), Step::Start(host)));
        let faults = world.plan.schedule.0.iter();
        let faults = faults.map(|fault| (Duration::from_millis(fault.at_ms), Step::Do(fault.clone())));
        world.due = starts.chain(faults).collect();
        world
    }

    /// A host on which nothing runs before it is started.
    fn add_node(&mut self, host: HostId, seeds: &[String]) {
        let (phase, heard) = watch::channel(Phase::Busy);
        let generation = Arc::new(Mutex::new(0));
        let name = NodeName::parse(&format!("n{host}")).expect("is a name");
        let setup = Setup {
            host,
            address: self.addresses[host],
            id: NodeId { name, generation: Generation(0) },
            is_ghost: false,
            seeds: seeds.to_vec(),
            air: self.air.clone(),
            oracle: self.oracle.clone(),
            phase: heard,
            seed: self.plan.seed,
        };
        let counted = Arc::clone(&generation);
        self.sim.host(format!("n{host}").as_str(), move || {
            let generation = *counted.lock().unwrap_or_else(PoisonError::into_inner);
            let mut setup = setup.clone();
            setup.id.generation = Generation(generation);
            async move { if generation == 0 { Ok(()) } else { node::run(setup).await } }
        });
        self.nodes.push(Node { generation, phase, down: 1 });
    }

    fn add_ghost(&mut self, seeds: &[String]) {
        let host = self.plan.nodes();
        let (phase, heard) = watch::channel(Phase::Busy);
        let who = Arc::clone(&self.ghost);
        let (address, air, oracle) = (self.addresses[host], self.air.clone(), self.oracle.clone());
        let (seeds, seed) = (seeds.to_vec(), self.plan.seed);
        self.sim.host("ghost", move || {
            let id = who.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let _lives = &phase;
            let setup = id.map(|id| Setup {
                host,
                address,
                id,
                is_ghost: true,
                seeds: seeds.clone(),
                air: air.clone(),
                oracle: oracle.clone(),
                phase: heard.clone(),
                seed,
            });
            async move { if let Some(setup) = setup { node::run(setup).await } else { Ok(()) } }
        });
    }

    fn until(&mut self, end: Duration) -> Result<()> {
        let mut look = self.sim.elapsed();
        while self.sim.elapsed() < end {
            let now = self.sim.elapsed();
            self.oracle.at(now);
            self.due.sort_by_key(|(at, _)| *at);
            while self.due.first().is_some_and(|(at, _)| *at <= now) {
                let (_, step) = self.due.remove(0);
                self.step(step);
            }
            self.sim.step().map_err(|error| anyhow!("a node failed: {error}"))?;
            if self.sim.elapsed() >= look {
                look += LOOK_EVERY;
                self.oracle.at(self.sim.elapsed());
                self.oracle.look();
            }
        }
        Ok(())
    }

    /// Until nothing keeps the nodes apart, or the end. While they go on telling of themselves, loads are always behind.
    fn until_whole(&mut self, end: Duration) -> Result<()> {
        let is_busy = self.nodes.iter().any(|node| *node.phase.borrow() == Phase::Busy);
        let is_whole =
            |oracle: &Oracle| oracle.apart().iter().all(|problem| is_busy && problem.contains("load"));
        while self.sim.elapsed() < end && !is_whole(&self.oracle) {
            self.until(self.sim.elapsed() + LOOK_EVERY)?;
        }
        let now = self.sim.elapsed();
        self.oracle.at(now);
        self.oracle.log(if is_busy { "one cluster" } else { "all is known" });
        Ok(())
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start(host) => self.start(host),
            Step::Do(fault) => {
                self.oracle.log(&format!("fault {fault}"));
                let over = Duration::from_millis(fault.at_ms + fault.for_ms);
                self.fault(&fault, true);
                self.due.push((over, Step::Undo(fault)));
            }
            Step::Undo(fault) => {
                if fault.for_ms > 0 {
                    self.oracle.log(&format!("over {fault}"));
                }
                self.fault(&fault, false);
            }
        }
    }

    fn fault(&mut self, fault: &Fault<Kind>, begins: bool) {
        let node = index(fault.place);
        let other = fault.other.map(index);
        match fault.kind {
            Kind::Crash | Kind::PowerOff | Kind::Leave => self.end_or_start(fault.kind, node, begins),
            Kind::Cut | Kind::Sever | Kind::OneWay | Kind::Slow => {
                if let Some(other) = other {
                    self.disturb(fault, node, other, begins);
                }
            }
            Kind::Alone => {
                for other in (0..self.plan.nodes()).filter(|other| *other != node) {
                    self.ways.lose(&mut self.sim, node, other, begins);
                    self.ways.lose(&mut self.sim, other, node, begins);
                    self.oracle.disturbed(Way::Between(node, other), begins);
                }
            }
            Kind::Loss => {
                self.air.lossy(node, fault.amount, begins);
                self.oracle.disturbed(Way::Datagrams(node), begins);
            }
            Kind::Ghost => self.wake_ghost(node, begins),
            Kind::Echo | Kind::Forge if begins => {
                let to = SocketAddr::new(self.addresses[node], GOSSIP_PORT);
                let sent = self.air.sent_lately();
                let packets = if fault.kind == Kind::Echo {
                    stranger::echoes(&mut self.rng, &sent, to, fault.amount)
                } else {
                    stranger::forgeries(&mut self.rng, &sent, &packet_key(SECRET), fault.amount)
                };
                self.order(Order::Send(to, packets));
            }
            Kind::Knock if begins => {
                let to = SocketAddr::new(self.addresses[node], CONTROL_PORT);
                let says = (0..self.rng.between(1, 600)).map(|_| self.rng.next() as u8).collect();
                let stays = Duration::from_millis(fault.for_ms);
                self.order(Order::Knock(to, fault.amount, stays, says));
            }
            Kind::Echo | Kind::Forge | Kind::Knock => {}
        }
    }

    fn disturb(&mut self, fault: &Fault<Kind>, one: HostId, other: HostId, begins: bool) {
        let sim = &mut self.sim;
        match fault.kind {
            Kind::Cut => self.ways.hold(sim, one, other, begins),
            Kind::OneWay => self.ways.lose(sim, one, other, begins),
            // Nobody may tell anything for it.
            Kind::Slow => {
                let by = Duration::from_millis(fault.amount);
                return self.ways.slow(sim, one, other, by, begins);
            }
            _ => {
                self.ways.lose(sim, one, other, begins);
                self.ways.lose(sim, other, one, begins);
            }
        }
        self.oracle.disturbed(Way::Between(one, other), begins);
    }

    fn end_or_start(&mut self, kind: Kind, host: HostId, begins: bool) {
        if kind == Kind::PowerOff {
            self.ways.part(&mut self.sim, host, begins);
        }
        if !begins {
            self.nodes[host].down -= 1;
            if self.nodes[host].down == 0 {
                self.nodes[host].down = 1;
                self.start(host);
            }
            return;
        }
        self.nodes[host].down += 1;
        if kind == Kind::Leave && self.nodes[host].down == 1 {
            self.nodes[host].phase.send_replace(Phase::Leave);
            self.oracle.with_truth(|truth, now| {
                if let Some(run) = truth.running_on(host) {
                    truth.ending(run, now);
                }
            });
        } else {
            self.kill(host);
        }
    }

    /// What ran there, runs no more.
    fn kill(&mut self, host: HostId) {
        let name = if host < self.plan.nodes() { format!("n{host}") } else { "ghost".to_owned() };
        self.sim.crash(name.as_str());
        self.oracle.with_truth(|truth, now| {
            if let Some(run) = truth.running_on(host) {
                truth.gone(run, now);
            }
        });
    }

    fn start(&mut self, host: HostId) {
        self.nodes[host].down -= 1;
        if self.nodes[host].down > 0 {
            return;
        }
        // One that is still leaving is not waited for any longer.
        self.kill(host);
        *self.nodes[host].generation.lock().unwrap_or_else(PoisonError::into_inner) += BETWEEN_GENERATIONS;
        self.nodes[host].phase.send_replace(Phase::Busy);
        self.sim.bounce(format!("n{host}").as_str());
    }

    fn wake_ghost(&mut self, node: HostId, begins: bool) {
        let host = self.plan.nodes();
        let is_there = self.oracle.with_truth(|truth, _| truth.running_on(host).is_some());
        if !begins {
            return self.kill(host);
        }
        let generation = *self.nodes[node].generation.lock().unwrap_or_else(PoisonError::into_inner);
        if is_there || generation == 0 {
            return;
        }
        let generation = Generation(generation - BETWEEN_GENERATIONS / 2);
        let name = NodeName::parse(&format!("n{node}")).expect("is a name");
        *self.ghost.lock().unwrap_or_else(PoisonError::into_inner) = Some(NodeId { name, generation });
        self.sim.bounce("ghost");
    }

    fn order(&self, order: Order) {
        // It lives as long as the run.
        let _ = self.orders.send(order);
    }

    fn all_go_on(&self, phase: Phase) {
        for node in &self.nodes {
            node.phase.send_replace(phase);
        }
    }

    /// In order, all at once; what they leave behind is judged as they tell it.
    fn all_leave(&mut self) -> Result<()> {
        let now = self.sim.elapsed();
        self.oracle.at(now);
        self.oracle.with_truth(|truth, now| {
            let living: Vec<usize> = truth.living().map(|(run, _)| run).collect();
            living.into_iter().for_each(|run| truth.ending(run, now));
        });
        self.all_go_on(Phase::Leave);
        self.until(now + LEAVING)?;
        self.oracle.judge_the_end();
        Ok(())
    }
}

fn index(place: Place) -> usize {
    match place {
        Place::Node(index) | Place::Client(index) => index,
    }
}
