//! Single situations with a second decoder.

use starling_protocol::{Attempt, CutCause, DecodeOffset, Segment, SourceOffset};

use super::world::{World, config};
use crate::session::{LeaseKind, LossCause, Outcome, SessionAction, SessionConfig, SessionEvent};

/// A step's worth of frames: the first segment is cut after two of them.
const STEP: u64 = 1_600;

/// A session whose standby is at work, and level with the first after `steps`.
fn level(steps: u64) -> World {
    let mut world = World::new(SessionConfig { standby: true, ..config(16_000) });
    world.grant();
    world.grant_standby();
    world.send(SessionEvent::AudioReceived { frames: steps * STEP });
    while world.decode() | world.decode_standby() {}
    world.other.clear();
    world
}

fn differs(world: &World) -> Vec<Attempt> {
    let named = world.other.iter().filter_map(|action| match action {
        SessionAction::TellDifference { attempt, .. } => Some(*attempt),
        _ => None,
    });
    named.collect()
}

fn shows(world: &World) -> bool {
    world.other.iter().any(|action| matches!(action, SessionAction::ShowPartial { .. }))
}

fn cut(world: &mut World, attempt: Attempt, to: u64) {
    let (segment, from, to, cause) = (Segment(0), DecodeOffset(0), DecodeOffset(to), CutCause::Pause);
    world.send(SessionEvent::SegmentCut { attempt, segment, from, to, cause });
}

#[test]
fn the_loss_of_the_first_costs_no_replay() {
    for cause in
        [LossCause::Killed, LossCause::Silent, LossCause::NodeLost, LossCause::Crashed { suspect: false }]
    {
        let mut world = level(1);
        world.lose(cause);
        let attempt = Attempt(2);
        assert_eq!((world.machine.attempt(), world.standbys, world.kinds.len()), (attempt, (2, 1), 1));
        assert!(world.other.contains(&SessionAction::CaughtUp { attempt, replayed: 0 }));
        assert!(world.other.contains(&SessionAction::SetIntervals {
            attempt,
            partial_ms: 200,
            decoded_ms: 0
        }));
        world.send(SessionEvent::PartialHeard { attempt, segment: Segment(0), until: DecodeOffset(STEP) });
        assert!(matches!(world.other.last(), Some(SessionAction::ShowPartial { .. })));
        world.send(SessionEvent::AudioReceived { frames: STEP });
        world.settle();
        assert_eq!(world.finals[0].steps, [(0, STEP), (STEP, 2 * STEP)], "it had heard the beginning before");
    }
}

#[test]
fn a_standby_that_is_behind_shows_no_partials_until_it_is_close() {
    let mut world = level(0);
    world.send(SessionEvent::AudioReceived { frames: 12 * STEP });
    world.lose(LossCause::Killed);
    let attempt = world.machine.attempt();
    let caught_up = |world: &World| {
        world.other.iter().find_map(|action| match action {
            SessionAction::CaughtUp { replayed, .. } => Some(*replayed),
            _ => None,
        })
    };
    world.send(SessionEvent::PartialHeard { attempt, segment: Segment(0), until: DecodeOffset(STEP) });
    assert_eq!((caught_up(&world), shows(&world)), (None, false));
    world.settle();
    assert_eq!(caught_up(&world), Some(2 * STEP), "what it heard after the loss");
}

#[test]
fn whoever_cuts_first_is_heard_and_the_other_one_passes() {
    for standby_first in [true, false] {
        let mut world = level(1);
        world.send(SessionEvent::AudioReceived { frames: STEP });
        let last = if standby_first { World::decode_standby } else { World::decode };
        let then = if standby_first { World::decode } else { World::decode_standby };
        last(&mut world);
        assert_eq!(world.finals.len(), 1);
        let partial = SessionEvent::PartialHeard {
            attempt: world.machine.attempt(),
            segment: Segment(0),
            until: DecodeOffset(2 * STEP),
        };
        world.send(partial);
        then(&mut world);
        assert_eq!((world.finals.len(), world.machine.standby()), (1, Some(Attempt(2))));
        assert!(differs(&world).is_empty());
        assert!(!shows(&world), "a partial that a final overtook is none");
    }
}

#[test]
fn who_cuts_otherwise_than_was_committed_is_let_go() {
    let (first, standby) = (Attempt(1), Attempt(2));
    for (early, late) in [(first, standby), (standby, first)] {
        let mut world = level(1);
        cut(&mut world, early, STEP);
        assert_eq!(world.finals[0].to, SourceOffset(STEP));
        cut(&mut world, late, STEP / 2);
        assert_eq!(differs(&world), [late]);
        assert_eq!((world.machine.attempt(), world.machine.standby()), (early, None));
        assert_eq!((world.finals.len(), world.kinds.len(), world.standbys.0), (1, 1, 2));
    }
}

#[test]
fn a_first_that_crashed_as_suspect_takes_its_standby_with_it() {
    for cause in
        [LossCause::Crashed { suspect: true }, LossCause::Stuck { suspect: true }, LossCause::EngineFailed]
    {
        let mut world = level(1);
        world.lose(cause);
        assert_eq!(world.kinds, [LeaseKind::Shared, LeaseKind::Quarantine]);
        assert_eq!((world.machine.standby(), world.standbys), (None, (1, 0)));
        world.grant();
        assert_eq!(world.standbys, (1, 0), "what may kill is tried alone");
        world.send(SessionEvent::AudioReceived { frames: STEP });
        while world.decode() {}
        assert_eq!(world.finals.len(), 1);
        world.grant();
        assert_eq!(world.standbys, (2, 0), "the next segment has one again");
    }
}

#[test]
fn a_standby_that_dies_is_no_suspicion_but_its_segment_has_no_other() {
    let mut world = level(1);
    for round in 2..5 {
        world.lose_standby(LossCause::Killed);
        assert_eq!(world.standbys, (round, 0), "there is to be another");
        world.grant_standby();
    }
    let barred = world.standbys;
    world.lose_standby(LossCause::Crashed { suspect: true });
    world.send(SessionEvent::AudioReceived { frames: STEP });
    assert_eq!((world.machine.standby(), world.standbys), (None, barred));
    world.decode();
    assert_eq!((world.finals.len(), world.standbys.0), (1, barred.0 + 1), "the next segment may have one");
    assert_eq!(world.kinds, [LeaseKind::Shared]);
    let attempt = world.standby_attempt().expect("is wanted");
    world.send(SessionEvent::OptionsRefused { attempt });
    assert_eq!((world.outcome, world.standby_attempt()), (None, None));
}

#[test]
fn a_standby_that_became_the_first_is_a_suspect_like_any() {
    let mut world = level(1);
    world.lose(LossCause::Killed);
    world.lose(LossCause::Crashed { suspect: true });
    assert_eq!(world.kinds, [LeaseKind::Shared, LeaseKind::Quarantine]);
}

#[test]
fn a_request_for_a_standby_is_in_nobodys_way() {
    let mut world = World::new(SessionConfig { standby: true, ..config(16_000) });
    assert_eq!(world.standbys.0, 0, "the first comes first");
    world.grant();
    let withdrawn = world.standby_attempt().expect("is wanted");
    world.lose(LossCause::Killed);
    assert_eq!((world.standby_attempt(), world.kinds.len()), (None, 2), "it is withdrawn");
    let before = world.machine.clone();
    world.send(SessionEvent::LeaseGranted { attempt: withdrawn });
    assert_eq!(world.machine, before, "a slot that came too late is nobody's");
    world.grant();
    assert_eq!(world.standbys.0, 2);
    world.send(SessionEvent::EndRequested);
    world.settle();
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_host_that_is_to_be_replaced_is_left_without_a_replay() {
    let mut world = level(1);
    let (first, standby) = (Attempt(1), Attempt(2));
    world.send(SessionEvent::LeaseRetiring { attempt: first });
    assert_eq!(world.machine.attempt(), first, "not before the cut");
    world.send(SessionEvent::AudioReceived { frames: STEP });
    world.decode();
    assert_eq!((world.machine.attempt(), world.kinds.len(), world.standbys), (standby, 1, (2, 1)));

    let mut world = level(1);
    world.send(SessionEvent::LeaseRetiring { attempt: standby });
    assert_eq!((world.machine.standby(), world.standbys), (None, (2, 0)), "nobody hears a standby go");
}

#[test]
fn who_falls_too_far_behind_for_the_cut_is_let_go() {
    // Each is given eight steps at once; the first two segments take two and four of them.
    let mut world = level(0);
    world.send(SessionEvent::AudioReceived { frames: 16 * STEP });
    while world.decode() {}
    assert_eq!((world.machine.standby(), world.standbys), (None, (2, 0)), "the standby");
    assert_eq!(world.machine.attempt(), Attempt(1));

    let mut world = level(0);
    world.send(SessionEvent::AudioReceived { frames: 16 * STEP });
    while world.standbys.1 == 0 {
        assert!(world.decode_standby(), "it goes ahead");
    }
    assert_eq!((world.machine.attempt(), world.kinds.len()), (Attempt(2), 1), "the first, which is slower");
    world.send(SessionEvent::EndRequested);
    world.settle();
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn there_is_none_where_none_is_wanted_and_none_is_sought_after_the_end() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: STEP });
    assert_eq!(world.standbys, (0, 0));

    let mut world = level(1);
    world.send(SessionEvent::EndRequested);
    world.lose_standby(LossCause::Killed);
    assert_eq!((world.standby_attempt(), world.standbys), (None, (1, 0)));
}
