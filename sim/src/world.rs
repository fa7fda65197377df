//! One run: time in ticks, nodes and clients driven in turn, faults when they are due, and what has to hold at the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use starling_actors::{NodeStatus, TokenSealer};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caller::call;
use crate::client::Client;
use crate::lines::Lines;
use crate::net::{HostId, Net};
use crate::node::{DRAIN, RESTART, Running};
use crate::oracle::SharedOracle;
use crate::plan::{Fault, Kind, Place, Plan};
use crate::rng::Rng;
use crate::speech::Speech;

/// What time moves by: as long as the quickest message takes.
const TICK: Duration = Duration::from_millis(5);

/// What it moves by once nobody speaks any more.
const IDLE_TICK: Duration = Duration::from_millis(50);

/// How often keepers are looked at without a cause.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A session that was admitted so long ago is known to all nodes.
const GOSSIPED: Duration = Duration::from_millis(1_200);

/// I7: all clients are through by then. The last fault is over after 23 s, the longest speech takes 20 s.
pub const THROUGH: Duration = Duration::from_secs(90);

/// I10: after that nothing is left of a session whose client is through: a copy is kept for 30 s beyond the linger.
pub const NOTHING_LEFT: Duration = Duration::from_secs(100);

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Stands for the whole log.
    pub hash: u64,
    /// What did not hold.
    pub violations: Vec<String>,
    /// Simulated time.
    pub time: Duration,
}

struct World {
    plan: Plan,
    net: Net,
    oracle: SharedOracle,
    sealer: Arc<TokenSealer>,
    nodes: Vec<Node>,
    clients: Runtime,
    base: Instant,
    stalls: Vec<watch::Sender<bool>>,
    /// What is to be done, and undone; the latest first.
    due: Vec<(Duration, Step)>,
    rng: Rng,
    now: Duration,
    looked: Duration,
    /// Something was done that makes nodes come and go.
    disturbed: bool,
}

#[derive(Default)]
struct Node {
    running: Option<Running>,
    pauses: u32,
    /// It is stopping in order, and starts again so long after.
    back_after: Option<Duration>,
    /// It is down until this.
    down: bool,
    /// Decoder hosts that it has lost.
    hosts_lost: u64,
}

#[derive(Debug, Clone)]
enum Step {
    Do(Fault),
    Undo(Fault),
    Start(HostId),
}

/// What there is of sessions on a node, if anything.
#[must_use]
pub fn left_of(node: HostId, status: &NodeStatus) -> Option<String> {
    let busy: usize = status.models.iter().map(|model| model.slots_busy + model.waiting).sum();
    let NodeStatus { sessions, copies, copies_bytes, relayed, .. } = status;
    (sessions + copies + relayed + busy > 0 || *copies_bytes > 0).then(|| {
        format!(
            "n{node} has {sessions} sessions, {copies} copies of {copies_bytes} bytes, {relayed} sessions of peers, {busy} slots in use"
        )
    })
}

/// Does a run.
///
/// # Errors
/// It can't be begun.
pub fn run(plan: &Plan, echo: bool) -> Result<Outcome> {
    let mut world = World::new(plan.clone(), echo)?;
    world.speak();
    world.settle();
    let (hash, violations, time) = (world.oracle.hash(), world.oracle.violations(), world.now);
    Ok(Outcome { hash, violations, time })
}

impl World {
    fn new(plan: Plan, echo: bool) -> Result<Self> {
        let count = plan.nodes.len();
        let net = Net::new(count, plan.clients.len(), Rng::new(plan.seed, 3));
        let speeches: Vec<Speech> = (0..plan.clients.len())
            .map(|index| Speech::of(index, &plan.clients[index], plan.poison(index)))
            .collect();
        let reads = net.clone();
        let oracle = SharedOracle::new(Arc::new(move || reads.now()), count, &speeches, Duration::ZERO, echo);
        oracle.log(&format!("seed {} schedule {}", plan.seed, plan.schedule));
        let clients = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .context("no runtime")?;
        let (base, stalls) = clients.block_on(async {
            let lines: Arc<dyn Lines> = Arc::new(net.clone());
            let start = |(index, speech)| {
                let (client, stall) = Client::of(index, speech, &plan, &lines, &oracle);
                tokio::spawn(call(client, plan.clients[index].clone()));
                stall
            };
            let stalls: Vec<watch::Sender<bool>> = speeches.into_iter().enumerate().map(start).collect();
            (Instant::now(), stalls)
        });
        let mut due: Vec<(Duration, Step)> = Vec::new();
        for fault in &plan.schedule.0 {
            due.push((Duration::from_millis(fault.at_ms), Step::Do(fault.clone())));
        }
        let mut world = Self {
            nodes: (0..count).map(|_| Node::default()).collect(),
            sealer: Arc::new(TokenSealer::random()),
            rng: Rng::new(plan.seed, 4),
            plan,
            net,
            oracle,
            clients,
            base,
            stalls,
            due,
            now: Duration::ZERO,
            looked: Duration::ZERO,
            disturbed: false,
        };
        (0..count).for_each(|node| world.start(node));
        Ok(world)
    }

    fn speak(&mut self) {
        while !(0..self.stalls.len()).all(|client| self.oracle.is_over(client)) || !self.due.is_empty() {
            if self.now >= THROUGH {
                for client in (0..self.stalls.len()).filter(|client| !self.oracle.is_over(*client)) {
                    self.oracle.violation(format!("I7: client {client} is not through after {THROUGH:?}"));
                }
                return;
            }
            if !self.oracle.violations().is_empty() {
                return;
            }
            self.tick(TICK);
        }
    }

    /// Nothing may be left when all are through.
    fn settle(&mut self) {
        if !self.oracle.violations().is_empty() {
            return;
        }
        let until = self.now + NOTHING_LEFT;
        loop {
            for _ in 0..20 {
                self.tick(IDLE_TICK);
            }
            let left = self.left();
            if left.is_empty() {
                return;
            }
            if self.now >= until {
                left.into_iter().for_each(|left| self.oracle.violation(format!("I10: {left}")));
                return;
            }
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(running) = &node.running else {
                left.push(format!("n{index} is not there again"));
                continue;
            };
            left.extend(left_of(index, &running.status()));
        }
        left
    }

    fn tick(&mut self, by: Duration) {
        self.now += by;
        self.net.step(self.now);
        let (due, later) = std::mem::take(&mut self.due).into_iter().partition(|(at, _)| *at <= self.now);
        self.due = later;
        let mut due: Vec<(Duration, Step)> = due;
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().for_each(|(_, step)| self.step(step));
        for node in 0..self.nodes.len() {
            let Node { running, pauses, hosts_lost, .. } = &mut self.nodes[node];
            if let (Some(running), 0) = (running, *pauses) {
                running.run_until(self.now);
                let lost = running.hosts().deaths();
                if std::mem::replace(hosts_lost, lost) < lost {
                    self.oracle.host_lost();
                }
                if running.has_stopped() {
                    self.stopped(node);
                } else if self.nodes[node].back_after.is_some() {
                    // Once it has stopped it can't be asked any more.
                    self.look(node);
                }
            }
        }
        let (speaking, apart) = self.oracle.speaking();
        let most = self.plan.most_sessions();
        // Nodes that admit within a second don't see each other's new sessions.
        if speaking > most && apart > GOSSIPED && !self.disturbed {
            self.oracle
                .violation(format!("I9: {speaking} sessions were admitted, {most} could go on after a loss"));
        }
        self.clients.block_on(async { tokio::time::sleep_until(self.base + self.now).await });
        if self.oracle.has_claims() || self.now - self.looked >= LOOK_EVERY {
            self.looked = self.now;
            (0..self.nodes.len()).for_each(|node| self.look(node));
            self.oracle.judge();
        }
    }

    fn look(&self, node: HostId) {
        if let Node { running: Some(running), pauses: 0, .. } = &self.nodes[node] {
            self.oracle.sampled(node, &running.copies());
        }
    }

    /// A node is looked at before it can't be any more. Whatever has arrived is taken in first: it would be while the node is looked at,
    /// and answered, without being seen.
    fn last_look(&mut self, node: HostId) {
        let now = self.now;
        if let Node { running: Some(running), pauses: 0, .. } = &mut self.nodes[node] {
            running.run_until(now);
        }
        self.look(node);
    }

    fn start(&mut self, node: HostId) {
        if self.nodes[node].running.is_some() {
            return;
        }
        (self.nodes[node].down, self.nodes[node].hosts_lost) = (false, 0);
        match Running::start(node, &self.plan, &self.net, &self.sealer) {
            Ok(running) => self.nodes[node].running = Some(running),
            Err(problem) => self.oracle.violation(format!("n{node}: {problem:#}")),
        }
    }

    /// Ends a node as it stands.
    fn fall(&mut self, node: HostId, silent: bool, down_for: Duration) {
        self.last_look(node);
        self.net.fall(node, silent);
        self.oracle.node_lost(node);
        if self.nodes[node].back_after.is_some() {
            self.oracle.unrest(node, -1);
        }
        (self.nodes[node].back_after, self.nodes[node].pauses) = (None, 0);
        drop(self.nodes[node].running.take());
        self.nodes[node].down = true;
        self.due.push((self.now + down_for, Step::Start(node)));
    }

    fn stopped(&mut self, node: HostId) {
        let down_for = self.nodes[node].back_after.unwrap_or_default();
        self.oracle.log(&format!("n{node} has stopped"));
        self.fall(node, false, down_for);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start(node) => {
                self.oracle.log(&format!("n{node} starts again"));
                self.oracle.unrest(node, 0);
                self.start(node);
            }
            Step::Do(fault) => {
                self.oracle.log(&format!("fault {fault}"));
                self.disturbed |= fault.kind.is_to_nodes();
                let lasts = fault.kind.lasts();
                self.oracle.unrest_by(&self.plan, &fault, i32::from(lasts));
                self.perform(&fault);
                if lasts {
                    let until = self.now + Duration::from_millis(fault.for_ms);
                    self.due.push((until, Step::Undo(fault)));
                }
            }
            Step::Undo(fault) => {
                self.oracle.log(&format!("over {fault}"));
                self.oracle.unrest_by(&self.plan, &fault, -1);
                self.undo(&fault);
            }
        }
    }

    fn perform(&mut self, fault: &Fault) {
        let length = Duration::from_millis(fault.for_ms);
        match (fault.kind, fault.place, fault.other) {
            (Kind::Crash | Kind::PowerOff, Place::Node(node), _) if !self.nodes[node].down => {
                self.oracle.excuse(node);
                self.fall(node, fault.kind == Kind::PowerOff, length);
            }
            (Kind::Restart, Place::Node(node), _) => self.begin_to_stop(node, RESTART, length),
            (Kind::Drain, Place::Node(node), _) => self.begin_to_stop(node, DRAIN, length),
            (Kind::Cut, a, Some(b)) => self.cut(a, b, true, true),
            (Kind::OneWay, a, Some(b)) => self.cut(a, b, false, true),
            (Kind::Slow, a, Some(b)) => self.slow(a, b, Duration::from_millis(fault.amount)),
            (Kind::Pause, Place::Node(node), _) => {
                self.last_look(node);
                self.nodes[node].pauses += 1;
                self.net.pause(node, true);
            }
            (Kind::Jump, Place::Node(node), _) if self.nodes[node].pauses == 0 => {
                if let Some(running) = &mut self.nodes[node].running {
                    running.jump(Duration::from_millis(fault.amount), self.now);
                }
            }
            (Kind::Stall, Place::Client(client), _) => drop(self.stalls[client].send_replace(true)),
            (Kind::Die | Kind::Abort | Kind::Hang | Kind::Freeze, Place::Node(node), _) => {
                let which = self.rng.next();
                let Some(running) = &self.nodes[node].running else { return };
                running.hosts().harm(fault.kind, which);
            }
            // What is wrong from the start was built in.
            _ => {}
        }
    }

    fn undo(&mut self, fault: &Fault) {
        match (fault.kind, fault.place, fault.other) {
            (Kind::Cut, a, Some(b)) => self.cut(a, b, true, false),
            (Kind::OneWay, a, Some(b)) => self.cut(a, b, false, false),
            (Kind::Slow, a, Some(b)) => self.slow(a, b, Duration::ZERO),
            (Kind::Pause, Place::Node(node), _) => {
                self.nodes[node].pauses = self.nodes[node].pauses.saturating_sub(1);
                if self.nodes[node].pauses == 0 {
                    self.net.pause(node, false);
                    if let Some(running) = &self.nodes[node].running {
                        running.wake(self.now);
                    }
                }
            }
            (Kind::Stall, Place::Client(client), _) => drop(self.stalls[client].send_replace(false)),
            _ => {}
        }
    }

    fn begin_to_stop(&mut self, node: HostId, within: Duration, down_for: Duration) {
        let stops = self.nodes[node].back_after.is_some();
        self.look(node);
        if let (Some(running), false) = (&self.nodes[node].running, stops) {
            running.begin_to_stop(within);
            self.oracle.unrest(node, 1);
            self.nodes[node].back_after = Some(down_for);
            if within < DRAIN {
                self.oracle.excuse(node);
            }
        }
    }

    fn cut(&self, a: Place, b: Place, both: bool, cut: bool) {
        let (a, b) = (self.plan.host_of(a), self.plan.host_of(b));
        self.net.cut(a, b, cut);
        if both {
            self.net.cut(b, a, cut);
        }
    }

    fn slow(&self, a: Place, b: Place, by: Duration) {
        let (a, b) = (self.plan.host_of(a), self.plan.host_of(b));
        self.net.slow(a, b, by);
        self.net.slow(b, a, by);
    }
}
