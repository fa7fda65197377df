//! What nodes told, in the order of time, and whether it is right.
//!
//! Owns: the log, what each run believes by its own words, and the rules. The first word of a violation names its rule:
//!
//! - `alarm`: a run that lives and is reached was told as gone.
//! - `late`: a run that is gone was still told as there.
//! - `old`: an earlier run of a node was believed after a later one.
//! - `taken`: a datagram was taken that was sent by nobody, or was heard before; or a fresh one was not.
//! - `unanswered`: a question had no answer though nothing was in its way; `hangs`: it did not come to an end.
//! - `apart`: long after the last fault, nodes that live don't all know each other, their loads, or how to ask each other.
//! - `left`: something was left behind.
//! - `broken`: what can never be.

mod datagrams;
mod rules;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_actors::control::PeerChange;
use starling_actors::{ClusterChange, ClusterView, packet_key};
use starling_protocol::gossip::packet::PacketKey;
use starling_protocol::{Generation, NodeId, NodeName};

use self::datagrams::{Datagrams, header_of, opened};
use super::node::{ANSWER, SECRET, change_in_words};
pub use super::truth::RunId;
use super::truth::{Truth, Way};

/// Longer than its deadline a question may take by this, since time moves in ticks.
const GRACE: Duration = Duration::from_millis(100);

/// Tasks of a run without peers, for each link, and for each actor that peers may ask, of which a node has three: what was
/// counted, and a few for what is just going on.
const TASKS: usize = 16;
const TASKS_FOR_A_LINK: usize = 6;
const ACTORS_TO_ASK: usize = 3;

/// Tasks that may be left of a run that has left in order. One often is, and which it is has not been found.
const TASKS_LEFT: usize = 1;

/// See the module.
#[derive(Clone)]
pub struct Oracle(Arc<Mutex<Inner>>);

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// What only the run that was asked would say.
    Right,
    /// Something else.
    Wrong,
    /// None in time.
    Timeout,
    /// The link was lost.
    Lost,
    /// There was no link to ask by.
    NotAsked,
    /// It was not sent.
    Refused,
}

struct Inner {
    echo: bool,
    hash: DefaultHasher,
    now: Duration,
    key: PacketKey,
    nodes: usize,
    truth: Truth,
    told: Vec<Told>,
    violations: Vec<String>,
}

/// What one run told.
#[derive(Default)]
struct Told {
    /// Peers that it can ask, and since when.
    links: BTreeMap<NodeName, (NodeId, Duration)>,
    /// Members, since when, and what it knows of their loads.
    members: BTreeMap<NodeName, (NodeId, Duration, Option<u64>)>,
    /// The latest run that it told of each node.
    latest: BTreeMap<NodeName, Generation>,
    said: u64,
    asked: BTreeMap<u64, Asked>,
    questions: u64,
    datagrams: Datagrams,
    open: usize,
    tasks: usize,
    superseded: bool,
}

struct Asked {
    peer: NodeId,
    at: Duration,
    is_silent: bool,
}

impl Oracle {
    /// One that judges so many nodes.
    #[must_use]
    pub fn new(nodes: usize, echo: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            echo,
            hash: DefaultHasher::new(),
            now: Duration::ZERO,
            key: packet_key(SECRET),
            nodes,
            truth: Truth::default(),
            told: Vec::new(),
            violations: Vec::new(),
        })))
    }

    /// Something is done, or nothing in particular: the time.
    pub fn at(&self, now: Duration) {
        self.lock().now = now;
    }

    /// Writes a line.
    pub fn log(&self, line: &str) {
        self.lock().log(line);
    }

    /// A number that stands for the whole log.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash.finish()
    }

    /// What did not hold.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// What was done.
    pub fn with_truth<R>(&self, done: impl FnOnce(&mut Truth, Duration) -> R) -> R {
        let mut inner = self.lock();
        let now = inner.now;
        done(&mut inner.truth, now)
    }

    /// Something does not pass from now on, or does again.
    pub fn disturbed(&self, way: Way, begins: bool) {
        self.with_truth(|truth, now| truth.disturbed(way, now, begins));
    }

    pub(super) fn began(&self, id: &NodeId, host: usize, is_ghost: bool) -> RunId {
        let mut inner = self.lock();
        let now = inner.now;
        inner.told.push(Told::default());
        inner.log(&format!("{id} begins{}", if is_ghost { ", of which all had heard the last" } else { "" }));
        inner.truth.began(id.clone(), host, is_ghost, now)
    }

    pub(super) fn changed(&self, run: RunId, change: &ClusterChange) {
        let mut inner = self.lock();
        if let Some(said) = change_in_words(change) {
            inner.say(run, &said);
        }
        match change {
            ClusterChange::Joined(id) => inner.believes(run, id),
            ClusterChange::Down(id) => inner.gives_up_member(run, id),
            ClusterChange::DeclaredDown => inner.was_given_up(run),
            _ => {}
        }
    }

    pub(super) fn sees(&self, run: RunId, view: &ClusterView) {
        let mut inner = self.lock();
        let now = inner.now;
        let told = &mut inner.told[run];
        let before = std::mem::take(&mut told.members);
        for member in view.active().filter(|member| member.id != view.me) {
            let known = before.get(&member.id.name).filter(|(id, ..)| *id == member.id);
            let since = known.map_or(now, |(_, since, _)| *since);
            let load = member.load.as_ref().map(|load| load.replica_bytes_free);
            told.members.insert(member.id.name.clone(), (member.id.clone(), since, load));
        }
    }

    pub(super) fn peer(&self, run: RunId, change: &PeerChange) {
        let mut inner = self.lock();
        let now = inner.now;
        match change {
            PeerChange::Up(id) => {
                inner.say(run, &format!("{id} is up"));
                inner.believes(run, id);
                if let Some((before, _)) = inner.told[run].links.insert(id.name.clone(), (id.clone(), now)) {
                    inner.wrong(run, &format!("broken: {id} is up while {before} is"));
                }
            }
            PeerChange::Lost { peer, cause } => {
                inner.say(run, &format!("{peer} is lost: {cause:?}"));
                let known = inner.told[run].links.remove(&peer.name);
                if known.is_none_or(|(id, _)| id != *peer) {
                    inner.wrong(run, &format!("broken: {peer} is lost, which was not up"));
                }
                inner.loses_peer(run, peer);
            }
            PeerChange::Suspected(id) => inner.say(run, &format!("{id} is silent")),
            PeerChange::Cleared(id) => inner.say(run, &format!("{id} answers again")),
        }
    }

    pub(super) fn said(&self, run: RunId, number: u64) {
        self.lock().told[run].said = number;
    }

    pub(super) fn asks(&self, run: RunId, peer: &NodeId, is_silent: bool) -> u64 {
        let mut inner = self.lock();
        let at = inner.now;
        let told = &mut inner.told[run];
        told.questions += 1;
        told.asked.insert(told.questions, Asked { peer: peer.clone(), at, is_silent });
        told.questions
    }

    pub(super) fn answered(&self, run: RunId, question: u64, answer: Answer) {
        let mut inner = self.lock();
        let Some(asked) = inner.told[run].asked.remove(&question) else { return };
        let took = inner.now.saturating_sub(asked.at);
        let Asked { peer, is_silent, .. } = &asked;
        if answer != Answer::Right && !(*is_silent && answer == Answer::Timeout) {
            inner.say(run, &format!("a question to {peer}: {answer:?} after {} ms", took.as_millis()));
        }
        if took > ANSWER + GRACE {
            inner.wrong(run, &format!("hangs: a question to {peer} for {took:?}"));
        }
        let is_explained = inner.is_explained(run, peer, asked.at);
        let wrong = match answer {
            Answer::Wrong => true,
            Answer::Right => *is_silent,
            Answer::NotAsked => false,
            Answer::Refused => true,
            Answer::Timeout => !is_silent && !is_explained,
            Answer::Lost => !is_explained,
        };
        if wrong {
            inner.wrong(run, &format!("unanswered: a question to {peer}: {answer:?}"));
        }
    }

    pub(super) fn refused(&self, run: RunId, reason: &str) {
        let mut inner = self.lock();
        inner.told[run].datagrams.refused += 1;
        // Most are not worth a line each; they are counted.
        inner.hash.write(reason.as_bytes());
    }

    /// A datagram arrived at a run's socket.
    pub(super) fn arrived(&self, run: RunId, bytes: &[u8], is_nodes: bool) {
        let mut inner = self.lock();
        // What a node sent was sealed by it: no need to try.
        let header = if is_nodes { header_of(bytes) } else { opened(&inner.key, bytes) };
        let own = inner.truth.run(run).id.clone();
        inner.told[run].datagrams.arrived(&own, header);
    }

    pub(super) fn superseded(&self, run: RunId, by: Generation) {
        let mut inner = self.lock();
        inner.say(run, &format!("ends, since #{by} has its name"));
        inner.told[run].superseded = true;
        let now = inner.now;
        let own = inner.truth.run(run).id.clone();
        if !inner.truth.has_later(&own.name, own.generation) {
            inner.wrong(run, "alarm: told that a later run has its name");
        }
        inner.truth.ending(run, now);
    }

    pub(super) fn counted(&self, run: RunId, tasks: usize, open: usize) {
        let told = &mut self.lock().told[run];
        (told.tasks, told.open) = (tasks, open);
    }

    pub(super) fn left(&self, run: RunId, tasks: usize, open: usize) {
        let mut inner = self.lock();
        inner.say(run, &format!("is over, with {tasks} tasks and {open} connections left"));
        if open > 0 || tasks > TASKS_LEFT {
            inner.wrong(run, &format!("left: {tasks} tasks and {open} connections"));
        }
        let now = inner.now;
        inner.truth.gone(run, now);
    }

    pub(super) fn ended(&self, run: RunId, what: &str) {
        self.lock().wrong(run, &format!("broken: {what} has ended"));
    }

    pub(super) fn broken(&self, run: RunId, what: &str) {
        self.lock().wrong(run, &format!("broken: {what}"));
    }

    /// Looks for what should have been told by now.
    pub fn look(&self) {
        let mut inner = self.lock();
        inner.look_for_the_gone();
        inner.look_for_hanging_questions();
        inner.look_for_ghosts();
    }

    /// What keeps the nodes that live from being one cluster, if anything does.
    #[must_use]
    pub fn apart(&self) -> Vec<String> {
        self.lock().apart()
    }

    /// Long after the last fault: all must be one cluster, and nobody hold more than that takes.
    pub fn judge_the_whole(&self) {
        let mut inner = self.lock();
        for problem in inner.apart() {
            inner.violate(&format!("apart: {problem}"));
        }
        let living: Vec<RunId> = inner.truth.living().map(|(run, _)| run).collect();
        let peers = living.len().saturating_sub(1);
        // All runs are one process here, so that each link knows of all their actors, and of those of runs that were killed.
        let announced = ACTORS_TO_ASK * inner.truth.not_left().count();
        for run in living {
            let Told { tasks, open, ref datagrams, .. } = inner.told[run];
            let problem = datagrams.problem();
            let most = TASKS + peers * (TASKS_FOR_A_LINK + announced);
            if open != peers || tasks > most {
                inner.wrong(
                    run,
                    &format!("left: {tasks} tasks of {most} and {open} connections with {peers} peers"),
                );
            }
            if let Some(problem) = problem {
                inner.wrong(run, &problem);
            }
        }
    }

    /// All were told to leave long ago.
    pub fn judge_the_end(&self) {
        let mut inner = self.lock();
        let staying: Vec<NodeId> = inner.truth.living().map(|(_, run)| run.id.clone()).collect();
        for id in staying {
            inner.violate(&format!("left: {id} does not end"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Within a host, which runs through a tick after the other.
        if let Some(now) = turmoil::sim_elapsed() {
            inner.now = now;
        }
        inner
    }
}

impl Inner {
    fn log(&mut self, line: &str) {
        let mut text = String::new();
        let _ = write!(text, "{:>7} {line}", self.now.as_millis());
        self.hash.write(text.as_bytes());
        self.hash.write_u8(b'\n');
        if self.echo {
            println!("{text}");
        }
    }

    fn say(&mut self, run: RunId, what: &str) {
        let id = self.truth.run(run).id.clone();
        self.log(&format!("{id}: {what}"));
    }

    fn violate(&mut self, what: &str) {
        let said = format!("{what} (at {} ms)", self.now.as_millis());
        self.log(&format!("violation {said}"));
        self.violations.push(said);
    }

    /// What is told by an earlier run of a node that woke up is its own affair.
    fn wrong(&mut self, run: RunId, what: &str) {
        let teller = self.truth.run(run);
        if teller.is_ghost {
            return;
        }
        let id = teller.id.clone();
        let (rule, rest) = what.split_once(": ").unwrap_or(("broken", what));
        self.violate(&format!("{rule}: {id}: {rest}"));
    }

    /// A run says that another one is there.
    fn believes(&mut self, run: RunId, id: &NodeId) {
        let latest = self.told[run].latest.entry(id.name.clone()).or_insert(id.generation);
        let known = *latest;
        *latest = known.max(id.generation);
        if known > id.generation {
            self.wrong(run, &format!("old: {id} is believed, and #{known} was before"));
        }
        if self.truth.find(id).is_none() {
            self.wrong(run, &format!("broken: {id} is told, which there never was"));
        }
    }
}
