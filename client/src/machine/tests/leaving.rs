//! Servers that are about to stop: the next connection before the end of the present one.

use std::time::Duration;

use starling_protocol::native::{ErrorCode, Resume, ServerMessage};
use starling_protocol::{Epoch, Segment, SourceOffset};

use super::super::*;
use super::{Bench, error, last, own, settings, suggested};

const GO_AWAY: ServerMessage = ServerMessage::GoAway { deadline_ms: 30_000 };

/// The one connection that is opened beside the present one.
fn next(actions: &[Action]) -> (Server, Resume) {
    let [Action::ConnectNext { server, hello }] = actions else { panic!("no next connection: {actions:?}") };
    (server.clone(), hello.resume.clone().expect("resumes"))
}

/// A session with audio that is told to go; another server is being opened.
fn leaving(servers: usize) -> Bench {
    let mut bench = Bench::open(settings(servers));
    bench.input(Input::Audio(500));
    bench.writes();
    assert_eq!(bench.say(GO_AWAY), []);
    let (server, resume) = next(&bench.tick());
    assert_eq!((server, resume.epoch), (own(1), Epoch(2)));
    bench
}

fn lose_next(bench: &mut Bench) -> Vec<Action> {
    bench.input(Input::Lost(Which::Next, "cut".into()))
}

#[test]
fn the_present_connection_goes_on_until_the_next_is_ready() {
    let mut bench = leaving(2);
    bench.input(Input::Audio(100));
    assert_eq!(bench.writes(), [Write::Audio(500..600)]);
    bench.ack(600);
    let ready = bench.ready_message(2, 550);
    assert_eq!(bench.next_says(ready), [Action::Switch]);
    assert_eq!(bench.writes(), [Write::Audio(550..600)]);
    assert!(matches!(bench.say(last(0, 0, 200))[..], [Action::Deliver(Event::Final(_))]));
}

#[test]
fn finals_that_came_meanwhile_are_told_to_the_next_server_before_it_counts() {
    let mut bench = leaving(2);
    assert!(matches!(bench.say(last(0, 0, 400))[..], [Action::Deliver(Event::Final(_))]));
    let ready = bench.ready_message(2, 100);
    let (server, resume) = next(&bench.next_says(ready));
    assert_eq!((server, resume.epoch, resume.token.as_str()), (own(1), Epoch(3), "token 2"));
    assert_eq!((resume.last_final, resume.final_to), (Some(Segment(0)), Some(SourceOffset(400))));
    assert_eq!(resume.have_from, SourceOffset(400));
    // The same once the one before is gone.
    assert!(matches!(bench.say(last(1, 400, 450))[..], [Action::Deliver(Event::Final(_))]));
    assert_eq!(bench.error(ErrorCode::Superseded, None), [Action::Switch]);
    let actions = bench.ready(3, 400);
    let [Action::Connect { server, hello }] = &actions[..] else { panic!("no connection: {actions:?}") };
    let resume = hello.resume.clone().expect("resumes");
    assert_eq!((server, resume.epoch, resume.last_final), (&own(1), Epoch(4), Some(Segment(1))));
    assert_eq!(bench.ready(4, 450), [], "nothing is reported");
    assert_eq!(bench.writes(), [Write::Audio(450..500)]);
}

#[test]
fn the_end_of_the_present_connection_is_in_order_while_the_next_is_being_opened() {
    for superseded in [true, false] {
        let mut bench = leaving(2);
        let actions = if superseded { bench.error(ErrorCode::Superseded, None) } else { bench.lose() };
        assert_eq!(actions, [Action::Switch]);
        assert_eq!(bench.writes(), []);
        bench.now += Duration::from_secs(1);
        assert_eq!(bench.ready(2, 500), [], "nothing is reported");
        bench.input(Input::Audio(10));
        assert_eq!(bench.writes(), [Write::Audio(500..510)]);
    }
}

#[test]
fn a_next_connection_that_fails_after_the_present_one_is_a_loss_like_any_other() {
    let mut bench = leaving(3);
    bench.lose();
    let lost_at = bench.now;
    assert_eq!(bench.lose(), [Action::Disconnect]);
    let actions = bench.tick();
    let [Action::Connect { server, hello }] = &actions[..] else { panic!("no connection: {actions:?}") };
    assert_eq!((server, hello.resume.as_ref().expect("resumes").epoch), (&own(2), Epoch(3)));
    let actions = bench.ready(3, 500);
    let gap = bench.now - lost_at;
    assert_eq!(actions, [Action::Deliver(Event::Reconnected { gap, restarted: false })]);
}

#[test]
fn while_no_other_server_takes_it_the_session_stays_where_it_is() {
    let mut bench = leaving(3);
    for (refusal, server) in [(Some(ErrorCode::Busy), own(2)), (None, own(1)), (Some(ErrorCode::Gap), own(2))]
    {
        let actions = match refusal {
            Some(code) => bench.next_says(error(code, None)),
            None => lose_next(&mut bench),
        };
        assert_eq!(actions, [Action::DropNext]);
        bench.input(Input::Audio(10));
        assert_eq!(bench.writes().len(), 1, "the present connection goes on");
        bench.input(Input::Heard(Which::Present));
        assert_eq!(next(&bench.tick()).0, server);
    }
    // No answer in time.
    let before = bench.now;
    bench.input(Input::Heard(Which::Present));
    assert_eq!(bench.tick(), [Action::Ping]);
    assert_eq!(bench.tick(), [Action::DropNext]);
    assert_eq!(bench.now - before, Duration::from_secs(5));
}

#[test]
fn nobody_is_asked_after_the_deadline() {
    let mut bench = leaving(2);
    bench.now = Duration::from_secs(29);
    for _ in 0..10 {
        bench.input(Input::Heard(Which::Present));
        if lose_next(&mut bench).is_empty() {
            break;
        }
        bench.tick();
    }
    assert!(bench.now < Duration::from_secs(35), "{:?}", bench.now);
    bench.input(Input::Heard(Which::Present));
    assert_eq!(bench.tick(), [Action::Ping]);
    // Now it is lost, and who stopped is asked last.
    bench.lose();
    let actions = bench.tick();
    let [Action::Connect { server, .. }] = &actions[..] else { panic!("no connection: {actions:?}") };
    assert_eq!(*server, own(1));
}

#[test]
fn an_abandoned_attempt_that_took_over_after_all_is_no_second_client() {
    let mut bench = leaving(2);
    lose_next(&mut bench);
    assert_eq!(bench.error(ErrorCode::Superseded, None), [Action::Disconnect]);
    assert!(!bench.machine.is_over());
    bench.tick();
    bench.ready(3, 500);
    let actions = bench.error(ErrorCode::Superseded, None);
    assert!(
        matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Ended(_))]),
        "{actions:?}"
    );
}

#[test]
fn without_another_server_it_stays_until_one_is_named() {
    let mut bench = Bench::open(settings(1));
    assert_eq!(bench.say(GO_AWAY), []);
    assert_eq!(bench.tick(), [Action::Ping]);
    bench.view(&["copy:80"]);
    let (server, resume) = next(&bench.tick());
    assert_eq!((server, resume.token.as_str()), (suggested("copy:80"), "view"));
    let ready = bench.ready_message(2, 0);
    assert_eq!(bench.next_says(ready), [Action::Switch]);
    // The next who stops is left in the same way, for the configured one.
    bench.say(GO_AWAY);
    assert_eq!(next(&bench.tick()).0, own(0));
}

#[test]
fn a_node_with_a_copy_comes_before_a_configured_one() {
    let mut bench = Bench::open(settings(2));
    bench.view(&["copy:80", "node-0:80"]);
    bench.say(GO_AWAY);
    assert_eq!(next(&bench.tick()).0, suggested("copy:80"));
}

#[test]
fn a_ready_that_does_not_fit_leaves_the_session_where_it_is() {
    let mut bench = leaving(2);
    let wrong = bench.ready_message(1, 500);
    assert_eq!(bench.next_says(wrong), [Action::DropNext]);
    bench.tick();
    let wrong = bench.ready_message(3, 501);
    assert_eq!(bench.next_says(wrong), [Action::DropNext]);
    bench.input(Input::Audio(1));
    assert_eq!(bench.writes(), [Write::Audio(500..501)]);
}

#[test]
fn a_server_that_stops_without_notice_is_asked_last() {
    let mut bench = Bench::open(settings(2));
    assert_eq!(bench.error(ErrorCode::ShuttingDown, None), [Action::Disconnect]);
    let actions = bench.tick();
    let [Action::Connect { server, .. }] = &actions[..] else { panic!("no connection: {actions:?}") };
    assert_eq!(*server, own(1));
}
