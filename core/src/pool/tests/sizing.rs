//! More hosts and fewer.

use super::*;

fn resize(stage: &mut Stage, hosts: u16) {
    stage.send(PoolEvent::Resized { hosts });
}

/// A pool of two static hosts that has so many, all of them ready.
fn sized(hosts: u16) -> Stage {
    let mut stage = Stage::new();
    stage.load();
    resize(&mut stage, hosts);
    stage.load();
    stage
}

#[test]
fn more_start_at_once_and_one_too_many_goes_when_it_has_been_empty_for_a_while() {
    let mut stage = sized(2);
    resize(&mut stage, 4);
    assert_eq!(stage.loading.len(), 2, "nothing died: they start at once");
    stage.load();
    assert_eq!(stage.pool.counts().slots, 8);
    let requests: Vec<_> = (0..8).map(|_| stage.request(Purpose::New)).collect();
    assert!(requests.iter().all(|request| stage.host_of(*request).is_some()));
    resize(&mut stage, 2);
    assert_eq!(stage.pool.counts().hosts_parked, 0, "all are needed still");
    let mut leases: Vec<_> = stage.leases.iter().map(|(lease, (_, host))| (*host, *lease)).collect();
    leases.sort_unstable();
    for (_, lease) in &leases[2..] {
        stage.release(*lease);
    }
    let counts = stage.pool.counts();
    assert_eq!((counts.hosts_parked, counts.slots), (2, 4));
    assert_eq!(stage.running.len(), 4);
    stage.advance(Duration::from_secs(9));
    assert_eq!(stage.running.len(), 4);
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.running.len(), 2);
    assert_eq!((stage.lost.len(), stage.moves.len()), (0, 0), "nobody noticed");
    assert_eq!(stage.leases.len(), 2);
}

#[test]
fn a_parked_host_takes_nobody_in_and_finishes_what_it_has() {
    let mut stage = sized(3);
    let requests: Vec<_> = (0..3).map(|_| stage.request(Purpose::New)).collect();
    resize(&mut stage, 2);
    let parked = stage.host_of(requests[2]);
    assert_eq!(stage.pool.counts().hosts_parked, 1, "three streams fit on two hosts");
    assert_eq!(parked, Some(HostId(2)), "the youngest of equals");
    let next = stage.request(Purpose::New);
    assert_ne!(stage.host_of(next), parked);
    stage.advance(Duration::from_secs(3_600));
    assert!(stage.running.contains(&HostId(2)), "it decodes for somebody");
    let (&lease, _) = stage.leases.iter().find(|(_, (_, host))| *host == HostId(2)).expect("is there");
    stage.release(lease);
    stage.advance(Duration::from_secs(10));
    assert!(!stage.running.contains(&HostId(2)));
}

#[test]
fn one_that_is_still_there_is_taken_back_at_once() {
    let mut stage = sized(3);
    resize(&mut stage, 2);
    assert_eq!(stage.pool.counts().hosts_parked, 1);
    stage.advance(Duration::from_secs(29));
    resize(&mut stage, 3);
    assert_eq!((stage.pool.counts().slots, stage.loading.len()), (6, 0));
    resize(&mut stage, 2);
    stage.advance(Duration::from_secs(1));
    assert_eq!(stage.running.len(), 2, "it had nothing to do for long");
}

#[test]
fn a_parked_host_stands_in_for_one_that_dies() {
    let mut stage = sized(3);
    resize(&mut stage, 2);
    stage.end(HostId(0), HostEnd::Killed, vec![]);
    let counts = stage.pool.counts();
    assert_eq!((counts.hosts_ready, counts.hosts_parked, stage.loading.len()), (2, 0, 0));
}

#[test]
fn a_parked_host_that_has_spent_its_memory_is_not_replaced() {
    let mut stage = sized(3);
    let requests: Vec<_> = (0..3).map(|_| stage.request(Purpose::New)).collect();
    resize(&mut stage, 2);
    stage.send(PoolEvent::HostRetiring { host: HostId(2) });
    assert_eq!((stage.loading.len(), stage.moves.len()), (0, 1));
    assert_eq!(stage.host_of(requests[2]), Some(HostId(2)));
    stage.release(stage.moves[0]);
    assert!(!stage.running.contains(&HostId(2)));
}

#[test]
fn hosts_that_load_are_parked_first_and_taken_back_last() {
    let mut stage = sized(2);
    resize(&mut stage, 4);
    resize(&mut stage, 2);
    let counts = stage.pool.counts();
    assert_eq!((counts.hosts_parked, counts.hosts_ready, stage.loading.len()), (2, 2, 2));
    resize(&mut stage, 4);
    assert_eq!((stage.pool.counts().hosts_parked, stage.loading.len()), (0, 2));
    stage.load();
    assert_eq!(stage.pool.counts().slots, 8);
}

#[test]
fn no_fewer_than_are_configured() {
    let mut stage = sized(2);
    resize(&mut stage, 0);
    stage.advance(Duration::from_secs(3_600));
    assert_eq!(stage.running.len(), 2);
}

#[test]
fn what_other_nodes_may_lose_keeps_a_host() {
    let mut stage = sized(4);
    // If one of the others is lost, 24 streams have to fit on the last one's 12 and on twice what is here.
    let node = NodeSlots { total: 6, busy: 12, draining: false };
    stage.tell_of(vec![node, node]);
    assert_eq!(stage.pool.demand(0), crate::scaling::Demand { busy: 0, waiting: 0, reserve: 6 });
    resize(&mut stage, 2);
    assert_eq!(stage.pool.counts().slots, 6);
}

#[test]
fn whoever_comes_first_waits_for_the_model_to_load_and_no_longer_than_that() {
    let (cold, mut out) =
        (PoolConfig { hosts: 0, cold_wait: Duration::from_secs(20), ..config() }, Vec::new());
    let mut stage = Stage::new();
    (stage.loading, stage.running) = (BTreeSet::new(), BTreeSet::new());
    stage.pool = PoolMachine::new(Timestamp::default(), cold, &mut out);
    assert_eq!(out, []);
    let requests: Vec<_> = (0..3).map(|_| stage.request(Purpose::New)).collect();
    assert_eq!(stage.pool.demand(0).waiting, 3);
    resize(&mut stage, 1);
    stage.advance(Duration::from_secs(15));
    assert_eq!(stage.refused, []);
    stage.load();
    assert!(stage.host_of(requests[0]).is_some() && stage.host_of(requests[1]).is_some());
    assert_eq!(stage.refused, [(requests[2], Refusal::WaitedTooLong)], "the host is there, and full");
    for lease in stage.leases.keys().copied().collect::<Vec<_>>() {
        stage.release(lease);
    }
    resize(&mut stage, 0);
    stage.advance(Duration::from_secs(10));
    assert_eq!(stage.running.len(), 0);
}

#[test]
fn whoever_starts_a_host_is_told_why() {
    let mut started = Vec::new();
    let mut told = |out: &mut Vec<PoolAction>| {
        started.extend(out.drain(..).filter_map(|action| match action {
            PoolAction::StartHost { cause, .. } => Some(cause),
            _ => None,
        }));
        started.last().copied()
    };
    let (now, mut out) = (Timestamp::default(), Vec::new());
    let mut pool = PoolMachine::new(now, PoolConfig { hosts: 0, ..config() }, &mut out);
    pool.handle(now, PoolEvent::Resized { hosts: 1 }, &mut out);
    assert_eq!(told(&mut out), Some(StartCause::Wake));
    pool.handle(now, PoolEvent::Resized { hosts: 2 }, &mut out);
    assert_eq!(told(&mut out), Some(StartCause::Scaling));
    let ended = PoolEvent::HostEnded { host: HostId(1), end: HostEnd::Crashed, suspects: vec![] };
    pool.handle(now, ended, &mut out);
    assert_eq!(told(&mut out), Some(StartCause::Respawn));
    pool.handle(now, PoolEvent::HostReady { host: HostId(0) }, &mut out);
    let later = now.plus(Duration::from_secs(3_600));
    pool.handle(later, PoolEvent::HostRetiring { host: HostId(0) }, &mut out);
    assert_eq!(told(&mut out), Some(StartCause::Replacement));
    let purpose = Purpose::Continue(LeaseKind::Quarantine);
    let asked = PoolEvent::Requested { request: RequestId(1), purpose, claim: None };
    pool.handle(later, asked, &mut out);
    assert_eq!(told(&mut out), Some(StartCause::Quarantine));
    let _ = PoolMachine::new(now, config(), &mut out);
    assert_eq!(told(&mut out), Some(StartCause::Start));
}
