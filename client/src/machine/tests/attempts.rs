//! When it is tried to connect, to whom, and what refusals lead to.

use std::time::Duration;

use starling_protocol::native::{ErrorCode, ServerMessage};
use starling_protocol::{Epoch, Segment, SourceOffset};

use super::super::*;
use super::{Bench, connects, entropy, last, own, settings, suggested};

#[test]
fn a_resume_says_what_is_held_with_a_fresh_epoch_each_time() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(500));
    bench.writes();
    bench.say(last(0, 0, 200));
    bench.lose();
    for epoch in 2..5 {
        let resume = connects(&bench.tick())[0].1.resume.clone().expect("resumes");
        assert_eq!(resume.epoch, Epoch(epoch));
        assert_eq!((resume.last_final, resume.final_to), (Some(Segment(0)), Some(SourceOffset(200))));
        assert_eq!(resume.have_from, SourceOffset(200));
        bench.lose();
    }
}

#[test]
fn each_hello_before_the_first_answer_has_a_higher_epoch() {
    let mut bench = Bench::new(settings(2));
    let mut asked = vec![connects(&bench.input(Input::Start))[0].1.epoch];
    for _ in 0..3 {
        let mut actions = bench.lose();
        if connects(&actions).is_empty() {
            actions = bench.tick();
        }
        asked.push(connects(&actions)[0].1.epoch);
    }
    assert_eq!(asked, [None, Some(Epoch(2)), Some(Epoch(3)), Some(Epoch(4))]);
    bench.ready(4, 0);
    bench.lose();
    let hello = connects(&bench.tick())[0].1.clone();
    assert_eq!((hello.epoch, hello.resume.map(|resume| resume.epoch)), (None, Some(Epoch(5))));
}

#[test]
fn a_lost_connection_is_given_up_at_the_deadline_and_not_before() {
    let mut bench = Bench::open(settings(1));
    bench.now = Duration::from_secs(100);
    bench.input(Input::Heard(Which::Present));
    let mut actions = bench.lose();
    while !actions.iter().any(|action| matches!(action, Action::Failed(_))) {
        bench.tick();
        actions = bench.lose();
    }
    assert_eq!(bench.now, Duration::from_secs(160));
}

#[test]
fn delays_double_up_to_their_most_and_a_jitter_of_zero_is_none() {
    let mut bench = Bench::open(settings(1));
    let mut delays = Vec::new();
    for _ in 0..7 {
        bench.lose();
        let before = bench.now;
        bench.tick();
        delays.push((bench.now - before).as_millis());
    }
    assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_000, 3_000]);
    let none = Entropy { jitter: 0, ..entropy() };
    bench.machine.handle(bench.now, Input::Lost(Which::Present, "cut".into()), none, &mut Vec::new());
    assert_eq!(bench.machine.next_timeout(), Some(bench.now));
}

#[test]
fn a_server_that_drops_each_connection_at_once_does_not_reset_the_delays() {
    let mut bench = Bench::open(settings(1));
    let mut delays = Vec::new();
    for epoch in 2..5 {
        bench.lose();
        let before = bench.now;
        bench.tick();
        delays.push((bench.now - before).as_millis());
        bench.ready(epoch, 0);
    }
    assert_eq!(delays, [100, 200, 400]);
}

#[test]
fn silence_is_asked_about_and_then_taken_for_a_loss() {
    let mut bench = Bench::open(settings(1));
    assert_eq!(bench.tick(), [Action::Ping]);
    assert_eq!(bench.now, Duration::from_secs(5));
    bench.input(Input::Heard(Which::Present));
    assert_eq!(bench.tick(), [Action::Ping]);
    assert_eq!(bench.now, Duration::from_secs(10));
    assert_eq!(bench.tick(), [Action::Disconnect]);
    assert_eq!(bench.now, Duration::from_secs(15));
    assert_eq!(connects(&bench.tick()).len(), 1);
}

#[test]
fn an_attempt_that_gets_no_answer_ends_in_time() {
    let mut bench = Bench::new(settings(2));
    assert_eq!(connects(&bench.input(Input::Start))[0].0, own(0));
    assert_eq!(bench.tick(), [Action::Disconnect]);
    assert_eq!(connects(&bench.tick())[0].0, own(1));
    let actions = bench.tick();
    let [Action::Disconnect, Action::OpenFailed(OpenError::Unreachable { cause, .. })] = &actions[..] else {
        panic!("still trying: {actions:?}")
    };
    assert!(cause.contains("5s"), "{cause}");
}

#[test]
fn busy_is_told_after_every_server_was_asked() {
    let mut bench = Bench::new(settings(2));
    bench.input(Input::Start);
    assert_eq!(bench.error(ErrorCode::Busy, Some(2_000)), [Action::Disconnect]);
    bench.tick();
    let actions = bench.error(ErrorCode::Busy, Some(2_000));
    let [Action::Disconnect, Action::OpenFailed(OpenError::Busy(body))] = &actions[..] else {
        panic!("still trying: {actions:?}")
    };
    assert_eq!(body.retry_after_ms, Some(2_000));
}

#[test]
fn busy_is_waited_for_as_long_as_the_server_says_when_that_is_wanted() {
    let mut bench = Bench::new(Settings { wait_when_busy: true, ..settings(1) });
    bench.input(Input::Start);
    bench.error(ErrorCode::Busy, Some(2_000));
    assert_eq!(bench.machine.next_timeout(), Some(Duration::from_millis(2_100)));
    bench.tick();
    bench.error(ErrorCode::Busy, Some(60_000));
    assert_eq!(bench.machine.next_timeout(), Some(Duration::from_secs(5)));
    bench.tick();
    let actions = bench.error(ErrorCode::Busy, Some(60_000));
    assert!(matches!(actions[..], [Action::Disconnect, Action::OpenFailed(OpenError::Busy(_))]));
}

#[test]
fn refusals_that_trying_again_would_not_change_end_it_at_once() {
    for code in [ErrorCode::BadRequest, ErrorCode::UnknownModel, ErrorCode::BadMessage] {
        let mut bench = Bench::new(settings(2));
        bench.input(Input::Start);
        let actions = bench.error(code, None);
        assert!(
            matches!(actions[..], [Action::Disconnect, Action::OpenFailed(OpenError::Refused(_))]),
            "{actions:?}"
        );
    }
    for code in [ErrorCode::SlowReader, ErrorCode::IdleTimeout, ErrorCode::Superseded] {
        let mut bench = Bench::open(settings(2));
        let actions = bench.error(code, None);
        assert!(
            matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Ended(_))]),
            "{actions:?}"
        );
    }
}

/// The servers that are asked, one after the other, while each says this.
fn asked(bench: &mut Bench, code: ErrorCode, times: usize) -> Vec<Server> {
    let mut asked = Vec::new();
    for _ in 0..times {
        asked.push(connects(&bench.tick())[0].0.clone());
        bench.error(code, None);
    }
    asked
}

#[test]
fn nodes_with_a_copy_are_asked_first_and_those_that_are_configured_in_rotation() {
    let mut bench = Bench::open(settings(3));
    bench.view(&["copy-1:80", "node-2:80", "copy-1:80", "copy-2:80"]);
    bench.lose();
    let order = [suggested("copy-1:80"), own(2), suggested("copy-2:80"), own(0), own(1)];
    assert_eq!(asked(&mut bench, ErrorCode::Busy, 6), [&order[..], &order[..1]].concat());
    let resume = connects(&bench.tick())[0].1.resume.clone().expect("resumes");
    assert_eq!(resume.token, "view");
    // A node that took the session over is asked again, though it names others now.
    bench.ready(8, 0);
    bench.view(&["copy-3:80"]);
    bench.now += Duration::from_secs(1);
    bench.input(Input::Heard(Which::Present));
    bench.lose();
    let order = [suggested("copy-3:80"), own(2), own(0), own(1)];
    assert_eq!(asked(&mut bench, ErrorCode::Internal, 4), order);
}

#[test]
fn what_is_no_address_or_one_too_many_is_left_out() {
    let mut bench = Bench::open(settings(1));
    let many: Vec<String> = (0..20).map(|index| format!("copy-{index}:80")).collect();
    let named: Vec<&str> = ["http://a:80", "a"].into_iter().chain(many.iter().map(String::as_str)).collect();
    let actions = bench.view(&named);
    let ignored = Action::HintsIgnored { count: 14, first: "http://a:80".into() };
    assert_eq!(actions, [ignored]);
    bench.lose();
    assert_eq!(asked(&mut bench, ErrorCode::Busy, 9)[7..], [suggested("copy-7:80"), own(0)]);
}

#[test]
fn a_change_of_durability_is_told_once() {
    let mut bench = Bench::open(settings(1));
    for (durable, told) in [(false, false), (true, true), (true, false), (false, true)] {
        let view = ServerMessage::View { view: 1, token: "t".into(), durable, resume_at: Vec::new() };
        let expected = told.then_some(Action::Deliver(Event::Durable(durable)));
        assert_eq!(bench.say(view), Vec::from_iter(expected));
    }
}

#[test]
fn an_attempt_of_this_client_that_was_heard_late_is_outrun() {
    let mut bench = Bench::open(settings(2));
    bench.lose();
    bench.tick();
    // No answer in time; but it will be the second server's word that a higher epoch speaks.
    bench.tick();
    for epoch in 3..6 {
        let (server, hello) = connects(&bench.tick())[0].clone();
        assert_eq!((server, hello.resume.expect("resumes").epoch), (own(1), Epoch(epoch)));
        assert_eq!(bench.error(ErrorCode::Superseded, None), [Action::Disconnect]);
    }
    bench.tick();
    assert!(matches!(bench.ready(6, 0)[..], [Action::Deliver(Event::Reconnected { .. })]));
}

#[test]
fn a_second_client_that_has_the_session_ends_this_one() {
    let mut bench = Bench::open(settings(2));
    bench.lose();
    for _ in 0..4 {
        bench.tick();
        assert_eq!(bench.error(ErrorCode::Superseded, None), [Action::Disconnect]);
    }
    bench.tick();
    let actions = bench.error(ErrorCode::Superseded, None);
    assert!(
        matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Ended(_))]),
        "{actions:?}"
    );
}
