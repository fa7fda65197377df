//! The machine against a model of a cluster, under losses, takeovers by nodes that are behind, nodes that stop and sessions
//! that are forgotten: every final exactly once, in order, with the content that an undisturbed run would have given; and
//! no gap but where the ring was overrun.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::native::{ErrorCode, Final, Hello};
use starling_protocol::{CutCause, SessionId};

use super::tests::{entropy, settings};
use super::{Action, Entropy, Event, Input, Machine, Server, Which, Write};
use crate::ring::Ring;

mod cluster;

use cluster::{Cluster, Found, Link, NODES, Session, sample, text_of};

#[derive(Debug, Clone, Copy)]
enum Step {
    Audio(u64),
    Finalize,
    /// A little of everything, as it goes when nothing is wrong.
    Calm,
    Write(u8),
    ServerReads(Which, u8),
    ServerWorks(Which),
    Acknowledge(Which),
    ClientReads(Which, u8),
    ConsumerTakes,
    TimePasses,
    /// Whoever is being asked does not answer in time.
    AnswerIsLate,
    /// What the client had written still arrives when the flag is set; what the server had written never does.
    Loss {
        which: Which,
        arrives: bool,
    },
    /// The session's node tells another one how it stands.
    Copy(usize),
    View {
        durable: bool,
    },
    GoAway,
    /// The next resume is refused.
    Refuse(ErrorCode),
    /// The connection is lost, and the next resume finds a copy that is behind.
    Behind {
        copy: usize,
        frames: usize,
    },
    /// A node is gone, with all that it had.
    Crash(usize),
    /// All nodes are.
    Forget,
}

struct World {
    now: Duration,
    machine: Machine,
    ring: Ring,
    ring_frames: u64,
    produced: u64,
    marks: VecDeque<usize>,
    cluster: Cluster,
    links: HashMap<Which, Link>,
    found: Found,
    fresh: u128,
    untaken: VecDeque<Event>,
    taken: Vec<Event>,
    reconnects: usize,
    done: Option<(u64, u64)>,
    failed: Option<String>,
    epochs: HashMap<SessionId, u64>,
    finals_seen: u64,
    /// How often since which final.
    harmed: (u64, u32),
}

impl World {
    fn new(ring_frames: u64) -> Self {
        let mut settings = settings(NODES - 1);
        settings.ring_frames = ring_frames;
        settings.wait_when_busy = true;
        settings.give_up = Duration::from_secs(1_000_000);
        settings.open_deadline = Duration::from_secs(1_000_000);
        let mut hello = Hello::new(SessionId(uuid::Uuid::from_u128(1)));
        // So few that the machine reckons with no resampler, as there is none here.
        hello.format.sample_rate = 50;
        let mut world = Self {
            now: Duration::ZERO,
            machine: Machine::new(settings, hello),
            ring: Ring::default(),
            ring_frames,
            produced: 0,
            marks: VecDeque::new(),
            cluster: Cluster::default(),
            links: HashMap::new(),
            found: Found::Best,
            fresh: 1,
            untaken: VecDeque::new(),
            taken: Vec::new(),
            reconnects: 0,
            done: None,
            failed: None,
            epochs: HashMap::new(),
            finals_seen: 0,
            harmed: (0, 0),
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
        assert!(self.machine.written - self.machine.start <= self.ring_frames, "the ring grows");
        for action in out {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { server, hello } => {
                self.links.clear();
                self.connect(Which::Present, &server, *hello);
            }
            Action::ConnectNext { server, hello } => self.connect(Which::Next, &server, *hello),
            Action::DropNext => drop(self.links.remove(&Which::Next)),
            Action::Switch => {
                self.links.remove(&Which::Present);
                if let Some(next) = self.links.remove(&Which::Next) {
                    self.links.insert(Which::Present, next);
                }
            }
            Action::Disconnect | Action::Farewell(_) => self.links.clear(),
            Action::Deliver(event) => self.deliver(event),
            Action::Failed(error) => self.failed = Some(error.to_string()),
            Action::OpenFailed(error) => self.failed = Some(error.to_string()),
            Action::Complaint(body) => panic!("the server complained: {body:?}"),
            Action::HintsIgnored { .. } => panic!("all are addresses"),
            Action::Ping => self.input(Input::Heard(Which::Present)),
            Action::Opened(_) => {}
        }
    }

    fn connect(&mut self, which: Which, server: &Server, hello: Hello) {
        match (hello.session, &hello.resume) {
            (Some(session), Some(resume)) => {
                let used = self.epochs.insert(session, resume.epoch.0).unwrap_or(0);
                assert!(resume.epoch.0 > used, "epoch {} was used", resume.epoch);
            }
            (Some(session), None) => {
                assert!(matches!(server, Server::Configured(_)), "a new session at {server:?}");
                let epoch = hello.epoch.map_or(1, |epoch| epoch.0);
                let used = self.epochs.insert(session, epoch).unwrap_or(0);
                assert!(epoch > used, "epoch {epoch} was used");
            }
            (None, _) => unreachable!("the client makes an id"),
        }
        self.links.insert(which, Link::to(server, hello));
    }

    fn deliver(&mut self, event: Event) {
        match event {
            Event::Final(_) => {
                self.finals_seen += 1;
                self.untaken.push_back(event);
            }
            Event::Gap { from, to } => {
                assert!(from < to && to.0 + self.ring_frames <= self.produced, "the ring held it");
                self.untaken.push_back(event);
            }
            Event::Done { segments, frames } => self.done = Some((segments, frames.0)),
            Event::Reconnected { .. } => self.reconnects += 1,
            Event::Partial { .. } | Event::Warning { .. } | Event::Durable(_) => {}
        }
    }

    /// Takes the link out, so that the cluster can have it beside the other one.
    fn with_link(&mut self, which: Which, work: impl FnOnce(&mut Self, &mut Link)) {
        if let Some(mut link) = self.links.remove(&which) {
            work(self, &mut link);
            self.links.insert(which, link);
        }
    }

    fn server_reads(&mut self, which: Which) {
        self.with_link(which, |world, link| {
            let opens = matches!(link.to_server.front(), Some(Err(_)));
            let found = if opens { std::mem::replace(&mut world.found, Found::Best) } else { Found::Best };
            world.cluster.read(link, world.links.values_mut().next(), found);
        });
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
            Step::Calm => {
                self.step(Step::TimePasses);
                self.step(Step::Write(3));
                for which in [Which::Present, Which::Next] {
                    self.step(Step::ServerReads(which, 3));
                    self.step(Step::Acknowledge(which));
                    self.step(Step::ClientReads(which, 3));
                }
            }
            Step::Write(times) => (0..times).for_each(|_| self.write()),
            Step::ServerReads(which, times) => (0..times).for_each(|_| self.server_reads(which)),
            Step::ServerWorks(which) => self.with_link(which, |world, link| world.cluster.work(link)),
            Step::Acknowledge(which) => self.with_link(which, |world, link| world.cluster.acknowledge(link)),
            Step::ClientReads(which, times) => (0..times).for_each(|_| self.client_reads(which)),
            Step::ConsumerTakes => {
                if let Some(event) = self.untaken.pop_front() {
                    if let Event::Final(last) = &event {
                        self.input(Input::Delivered(last.segment));
                    }
                    self.taken.push(event);
                }
            }
            Step::TimePasses if self.machine.attempt().is_some() => {}
            Step::TimePasses | Step::AnswerIsLate => {
                if let Some(at) = self.machine.next_timeout() {
                    self.now = self.now.max(at);
                    self.input(Input::Tick);
                }
            }
            Step::Loss { which, arrives } => {
                while arrives && self.links.get(&which).is_some_and(|link| !link.to_server.is_empty()) {
                    self.server_reads(which);
                }
                self.lose(which);
            }
            Step::Copy(node) => {
                self.with_link(Which::Present, |world, link| world.cluster.copy_to(node, link));
            }
            Step::View { durable } => {
                self.with_link(Which::Present, |world, link| world.cluster.view(link, durable));
            }
            Step::GoAway => self.with_link(Which::Present, |world, link| world.cluster.go_away(link)),
            Step::Refuse(code)
                if matches!(code, ErrorCode::Busy | ErrorCode::OverQuota) || self.may_harm() =>
            {
                self.cluster.refuses = Some(code);
            }
            Step::Behind { copy, frames } if self.may_harm() => {
                self.found = Found::Behind { copy, frames };
                self.lose(Which::Present);
            }
            Step::Crash(node) if !self.cluster.holds(node) || self.may_harm() => {
                self.cluster.crash(node);
                // The next one first: when the present one is lost it takes its place.
                for which in [Which::Next, Which::Present] {
                    if self.links.get(&which).is_some_and(|link| link.node() == node) {
                        self.lose(which);
                    }
                }
            }
            Step::Forget if self.may_harm() => {
                self.cluster.forget();
                self.lose(Which::Next);
                self.lose(Which::Present);
            }
            Step::Refuse(_) | Step::Behind { .. } | Step::Crash(_) | Step::Forget => {}
        }
    }

    /// Not for ever without a final: a cluster that forgets again and again is another test's.
    fn may_harm(&mut self) -> bool {
        let (finals, times) = self.harmed;
        let times = if finals == self.finals_seen { times + 1 } else { 1 };
        self.harmed = (self.finals_seen, times);
        times <= 3
    }

    fn client_reads(&mut self, which: Which) {
        let message = self.links.get_mut(&which).and_then(|link| link.to_client.pop_front());
        if let Some(message) = message {
            self.input(Input::Message(which, Box::new(message)));
        }
    }

    fn lose(&mut self, which: Which) {
        if self.links.remove(&which).is_some() {
            self.input(Input::Lost(which, "cut".into()));
        }
    }

    fn write(&mut self) {
        let Some(write) = self.machine.next_write() else {
            return;
        };
        let link = self.links.get_mut(&Which::Present).expect("only a live connection is written to");
        if let Write::Audio(frames) = &write {
            let bytes = self.ring.read(frames.clone()).expect("the ring holds what is to be sent");
            link.audio_in_flight.push_back(bytes);
        }
        link.to_server.push_back(Ok(write));
    }

    /// Ends the audio and goes on without faults until it is over.
    fn settle(&mut self) {
        self.found = Found::Best;
        self.cluster.refuses = None;
        self.input(Input::End);
        for _ in 0..10_000 {
            for step in [Step::Calm, Step::ServerWorks(Which::Present), Step::ConsumerTakes] {
                self.step(step);
            }
            if self.done.is_some() || self.failed.is_some() {
                break;
            }
        }
        self.taken.extend(self.untaken.drain(..));
    }

    /// Finals and gaps adjoin and cover everything; each final is there once, in order, with the text of its audio.
    fn check(&self) -> Result<Run, TestCaseError> {
        prop_assert_eq!(&self.failed, &None);
        let (mut finals, mut gaps, mut until) = (Vec::new(), Vec::new(), 0);
        for event in &self.taken {
            match event {
                Event::Final(last) => {
                    prop_assert_eq!((last.segment.0, last.from.0), (finals.len() as u64, until));
                    until = last.to.0;
                    let audio: Vec<u16> = (last.from.0..until).map(sample).collect();
                    prop_assert_eq!(&last.text, &text_of(&audio));
                    finals.push(last.clone());
                }
                Event::Gap { from, to } => {
                    prop_assert_eq!(from.0, until);
                    until = to.0;
                    gaps.push(from.0..until);
                }
                other => prop_assert!(false, "taken: {:?}", other),
            }
        }
        prop_assert_eq!(until, self.produced);
        prop_assert_eq!(self.done, Some((finals.len() as u64, self.produced)));
        let in_a_gap = |mark: usize| gaps.iter().any(|gap| gap.contains(&(mark as u64)));
        let asked = self.marks.iter().filter(|&&mark| !in_a_gap(mark)).count();
        let answered = finals.iter().filter(|last| last.cause == CutCause::Finalize).count();
        prop_assert!(answered >= asked, "a request went unanswered");
        let expected = Session::undisturbed(self.produced, self.marks.clone());
        Ok(Run { finals, expected, gaps: gaps.len(), reconnects: self.reconnects })
    }
}

struct Run {
    finals: Vec<Final>,
    /// What an undisturbed run gives.
    expected: Vec<Final>,
    gaps: usize,
    reconnects: usize,
}

/// What is in a run's finals. Empty ones are left out: a finalize that was asked twice, because nobody knows whether the
/// first was heard, gives one more.
fn spoken(finals: &[Final]) -> Vec<(u64, u64, &str)> {
    let spoken = finals.iter().filter(|last| last.from < last.to);
    spoken.map(|last| (last.from.0, last.to.0, last.text.as_str())).collect()
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![3 => Just(Which::Present), 1 => Just(Which::Next)]
}

fn undisturbed() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u64..40).prop_map(Step::Audio),
        1 => Just(Step::Finalize),
        6 => Just(Step::Calm),
        4 => (1u8..5).prop_map(Step::Write),
        4 => (which(), 1u8..5).prop_map(|(which, times)| Step::ServerReads(which, times)),
        3 => which().prop_map(Step::ServerWorks),
        4 => which().prop_map(Step::Acknowledge),
        4 => (which(), 1u8..5).prop_map(|(which, times)| Step::ClientReads(which, times)),
        3 => Just(Step::ConsumerTakes),
        2 => Just(Step::TimePasses),
        2 => (0..NODES).prop_map(Step::Copy),
        2 => any::<bool>().prop_map(|durable| Step::View { durable }),
    ]
}

fn with_stops() -> impl Strategy<Value = Step> {
    prop_oneof![12 => undisturbed(), 1 => Just(Step::GoAway)]
}

fn with_losses() -> impl Strategy<Value = Step> {
    prop_oneof![
        24 => with_stops(),
        1 => Just(Step::AnswerIsLate),
        2 => (which(), any::<bool>()).prop_map(|(which, arrives)| Step::Loss { which, arrives }),
        1 => Just(Step::Refuse(ErrorCode::Busy)),
        1 => Just(Step::Refuse(ErrorCode::OverQuota)),
    ]
}

fn with_harm() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => with_losses(),
        5 => (0..NODES, 0usize..30).prop_map(|(copy, frames)| Step::Behind { copy, frames }),
        1 => (0..NODES).prop_map(Step::Crash),
        1 => Just(Step::Forget),
        1 => Just(Step::Refuse(ErrorCode::UnknownSession)),
    ]
}

fn run(steps: &[Step], ring_frames: u64) -> Result<Run, TestCaseError> {
    let mut world = World::new(ring_frames);
    for &step in steps {
        world.step(step);
    }
    world.settle();
    world.check()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn without_faults_a_run_is_like_any_other(steps in prop::collection::vec(undisturbed(), 0..300)) {
        let run = run(&steps, 64)?;
        prop_assert_eq!(run.finals, run.expected);
    }

    #[test]
    fn nodes_that_stop_are_left_without_a_loss(steps in prop::collection::vec(with_stops(), 0..300)) {
        let run = run(&steps, 64)?;
        prop_assert_eq!((run.gaps, run.reconnects), (0, 0));
        prop_assert_eq!(spoken(&run.finals), spoken(&run.expected));
    }

    #[test]
    fn losses_change_nothing_with_a_small_ring(steps in prop::collection::vec(with_losses(), 0..300)) {
        let run = run(&steps, 64)?;
        prop_assert_eq!(run.gaps, 0);
        prop_assert_eq!(spoken(&run.finals), spoken(&run.expected));
    }

    #[test]
    fn servers_that_forget_change_nothing_while_the_ring_covers(
        steps in prop::collection::vec(with_harm(), 0..300),
    ) {
        let run = run(&steps, 1 << 20)?;
        prop_assert_eq!(run.gaps, 0);
        prop_assert_eq!(spoken(&run.finals), spoken(&run.expected));
    }

    #[test]
    fn what_a_small_ring_can_not_cover_is_named(steps in prop::collection::vec(with_harm(), 0..300)) {
        run(&steps, 64)?;
    }
}
