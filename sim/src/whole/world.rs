//! One run of whole nodes: hosts, faults when they are due, and what has to hold at the end.

mod faults;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use starling_actors::TokenSealer;
use starling_protocol::{Generation, NodeId};
use tokio::sync::watch;
use turmoil::Sim;

use super::lines::TurmoilLines;
use super::node::{self, Reins, Setup};
use crate::caller::call;
use crate::client::Client;
use crate::gossip::name_of;
use crate::lines::Lines;
use crate::net::HostId;
use crate::oracle::SharedOracle;
use crate::plan::{Fault, Plan};
use crate::rng::Rng;
use crate::speech::Speech;
use crate::wire::air::Air;
use crate::wire::node::GOSSIP_PORT;
use crate::wire::ways::Ways;
use crate::world::{NOTHING_LEFT, Outcome, THROUGH, left_of};

/// What time moves by.
const TICK: Duration = Duration::from_millis(5);

/// How often a node shows what it keeps.
pub const LOOK_EVERY: Duration = TICK;

/// What a keeper had when a client was told something has been shown after that: within a look, and the ticks in which hosts take turns.
const SHOWN: Duration = Duration::from_millis(15);

/// The longest way of a message that nothing slows down.
const WAY: Duration = Duration::from_millis(6);

/// How often it is looked for what is left of sessions.
const REST_EVERY: Duration = Duration::from_millis(1_000);

struct World {
    sim: Sim<'static>,
    plan: Arc<Plan>,
    oracle: SharedOracle,
    /// The time of the run in microseconds, for whoever asks outside of a host.
    clock: Arc<AtomicU64>,
    ways: Ways,
    lines: TurmoilLines,
    nodes: Vec<Node>,
    stalls: Vec<watch::Sender<bool>>,
    due: Vec<(Duration, Step)>,
    rng: Rng,
}

struct Node {
    reins: Reins,
    generation: Arc<AtomicU64>,
    is_up: bool,
    /// It is to end in a moment.
    falls: bool,
    pauses: u32,
    /// It is stopping in order, and starts again so long after.
    back_after: Option<Duration>,
    hosts_lost: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Do(Fault),
    Undo(Fault),
    /// Nothing leaves it any more, and all that did was shown: how it ends, and for how long.
    Fall(HostId, End, Duration),
    /// Its machine is there again.
    Reach(HostId),
    Start(HostId),
}

/// How a run of a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Its machine closes what it had open.
    Killed,
    /// Its machine is gone without a word.
    Silent,
    /// By itself, in order.
    Stopped,
}

/// Does a run.
///
/// # Errors
/// It can't be begun, or a node can't start.
pub fn run(plan: &Plan, echo: bool) -> Result<Outcome> {
    let mut world = World::new(plan, echo);
    world.speak()?;
    world.settle()?;
    let (hash, violations, time) = (world.oracle.hash(), world.oracle.violations(), world.sim.elapsed());
    Ok(Outcome { hash, violations, time })
}

impl World {
    fn new(plan: &Plan, echo: bool) -> Self {
        let sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3_600))
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(WAY)
            // As many segments and datagrams as wait in a socket of the system's.
            .tcp_capacity(1_024)
            .udp_capacity(1_024)
            .rng_seed(plan.seed)
            .build();
        let (plan, nodes) = (Arc::new(plan.clone()), plan.nodes.len());
        let mut names: Vec<String> = (0..nodes).map(|node| format!("n{node}")).collect();
        names.extend((0..plan.clients.len()).map(|client| format!("c{client}")));
        let addresses: Vec<IpAddr> = names.iter().map(|name| sim.lookup(name.as_str())).collect();
        let speeches: Vec<Speech> = (0..plan.clients.len())
            .map(|index| Speech::of(index, &plan.clients[index], plan.poison(index)))
            .collect();
        let clock = Arc::new(AtomicU64::new(0));
        let outside = Arc::clone(&clock);
        let now = Arc::new(move || {
            let outside = || Duration::from_micros(outside.load(Ordering::Relaxed));
            turmoil::sim_elapsed().unwrap_or_else(outside)
        });
        let oracle = SharedOracle::new(now, nodes, &speeches, SHOWN, echo);
        oracle.log(&format!("seed {} schedule {}", plan.seed, plan.schedule));
        let faults = plan.schedule.0.iter();
        let faults = faults.map(|fault| (Duration::from_millis(fault.at_ms), Step::Do(fault.clone())));
        let mut world = Self {
            due: faults.collect(),
            clock,
            ways: Ways::new(names.clone(), WAY),
            lines: TurmoilLines::new(&addresses[..nodes]),
            nodes: Vec::new(),
            stalls: Vec::new(),
            rng: Rng::new(plan.seed, 4),
            oracle,
            plan,
            sim,
        };
        world.add_nodes(&addresses);
        speeches.into_iter().enumerate().for_each(|(index, speech)| world.add_client(index, speech));
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    /// Hosts on which nothing runs before it is started.
    fn add_nodes(&mut self, addresses: &[IpAddr]) {
        let nodes = self.plan.nodes.len();
        let mut rng = Rng::new(self.plan.seed, 20);
        let loss = rng.pick(&[0, 0, 1, 3]);
        let air = Air::new(rng, addresses.to_vec(), loss);
        let seeds: Vec<String> =
            addresses[..nodes].iter().map(|address| format!("{address}:{GOSSIP_PORT}")).collect();
        let sealer = Arc::new(TokenSealer::random());
        for (node, address) in addresses[..nodes].iter().enumerate() {
            let (reins, generation) = (Reins::default(), Arc::new(AtomicU64::new(0)));
            let setup = Setup {
                node,
                address: *address,
                id: NodeId { name: name_of(node), generation: Generation(0) },
                seeds: seeds.clone(),
                plan: Arc::clone(&self.plan),
                sealer: Arc::clone(&sealer),
                air: air.clone(),
                oracle: self.oracle.clone(),
                reins: reins.clone(),
            };
            let counted = Arc::clone(&generation);
            self.sim.host(format!("n{node}").as_str(), move || {
                let generation = counted.load(Ordering::Relaxed);
                let mut setup = setup.clone();
                setup.id.generation = Generation(generation);
                async move { if generation == 0 { Ok(()) } else { node::run(setup).await } }
            });
            self.nodes.push(Node {
                reins,
                generation,
                is_up: false,
                falls: false,
                pauses: 0,
                back_after: None,
                hosts_lost: 0,
            });
        }
    }

    fn add_client(&mut self, index: usize, speech: Speech) {
        let lines: Arc<dyn Lines> = Arc::new(self.lines.clone());
        let (client, stall) = Client::of(index, speech, &self.plan, &lines, &self.oracle);
        self.stalls.push(stall);
        let (client, plan) = (Mutex::new(Some(client)), self.plan.clients[index].clone());
        self.sim.host(format!("c{index}").as_str(), move || {
            let client = client.lock().unwrap_or_else(PoisonError::into_inner).take();
            let plan = plan.clone();
            async move {
                if let Some(client) = client {
                    call(client, plan).await;
                }
                Ok(())
            }
        });
    }

    fn speak(&mut self) -> Result<()> {
        while !(0..self.stalls.len()).all(|client| self.oracle.is_over(client)) || !self.due.is_empty() {
            if self.sim.elapsed() >= THROUGH {
                for client in (0..self.stalls.len()).filter(|client| !self.oracle.is_over(*client)) {
                    self.oracle.violation(format!("I7: client {client} is not through after {THROUGH:?}"));
                }
                return Ok(());
            }
            if !self.oracle.violations().is_empty() {
                return Ok(());
            }
            self.tick()?;
        }
        Ok(())
    }

    /// Nothing may be left when all are through.
    fn settle(&mut self) -> Result<()> {
        let until = self.sim.elapsed() + NOTHING_LEFT;
        while self.oracle.violations().is_empty() {
            let look_at = self.sim.elapsed() + REST_EVERY;
            while self.sim.elapsed() < look_at {
                self.tick()?;
            }
            let left = self.left();
            if left.is_empty() {
                return Ok(());
            }
            if self.sim.elapsed() >= until {
                left.into_iter().for_each(|left| self.oracle.violation(format!("I10: {left}")));
            }
        }
        Ok(())
    }

    fn left(&self) -> Vec<String> {
        let left_of = |(index, node): (HostId, &Node)| match node.reins.status() {
            Some(status) => left_of(index, &status),
            None => Some(format!("n{index} is not there again")),
        };
        self.nodes.iter().enumerate().filter_map(left_of).collect()
    }

    fn tick(&mut self) -> Result<()> {
        let now = self.sim.elapsed();
        self.clock.store(u64::try_from(now.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let (mut due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= now);
        self.due = later;
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().for_each(|(_, step)| self.step(step, now));
        self.sim.step().map_err(|error| anyhow!("a node failed: {error}"))?;
        for node in 0..self.nodes.len() {
            let Node { reins, hosts_lost, is_up, falls, .. } = &mut self.nodes[node];
            let lost = reins.hosts().map_or(0, |hosts| hosts.deaths());
            if std::mem::replace(hosts_lost, lost) < lost {
                self.oracle.host_lost();
            }
            if *is_up && !*falls && reins.has_stopped() {
                self.oracle.log(&format!("n{node} has stopped"));
                let down_for = self.nodes[node].back_after.unwrap_or_default();
                self.fall(node, End::Stopped, down_for);
            }
        }
        self.oracle.judge();
        Ok(())
    }

    fn start(&mut self, node: HostId) {
        let Node { reins, generation, is_up, hosts_lost, .. } = &mut self.nodes[node];
        if *is_up {
            return;
        }
        (*is_up, *hosts_lost) = (true, 0);
        reins.begins();
        generation.fetch_add(1, Ordering::Relaxed);
        self.sim.bounce(format!("n{node}").as_str());
        self.lines.begins(node);
        self.lines.shut_off(node, false);
    }

    /// Ends a run of a node as it stands. Its machine goes on to close what it had open, unless it is gone as well.
    fn fall(&mut self, node: HostId, end: End, down_for: Duration) {
        if end == End::Killed {
            self.ways.part(&mut self.sim, node, false);
        }
        self.sim.crash(format!("n{node}").as_str());
        self.oracle.node_lost(node);
        while self.nodes[node].pauses > 0 {
            self.pause(node, false);
        }
        let Node { reins, back_after, is_up, falls, .. } = &mut self.nodes[node];
        reins.ends();
        (*is_up, *falls) = (false, false);
        if back_after.take().is_some() {
            self.oracle.unrest(node, -1);
        }
        self.lines.shut_off(node, true);
        self.due.push((self.sim.elapsed() + down_for, Step::Start(node)));
        if end == End::Silent {
            self.due.push((self.sim.elapsed() + down_for, Step::Reach(node)));
        }
    }

    fn step(&mut self, step: Step, now: Duration) {
        match step {
            Step::Start(node) => {
                self.oracle.log(&format!("n{node} starts again"));
                self.oracle.unrest(node, 0);
                self.start(node);
            }
            Step::Reach(node) => self.ways.part(&mut self.sim, node, false),
            Step::Fall(node, end, down_for) => self.fall(node, end, down_for),
            Step::Do(fault) => {
                self.oracle.log(&format!("fault {fault}"));
                let lasts = fault.kind.lasts();
                self.oracle.unrest_by(&self.plan, &fault, i32::from(lasts));
                self.perform(&fault, now);
                if lasts {
                    self.due.push((now + Duration::from_millis(fault.for_ms), Step::Undo(fault)));
                }
            }
            Step::Undo(fault) => {
                self.oracle.log(&format!("over {fault}"));
                self.oracle.unrest_by(&self.plan, &fault, -1);
                self.undo(&fault);
            }
        }
    }
}
