//! Second decoders: they have what nobody else needs.

use super::*;

const BESIDE_NONE: Purpose = Purpose::Standby { avoid: None };

fn loaded() -> Stage {
    let mut stage = Stage::new();
    stage.load();
    stage
}

fn lease_of(stage: &Stage, request: RequestId) -> LeaseId {
    let held = stage.leases.iter().find(|(_, (holder, _))| *holder == request);
    *held.expect("has a lease").0
}

#[test]
fn a_standby_lies_on_another_host_than_the_decoder_it_stands_by() {
    let mut stage = loaded();
    let first = stage.request(Purpose::New);
    let avoid = Some(lease_of(&stage, first));
    let second = stage.request(Purpose::Standby { avoid });
    assert_eq!((stage.host_of(first), stage.host_of(second)), (Some(HostId(0)), Some(HostId(1))));
    stage.end(HostId(1), HostEnd::Killed, vec![]);
    let alone = stage.request(Purpose::Standby { avoid });
    assert_eq!(stage.refused, [(alone, Refusal::QueueFull)], "beside its first on one host it is of no use");
}

#[test]
fn a_standby_never_waits_and_never_takes_the_reserve() {
    let mut stage = loaded();
    for _ in 0..4 {
        stage.request(Purpose::New);
    }
    let refused = stage.request(BESIDE_NONE);
    assert_eq!(stage.refused, [(refused, Refusal::QueueFull)]);
    assert_eq!(stage.pool.counts().waiting, 0);

    let mut stage = Stage::new();
    stage.request(Purpose::New);
    let refused = stage.request(BESIDE_NONE);
    assert_eq!(stage.refused, [(refused, Refusal::QueueFull)], "somebody waits");

    let mut stage = loaded();
    stage.send(PoolEvent::Draining);
    stage.request(BESIDE_NONE);
    assert_eq!(stage.refused.len(), 1);

    let mut stage = loaded();
    stage.tell_of(vec![NodeSlots { total: 1, busy: 2, draining: false }]);
    assert_eq!(stage.pool.counts().idle, 0, "the others need the rest");
    stage.request(BESIDE_NONE);
    assert_eq!(stage.refused.len(), 1);
}

#[test]
fn a_standby_makes_room_for_a_session_that_finds_none() {
    let mut stage = loaded();
    for _ in 0..3 {
        stage.request(Purpose::New);
    }
    let standby = stage.request(BESIDE_NONE);
    let lease = lease_of(&stage, standby);
    let new = stage.request(Purpose::New);
    assert_eq!(stage.moves, [lease], "it is asked to go");
    stage.request(Purpose::New);
    assert_eq!(stage.moves, [lease], "once");
    stage.release(lease);
    assert!(stage.host_of(new).is_some());
    assert!(stage.refused.is_empty());
}

#[test]
fn a_standby_makes_room_for_a_session_that_lost_its_decoder() {
    let mut stage = loaded();
    stage.request(Purpose::New);
    let standby = stage.request(BESIDE_NONE);
    for _ in 0..6 {
        stage.request(Purpose::Continue(LeaseKind::Shared));
    }
    assert!(stage.moves.is_empty(), "there is the reserve");
    let crowded = stage.request(Purpose::Continue(LeaseKind::Shared));
    let lease = lease_of(&stage, standby);
    assert_eq!((stage.host_of(crowded), &stage.moves), (None, &vec![lease]));
    stage.release(lease);
    assert!(stage.host_of(crowded).is_some());
}
