//! Slots that are kept for leases to come, and those that are kept for the streams of other nodes.

use super::*;

const TTL: Duration = Duration::from_secs(2);
const CONTINUE: Purpose = Purpose::Continue(LeaseKind::Shared);

fn claim(reservation: ReservationId, of: u8) -> Option<Claim> {
    Some(Claim { reservation, session: session(of) })
}

fn loaded() -> Stage {
    let mut stage = Stage::new();
    stage.load();
    stage
}

/// One host with one slot.
fn small() -> Stage {
    let mut out = Vec::new();
    let mut stage = Stage::new();
    stage.loading.clear();
    let small = PoolConfig { hosts: 1, slots_per_host: 1, ..config() };
    stage.pool = PoolMachine::new(Timestamp::default(), small, &mut out);
    stage.perform(out);
    stage.load();
    stage
}

#[test]
fn a_reservation_becomes_the_lease_of_its_session() {
    let mut stage = small();
    let kept = stage.reserve(1, TTL, false).expect("there is a slot");
    assert_eq!((stage.pool.counts().idle, stage.pool.counts().reserved), (0, 1), "it is idle no more");
    let other = stage.request(Purpose::New);
    assert_eq!(stage.host_of(other), None, "somebody else has to wait");
    let its = stage.claim(Purpose::New, claim(kept, 1));
    assert!(stage.host_of(its).is_some());
    assert_eq!((stage.pool.counts().leases, stage.pool.counts().reserved), (1, 0));
    let again = stage.claim(Purpose::New, claim(kept, 1));
    assert_eq!(stage.host_of(again), None, "it is good for one lease");
}

#[test]
fn the_last_slot_is_kept_once() {
    let mut stage = small();
    assert!(stage.reserve(1, TTL, false).is_some());
    assert_eq!(stage.reserve(2, TTL, false), None);
    assert_eq!(stage.refused.len(), 1, "and refused at once");
}

#[test]
fn a_session_that_asks_twice_has_one_reservation_and_its_time_begins_anew() {
    let mut stage = loaded();
    let first = stage.reserve(1, TTL, false);
    stage.advance(Duration::from_millis(1_500));
    assert_eq!(stage.reserve(1, TTL, false), first);
    assert_eq!(stage.pool.counts().reserved, 1);
    stage.advance(Duration::from_millis(1_500));
    assert_eq!(stage.pool.counts().reserved, 1);
    stage.advance(Duration::from_millis(500));
    assert_eq!(stage.pool.counts().reserved, 0);
}

#[test]
fn a_slot_that_was_kept_in_vain_goes_to_who_waits() {
    let mut stage = small();
    let kept = stage.reserve(1, Duration::from_secs(1), false).expect("there is a slot");
    let waits = stage.request(Purpose::New);
    stage.advance(Duration::from_millis(999));
    assert_eq!(stage.host_of(waits), None);
    stage.advance(Duration::from_millis(1));
    let lease = *stage.leases.iter().find(|(_, (request, _))| *request == waits).expect("granted").0;
    let late = stage.claim(Purpose::New, claim(kept, 1));
    assert_eq!(stage.host_of(late), None, "what is gone is no claim to anything");
    stage.release(lease);
    assert!(stage.host_of(late).is_some(), "it has waited like any other request");
}

#[test]
fn a_reservation_that_is_given_back_frees_its_slot_at_once() {
    let mut stage = small();
    let reservation = stage.reserve(1, TTL, false).expect("there is a slot");
    let waits = stage.request(Purpose::New);
    for _ in 0..2 {
        stage.send(PoolEvent::ReservationReleased { reservation });
        assert!(stage.host_of(waits).is_some(), "once and for all");
    }
}

#[test]
fn nothing_is_kept_for_longer_than_asked_or_than_five_seconds() {
    for (asked, granted) in [(0, 0), (700, 700), (60_000, 5_000)].map(|(a, b)| (ms(a), ms(b))) {
        let mut stage = loaded();
        stage.reserve(1, asked, false);
        assert_eq!(stage.reserved.values().next().expect("there is a slot").1, granted);
        stage.advance(granted.saturating_sub(ms(1)));
        assert_eq!(stage.pool.counts().reserved, usize::from(!granted.is_zero()));
        stage.advance(ms(1));
        assert_eq!(stage.pool.counts().reserved, 0);
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn the_number_of_another_sessions_reservation_is_no_claim() {
    let mut stage = small();
    let kept = stage.reserve(1, TTL, false).expect("there is a slot");
    let thief = stage.claim(Purpose::New, claim(kept, 2));
    assert_eq!(stage.host_of(thief), None);
    let its = stage.claim(Purpose::New, claim(kept, 1));
    assert!(stage.host_of(its).is_some());
}

#[test]
fn the_reserve_is_kept_for_those_who_lost_a_decoder() {
    let mut stage = small();
    stage.request(Purpose::New);
    assert_eq!(stage.reserve(1, TTL, false), None);
    let kept = stage.reserve(2, TTL, true).expect("the reserve");
    let begins = stage.claim(Purpose::New, claim(kept, 2));
    assert_eq!(stage.host_of(begins), None, "no way into the reserve for one that begins");
    let kept = stage.reserve(2, TTL, true).expect("the reserve");
    let goes_on = stage.claim(CONTINUE, claim(kept, 2));
    assert!(stage.host_of(goes_on).is_some());
    assert_eq!(stage.reserve(3, TTL, true), None, "it has an end too");
}

#[test]
fn who_waits_goes_before_who_reserves() {
    let mut stage = Stage::new();
    for _ in 0..2 {
        stage.request(Purpose::New);
    }
    assert_eq!(stage.reserve(1, TTL, false), None, "no host is ready");
    stage.load();
    assert_eq!(stage.leases.len(), 2);
    assert!(stage.reserve(1, TTL, false).is_some());
}

#[test]
fn reservations_go_with_their_host() {
    let mut stage = loaded();
    let kept: Vec<_> = (1..=2).map(|of| stage.reserve(of, TTL, false).expect("there are slots")).collect();
    stage.end(HostId(0), HostEnd::Killed, vec![]);
    stage.send(PoolEvent::HostRetiring { host: HostId(1) });
    assert_eq!(stage.pool.counts().reserved, 0);
    let first = stage.claim(Purpose::New, claim(kept[0], 1));
    assert_eq!(stage.host_of(first), None);
    stage.load();
    assert!(stage.host_of(first).is_some());
}

#[test]
fn a_draining_pool_keeps_nothing_for_anybody() {
    let mut stage = loaded();
    stage.send(PoolEvent::Draining);
    assert_eq!((stage.reserve(1, TTL, false), stage.reserve(2, TTL, true)), (None, None));
    assert!(stage.refused.iter().all(|(_, reason)| *reason == Refusal::Draining));
}

#[test]
fn sessions_are_kept_out_of_what_other_nodes_may_need() {
    let node = |total, busy| NodeSlots { total, busy, draining: false };
    let mut stage = loaded();
    stage.tell_of(vec![node(1, 0)]);
    assert_eq!(stage.pool.counts().idle, 2, "the other could take over two");
    let requests: Vec<_> = (0..3).map(|_| stage.request(Purpose::New)).collect();
    assert_eq!((stage.host_of(requests[2]), stage.pool.counts().idle), (None, 0));
    assert_eq!(stage.reserve(1, TTL, false), None, "nor is a slot kept");
    let moved = stage.request(CONTINUE);
    assert!(stage.host_of(moved).is_some(), "that is what it is for");
    stage.tell_of(vec![node(4, 1)]);
    assert!(stage.host_of(requests[2]).is_some(), "who waited goes on as soon as there is room");
}

#[test]
fn who_is_kept_out_is_looked_after_and_refused_in_time() {
    let mut stage = loaded();
    stage.tell_of(vec![NodeSlots { total: 1, busy: 2, draining: false }]);
    let waits = stage.request(Purpose::New);
    let next = stage.pool.next_timeout().expect("the others are looked at");
    assert!(next.since(stage.now) <= ms(200));
    stage.advance(Duration::from_secs(2));
    assert_eq!(stage.refused, [(waits, Refusal::WaitedTooLong)]);
}

#[test]
fn a_refusal_says_when_a_slot_may_be_free() {
    let mut stage = small();
    let fill = |stage: &mut Stage| (0..4).map(|_| stage.request(Purpose::New)).collect::<Vec<_>>();
    fill(&mut stage);
    stage.request(Purpose::New);
    assert_eq!(stage.retry_after.pop(), Some(Duration::from_secs(1)), "what is configured, at first");
    for _ in 0..3 {
        stage.advance(ms(600));
        let lease = *stage.leases.keys().next().expect("one has the slot");
        stage.release(lease);
    }
    stage.refused.clear();
    fill(&mut stage);
    assert_eq!(stage.refused.last().map(|(_, reason)| *reason), Some(Refusal::QueueFull));
    let told = *stage.retry_after.last().expect("one too many");
    assert_eq!(told, ms(600 * 4), "three wait, and a slot comes every 600 ms");
}

#[test]
fn who_waits_to_go_on_is_counted_as_if_it_had_a_slot() {
    let mut stage = Stage::new();
    stage.loading.clear();
    let mut out = Vec::new();
    let one = PoolConfig { hosts: 1, ..config() };
    stage.pool = PoolMachine::new(Timestamp::default(), one, &mut out);
    stage.perform(out);
    stage.load();
    // Each of two nodes could decode four streams, and four there are.
    stage.tell_of(vec![NodeSlots { total: 2, busy: 2, draining: false }]);
    for _ in 0..2 {
        let request = stage.request(Purpose::New);
        assert!(stage.host_of(request).is_some());
    }
    stage.end(HostId(0), HostEnd::Crashed, vec![LeaseId(0)]);
    let (alone, shared) = (stage.request(Purpose::Continue(LeaseKind::Quarantine)), stage.request(CONTINUE));
    assert_eq!(
        (stage.pool.counts().continuing, stage.pool.counts().streams()),
        (2, 2),
        "nobody decodes for them"
    );
    stage.ready(HostId(1));
    assert!(
        stage.host_of(shared).is_some() && stage.host_of(alone).is_none(),
        "one waits still for a host of its own"
    );
    assert_eq!(
        (stage.pool.counts().slots, stage.pool.counts().idle),
        (2, 0),
        "a slot is free, and nobody may begin"
    );
    assert_eq!(stage.reserve(9, TTL, false), None);
    let begins = stage.request(Purpose::New);
    assert_eq!(stage.host_of(begins), None);
    stage.load();
    assert!(
        stage.host_of(alone).is_some() && stage.host_of(begins).is_none(),
        "alone it is a stream as before"
    );
    let lease = *stage.leases.iter().find(|(_, (request, _))| *request == alone).expect("granted").0;
    stage.release(lease);
    assert!(stage.host_of(begins).is_some(), "until it is over");
}
