//! The machine against a model of a server, under random losses: every final exactly once, in order, with the content
//! that an undisturbed run would have given.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::native::{ErrorBody, ErrorCode, Final, Hello, ServerMessage};
use starling_protocol::{CutCause, Epoch, Segment, SessionId, SourceOffset};

use super::tests::{entropy, settings};
use super::{Action, Entropy, Event, Input, Machine, Write};
use crate::ring::Ring;

#[derive(Debug, Clone, Copy)]
enum Step {
    Audio(u64),
    Finalize,
    Write(u8),
    ServerReads(u8),
    ServerWorks,
    ClientReads(u8),
    ConsumerTakes,
    TimePasses,
    /// What the client had written still arrives when the flag is set; what the server had written never does.
    Loss {
        arrives: bool,
    },
    ServerForgets,
}

/// The value of the n-th frame; its low digits decide where segments end.
fn sample(frame: u64) -> u16 {
    u16::try_from((frame * 2_654_435_761) >> 7 & 0xffff).expect("masked")
}

/// Where a segment ends is a function of its own audio.
fn cuts_after(length: usize, value: u16) -> bool {
    length >= 20 || (length >= 3 && value % 9 == 4)
}

fn text_of(audio: &[u16]) -> String {
    format!("{audio:x?}")
}

#[derive(Debug, Default)]
struct ServerSession {
    audio: Vec<u16>,
    /// Where finalizes wait to be answered: one final each, even two at one place.
    finalizes: VecDeque<usize>,
    ended: bool,
    finals: Vec<Final>,
    confirmed: usize,
    epoch: u64,
}

impl ServerSession {
    fn committed(&self) -> usize {
        self.finals.last().map_or(0, |last| usize::try_from(last.to.0).expect("small"))
    }

    fn commit_one(&mut self) -> Option<Final> {
        let from = self.committed();
        let open = &self.audio[from..];
        let asked = self.finalizes.front().map(|&at| at - from);
        let natural = (1..=open.len()).find(|&length| cuts_after(length, open[length - 1]));
        let end = (self.ended && !open.is_empty()).then_some(open.len());
        let (cut, cause) = match (asked, natural) {
            (Some(asked), None) => (asked, CutCause::Finalize),
            (Some(asked), Some(natural)) if asked < natural => (asked, CutCause::Finalize),
            (_, Some(natural)) => (natural, CutCause::Endpoint),
            (None, None) => (end?, CutCause::End),
        };
        if cause == CutCause::Finalize {
            self.finalizes.pop_front();
        }
        let last = Final {
            segment: Segment(self.finals.len() as u64),
            from: SourceOffset(from as u64),
            to: SourceOffset((from + cut) as u64),
            start: from as f64 / 16_000.0,
            end: (from + cut) as f64 / 16_000.0,
            cause,
            text: text_of(&open[..cut]),
            words: Vec::new(),
            confidence: None,
            alternatives: Vec::new(),
            error: None,
        };
        self.finals.push(last.clone());
        Some(last)
    }
}

struct World {
    now: Duration,
    machine: Machine,
    ring: Ring,
    produced: u64,
    marks: VecDeque<usize>,
    to_server: VecDeque<Result<Write, Hello>>,
    audio_in_flight: VecDeque<Vec<u8>>,
    to_client: VecDeque<ServerMessage>,
    connected: Option<SessionId>,
    linked: bool,
    sessions: HashMap<SessionId, ServerSession>,
    fresh: u128,
    untaken: VecDeque<Final>,
    taken: Vec<Final>,
    done: Option<(u64, u64)>,
    failed: Option<String>,
    epochs: HashMap<SessionId, u64>,
    finals_seen: u64,
    forgotten_at: Option<u64>,
}

impl World {
    fn new(ring_frames: u64) -> Self {
        let mut settings = settings(1);
        settings.ring_frames = ring_frames;
        settings.give_up = Duration::from_secs(1_000_000);
        settings.open_deadline = Duration::from_secs(1_000_000);
        let mut world = Self {
            now: Duration::ZERO,
            machine: Machine::new(settings, Hello::new(SessionId(uuid::Uuid::from_u128(1)))),
            ring: Ring::default(),
            produced: 0,
            marks: VecDeque::new(),
            to_server: VecDeque::new(),
            audio_in_flight: VecDeque::new(),
            to_client: VecDeque::new(),
            connected: None,
            linked: false,
            sessions: HashMap::new(),
            fresh: 1,
            untaken: VecDeque::new(),
            taken: Vec::new(),
            done: None,
            failed: None,
            epochs: HashMap::new(),
            finals_seen: 0,
            forgotten_at: None,
        };
        world.input(Input::Start);
        world
    }

    fn input(&mut self, input: Input) {
        self.fresh += 1;
        let entropy = Entropy { session: SessionId(uuid::Uuid::from_u128(self.fresh)), ..entropy() };
        let mut out = Vec::new();
        self.machine.handle(self.now, input, entropy, &mut out);
        self.ring.trim(self.machine.start());
        for action in out {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { hello, .. } => {
                self.unlink();
                self.linked = true;
                if let (Some(session), Some(resume)) = (hello.session, &hello.resume) {
                    let used = self.epochs.insert(session, resume.epoch.0).unwrap_or(0);
                    assert!(resume.epoch.0 > used, "epoch {} was used", resume.epoch);
                }
                self.to_server.push_back(Err(*hello));
            }
            Action::Disconnect | Action::Farewell(_) => self.unlink(),
            Action::Deliver(Event::Final(last)) => {
                self.finals_seen += 1;
                self.untaken.push_back(last);
            }
            Action::Deliver(Event::Done { segments, frames }) => self.done = Some((segments, frames.0)),
            Action::Failed(error) => self.failed = Some(error.to_string()),
            Action::OpenFailed(error) => self.failed = Some(error.to_string()),
            Action::Complaint(body) => panic!("the server complained: {body:?}"),
            Action::Deliver(_) | Action::Opened(_) | Action::Ping => {}
        }
    }

    fn unlink(&mut self) {
        self.linked = false;
        self.connected = None;
        self.to_server.clear();
        self.audio_in_flight.clear();
        self.to_client.clear();
    }

    fn server_reads(&mut self) {
        let Some(message) = self.to_server.pop_front() else {
            return;
        };
        let write = match message {
            Err(hello) => return self.server_opens(&hello),
            Ok(write) => write,
        };
        let session = self.connected.expect("hello came first");
        let session = self.sessions.get_mut(&session).expect("is open");
        match write {
            Write::Audio(_) => {
                let bytes = self.audio_in_flight.pop_front().expect("sent with it");
                let frames = bytes.chunks_exact(2).map(|two| u16::from_le_bytes([two[0], two[1]]));
                session.audio.extend(frames);
            }
            Write::Confirm(segment) => {
                let confirmed = usize::try_from(segment.0 + 1).expect("small");
                assert!(confirmed <= session.finals.len(), "confirmed what was never sent");
                session.confirmed = session.confirmed.max(confirmed);
            }
            Write::Finalize => {
                session.finalizes.push_back(session.audio.len());
            }
            Write::End => session.ended = true,
        }
    }

    fn server_opens(&mut self, hello: &Hello) {
        let id = hello.session.expect("made by the client");
        if hello.resume.is_some() && !self.sessions.contains_key(&id) {
            let body = ErrorBody::new(ErrorCode::UnknownSession, "no such session");
            self.to_client.push_back(ServerMessage::Error(body));
            return;
        }
        let session = self.sessions.entry(id).or_default();
        let mut known = 0;
        if let Some(resume) = &hello.resume {
            assert!(resume.epoch.0 > session.epoch);
            assert!(resume.have_from.0 <= session.audio.len() as u64, "a gap");
            session.epoch = resume.epoch.0;
            known = resume.last_final.map_or(0, |last| last.0 + 1);
        } else {
            session.epoch += 1;
        }
        let known = usize::try_from(known).expect("small");
        assert!(session.confirmed <= known, "a confirmed final is asked for");
        self.connected = Some(id);
        self.to_client.push_back(ServerMessage::Ready {
            session: id,
            epoch: Epoch(session.epoch),
            token: "token".into(),
            model: "model".into(),
            have_until: SourceOffset(session.audio.len() as u64),
            next_segment: Segment(known as u64),
            resumed: hello.resume.is_some(),
            durable: false,
            linger_ms: 60_000,
        });
        let lacking = session.finals[known..].iter().cloned();
        self.to_client.extend(lacking.map(ServerMessage::Final));
    }

    fn server_works(&mut self) {
        let Some(session) = self.connected.and_then(|id| self.sessions.get_mut(&id)) else {
            return;
        };
        if let Some(last) = session.commit_one() {
            self.to_client.push_back(ServerMessage::Final(last));
            return;
        }
        let until = SourceOffset(session.audio.len() as u64);
        self.to_client.push_back(ServerMessage::Ack { until });
        if session.ended && session.finalizes.is_empty() && session.committed() == session.audio.len() {
            let segments = session.finals.len() as u64;
            self.to_client.push_back(ServerMessage::Done { segments, frames: until });
        }
    }

    fn step(&mut self, step: Step) {
        if self.done.is_some() || self.failed.is_some() {
            return;
        }
        match step {
            Step::Audio(frames) => {
                let frames = frames.min(self.machine.room());
                for frame in self.produced..self.produced + frames {
                    self.ring.push(&sample(frame).to_le_bytes());
                }
                self.produced += frames;
                self.input(Input::Audio(frames));
            }
            Step::Finalize => {
                let waiting = self.machine.marks.len();
                self.input(Input::Finalize);
                if self.machine.marks.len() > waiting {
                    self.marks.push_back(usize::try_from(self.produced).expect("small"));
                }
            }
            Step::Write(times) => (0..times).for_each(|_| self.write()),
            Step::ServerReads(times) => (0..times).for_each(|_| self.server_reads()),
            Step::ServerWorks => self.server_works(),
            Step::ClientReads(times) => {
                for _ in 0..times {
                    if let Some(message) = self.to_client.pop_front() {
                        self.input(Input::Message(Box::new(message)));
                    }
                }
            }
            Step::ConsumerTakes => {
                if let Some(last) = self.untaken.pop_front() {
                    let segment = last.segment;
                    self.taken.push(last);
                    self.input(Input::Delivered(segment));
                }
            }
            Step::TimePasses => {
                if let Some(at) = self.machine.next_timeout().filter(|_| !self.linked) {
                    self.now = self.now.max(at);
                    self.input(Input::Tick);
                }
            }
            Step::Loss { arrives } => {
                while arrives && !self.to_server.is_empty() {
                    self.server_reads();
                }
                self.lose();
            }
            // Once between two finals: a server that forgets again and again is another test's.
            Step::ServerForgets if self.forgotten_at != Some(self.finals_seen) => {
                self.forgotten_at = Some(self.finals_seen);
                self.sessions.clear();
                self.lose();
            }
            Step::ServerForgets => {}
        }
    }

    fn lose(&mut self) {
        if self.linked {
            self.unlink();
            self.input(Input::Lost("cut".into()));
        }
    }

    fn write(&mut self) {
        let Some(write) = self.machine.next_write() else {
            return;
        };
        if let Write::Audio(frames) = &write {
            let bytes = self.ring.read(frames.clone()).expect("the ring holds what is to be sent");
            self.audio_in_flight.push_back(bytes);
        }
        self.to_server.push_back(Ok(write));
    }

    /// Ends the audio and goes on without faults until it is over.
    fn settle(&mut self) {
        self.input(Input::End);
        for _ in 0..10_000 {
            for step in [
                Step::TimePasses,
                Step::Write(8),
                Step::ServerReads(8),
                Step::ServerWorks,
                Step::ClientReads(8),
                Step::ConsumerTakes,
            ] {
                self.step(step);
            }
            if self.done.is_some() || self.failed.is_some() {
                break;
            }
        }
        self.taken.extend(self.untaken.drain(..));
    }

    /// What an undisturbed run gives.
    fn expected(&self) -> Vec<Final> {
        let audio: Vec<u16> = (0..self.produced).map(sample).collect();
        let mut session =
            ServerSession { audio, finalizes: self.marks.clone(), ended: true, ..ServerSession::default() };
        while session.commit_one().is_some() {}
        session.finals
    }
}

/// What is in a run's finals. Empty ones are left out: a finalize that was asked twice, because nobody knows whether the
/// first was heard, gives one more.
fn spoken(finals: &[Final]) -> Vec<(u64, u64, &str)> {
    let spoken = finals.iter().filter(|last| last.from < last.to);
    spoken.map(|last| (last.from.0, last.to.0, last.text.as_str())).collect()
}

fn requested(finals: &[Final]) -> usize {
    finals.iter().filter(|last| last.cause == CutCause::Finalize).count()
}

fn ordinary() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..40).prop_map(Step::Audio),
        1 => Just(Step::Finalize),
        6 => (1u8..5).prop_map(Step::Write),
        6 => (1u8..5).prop_map(Step::ServerReads),
        6 => Just(Step::ServerWorks),
        6 => (1u8..5).prop_map(Step::ClientReads),
        3 => Just(Step::ConsumerTakes),
        4 => Just(Step::TimePasses),
        2 => any::<bool>().prop_map(|arrives| Step::Loss { arrives }),
    ]
}

fn with_forgetting() -> impl Strategy<Value = Step> {
    prop_oneof![20 => ordinary(), 1 => Just(Step::ServerForgets)]
}

fn run(steps: &[Step], ring_frames: u64) -> Result<(), TestCaseError> {
    let mut world = World::new(ring_frames);
    for &step in steps {
        world.step(step);
    }
    world.settle();
    prop_assert_eq!(&world.failed, &None);
    let expected = world.expected();
    prop_assert_eq!(world.done, Some((world.taken.len() as u64, world.produced)));
    prop_assert!(world.taken.iter().zip(0..).all(|(last, segment)| last.segment.0 == segment));
    prop_assert_eq!(spoken(&world.taken), spoken(&expected));
    prop_assert!(requested(&world.taken) >= requested(&expected), "a request went unanswered");
    let undisturbed = steps.iter().all(|step| !matches!(step, Step::Loss { .. } | Step::ServerForgets));
    prop_assert!(!undisturbed || world.taken == expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn losses_change_nothing_with_a_small_ring(steps in prop::collection::vec(ordinary(), 0..150)) {
        run(&steps, 64)?;
    }

    #[test]
    fn a_server_that_forgets_changes_nothing_while_the_ring_covers(
        steps in prop::collection::vec(with_forgetting(), 0..150),
    ) {
        run(&steps, 1 << 20)?;
    }
}
