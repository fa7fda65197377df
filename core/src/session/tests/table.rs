//! Single situations, one by one.

use std::time::Duration;

use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, Segment, SourceOffset};

use super::world::{World, config};
use crate::Timestamp;
use crate::audio::SourceStore;
use crate::session::{
    AttachRefusal, FailReason, LeaseKind, LossCause, Outcome, Restored, SessionAction, SessionConfig,
    SessionEvent, SessionMachine,
};

const SUSPECT: LossCause = LossCause::Crashed { suspect: true };

#[test]
fn poison_is_tried_alone_and_given_up_after_three_deaths_there() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 16_000 });
    for _ in 0..3 {
        world.lose(SUSPECT);
        world.grant();
        assert!(world.finals.is_empty());
    }
    world.lose(SUSPECT);
    let alone = LeaseKind::Quarantine;
    assert_eq!(world.kinds, [LeaseKind::Shared, alone, alone, alone, LeaseKind::Shared]);
    assert_eq!(world.finals[0].cause, CutCause::GivenUp);
    assert_eq!(
        world.finals[0].to,
        SourceOffset(1_600),
        "up to the end of the step that died, and no further"
    );
    world.send(SessionEvent::EndRequested);
    world.settle();
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn being_killed_never_counts_as_poison() {
    let mut world = World::new(config(16_000));
    world.send(SessionEvent::AudioReceived { frames: 16_000 });
    let causes =
        [LossCause::Killed, LossCause::Silent, LossCause::NodeLost, LossCause::Crashed { suspect: false }];
    for cause in causes.into_iter().cycle().take(20) {
        world.grant();
        world.lose(cause);
    }
    assert!(world.kinds.iter().all(|kind| *kind == LeaseKind::Shared));
    assert!(world.finals.is_empty());
}

#[test]
fn a_stuck_segment_is_isolated_but_never_given_up() {
    let mut world = World::new(config(16_000));
    world.send(SessionEvent::AudioReceived { frames: 16_000 });
    for _ in 0..10 {
        world.grant();
        world.lose(LossCause::Stuck { suspect: true });
    }
    assert_eq!(world.kinds.last(), Some(&LeaseKind::Quarantine));
    assert!(world.finals.is_empty());
}

#[test]
fn a_session_whose_decoders_die_before_any_audio_fails_clearly() {
    let mut world = World::new(config(16_000));
    for _ in 0..4 {
        world.grant();
        world.lose(SUSPECT);
    }
    assert_eq!(world.outcome, Some(Outcome::Failed(FailReason::DecodersFail)));
}

#[test]
fn a_finalize_that_kills_is_answered_with_an_error_and_the_end_that_kills_with_the_end() {
    let mut world = World::new(config(16_000));
    world.send(SessionEvent::FinalizeRequested);
    world.send(SessionEvent::AudioReceived { frames: 16_000 });
    for _ in 0..4 {
        world.grant();
        world.lose(SUSPECT);
    }
    assert_eq!((world.finals[0].cause, world.finals[0].to), (CutCause::GivenUp, SourceOffset(0)));

    let mut world = World::new(config(16_000));
    world.send(SessionEvent::EndRequested);
    for _ in 0..4 {
        world.grant();
        world.lose(SUSPECT);
    }
    assert_eq!(world.announced, Some((0, SourceOffset(0))));
}

#[test]
fn a_later_connection_takes_over_and_an_earlier_one_is_refused() {
    let mut world = World::new(config(16_000));
    world.attach(5);
    assert!(world.other.contains(&SessionAction::Fence { epoch: Epoch(1) }));
    world.attach(4);
    let refused = SessionAction::RefuseAttach { epoch: Epoch(4), reason: AttachRefusal::Superseded };
    assert_eq!(world.other.last(), Some(&refused));
    world.send(SessionEvent::Detached { epoch: Epoch(1) });
    assert_eq!(world.machine.attached(), Some(Epoch(5)), "the old connection's end is not the new one's");
}

#[test]
fn a_client_that_cannot_send_what_comes_next_is_told_so() {
    let mut world = World::new(config(16_000));
    world.send(SessionEvent::AudioReceived { frames: 100 });
    let attach = |have_from, last_final| SessionEvent::Attach { epoch: Epoch(2), last_final, have_from };
    world.send(attach(SourceOffset(101), None));
    world.send(attach(SourceOffset(100), Some(Segment(0))));
    world.send(attach(SourceOffset(100), Some(Segment(u64::MAX))));
    let refusals = world.other.iter().filter_map(|action| match action {
        SessionAction::RefuseAttach { reason, .. } => Some(*reason),
        _ => None,
    });
    let unknown = AttachRefusal::UnknownFinal;
    assert_eq!(refusals.collect::<Vec<_>>(), [AttachRefusal::Gap, unknown, unknown]);
    assert_eq!(world.machine.attached(), Some(Epoch(1)), "a refused connection changes nothing");
}

#[test]
fn deadlines_end_a_session_with_their_own_reason() {
    let settings = config(16_000);
    let outcome_after = |prepare: &dyn Fn(&mut World)| {
        let mut world = World::new(settings);
        world.grant();
        prepare(&mut world);
        let due = world.machine.next_timeout().expect("something is awaited");
        world.now = Timestamp(due.0 - Duration::from_millis(1));
        world.send(SessionEvent::TimedOut);
        assert_eq!(world.outcome, None, "an early timeout is harmless");
        world.now = due;
        world.send(SessionEvent::TimedOut);
        world.outcome
    };
    let detach = SessionEvent::Detached { epoch: Epoch(1) };
    assert_eq!(outcome_after(&|_| {}), Some(Outcome::Failed(FailReason::Idle)));
    assert_eq!(outcome_after(&|world| world.send(detach)), Some(Outcome::LingeredOut));
    let unread = |world: &mut World| {
        world.send(SessionEvent::AudioReceived { frames: 16_000_000 });
        while world.decode() {}
        let unread = world.finals.len() as u64;
        let most = settings.unconfirmed_max + u64::from(settings.window);
        assert!((settings.unconfirmed_max..=most).contains(&unread), "decoding pauses: {unread} unread");
    };
    assert_eq!(outcome_after(&unread), Some(Outcome::Failed(FailReason::SlowReader)));
}

#[test]
fn without_linger_a_lost_connection_frees_everything_at_once() {
    let mut world = World::new(SessionConfig { linger: Duration::ZERO, ..config(16_000) });
    world.grant();
    world.send(SessionEvent::Detached { epoch: Epoch(1) });
    assert_eq!(world.outcome, Some(Outcome::Abandoned));
}

#[test]
fn a_finalize_of_nothing_is_an_empty_final_and_an_end_of_nothing_is_none() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::FinalizeRequested);
    world.send(SessionEvent::EndRequested);
    world.settle();
    assert_eq!(world.finals.len(), 1);
    assert_eq!(world.finals[0].cause, CutCause::Finalize);
    assert_eq!(world.announced, Some((1, SourceOffset(0))));
}

#[test]
fn a_finished_session_tells_a_client_that_comes_back_late() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 800 });
    world.send(SessionEvent::EndRequested);
    while world.decode() {}
    assert_eq!(world.outcome, None, "the final is not confirmed");
    world.send(SessionEvent::Detached { epoch: Epoch(1) });
    world.announced = None;
    world.send(SessionEvent::Attach { epoch: Epoch(2), last_final: None, have_from: SourceOffset(0) });
    let (epoch, have_until, resend_from) = (Epoch(2), SourceOffset(800), Segment(0));
    assert!(world.other.contains(&SessionAction::Welcome { epoch, have_until, resend_from, finished: true }));
    assert_eq!(world.announced, Some((1, SourceOffset(800))));
    world.send(SessionEvent::Confirmed { segment: Segment(0) });
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_client_that_has_every_final_of_a_finished_session_is_told_that_it_is_done() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 800 });
    world.send(SessionEvent::EndRequested);
    while world.decode() {}
    world.send(SessionEvent::Detached { epoch: Epoch(1) });
    world.now = Timestamp(Duration::from_secs(50));
    world.send(SessionEvent::TimedOut);
    assert_eq!(world.outcome, None, "a client that is away has its whole linger");
    world.announced = None;
    let last_final = Some(Segment(0));
    world.send(SessionEvent::Attach { epoch: Epoch(2), last_final, have_from: SourceOffset(0) });
    assert!(world.other.iter().any(|action| matches!(action, SessionAction::Welcome { finished: true, .. })));
    assert_eq!(world.announced, Some((1, SourceOffset(800))));
    assert_eq!(world.outcome, Some(Outcome::Done));
}

#[test]
fn a_slow_reader_that_reconnects_or_confirms_a_little_is_still_one() {
    let settings = config(16_000);
    let mut world = World::new(settings);
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 16_000_000 });
    while world.decode() {}
    world.send(SessionEvent::Confirmed { segment: Segment(0) });
    world.send(SessionEvent::Detached { epoch: Epoch(1) });
    let attach = SessionEvent::Attach { epoch: Epoch(2), last_final: None, have_from: SourceOffset(0) };
    world.send(attach);
    world.now = Timestamp(settings.slow_reader);
    world.send(SessionEvent::TimedOut);
    assert_eq!(world.outcome, Some(Outcome::Failed(FailReason::SlowReader)));
}

#[test]
fn finalizes_without_end_do_not_flood_a_decoder() {
    let mut world = World::new(config(16_000));
    for _ in 0..1_000 {
        world.send(SessionEvent::FinalizeRequested);
    }
    world.grant();
    assert!(world.commands() <= 16, "{} on their way", world.commands());
    world.send(SessionEvent::EndRequested);
    world.settle();
    assert_eq!(world.finals.len(), 1_000, "each is answered");
}

#[test]
fn an_engine_that_fails_on_one_step_costs_that_step() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 32_000 });
    for _ in 0..2 {
        world.lose(LossCause::EngineFailed);
        world.grant();
    }
    world.lose(LossCause::EngineFailed);
    assert_eq!((world.finals[0].cause, world.finals[0].to), (CutCause::GivenUp, SourceOffset(1_600)));
}

#[test]
fn options_are_refused_before_any_audio_and_never_after() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 3_200 });
    world.decode();
    let attempt = world.current_attempt().expect("leased");
    world.send(SessionEvent::OptionsRefused { attempt });
    assert_eq!(world.outcome, None);
    world.send(SessionEvent::EndRequested);
    world.settle();
    assert_eq!(world.outcome, Some(Outcome::Done));

    let mut world = World::new(config(16_000));
    world.grant();
    let attempt = world.current_attempt().expect("leased");
    world.send(SessionEvent::OptionsRefused { attempt });
    assert_eq!(world.outcome, Some(Outcome::Failed(FailReason::OptionsRefused)));
}

#[test]
fn partials_of_a_replay_are_held_back_until_it_is_close_to_live() {
    let mut world = World::new(config(16_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 48_000 });
    world.lose(LossCause::Killed);
    world.grant();
    let attempt = world.current_attempt().expect("leased");
    let until = DecodeOffset(1_600);
    world.send(SessionEvent::PartialHeard { attempt, segment: Segment(0), until });
    assert!(!world.other.iter().any(|action| matches!(action, SessionAction::ShowPartial { .. })));
    world.settle();
    let caught_up =
        |action: &SessionAction| matches!(action, SessionAction::CaughtUp { replayed: 32_000.., .. });
    assert!(world.other.iter().any(caught_up));
}

#[test]
fn a_cause_is_the_same_on_another_node() {
    let causes = [
        LossCause::Crashed { suspect: true },
        LossCause::Crashed { suspect: false },
        LossCause::Killed,
        LossCause::Silent,
        LossCause::Stuck { suspect: true },
        LossCause::Stuck { suspect: false },
        LossCause::EngineFailed,
        LossCause::Protocol,
        LossCause::NodeLost,
    ];
    for cause in causes {
        assert_eq!(LossCause::from(starling_protocol::data::LeaseLost::from(cause)), cause);
    }
}

/// What no decoder that is in order says: it is let go, nothing is committed, and another goes on.
#[test]
fn a_cut_that_no_decoder_can_make_costs_the_decoder_and_no_audio() {
    let segment = Segment(0);
    let from = DecodeOffset(0);
    let at = DecodeOffset;
    let cuts = [
        ("the end, which the client has not said", at(1_600), CutCause::End),
        ("an answer where nothing was asked", at(1_600), CutCause::Finalize),
        ("beyond the place where a final was asked for", at(4_800), CutCause::Endpoint),
        ("an answer to the second request", at(4_800), CutCause::Finalize),
        ("a segment of nothing", at(0), CutCause::Endpoint),
        ("giving up, which is the session's to do", at(1_600), CutCause::GivenUp),
    ];
    for (what, to, cause) in cuts {
        let mut world = World::new(config(16_000));
        world.grant();
        world.send(SessionEvent::AudioReceived { frames: 3_200 });
        world.send(SessionEvent::FinalizeRequested);
        world.send(SessionEvent::AudioReceived { frames: 1_600 });
        world.send(SessionEvent::FinalizeRequested);
        let attempt = world.machine.attempt();
        world.send(SessionEvent::SegmentCut { attempt, segment, from, to, cause });
        assert!(world.finals.is_empty(), "{what}: {:?}", world.finals);
        assert!(!world.machine.is_finished() && world.machine.attempt() > attempt, "{what}");
        world.send(SessionEvent::EndRequested);
        world.settle();
        assert_eq!(world.outcome, Some(Outcome::Done), "{what}");
        assert_eq!(world.finals.last().map(|last| last.to), Some(SourceOffset(4_800)), "{what}");
    }
}

#[test]
fn a_text_of_what_was_never_fed_is_not_shown() {
    let mut world = World::new(config(8_000));
    world.grant();
    world.send(SessionEvent::AudioReceived { frames: 1_600 });
    let (attempt, segment) = (world.machine.attempt(), Segment(0));
    for until in [DecodeOffset(3_201), DecodeOffset(u64::MAX)] {
        world.send(SessionEvent::PartialHeard { attempt, segment, until });
    }
    let shown = |world: &World| {
        world.other.iter().filter(|action| matches!(action, SessionAction::ShowPartial { .. })).count()
    };
    assert_eq!(shown(&world), 0);
    world.send(SessionEvent::PartialHeard { attempt, segment, until: DecodeOffset(1_600) });
    assert_eq!(shown(&world), 1);
}

#[test]
fn a_refusal_that_comes_after_the_last_final_is_late() {
    let mut world = World::new(config(16_000));
    world.grant();
    let attempt = world.machine.attempt();
    world.send(SessionEvent::FinalizeRequested);
    world.send(SessionEvent::EndRequested);
    while world.decode() {}
    assert!(world.machine.is_finished() && world.outcome.is_none());
    world.send(SessionEvent::OptionsRefused { attempt });
    assert_eq!(world.outcome, None, "its final was not read yet");
}

#[test]
fn who_goes_on_with_a_session_counts_its_attempts_on() {
    let config = config(16_000);
    // Of an owner that said nothing of them, there was one at least.
    for (known, next) in [(0, 2), (1, 2), (4, 5)] {
        let standing = Restored {
            received: SourceOffset(0),
            ended: false,
            committed: DecodeOffset(0),
            entries: Vec::new(),
            next_segment: Segment(0),
            final_end: SourceOffset(0),
            confirmed: Segment(0),
            audio: SourceStore::new(),
            finals: Vec::new(),
            attempt: Attempt(known),
        };
        let mut out = Vec::new();
        let machine = SessionMachine::restore(Timestamp::default(), config, &standing, Epoch(1), &mut out);
        let kind = LeaseKind::Shared;
        assert_eq!(out, [SessionAction::RequestLease { attempt: Attempt(next), kind }], "after {known}");
        assert_eq!(machine.last_attempt(), Attempt(next));
    }
}
