//! One policy over one trace.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::pool::{HostEnd, HostId, PoolAction, PoolEvent, PoolMachine, Purpose, RequestId};
use starling_core::scaling::{CountedScaler, Demand, HostScaler, HostsConfig, Room, node_reserve};
use starling_protocol::LeaseId;

use super::trace::Trace;
use super::{Kind, Policy, Supply, pool};

/// A host that is started so soon after one was stopped need not have been stopped.
const FLAP: Duration = Duration::from_secs(300);

/// What came of it, from when the policy is judged.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Account {
    pub(crate) calls: u64,
    pub(crate) refused: u64,
    /// Of those that were served, the ones that waited.
    pub(crate) waited: u64,
    pub(crate) starts: u64,
    pub(crate) flaps: u64,
    /// Decoders that were there, or loading, and decoded nothing, in hours.
    pub(crate) idle_hours: f64,
    /// All decoders, in hours.
    pub(crate) hours: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ready(HostId),
    Ends(LeaseId),
    Call(usize),
    Look,
}

/// The policy, as a node has it for its hosts and as it tells of the whole cluster.
enum Scaler {
    Hosts(HostScaler),
    Nodes { counted: CountedScaler, idle_target: u32, slots: u16 },
}

impl Scaler {
    fn new(now: Timestamp, policy: Policy, supply: Supply) -> Option<Self> {
        let (policy, slots) = (policy.scaling()?, supply.slots);
        Some(match supply.kind {
            Kind::Hosts => {
                let config = HostsConfig { policy, slots_per_host: slots, static_hosts: 0 };
                Self::Hosts(HostScaler::new(now, config))
            }
            Kind::Nodes => Self::Nodes {
                counted: CountedScaler::new(now, policy),
                idle_target: policy.idle_target,
                slots,
            },
        })
    }

    /// How many hosts or nodes there should be.
    fn observe(&mut self, now: Timestamp, pool: &PoolMachine) -> u16 {
        match self {
            Self::Hosts(scaler) => {
                let demand = pool.demand(scaler.idle_target());
                scaler.observe(now, demand, Room::default())
            }
            Self::Nodes { counted, idle_target, slots } => {
                let slots = u32::from(*slots);
                let demand = pool.demand(*idle_target);
                let reserve = node_reserve(demand.busy + demand.waiting + *idle_target, slots);
                let desired = counted.observe(now, Demand { reserve, ..demand }).desired;
                u16::try_from(desired.div_ceil(slots)).unwrap_or(u16::MAX)
            }
        }
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        match self {
            Self::Hosts(scaler) => scaler.next_timeout(),
            Self::Nodes { counted, .. } => counted.next_timeout(),
        }
    }
}

struct Simulation<'a> {
    trace: &'a Trace,
    supply: Supply,
    pool: PoolMachine,
    scaler: Option<Scaler>,
    now: Duration,
    due: BinaryHeap<Reverse<(Duration, Event)>>,
    looks_at: Option<Duration>,
    running: BTreeMap<HostId, bool>,
    busy: u32,
    stopped: Option<Duration>,
    account: Account,
}

/// Runs it.
pub(crate) fn run(trace: &Trace, supply: Supply, policy: Policy) -> Account {
    let hosts = if policy == Policy::Fixed { usual(trace).div_ceil(supply.slots.into()) } else { 0 };
    let hosts = u16::try_from(hosts).unwrap_or(u16::MAX);
    let mut out = Vec::new();
    let start = Timestamp::default();
    let scaler = Scaler::new(start, policy, supply);
    let mut simulation = Simulation {
        trace,
        supply,
        pool: PoolMachine::new(start, pool(hosts, supply), &mut out),
        scaler,
        now: Duration::ZERO,
        due: BinaryHeap::new(),
        looks_at: None,
        running: BTreeMap::new(),
        busy: 0,
        stopped: None,
        account: Account::default(),
    };
    simulation.follow(out);
    // As a pool's actor does at its start.
    simulation.tell(PoolEvent::TimedOut);
    let calls = trace.calls.iter().enumerate();
    simulation.due.extend(calls.map(|(index, call)| Reverse((call.begins, Event::Call(index)))));
    while let Some(Reverse((at, event))) = simulation.due.pop().filter(|Reverse((at, _))| *at <= trace.lasts)
    {
        simulation.pass(at);
        simulation.happen(event);
    }
    simulation.pass(trace.lasts);
    simulation.account
}

/// Callers at once that 95 of 100 minutes don't exceed, those at night left out: whoever sizes by hand looks at the day.
fn usual(trace: &Trace) -> usize {
    let mut changes: Vec<(Duration, i64)> = Vec::new();
    for call in &trace.calls {
        changes.extend([(call.begins, 1), (call.begins + call.lasts, -1)]);
    }
    changes.sort_unstable();
    let (mut at_once, mut minutes, mut next) = (0i64, Vec::new(), Duration::ZERO);
    for (at, change) in changes {
        while next < at {
            minutes.push(at_once);
            next += Duration::from_secs(60);
        }
        at_once += change;
    }
    minutes.sort_unstable();
    minutes.drain(..minutes.len() / 2);
    let place = (minutes.len() * 95 / 100).min(minutes.len().saturating_sub(1));
    usize::try_from(minutes.get(place).copied().unwrap_or(1)).unwrap_or(1).max(1)
}

impl Simulation<'_> {
    const fn judged(&self) -> bool {
        self.now.as_nanos() >= self.trace.judged_from.as_nanos()
    }

    /// Time goes by.
    fn pass(&mut self, at: Duration) {
        let from = self.now.max(self.trace.judged_from);
        let hours = at.saturating_sub(from).as_secs_f64() / 3_600.0;
        let decoders = self.running.len() as f64 * f64::from(self.supply.slots);
        self.account.hours += decoders * hours;
        self.account.idle_hours += (decoders - f64::from(self.busy)).max(0.0) * hours;
        self.now = at;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Call(index) => {
                self.account.calls += u64::from(self.judged());
                let request = RequestId(index as u64);
                self.tell(PoolEvent::Requested { request, purpose: Purpose::New, claim: None });
            }
            Event::Ends(lease) => {
                self.busy -= 1;
                self.tell(PoolEvent::Released { lease });
            }
            Event::Ready(host) => {
                if let Some(ready) = self.running.get_mut(&host) {
                    *ready = true;
                    self.tell(PoolEvent::HostReady { host });
                }
            }
            Event::Look => {
                self.looks_at = None;
                self.tell(PoolEvent::TimedOut);
            }
        }
    }

    /// As a node's pool does it: the event, then the scaler's word on it.
    fn tell(&mut self, event: PoolEvent) {
        let (now, mut out) = (Timestamp(self.now), Vec::new());
        self.pool.handle(now, event, &mut out);
        if let Some(scaler) = &mut self.scaler {
            let hosts = scaler.observe(now, &self.pool);
            if usize::from(hosts) != self.pool.counts().hosts_wanted {
                self.pool.handle(now, PoolEvent::Resized { hosts }, &mut out);
            }
        }
        self.follow(out);
    }

    fn follow(&mut self, actions: Vec<PoolAction>) {
        let mut gone = Vec::new();
        for action in actions {
            match action {
                PoolAction::StartHost { host, .. } => {
                    self.running.insert(host, false);
                    self.due.push(Reverse((self.now + self.supply.start, Event::Ready(host))));
                    self.account.starts += u64::from(self.judged());
                    let soon = self.stopped.is_some_and(|at| self.now - at < FLAP);
                    self.account.flaps += u64::from(self.judged() && soon);
                }
                PoolAction::StopHost { host } | PoolAction::KillHost { host } => {
                    self.running.remove(&host);
                    self.stopped = Some(self.now);
                    gone.push(host);
                }
                PoolAction::Grant { request, lease, waited, .. } => {
                    self.busy += 1;
                    self.account.waited += u64::from(self.judged() && !waited.is_zero());
                    let call = usize::try_from(request.0).ok().and_then(|index| self.trace.calls.get(index));
                    let lasts = call.map_or(Duration::ZERO, |call| call.lasts);
                    self.due.push(Reverse((self.now + lasts, Event::Ends(lease))));
                }
                PoolAction::Refuse { .. } => self.account.refused += u64::from(self.judged()),
                PoolAction::Reserve { .. } | PoolAction::Lose { .. } | PoolAction::Move { .. } => {}
            }
        }
        for host in gone {
            self.tell(PoolEvent::HostEnded { host, end: HostEnd::Stopped, suspects: Vec::new() });
        }
        let scaler = self.scaler.as_ref().and_then(Scaler::next_timeout);
        let next = self.pool.next_timeout().into_iter().chain(scaler).min().map(|at| at.0.max(self.now));
        if let Some(at) = next.filter(|at| self.looks_at.is_none_or(|armed| *at < armed)) {
            self.looks_at = Some(at);
            self.due.push(Reverse((at, Event::Look)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::scaling::line;
    use crate::scaling::SUPPLIES;
    use crate::scaling::trace::{Call, synthetic};

    fn calls(each: impl IntoIterator<Item = (u64, u64)>) -> Trace {
        let call =
            |(begins, lasts)| Call { begins: Duration::from_secs(begins), lasts: Duration::from_secs(lasts) };
        let calls: Vec<Call> = each.into_iter().map(call).collect();
        Trace { name: "t".into(), calls, lasts: Duration::from_secs(3_600), judged_from: Duration::ZERO }
    }

    #[test]
    fn who_is_served_refused_and_idle_adds_up() {
        // Four at once for half an hour, on the one host that nine minutes of ten need.
        let account = run(&calls((0..4).map(|n| (10 + n, 1_800))), SUPPLIES[0], Policy::Fixed);
        assert_eq!((account.calls, account.refused, account.starts, account.flaps), (4, 0, 1, 0));
        assert!((account.hours - 4.0).abs() < 0.01 && (account.idle_hours - 2.0).abs() < 0.02, "{account:?}");
        let more = run(&calls((0..9).map(|n| (10 + n, 30))), SUPPLIES[0], Policy::Fixed);
        assert_eq!((more.calls, more.refused), (9, 5));
    }

    #[test]
    fn hosts_follow_the_callers_and_go_again() {
        let burst = calls((0..12).map(|n| (600 + n, 300)));
        let account = run(&burst, SUPPLIES[0], Policy::Reactive);
        assert_eq!((account.calls, account.refused), (12, 0));
        assert!((3..=6).contains(&account.starts), "{account:?}");
        assert_eq!(account.flaps, 0, "nothing that was given up is wanted again");
        // Eight decoders for the five idle ones, and up to 20 for some minutes.
        assert!((8.0..12.0).contains(&account.hours), "{account:?}");
    }

    /// What the table says, in small: hosts follow their callers and cost less than as many as the day needs, and who looks ahead refuses no
    /// more.
    #[test]
    fn each_policy_is_good_for_something() {
        for trace in synthetic(true) {
            for supply in SUPPLIES {
                let [fixed, reactive, predictive] = Policy::ALL.map(|policy| {
                    let account = run(&trace, supply, policy);
                    println!("{}", line(&format!("{}, {}", trace.name, supply.name), policy, &account));
                    account
                });
                assert!(fixed.calls == reactive.calls && reactive.calls == predictive.calls);
                // Of what can't be foreseen chance may let in one more or less.
                let most = reactive.refused + reactive.refused / 20;
                assert!(predictive.refused <= most, "{} {predictive:?} {reactive:?}", trace.name);
                if supply.kind == Kind::Hosts {
                    assert!(reactive.refused * 50 <= reactive.calls, "{} {reactive:?}", trace.name);
                    assert!(reactive.refused <= fixed.refused, "{} {reactive:?} {fixed:?}", trace.name);
                    // A burst is cheap for as few as most moments need, and refuses for it.
                    assert!(
                        reactive.idle_hours < fixed.idle_hours || fixed.refused * 10 > fixed.calls,
                        "{} {reactive:?} {fixed:?}",
                        trace.name
                    );
                }
            }
        }
    }
}
