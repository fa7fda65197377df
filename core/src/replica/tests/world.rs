//! One owner's machine, three keepers with real machines and copies, and what lies between.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use starling_protocol::replica::{EntryKind, ToReplica, View};
use starling_protocol::{DecodeOffset, Epoch, NodeName, Segment, SourceOffset};

use super::owner::{Owner, final_of, session};

use crate::Timestamp;
use crate::replica::{
    Answer, Choice, CopyItem, CutReason, KeeperAction, KeeperConfig, KeeperEvent, KeeperMachine, OpenFailure,
    PromoteAnswer, ReplicationAction, ReplicationConfig, ReplicationEvent, ReplicationMachine, SessionCopy,
    Shape, StreamId, Tries, Wanted, choose,
};

const NODES: usize = 3;
const WINDOW: u16 = 4;

pub(super) fn config(copies: u8) -> ReplicationConfig {
    ReplicationConfig {
        copies,
        patience: Duration::from_secs(2),
        retry: Duration::from_millis(500),
        stalled: Duration::from_secs(1),
        gather: Duration::ZERO,
        piece_frames: 800,
        window: WINDOW,
    }
}

pub(super) fn keeper_config() -> KeeperConfig {
    KeeperConfig { max_bytes: 4 << 20, max_sessions: 64, remember: Duration::from_secs(60) }
}

struct Stream {
    node: usize,
    id: StreamId,
    filling: Option<SessionCopy>,
    to_keeper: VecDeque<ToReplica>,
    to_owner: VecDeque<ReplicationEvent>,
    applied: u64,
}

struct Node {
    up: bool,
    machine: KeeperMachine,
    copy: Option<SessionCopy>,
}

pub(super) struct World {
    now: Timestamp,
    machine: ReplicationMachine,
    owner: Owner,
    nodes: Vec<Node>,
    streams: BTreeMap<Tries, Stream>,
    opening: VecDeque<(Tries, NodeName, Epoch)>,
    next_stream: u64,
    durable: bool,
    told: (u64, u64),
    fenced: bool,
}

fn name(node: usize) -> NodeName {
    NodeName::parse(&format!("n{node}")).expect("a name")
}

pub(super) fn shape_of(copy: &SessionCopy) -> Shape {
    Shape::of(copy, Duration::from_secs(90))
}

impl World {
    pub(super) fn new(config: ReplicationConfig) -> Self {
        let mut out = Vec::new();
        let owner = Owner { epoch: Epoch(1), ..Owner::default() };
        let standing = owner.standing();
        let now = Timestamp::default();
        let machine = ReplicationMachine::new(now, config, Epoch(1), View(0), &standing, &mut out);
        let node = || Node { up: true, machine: KeeperMachine::new(keeper_config()), copy: None };
        let mut world = Self {
            now,
            machine,
            owner,
            nodes: (0..NODES).map(|_| node()).collect(),
            streams: BTreeMap::new(),
            opening: VecDeque::new(),
            next_stream: 0,
            durable: false,
            told: (0, 0),
            fenced: false,
        };
        world.perform(out);
        world
    }

    fn tell(&mut self, event: ReplicationEvent) {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, actions: Vec<ReplicationAction>) {
        for action in actions {
            assert!(!self.fenced, "something after the fence: {action:?}");
            match action {
                ReplicationAction::FindKeepers { excluded, count } => {
                    let able = (0..NODES).filter(|&node| self.nodes[node].up).map(name);
                    let nodes = able.filter(|node| !excluded.contains(node)).take(count).collect();
                    self.tell(ReplicationEvent::KeepersFound { nodes });
                }
                ReplicationAction::Open { tries, node, epoch } => {
                    self.opening.push_back((tries, node, epoch));
                }
                ReplicationAction::Send { tries, item } => self.send(tries, item),
                ReplicationAction::Close { tries } => {
                    self.opening.retain(|(other, ..)| *other != tries);
                    if let Some(stream) = self.streams.remove(&tries) {
                        self.keeper(stream.node, KeeperEvent::Closed { stream: stream.id });
                    }
                }
                ReplicationAction::SetDurable { durable, .. } => self.durable = durable,
                ReplicationAction::ReleaseAck { until } => {
                    self.told.0 = self.told.0.max(until.0);
                    self.check_told();
                }
                ReplicationAction::ReleaseFinals { through } => {
                    assert!(through.0 + 1 > self.told.1, "I2: finals are released once");
                    self.told.1 = through.0 + 1;
                    self.check_told();
                }
                ReplicationAction::Fence { .. } => self.fenced = true,
            }
        }
    }

    /// I4: what a durable session tells is in every copy of its view that is there.
    fn check_told(&self) {
        if !self.durable {
            return;
        }
        let mut copies = 0;
        for node in self.machine.keepers() {
            let index = (0..NODES).find(|&index| name(index) == *node).expect("a node");
            // A keeper that died is not noticed before its stream breaks.
            if let (true, Some(copy)) = (self.nodes[index].up, &self.nodes[index].copy) {
                copies += 1;
                assert!(copy.audio_end().0 >= self.told.0, "I4: acknowledged audio is not in a copy");
                assert!(copy.next_segment().0 >= self.told.1, "I4: a final is not in a copy");
            }
        }
        let dead = self.machine.keepers().count() - copies;
        assert!(copies + dead > 0, "I4: durable without a copy");
    }

    fn send(&mut self, tries: Tries, item: CopyItem) {
        let message = self.owner.message(item);
        let stream = self.streams.get_mut(&tries).expect("a stream that is open");
        if !matches!(item, CopyItem::Over) {
            let outstanding = stream.to_keeper.len() + stream.to_owner.len();
            assert!(outstanding < usize::from(WINDOW) + 1, "I6: more than the window is on its way");
        }
        stream.to_keeper.push_back(message);
    }

    pub(super) fn audio(&mut self, frames: u64) {
        self.owner.audio += frames;
        self.tell(ReplicationEvent::AudioReceived { until: SourceOffset(self.owner.audio) });
    }

    pub(super) fn entry(&mut self, kind: EntryKind) {
        let at = DecodeOffset(self.owner.audio);
        self.owner.entries.push_back((at, kind));
        let until = SourceOffset(self.owner.audio);
        self.tell(ReplicationEvent::Entered { at, kind, until });
    }

    /// Everything up to the first entry, or to the end, becomes a segment.
    pub(super) fn commit(&mut self) {
        let at = self.owner.entries.front().map_or(self.owner.audio, |(at, _)| at.0);
        let segment = self.owner.finals.len() as u64;
        self.owner.finals.push(final_of(segment, self.owner.committed, at));
        self.owner.answered.push(self.owner.entries.pop_front().is_some());
        self.owner.committed = at;
        self.tell(ReplicationEvent::Committed { segment: Segment(segment) });
        self.trim();
    }

    pub(super) fn confirm(&mut self) {
        if self.told.1 > self.owner.confirmed {
            self.owner.confirmed = self.told.1;
            self.tell(ReplicationEvent::Confirmed { through: Segment(self.told.1 - 1) });
        }
    }

    /// Lets go of what neither the session nor a keeper needs.
    fn trim(&mut self) {
        let needed = self.machine.audio_needed_from().map_or(self.owner.committed, |at| at.0);
        self.owner.trimmed = self.owner.trimmed.max(needed.min(self.owner.committed));
    }

    pub(super) fn reconnect(&mut self) {
        self.owner.epoch = self.owner.epoch.next();
        let epoch = self.owner.epoch;
        self.tell(ReplicationEvent::EpochRaised { epoch });
    }

    pub(super) fn open(&mut self, works: bool) {
        let Some((tries, node, epoch)) = self.opening.pop_front() else { return };
        let node = (0..NODES).find(|&index| name(index) == node).expect("a node");
        if !works || !self.nodes[node].up {
            let failure = OpenFailure::Unreachable;
            return self.tell(ReplicationEvent::OpenFailed { tries, failure });
        }
        self.next_stream += 1;
        let id = StreamId(self.next_stream);
        let (to_keeper, to_owner) = (VecDeque::new(), VecDeque::new());
        let stream = Stream { node, id, filling: None, to_keeper, to_owner, applied: 0 };
        self.streams.insert(tries, stream);
        self.keeper(node, KeeperEvent::Opened { stream: id, session: session(), epoch });
        if self.nodes[node].machine.obeys(id) {
            let standing = self.owner.standing();
            self.tell(ReplicationEvent::Opened { tries, standing });
        } else {
            self.streams.remove(&tries);
            self.tell(ReplicationEvent::OpenFailed { tries, failure: OpenFailure::Refused });
        }
    }

    pub(super) fn deliver(&mut self, node: u8) {
        let to_node = |stream: &&mut Stream| stream.node == usize::from(node) && !stream.to_keeper.is_empty();
        let Some(stream) = self.streams.values_mut().find(to_node) else { return };
        let message = stream.to_keeper.pop_front().expect("not empty");
        let (id, node) = (stream.id, stream.node);
        if !self.nodes[node].machine.obeys(id) {
            return;
        }
        let copy = match message {
            ToReplica::Begin(start) => stream.filling.insert(SessionCopy::begin(*start)),
            message => {
                let copy = stream.filling.as_mut().or(self.nodes[node].copy.as_mut()).expect("begun");
                copy.apply(message).expect("fits");
                copy
            }
        };
        let (shape, over) = (shape_of(copy), copy.is_over());
        self.keeper(node, KeeperEvent::Applied { stream: id, shape, over });
    }

    fn keeper(&mut self, node: usize, event: KeeperEvent) {
        let before = self.nodes[node].machine.clone();
        let mut out = Vec::new();
        self.nodes[node].machine.handle(self.now, event, &mut out);
        assert_eq!(self.nodes[node].machine.check(), Ok(()));
        let rank = |machine: &KeeperMachine| machine.held(session()).map(|held| held.epoch);
        assert!(rank(&before) <= rank(&self.nodes[node].machine).or(rank(&before)), "I5: the epoch fell");
        for action in out {
            let stream_of = |id: StreamId, streams: &BTreeMap<Tries, Stream>| {
                streams.iter().find(|(_, stream)| stream.id == id).map(|(tries, _)| *tries)
            };
            match action {
                KeeperAction::Confirm { stream } => {
                    let Some(tries) = stream_of(stream, &self.streams) else { continue };
                    let stream = self.streams.get_mut(&tries).expect("found");
                    stream.applied += 1;
                    let count = stream.applied;
                    stream.to_owner.push_back(ReplicationEvent::Applied { tries, count });
                }
                KeeperAction::Install { stream, .. } => {
                    let tries = stream_of(stream, &self.streams).expect("open");
                    self.nodes[node].copy = self.streams.get_mut(&tries).expect("found").filling.take();
                }
                KeeperAction::DropCopy { .. } => self.nodes[node].copy = None,
                KeeperAction::Cut { stream, reason } => {
                    let Some(tries) = stream_of(stream, &self.streams) else { continue };
                    let failure = match reason {
                        CutReason::Fenced { epoch } => OpenFailure::Fenced { epoch },
                        _ => OpenFailure::Refused,
                    };
                    let stream = self.streams.get_mut(&tries).expect("found");
                    stream.to_owner.push_back(ReplicationEvent::Lost { tries, failure });
                }
                _ => {}
            }
        }
    }

    pub(super) fn answer(&mut self, node: u8) {
        let from_node = |(_, stream): &(&Tries, &mut Stream)| {
            stream.node == usize::from(node) && !stream.to_owner.is_empty()
        };
        let Some((_, stream)) = self.streams.iter_mut().find(from_node) else { return };
        let event = stream.to_owner.pop_front().expect("not empty");
        if let ReplicationEvent::Lost { tries, .. } = event {
            self.streams.remove(&tries);
        }
        self.tell(event);
        self.trim();
    }

    pub(super) fn break_streams(&mut self, node: u8) {
        let on_node = |(_, stream): &(&Tries, &Stream)| stream.node == usize::from(node);
        let broken: Vec<Tries> = self.streams.iter().filter(on_node).map(|(tries, _)| *tries).collect();
        for tries in broken {
            let stream = self.streams.remove(&tries).expect("open");
            self.keeper(stream.node, KeeperEvent::Closed { stream: stream.id });
            self.tell(ReplicationEvent::Lost { tries, failure: OpenFailure::Unreachable });
        }
    }

    pub(super) fn crash(&mut self, node: u8) {
        let index = usize::from(node);
        // One copy may be lost at a time: with more there is nothing to be promised.
        if self.nodes.iter().filter(|node| node.up).count() < NODES {
            return;
        }
        self.nodes[index] = Node { up: false, machine: KeeperMachine::new(keeper_config()), copy: None };
        self.break_streams(node);
    }

    pub(super) fn come_back(&mut self, node: u8) {
        self.nodes[usize::from(node)].up = true;
    }

    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now.plus(time);
        while let Some(at) = self.machine.next_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.tell(ReplicationEvent::TimedOut);
        }
        self.now = until;
    }

    pub(super) fn stand_still(&mut self) {
        self.tell(ReplicationEvent::StoodStill);
    }

    /// Another node asks all keepers to go on, and must find what a durable session told.
    pub(super) fn owner_dies(&mut self) {
        let epoch = self.owner.epoch.next();
        let answers: Vec<Answer> = (0..NODES).map(|node| self.promote(node, epoch)).collect();
        let again = self.promote(0, epoch);
        assert!(!self.nodes[0].up || matches!(again, Answer::Fenced { .. }), "I5: an epoch speaks once");
        if !self.durable {
            return;
        }
        // What the last member had is gone with it, and its owner did not hear of that yet, or is looking for another.
        if self.machine.keepers().next().is_none() {
            return;
        }
        let wanted = Wanted {
            last_final: self.told.1.checked_sub(1).map(Segment),
            final_to: None,
            have_from: SourceOffset(self.told.0),
            by_id: false,
        };
        let choice = choose(&answers, &wanted);
        let Choice::GoOn { index, skip_to: None } = choice else { panic!("I4: {choice:?} of {answers:?}") };
        let copy = self.nodes[index].copy.as_ref().expect("it said so");
        assert!(copy.audio_end().0 >= self.told.0 && copy.next_segment().0 >= self.told.1, "I4");
        let refilled =
            copy.messages().fold(None, |made: Option<SessionCopy>, message| match (made, message) {
                (None, ToReplica::Begin(start)) => Some(SessionCopy::begin(*start)),
                (Some(mut made), message) => made.apply(message).map(|()| made).ok(),
                (None, _) => None,
            });
        assert_eq!(refilled.as_ref(), Some(copy), "a copy that is read is the copy");
    }

    fn promote(&mut self, node: usize, epoch: Epoch) -> Answer {
        if !self.nodes[node].up {
            return Answer::Silent;
        }
        let mut out = Vec::new();
        let event = KeeperEvent::Promote { session: session(), epoch };
        self.nodes[node].machine.handle(self.now, event, &mut out);
        let answer = out.iter().find_map(|action| match action {
            KeeperAction::Answer(answer) => Some(*answer),
            _ => None,
        });
        match answer.expect("each is answered") {
            PromoteAnswer::Promoted(summary) => Answer::Held(summary),
            PromoteAnswer::NotHeld => Answer::NotHeld,
            PromoteAnswer::Fenced { epoch } => Answer::Fenced { epoch },
        }
    }

    /// I7: with nodes that answer, whatever the owner has is told, and the session is durable if copies are wanted.
    pub(super) fn settle(&mut self) {
        (0..NODES as u8).for_each(|node| self.come_back(node));
        for _ in 0..2_000 {
            self.open(true);
            for node in 0..NODES as u8 {
                self.deliver(node);
                self.answer(node);
            }
            let busy = self
                .streams
                .values()
                .any(|stream| !stream.to_keeper.is_empty() || !stream.to_owner.is_empty());
            if !busy && self.opening.is_empty() {
                self.wait(Duration::from_millis(600));
            }
        }
        assert_eq!(self.told, (self.owner.audio, self.owner.finals.len() as u64), "I7: everything is told");
        assert_eq!(self.durable, self.machine.keepers().count() > 0);
        assert_eq!(self.machine.audio_needed_from(), None);
        self.tell(ReplicationEvent::Ended { forget: true });
    }
}
