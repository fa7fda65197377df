use std::time::Duration;

use starling_protocol::native::{ErrorBody, ErrorCode, Final, Hello, ServerMessage};
use starling_protocol::{CutCause, Epoch, Segment, SessionId, SourceOffset};

use super::*;

mod anew;
mod attempts;
mod leaving;

pub(super) fn settings(servers: usize) -> Settings {
    Settings {
        servers: (0..servers).map(|index| format!("node-{index}:80")).collect(),
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
        self.input(Input::Message(Which::Present, Box::new(message)))
    }

    fn next_says(&mut self, message: ServerMessage) -> Vec<Action> {
        self.input(Input::Message(Which::Next, Box::new(message)))
    }

    fn ready_message(&self, epoch: u64, have_until: u64) -> ServerMessage {
        ServerMessage::Ready {
            session: self.machine.hello.session.expect("always one"),
            epoch: Epoch(epoch),
            token: format!("token {epoch}"),
            model: "model".into(),
            have_until: SourceOffset(have_until),
            next_segment: Segment(0),
            resumed: epoch > 1,
            durable: false,
            linger_ms: 60_000,
            node: String::new(),
        }
    }

    fn ready(&mut self, epoch: u64, have_until: u64) -> Vec<Action> {
        self.say(self.ready_message(epoch, have_until))
    }

    fn ack(&mut self, until: u64) -> Vec<Action> {
        self.say(ServerMessage::Ack { until: SourceOffset(until) })
    }

    fn view(&mut self, resume_at: &[&str]) -> Vec<Action> {
        let resume_at = resume_at.iter().map(|&address| address.to_owned()).collect();
        self.say(ServerMessage::View { view: 1, token: "view".into(), durable: false, resume_at })
    }

    fn error(&mut self, code: ErrorCode, retry_after_ms: Option<u64>) -> Vec<Action> {
        self.say(error(code, retry_after_ms))
    }

    fn lose(&mut self) -> Vec<Action> {
        self.input(Input::Lost(Which::Present, "cut".into()))
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

fn error(code: ErrorCode, retry_after_ms: Option<u64>) -> ServerMessage {
    let mut body = ErrorBody::new(code, "no");
    body.retry_after_ms = retry_after_ms;
    ServerMessage::Error(body)
}

fn connects(actions: &[Action]) -> Vec<(Server, Hello)> {
    let connects = actions.iter().filter_map(|action| match action {
        Action::Connect { server, hello } => Some((server.clone(), (**hello).clone())),
        _ => None,
    });
    connects.collect()
}

fn own(index: usize) -> Server {
    Server::Configured(index)
}

fn suggested(address: &str) -> Server {
    Server::Suggested(address.to_owned())
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

fn finalized(segment: u64, from: u64, to: u64) -> ServerMessage {
    let ServerMessage::Final(mut last) = last(segment, from, to) else { unreachable!("it is one") };
    last.cause = CutCause::Finalize;
    ServerMessage::Final(last)
}

#[test]
fn a_second_answer_to_a_finalize_that_was_asked_twice_is_not_the_next_ones() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(100));
    bench.input(Input::Finalize);
    bench.writes();
    bench.lose();
    bench.tick();
    bench.ready(2, 100);
    bench.input(Input::Audio(500));
    bench.input(Input::Finalize);
    assert_eq!(bench.writes(), [Write::Finalize, Write::Audio(100..600), Write::Finalize]);
    // A little before its place, as the resampler leaves it, and the second answer.
    bench.say(finalized(0, 0, 90));
    bench.say(finalized(1, 90, 90));
    bench.lose();
    bench.tick();
    bench.ready(3, 100);
    assert_eq!(bench.writes(), [Write::Audio(100..600), Write::Finalize]);
    bench.say(finalized(2, 90, 590));
    bench.lose();
    bench.tick();
    bench.ready(4, 600);
    assert_eq!(bench.writes(), []);
}

#[test]
fn a_full_ring_lets_acknowledged_audio_go_and_nothing_else() {
    let mut bench = Bench::open(settings(1));
    bench.input(Input::Audio(1_000));
    assert_eq!(bench.machine.room(), 0);
    bench.writes();
    bench.ack(400);
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
