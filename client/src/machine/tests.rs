use std::time::Duration;

use starling_protocol::native::{ErrorBody, ErrorCode, Hello, ServerMessage};
use starling_protocol::{CutCause, Epoch, Segment, SessionId, SourceOffset};

use super::*;

pub(super) fn settings(servers: usize) -> Settings {
    Settings {
        servers,
        ring_frames: 1_000,
        open_deadline: Duration::from_secs(5),
        wait_when_busy: false,
        give_up: Duration::from_secs(60),
        attempt_timeout: Duration::from_secs(5),
        liveness: Duration::from_secs(10),
        backoff_first: Duration::from_millis(100),
        backoff_most: Duration::from_secs(3),
    }
}

pub(super) fn entropy() -> Entropy {
    Entropy { jitter: u32::MAX, session: SessionId(uuid::Uuid::from_u128(77)) }
}

const FIRST: SessionId = SessionId(uuid::Uuid::from_u128(1));

struct Bench {
    machine: Machine,
    now: Duration,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Self { machine: Machine::new(settings, Hello::new(FIRST)), now: Duration::ZERO }
    }

    fn open(settings: Settings) -> Self {
        let mut bench = Self::new(settings);
        bench.input(Input::Start);
        bench.ready(1, 0);
        bench
    }

    fn input(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.handle(self.now, input, entropy(), &mut out);
        out
    }

    fn say(&mut self, message: ServerMessage) -> Vec<Action> {
        self.input(Input::Message(Box::new(message)))
    }

    fn ready(&mut self, epoch: u64, have_until: u64) -> Vec<Action> {
        let session = self.machine.hello.session.expect("always one");
        self.say(ServerMessage::Ready {
            session,
            epoch: Epoch(epoch),
            token: "token".into(),
            model: "model".into(),
            have_until: SourceOffset(have_until),
            next_segment: Segment(0),
            resumed: epoch > 1,
            durable: false,
            linger_ms: 60_000,
        })
    }

    fn error(&mut self, code: ErrorCode, retry_after_ms: Option<u64>) -> Vec<Action> {
        let mut body = ErrorBody::new(code, "no");
        body.retry_after_ms = retry_after_ms;
        self.say(ServerMessage::Error(body))
    }

    fn lose(&mut self) -> Vec<Action> {
        self.input(Input::Lost("cut".into()))
    }

    /// Lets time pass until the next timeout.
    fn tick(&mut self) -> Vec<Action> {
        self.now = self.machine.next_timeout().expect("a timeout is set");
        self.input(Input::Tick)
    }

    fn writes(&mut self) -> Vec<Write> {
        std::iter::from_fn(|| self.machine.next_write()).collect()
    }
}

fn last(segment: u64, from: u64, to: u64) -> ServerMessage {
    ServerMessage::Final(Final {
        segment: Segment(segment),
        from: SourceOffset(from),
        to: SourceOffset(to),
        start: from as f64 / 16_000.0,
        end: to as f64 / 16_000.0,
        cause: CutCause::Endpoint,
        text: "text".into(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    })
}

fn connects(actions: &[Action]) -> Vec<(usize, Hello)> {
    let connects = actions.iter().filter_map(|action| match action {
        Action::Connect { server, hello } => Some((*server, (**hello).clone())),
        _ => None,
    });
    connects.collect()
}

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
        assert_eq!(resume.last_final, Some(Segment(0)));
        assert_eq!(resume.have_from, SourceOffset(200));
        bench.lose();
    }
}

#[test]
fn audio_goes_on_from_where_the_server_has_it() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(300));
    bench.input(Input::Finalize);
    bench.input(Input::Audio(100));
    bench.input(Input::End);
    let all = [Write::Audio(0..300), Write::Finalize, Write::Audio(300..400), Write::End];
    assert_eq!(bench.writes(), all);
    bench.lose();
    bench.tick();
    bench.ready(2, 250);
    assert_eq!(bench.writes(), [Write::Audio(250..300), Write::Finalize, Write::Audio(300..400), Write::End]);
    bench.lose();
    bench.tick();
    bench.ready(3, 350);
    assert_eq!(bench.writes(), [Write::Audio(350..400), Write::End]);
}

#[test]
fn a_full_ring_lets_acknowledged_audio_go_and_nothing_else() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(1_000));
    assert_eq!(bench.machine.room(), 0);
    bench.writes();
    bench.say(ServerMessage::Ack { until: SourceOffset(400) });
    assert_eq!((bench.machine.room(), bench.machine.start()), (400, 0));
    bench.input(Input::Audio(100));
    assert_eq!((bench.machine.room(), bench.machine.start()), (300, 100));
    bench.say(last(0, 0, 400));
    assert_eq!((bench.machine.room(), bench.machine.start()), (300, 400));
}

#[test]
fn finals_come_once_and_are_confirmed_when_the_consumer_has_them() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(400));
    bench.writes();
    assert_eq!(bench.say(last(0, 0, 200)).len(), 1);
    assert_eq!(bench.say(last(0, 0, 200)), []);
    assert_eq!(bench.writes(), []);
    bench.input(Input::Delivered(Segment(0)));
    assert_eq!(bench.writes(), [Write::Confirm(Segment(0))]);
    assert_eq!(bench.writes(), []);
}

#[test]
fn a_missing_final_and_one_that_does_not_adjoin_are_errors() {
    for wrong in [last(1, 200, 300), last(0, 10, 200)] {
        let mut bench = Bench::open(settings(1));
        bench.input(Input::Audio(400));
        bench.writes();
        let actions = bench.say(wrong);
        assert!(
            matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Hole { .. })]),
            "{actions:?}"
        );
    }
}

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
fn a_server_that_forgot_audio_the_ring_no_longer_has_is_an_error() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(1_000));
    bench.writes();
    bench.say(ServerMessage::Ack { until: SourceOffset(900) });
    bench.input(Input::Audio(300));
    bench.lose();
    bench.tick();
    let actions = bench.error(ErrorCode::UnknownSession, None);
    let expected = SessionError::AudioLost { from: SourceOffset(0), to: SourceOffset(300) };
    assert_eq!(actions, [Action::Disconnect, Action::Failed(expected)]);
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
    let mut asked = vec![connects(&bench.tick())[0].0];
    bench.error(ErrorCode::UnknownSession, None);
    asked.push(connects(&bench.tick())[0].0);
    bench.lose();
    asked.push(connects(&bench.tick())[0].0);
    assert_eq!(asked, [0, 1, 2]);
    assert_eq!(connects(&bench.error(ErrorCode::UnknownSession, None))[0].0, 2);
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

#[test]
fn a_lost_connection_is_given_up_at_the_deadline_and_not_before() {
    let mut bench = Bench::open(settings(1));
    bench.now = Duration::from_secs(100);
    bench.input(Input::Heard);
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
    bench.machine.handle(bench.now, Input::Lost("cut".into()), none, &mut Vec::new());
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
    bench.input(Input::Heard);
    assert_eq!(bench.tick(), [Action::Ping]);
    assert_eq!(bench.now, Duration::from_secs(10));
    assert_eq!(bench.tick(), [Action::Disconnect]);
    assert_eq!(bench.now, Duration::from_secs(15));
    assert_eq!(connects(&bench.tick()).len(), 1);
}

#[test]
fn an_attempt_that_gets_no_answer_ends_in_time() {
    let mut bench = Bench::new(settings(2));
    assert_eq!(connects(&bench.input(Input::Start))[0].0, 0);
    assert_eq!(bench.tick(), [Action::Disconnect]);
    assert_eq!(connects(&bench.tick())[0].0, 1);
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

#[test]
fn a_stopping_server_is_left_when_there_is_another() {
    let go_away = ServerMessage::GoAway { deadline_ms: 30_000 };
    assert_eq!(Bench::open(settings(1)).say(go_away.clone()), []);
    let mut bench = Bench::open(settings(2));
    assert_eq!(bench.say(go_away), [Action::Disconnect]);
    assert_eq!(connects(&bench.tick())[0].0, 1);
}

#[test]
fn what_the_protocol_does_not_allow_is_an_error() {
    let ack = ServerMessage::Ack { until: SourceOffset(1) };
    let done = ServerMessage::Done { segments: 0, frames: SourceOffset(0) };
    for wrong in [ack, done] {
        let actions = Bench::open(settings(1)).say(wrong);
        assert!(
            matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Protocol(_))]),
            "{actions:?}"
        );
    }
    let mut bench = Bench::open(settings(1));
    bench.lose();
    bench.tick();
    let actions = bench.ready(1, 0);
    assert!(
        matches!(actions[..], [Action::Disconnect, Action::Failed(SessionError::Protocol(_))]),
        "{actions:?}"
    );
}

#[test]
fn the_end_confirms_whatever_has_come_so_that_the_server_keeps_nothing() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(100));
    bench.input(Input::End);
    bench.writes();
    bench.say(last(0, 0, 100));
    let (segments, frames) = (1, SourceOffset(100));
    let actions = bench.say(ServerMessage::Done { segments, frames });
    let done = Action::Deliver(Event::Done { segments, frames });
    assert_eq!(actions, [Action::Farewell(Segment(0)), done]);
}
