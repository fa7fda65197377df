use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::control::ReservationId;
use starling_protocol::{LeaseId, SessionId};

use super::*;
use crate::Timestamp;
use crate::admission::NodeSlots;
use crate::admission::tests::can_be_lost;
use crate::restart::RestartLimits;
use crate::session::{LeaseKind, LossCause};

fn config() -> PoolConfig {
    PoolConfig {
        hosts: 2,
        slots_per_host: 2,
        queue_length: 3,
        queue_wait: Duration::from_secs(2),
        cold_wait: Duration::from_secs(2),
        idle_ttl: Duration::from_secs(10),
        unused_ttl: Duration::from_secs(30),
        retry_after: Duration::from_secs(1),
        load_deadline: Duration::from_secs(30),
        quarantine_hosts: 1,
        restarts: RestartLimits::default(),
        proved_after: Duration::from_secs(30),
    }
}

fn session(n: u8) -> SessionId {
    SessionId::parse(&format!("{n:032x}")).expect("an id")
}

/// The pool with the processes that it asked for.
struct Stage {
    pool: PoolMachine,
    now: Timestamp,
    loading: BTreeSet<HostId>,
    running: BTreeSet<HostId>,
    leases: BTreeMap<LeaseId, (RequestId, HostId)>,
    /// As they were granted; some may be gone.
    reserved: BTreeMap<RequestId, (ReservationId, Duration)>,
    /// The last of each session.
    names: BTreeMap<u8, ReservationId>,
    refused: Vec<(RequestId, Refusal)>,
    retry_after: Vec<Duration>,
    lost: Vec<(LeaseId, LossCause)>,
    moves: Vec<LeaseId>,
    next_request: u64,
    /// Requests of new sessions that have no claim.
    beginning: BTreeSet<RequestId>,
    others: Vec<NodeSlots>,
}

impl Stage {
    fn new() -> Self {
        let mut out = Vec::new();
        let pool = PoolMachine::new(Timestamp::default(), config(), &mut out);
        let mut stage = Self {
            pool,
            now: Timestamp::default(),
            loading: BTreeSet::new(),
            running: BTreeSet::new(),
            leases: BTreeMap::new(),
            reserved: BTreeMap::new(),
            names: BTreeMap::new(),
            refused: Vec::new(),
            retry_after: Vec::new(),
            lost: Vec::new(),
            moves: Vec::new(),
            next_request: 0,
            beginning: BTreeSet::new(),
            others: Vec::new(),
        };
        stage.perform(out);
        stage
    }

    fn send(&mut self, event: PoolEvent) {
        let mut out = Vec::new();
        self.pool.handle(self.now, event, &mut out);
        self.perform(out);
        self.pool.check().expect("holds after every event");
    }

    fn perform(&mut self, actions: Vec<PoolAction>) {
        let mut stopped = Vec::new();
        let begins = |action: &PoolAction| match action {
            PoolAction::Grant { request, .. } => self.beginning.contains(request),
            _ => false,
        };
        if actions.iter().any(begins) {
            self.check_reserve();
        }
        for action in actions {
            match action {
                PoolAction::StartHost { host, .. } => assert!(self.loading.insert(host)),
                PoolAction::StopHost { host } | PoolAction::KillHost { host } => {
                    let decodes = self.leases.values().any(|(_, on)| *on == host);
                    assert!(!decodes, "a host is stopped that decodes for somebody");
                    stopped.push(host);
                }
                PoolAction::Grant { request, lease, host, .. } => {
                    assert!(self.running.contains(&host), "a lease on a host that is not ready");
                    assert_eq!(self.leases.insert(lease, (request, host)), None);
                }
                PoolAction::Reserve { request, reservation, ttl } => {
                    self.reserved.insert(request, (reservation, ttl));
                }
                PoolAction::Refuse { request, refused } => {
                    self.refused.push((request, refused.reason));
                    self.retry_after.push(refused.retry_after);
                }
                PoolAction::Lose { lease, cause } => {
                    assert!(self.leases.remove(&lease).is_some(), "a lease is lost that nobody has");
                    self.lost.push((lease, cause));
                }
                PoolAction::Move { lease } => self.moves.push(lease),
            }
        }
        for host in stopped {
            self.end(host, HostEnd::Stopped, vec![]);
        }
    }

    fn request(&mut self, purpose: Purpose) -> RequestId {
        self.claim(purpose, None)
    }

    fn claim(&mut self, purpose: Purpose, claim: Option<Claim>) -> RequestId {
        let request = self.name();
        if purpose == Purpose::New && claim.is_none() {
            self.beginning.insert(request);
        }
        self.send(PoolEvent::Requested { request, purpose, claim });
        request
    }

    fn reserve(&mut self, of: u8, ttl: Duration, failover: bool) -> Option<ReservationId> {
        let request = self.name();
        let (reservation, session) = (ReservationId(request.0), session(of));
        self.send(PoolEvent::ReservationRequested { request, reservation, session, ttl, failover });
        let (reservation, _) = *self.reserved.get(&request)?;
        self.names.insert(of, reservation);
        Some(reservation)
    }

    fn tell_of(&mut self, others: Vec<NodeSlots>) {
        self.others = others;
        self.send(PoolEvent::OthersChanged { others: self.others.iter().copied().collect() });
    }

    /// A session was admitted just now: it must have left enough room to lose any one node.
    fn check_reserve(&self) {
        let counts = self.pool.counts();
        let count = |number: usize| u32::try_from(number).expect("a small number");
        let (total, busy) = (count(counts.slots), count(counts.streams()));
        let own = NodeSlots { total, busy, draining: false };
        let nodes: Vec<NodeSlots> = std::iter::once(own).chain(self.others.iter().copied()).collect();
        for lost in (0..nodes.len()).filter(|lost| nodes[*lost].busy > 0) {
            assert!(can_be_lost(&nodes, lost), "admitted into the reserve: {nodes:?} without {lost}");
        }
    }

    fn name(&mut self) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        request
    }

    fn load(&mut self) {
        for host in self.loading.clone() {
            self.ready(host);
        }
    }

    fn ready(&mut self, host: HostId) {
        self.loading.remove(&host);
        self.running.insert(host);
        self.send(PoolEvent::HostReady { host });
    }

    fn end(&mut self, host: HostId, end: HostEnd, suspects: Vec<LeaseId>) {
        self.loading.remove(&host);
        self.running.remove(&host);
        self.send(PoolEvent::HostEnded { host, end, suspects });
    }

    fn release(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        self.send(PoolEvent::Released { lease });
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now.plus(by);
        while let Some(at) = self.pool.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.send(PoolEvent::TimedOut);
        }
        self.now = until;
    }

    fn host_of(&self, request: RequestId) -> Option<HostId> {
        self.leases.values().find(|(holder, _)| *holder == request).map(|(_, host)| *host)
    }
}

#[test]
fn new_sessions_are_spread_and_never_take_the_reserve() {
    let mut stage = Stage::new();
    stage.load();
    let requests: Vec<_> = (0..6).map(|_| stage.request(Purpose::New)).collect();
    let hosts: Vec<_> = requests.iter().map(|request| stage.host_of(*request)).collect();
    let (first, second) = (Some(HostId(0)), Some(HostId(1)));
    assert_eq!(hosts, [first, second, first, second, None, None]);
    assert_eq!(stage.pool.counts().idle, 0);
    stage.advance(Duration::from_secs(2));
    let waited = Refusal::WaitedTooLong;
    assert_eq!(stage.refused, [(requests[4], waited), (requests[5], waited)]);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let mut stage = Stage::new();
    let requests: Vec<_> = (0..4).map(|_| stage.request(Purpose::New)).collect();
    assert_eq!(stage.refused, [(requests[3], Refusal::QueueFull)]);
    stage.load();
    assert_eq!(stage.leases.len(), 3, "those who waited for the hosts to load are served");
}

#[test]
fn a_dead_hosts_callers_go_on_at_once_in_the_others_reserve() {
    let mut stage = Stage::new();
    stage.load();
    for _ in 0..4 {
        stage.request(Purpose::New);
    }
    stage.end(HostId(0), HostEnd::Killed, vec![]);
    assert!(stage.lost.iter().all(|(_, cause)| *cause == LossCause::Killed));
    let again: Vec<_> = (0..2).map(|_| stage.request(Purpose::Continue(LeaseKind::Shared))).collect();
    assert!(again.iter().all(|request| stage.host_of(*request) == Some(HostId(1))));
    assert_eq!(stage.loading, BTreeSet::from([HostId(2)]), "the first restart is at once");
}

#[test]
fn only_those_a_host_was_working_on_are_suspect_and_they_get_a_host_of_their_own() {
    let mut stage = Stage::new();
    stage.load();
    for _ in 0..4 {
        stage.request(Purpose::New);
    }
    stage.end(HostId(0), HostEnd::Crashed, vec![LeaseId(2)]);
    let suspect = |lease| LossCause::Crashed { suspect: lease == LeaseId(2) };
    assert!(stage.lost.iter().all(|(lease, cause)| *cause == suspect(*lease)));
    let alone = stage.request(Purpose::Continue(LeaseKind::Quarantine));
    assert_eq!(stage.host_of(alone), None);
    stage.load();
    let host = stage.host_of(alone).expect("was started for it");
    let lease = *stage.leases.iter().find(|(_, (request, _))| *request == alone).expect("granted").0;
    stage.release(lease);
    assert!(!stage.running.contains(&host), "a quarantine host goes with its lease");
}

#[test]
fn a_second_suspect_does_not_wait_for_the_first() {
    let mut out = Vec::new();
    let roomy = PoolConfig { quarantine_hosts: 2, ..config() };
    let mut stage = Stage::new();
    stage.pool = PoolMachine::new(Timestamp::default(), roomy, &mut out);
    stage.load();
    let suspects: Vec<_> = (0..2)
        .map(|_| {
            let request = stage.request(Purpose::Continue(LeaseKind::Quarantine));
            stage.advance(Duration::from_secs(1));
            stage.load();
            request
        })
        .collect();
    let hosts: Vec<_> = suspects.iter().map(|request| stage.host_of(*request)).collect();
    assert!(hosts[0].is_some() && hosts[1].is_some() && hosts[0] != hosts[1], "{hosts:?}");
}

#[test]
fn a_quarantine_host_that_cannot_start_is_not_hammered() {
    let mut stage = Stage::new();
    stage.load();
    stage.request(Purpose::Continue(LeaseKind::Quarantine));
    let mut starts = 0;
    for _ in 0..100 {
        for host in stage.loading.clone() {
            starts += 1;
            stage.end(host, HostEnd::LoadFailed, vec![]);
        }
        stage.advance(Duration::from_millis(100));
    }
    assert!((3..=10).contains(&starts), "{starts} starts in ten seconds");
}

#[test]
fn a_host_that_retires_is_replaced_before_it_goes() {
    let mut stage = Stage::new();
    stage.load();
    stage.request(Purpose::New);
    stage.send(PoolEvent::HostRetiring { host: HostId(0) });
    assert!(stage.moves.is_empty());
    stage.load();
    assert_eq!(stage.moves, [LeaseId(0)]);
    let moved = stage.request(Purpose::Continue(LeaseKind::Shared));
    assert_ne!(stage.host_of(moved), Some(HostId(0)));
    stage.release(LeaseId(0));
    assert!(!stage.running.contains(&HostId(0)));
    assert_eq!(stage.pool.counts().hosts_ready, 2);
}

#[test]
fn a_host_that_does_not_load_in_time_is_killed_and_tried_again() {
    let mut stage = Stage::new();
    stage.advance(Duration::from_secs(29));
    assert_eq!(stage.loading, BTreeSet::from([HostId(0), HostId(1)]));
    stage.advance(Duration::from_secs(2));
    assert_eq!(stage.loading.len(), 2);
    assert!(stage.loading.iter().all(|host| host.0 >= 2), "{:?}", stage.loading);
}

#[test]
fn a_draining_pool_lets_sessions_go_on_and_refuses_new_ones() {
    let mut stage = Stage::new();
    stage.load();
    stage.send(PoolEvent::Draining);
    let refused = stage.request(Purpose::New);
    assert_eq!(stage.refused, [(refused, Refusal::Draining)]);
    let kept = stage.request(Purpose::Continue(LeaseKind::Shared));
    assert!(stage.host_of(kept).is_some());
}

mod reservations;
mod sizing;
mod standbys;

#[derive(Debug, Clone)]
enum Move {
    New,
    Continue(LeaseKind),
    Standby(u8),
    Withdraw(u8),
    LosePatience(u8),
    Release(u8),
    Reserve { session: u8, ttl_ms: u16, failover: bool },
    Claim { session: u8, purpose: Purpose },
    GiveUp(u8),
    Others(Vec<NodeSlots>),
    Load,
    Retire(u8),
    Resize(u16),
    End(u8, HostEnd),
    Advance(u16),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let end = prop_oneof![Just(HostEnd::Killed), Just(HostEnd::Crashed), Just(HostEnd::LoadFailed)];
    let continues = Purpose::Continue;
    let purpose = prop_oneof![
        2 => Just(Purpose::New),
        1 => Just(continues(LeaseKind::Shared)),
        1 => Just(continues(LeaseKind::Quarantine)),
    ];
    let other = (0u32..4, 0u32..6, proptest::bool::weighted(0.1))
        .prop_map(|(total, busy, draining)| NodeSlots { total, busy, draining });
    let one = prop_oneof![
        4 => Just(Move::New),
        2 => Just(Move::Continue(LeaseKind::Shared)),
        1 => Just(Move::Continue(LeaseKind::Quarantine)),
        2 => any::<u8>().prop_map(Move::Standby),
        1 => any::<u8>().prop_map(Move::Withdraw),
        1 => any::<u8>().prop_map(Move::LosePatience),
        4 => any::<u8>().prop_map(Move::Release),
        3 => (0u8..6, 0u16..8_000, any::<bool>())
            .prop_map(|(session, ttl_ms, failover)| Move::Reserve { session, ttl_ms, failover }),
        3 => (0u8..6, purpose).prop_map(|(session, purpose)| Move::Claim { session, purpose }),
        1 => any::<u8>().prop_map(Move::GiveUp),
        1 => proptest::collection::vec(other, 0..3).prop_map(Move::Others),
        3 => Just(Move::Load),
        1 => any::<u8>().prop_map(Move::Retire),
        3 => (0u16..7).prop_map(Move::Resize),
        2 => (any::<u8>(), end).prop_map(|(which, end)| Move::End(which, end)),
        2 => (0u16..10_000).prop_map(Move::Advance),
    ];
    proptest::collection::vec(one, 0..150)
}

fn pick<T: Copy>(set: impl Iterator<Item = T>, which: u8) -> Option<T> {
    let all: Vec<T> = set.collect();
    (!all.is_empty()).then(|| all[usize::from(which) % all.len()])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens, caps hold after every event (inside `send`), every request is answered once, and when the
    /// trouble is over the pool is whole again.
    #[test]
    fn the_pool_is_whole_again_after_any_trouble(moves in moves()) {
        let mut stage = Stage::new();
        for step in moves {
            match step {
                Move::New => { stage.request(Purpose::New); }
                Move::Continue(kind) => { stage.request(Purpose::Continue(kind)); }
                Move::Standby(which) => {
                    let avoid = pick(stage.leases.keys().copied(), which);
                    let first = avoid.map(|lease| stage.leases[&lease].1);
                    let waiting = stage.pool.counts().waiting;
                    let request = stage.request(Purpose::Standby { avoid });
                    if let Some(host) = stage.host_of(request) {
                        let held = stage.leases.values().filter(|(_, holder)| *holder == host).count();
                        prop_assert!(Some(host) != first && waiting == 0 && held <= 2);
                    } else {
                        prop_assert!(stage.refused.iter().any(|(refused, _)| *refused == request), "at once");
                    }
                }
                Move::Withdraw(which) => {
                    if stage.next_request > 0 {
                        let request = RequestId(u64::from(which) % stage.next_request);
                        stage.send(PoolEvent::Withdrawn { request });
                    }
                }
                Move::LosePatience(which) => {
                    if let Some(request) = pick((0..stage.next_request).map(RequestId), which) {
                        stage.send(PoolEvent::PatienceEnded { request });
                    }
                }
                Move::Release(which) => {
                    if let Some(lease) = pick(stage.leases.keys().copied(), which) {
                        stage.release(lease);
                    }
                }
                Move::Reserve { session, ttl_ms, failover } => {
                    let before = stage.pool.counts();
                    let ttl = Duration::from_millis(ttl_ms.into());
                    stage.reserve(session, ttl, failover);
                    let bound = ttl.min(Duration::from_secs(5));
                    let last = RequestId(stage.next_request - 1);
                    prop_assert!(stage.reserved.get(&last).is_none_or(|(_, kept)| *kept <= bound));
                    if stage.pool.counts().reserved > before.reserved && !failover {
                        stage.check_reserve();
                    }
                }
                Move::Claim { session: of, purpose } => {
                    if let Some(reservation) = stage.names.get(&of).copied() {
                        stage.claim(purpose, Some(Claim { reservation, session: session(of) }));
                    }
                }
                Move::GiveUp(which) => {
                    if let Some(reservation) = pick(stage.names.values().copied(), which) {
                        stage.send(PoolEvent::ReservationReleased { reservation });
                    }
                }
                Move::Others(others) => stage.tell_of(others),
                Move::Load => stage.load(),
                Move::Retire(which) => {
                    if let Some(host) = pick(stage.running.iter().copied(), which) {
                        stage.send(PoolEvent::HostRetiring { host });
                    }
                }
                Move::Resize(hosts) => {
                    let lost = stage.lost.len();
                    stage.send(PoolEvent::Resized { hosts });
                    prop_assert_eq!(stage.lost.len(), lost, "nobody's decoder is taken away");
                }
                Move::End(which, end) => {
                    let alive: Vec<_> = stage.running.iter().chain(&stage.loading).copied().collect();
                    if let Some(host) = pick(alive.into_iter(), which) {
                        stage.end(host, end, vec![]);
                    }
                }
                Move::Advance(ms) => stage.advance(Duration::from_millis(u64::from(ms))),
            }
        }
        // What others may lose keeps hosts.
        stage.tell_of(vec![]);
        stage.send(PoolEvent::Resized { hosts: 2 });
        for _ in 0..40 {
            stage.advance(Duration::from_secs(5));
            stage.load();
            while let Some(lease) = stage.leases.keys().next().copied() {
                stage.release(lease);
            }
        }
        let counts = stage.pool.counts();
        prop_assert_eq!((counts.hosts_ready, counts.leases, counts.waiting, counts.reserved), (2, 0, 0, 0));
        prop_assert_eq!(stage.running.len(), 2, "no process without a purpose");
    }
}
