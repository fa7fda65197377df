//! Sessions that servers have lost, and audio that nobody has any more.

use starling_protocol::native::ErrorCode;
use starling_protocol::{Segment, SourceOffset};

use super::super::*;
use super::{Bench, connects, entropy, last, own, settings};

#[test]
fn a_server_that_forgot_is_given_everything_since_the_last_final() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(500));
    bench.writes();
    bench.say(last(0, 0, 160));
    bench.lose();
    bench.tick();
    let (_, hello) = connects(&bench.error(ErrorCode::UnknownSession, None))[0].clone();
    assert_eq!((hello.session, hello.resume), (Some(entropy().session), None));
    let actions = bench.ready(1, 0);
    assert!(
        matches!(actions[..], [Action::Deliver(Event::Reconnected { restarted: true, .. })]),
        "{actions:?}"
    );
    assert_eq!(bench.writes(), [Write::Audio(160..500)]);
    let actions = bench.say(last(0, 0, 240));
    let [Action::Deliver(Event::Final(last))] = &actions[..] else { panic!("no final: {actions:?}") };
    assert_eq!((last.segment, last.from, last.to), (Segment(1), SourceOffset(160), SourceOffset(400)));
    assert!((last.start - 0.01).abs() < 1e-9 && (last.end - 0.025).abs() < 1e-9);
    bench.input(Input::Delivered(Segment(1)));
    assert_eq!(bench.writes(), [Write::Confirm(Segment(0))]);
}

#[test]
fn a_session_is_not_begun_anew_for_ever() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(100));
    bench.writes();
    for _ in 0..3 {
        bench.lose();
        bench.tick();
        assert_eq!(connects(&bench.error(ErrorCode::UnknownSession, None)).len(), 1);
        bench.ready(1, 0);
    }
    bench.lose();
    bench.tick();
    let actions = bench.error(ErrorCode::UnknownSession, None);
    assert!(
        matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Ended(_))]),
        "{actions:?}"
    );
}

#[test]
fn every_server_is_asked_before_the_session_is_begun_anew() {
    let mut bench = Bench::open(settings(3));
    bench.lose();
    let mut asked = vec![connects(&bench.tick())[0].0.clone()];
    bench.error(ErrorCode::UnknownSession, None);
    asked.push(connects(&bench.tick())[0].0.clone());
    bench.lose();
    asked.push(connects(&bench.tick())[0].0.clone());
    assert_eq!(asked, [own(0), own(1), own(2)]);
    assert_eq!(connects(&bench.error(ErrorCode::UnknownSession, None))[0].0, own(2));
}

#[test]
fn only_a_lost_done_after_the_last_final_needs_no_server() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(100));
    bench.input(Input::End);
    bench.writes();
    bench.say(last(0, 0, 100));
    bench.lose();
    bench.tick();
    let actions = bench.error(ErrorCode::UnknownSession, None);
    let done = Event::Done { segments: 1, frames: SourceOffset(100) };
    assert_eq!(actions, [Action::Disconnect, Action::Deliver(done)]);
    assert!(bench.machine.is_over());
}

/// A session with a final until 100 whose ring has let acknowledged audio go until 300.
fn overrun(servers: usize) -> Bench {
    let mut bench = Bench::open(settings(servers));
    bench.input(Input::Audio(1_000));
    bench.writes();
    bench.say(last(0, 0, 100));
    bench.ack(900);
    bench.input(Input::Finalize);
    bench.input(Input::Audio(300));
    bench.lose();
    bench.tick();
    bench
}

fn gap() -> Action {
    Action::Deliver(Event::Gap { from: SourceOffset(100), to: SourceOffset(300) })
}

#[test]
fn audio_that_everybody_has_lost_is_named_and_the_session_goes_on_after_it() {
    for code in [ErrorCode::UnknownSession, ErrorCode::BadToken, ErrorCode::Gap] {
        let mut bench = overrun(1);
        let actions = bench.error(code, None);
        assert_eq!(actions[0], gap());
        assert_eq!(connects(&actions)[0].1.resume, None);
        bench.ready(1, 0);
        let writes = bench.writes();
        assert_eq!(writes, [Write::Audio(300..1_000), Write::Finalize, Write::Audio(1_000..1_300)]);
        let actions = bench.say(last(0, 0, 50));
        let [Action::Deliver(Event::Final(last))] = &actions[..] else { panic!("no final: {actions:?}") };
        assert_eq!((last.segment, last.from, last.to), (Segment(1), SourceOffset(300), SourceOffset(350)));
    }
}

#[test]
fn a_server_that_goes_on_from_where_the_ring_does_not_reach_has_a_gap_too() {
    let mut bench = overrun(1);
    assert_eq!(bench.ready(2, 299)[0], gap());
    let mut bench = overrun(1);
    bench.ready(2, 300);
    assert_eq!(bench.writes()[0], Write::Audio(300..1_000));
}

#[test]
fn a_refusal_for_a_gap_costs_nothing_while_the_ring_reaches_back() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(500));
    bench.writes();
    bench.lose();
    bench.tick();
    let actions = bench.error(ErrorCode::Gap, None);
    assert_eq!((actions.len(), connects(&actions).len()), (1, 1));
}

#[test]
fn audio_is_not_given_up_at_once_while_somebody_may_still_have_it() {
    let mut bench = overrun(2);
    let mut rounds = 0;
    loop {
        rounds += 1;
        bench.lose();
        bench.tick();
        let actions = bench.error(ErrorCode::UnknownSession, None);
        if actions.contains(&gap()) {
            break;
        }
        bench.tick();
    }
    assert_eq!(rounds, 3);
    // Where nothing would be lost, nobody waits.
    let mut bench = Bench::open(settings(2));
    bench.lose();
    bench.tick();
    bench.lose();
    bench.tick();
    assert_eq!(connects(&bench.error(ErrorCode::UnknownSession, None)).len(), 1);
}

#[test]
fn a_gap_to_the_end_of_the_audio_is_the_end() {
    let mut bench = overrun(1);
    bench.machine.start = 1_300;
    bench.input(Input::End);
    let actions = bench.error(ErrorCode::Gap, None);
    let gap = Event::Gap { from: SourceOffset(100), to: SourceOffset(1_300) };
    let done = Event::Done { segments: 1, frames: SourceOffset(1_300) };
    assert_eq!(actions, [Action::Deliver(gap), Action::Disconnect, Action::Deliver(done)]);
}

#[test]
fn a_copy_that_is_behind_is_told_again_and_its_predecessors_word_is_not_relied_on() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(1_000));
    bench.writes();
    bench.ack(900);
    bench.lose();
    assert_eq!(bench.machine.room(), 900);
    bench.tick();
    bench.ready(2, 400);
    assert_eq!(bench.machine.room(), 400);
    // Until it is sent again the ring holds it, and until it is acknowledged again too.
    bench.input(Input::Audio(400));
    assert_eq!((bench.machine.room(), bench.machine.start()), (0, 400));
    assert_eq!(bench.writes(), [Write::Audio(400..1_400)]);
    assert_eq!(bench.machine.room(), 0);
    bench.ack(700);
    assert_eq!((bench.machine.room(), bench.machine.start()), (300, 400));
}

#[test]
fn what_a_resume_promises_is_kept_until_it_is_answered() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(1_000));
    bench.writes();
    bench.ack(900);
    bench.lose();
    let resume = connects(&bench.tick())[0].1.resume.clone().expect("resumes");
    assert_eq!((resume.have_from, bench.machine.room()), (SourceOffset(0), 0));
    bench.ready(2, 0);
    assert_eq!(bench.writes(), [Write::Audio(0..1_000)]);
}

#[test]
fn new_sessions_are_for_configured_servers_only() {
    let mut bench = Bench::open(settings(2));
    bench.view(&["copy:80"]);
    bench.lose();
    bench.tick();
    bench.error(ErrorCode::UnknownSession, None);
    for _ in 0..2 {
        bench.tick();
        bench.lose();
    }
    // Nobody configured said anything: they are asked, in their own time.
    let (server, hello) = connects(&bench.tick())[0].clone();
    assert_eq!((server, hello.resume), (own(0), None));
    bench.lose();
    assert_eq!(connects(&bench.tick())[0].0, own(1));
    bench.lose();
    assert_eq!(connects(&bench.tick())[0].0, own(0));
}
