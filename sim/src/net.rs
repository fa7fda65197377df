//! The network between nodes and clients: byte streams that take time, ways that are cut, links that count as lost.
//!
//! Owns: what is on its way, and who can hear whom. Must never: lose or reorder bytes of a stream that is not broken, as TCP
//! and QUIC don't; what a cut holds up arrives when it is mended, unless the link was given up before.
//!
//! Time moves in the world's ticks alone: [`Net::step`] moves bytes and wakes who waits for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_core::peer_watch::SILENCE;
use tokio::sync::mpsc;

use crate::gossip::Record;
use crate::lines::{LineReader, LineWriter, Lines};
use crate::pipe::{Pipe, PipeReader, PipeWriter};
use crate::rng::Rng;

/// A node or a client, by number: nodes come first.
pub type HostId = usize;

/// How soon a link that was lost is there again once both can hear each other.
const REDIAL: Duration = Duration::from_millis(100);

/// How often what can't be delivered is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Where a stream leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// The data plane.
    Data,
    /// The control plane: one question, one answer.
    Control,
    /// Clients that come back.
    Native,
    /// Clients that can't.
    Thin,
}

/// A stream that somebody has opened.
pub struct Incoming {
    /// Who.
    pub from: HostId,
    /// What it says.
    pub reader: PipeReader,
    /// What it is told.
    pub writer: PipeWriter,
}

/// See the module.
#[derive(Clone)]
pub struct Net(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) now: Duration,
    rng: Rng,
    nodes: usize,
    hosts: Vec<Host>,
    ways: BTreeMap<(HostId, HostId), Way>,
    pub(crate) pipes: BTreeMap<u64, Pipe>,
    last_name: u64,
    events: BTreeMap<(Duration, u64), Event>,
    listeners: BTreeMap<(HostId, Port), mpsc::UnboundedSender<Incoming>>,
    records: BTreeMap<(HostId, HostId), (Duration, Record)>,
}

#[derive(Debug, Clone, Copy)]
struct Host {
    up: bool,
    paused: bool,
    /// It went without a word: nobody is told that its streams are gone.
    silent: bool,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    base: Duration,
    cuts: u32,
    slower: Duration,
    /// When the far end heard the near one last.
    heard: Duration,
    /// Since when it hears it without a break.
    since: Duration,
    /// The link between two nodes is given up.
    lost: bool,
}

enum Event {
    Accept(HostId, Port, Incoming, u64),
    Gossip(HostId, HostId, Record),
}

impl Net {
    /// Ways between so many nodes and clients. All nodes are down.
    #[must_use]
    pub fn new(nodes: usize, clients: usize, mut rng: Rng) -> Self {
        let all = nodes + clients;
        let mut ways = BTreeMap::new();
        for (from, to) in (0..all).flat_map(|from| (0..all).map(move |to| (from, to))) {
            let base = Duration::from_micros(rng.between(500, 6_000));
            let (heard, since) = (Duration::ZERO, Duration::ZERO);
            ways.insert((from, to), Way { base, cuts: 0, slower: Duration::ZERO, heard, since, lost: false });
        }
        let host = |index| Host { up: index >= nodes, paused: false, silent: false };
        Self(Arc::new(Mutex::new(State {
            now: Duration::ZERO,
            rng,
            nodes,
            hosts: (0..all).map(host).collect(),
            ways,
            pipes: BTreeMap::new(),
            last_name: 0,
            events: BTreeMap::new(),
            listeners: BTreeMap::new(),
            records: BTreeMap::new(),
        })))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.lock().now
    }

    /// A client's place.
    #[must_use]
    pub fn host_of(&self, client: usize) -> HostId {
        self.lock().nodes + client
    }

    /// Streams to this port of a host come out here.
    #[must_use]
    pub fn listen(&self, host: HostId, port: Port) -> mpsc::UnboundedReceiver<Incoming> {
        let (sender, receiver) = mpsc::unbounded_channel();
        // What was there before is dropped after the lock is free: it may hold streams.
        let _before = self.lock().listeners.insert((host, port), sender);
        receiver
    }

    /// Opens a stream. It is there at once, as on a connection that stands; that nobody takes it shows later. `None` when the
    /// link between two nodes is lost.
    #[must_use]
    pub fn open(&self, from: HostId, to: HostId, port: Port) -> Option<(PipeReader, PipeWriter)> {
        let mut state = self.lock();
        if state.way(from, to).lost || state.way(to, from).lost {
            return None;
        }
        let (there, back) = (state.name(), state.name());
        let now = state.now;
        state.pipes.insert(there, Pipe::new(from, to));
        state.pipes.insert(back, Pipe::new(to, from));
        let incoming =
            Incoming { from, reader: PipeReader::new(self, there), writer: PipeWriter::new(self, back) };
        let at = now + state.latency(from, to);
        state.schedule(at, Event::Accept(to, port, incoming, there));
        Some((PipeReader::new(self, back), PipeWriter::new(self, there)))
    }

    /// Tells another node how this one is.
    pub fn tell(&self, from: HostId, to: HostId, record: Record) {
        let mut state = self.lock();
        let at = state.now + state.latency(from, to);
        state.schedule(at, Event::Gossip(from, to, record));
    }

    /// What a node has heard of the others within `fresh`.
    #[must_use]
    pub fn heard_of(&self, by: HostId, fresh: Duration) -> Vec<(HostId, Record)> {
        let state = self.lock();
        let there = |from: HostId| !state.way(from, by).lost && !state.way(by, from).lost;
        let known = state.records.iter().filter(|((to, from), (at, _))| {
            *to == by && there(*from) && state.now.saturating_sub(*at) <= fresh
        });
        known.map(|((_, from), (_, record))| (*from, record.clone())).collect()
    }

    /// A host is there again.
    pub fn rise(&self, host: HostId) {
        self.reset_streams_of(host);
        let mut state = self.lock();
        state.hosts[host] = Host { up: true, paused: false, silent: false };
    }

    /// A host is gone. `silent`: nobody is told.
    pub fn fall(&self, host: HostId, silent: bool) {
        let gone = {
            let mut state = self.lock();
            state.hosts[host] = Host { up: false, paused: false, silent };
            state.pipes.values_mut().filter(|pipe| pipe.ends().0 == host).for_each(Pipe::die);
            let ports = [Port::Data, Port::Control, Port::Native, Port::Thin];
            ports.map(|port| state.listeners.remove(&(host, port)))
        };
        drop(gone);
        if !silent {
            self.reset_streams_of(host);
        }
    }

    fn reset_streams_of(&self, host: HostId) {
        let mut state = self.lock();
        let now = state.now;
        let names: Vec<u64> = state.pipes.keys().copied().collect();
        for name in names {
            let Some((from, to)) = state.pipes.get(&name).map(Pipe::ends) else { continue };
            if from == host || to == host {
                let other = if from == host { to } else { from };
                let at = now + state.latency(host, other);
                if let Some(pipe) = state.pipes.get_mut(&name) {
                    pipe.reset_at(at);
                }
            }
        }
    }

    /// A host stands still, or goes on. What it has heard of others does not age meanwhile.
    pub fn pause(&self, host: HostId, paused: bool) {
        let mut state = self.lock();
        state.hosts[host].paused = paused;
        let now = state.now;
        if !paused {
            state.records.iter_mut().filter(|((to, _), _)| *to == host).for_each(|(_, (at, _))| *at = now);
        }
    }

    /// Nothing passes from one to the other, or it does again.
    pub fn cut(&self, from: HostId, to: HostId, cut: bool) {
        let mut state = self.lock();
        let way = state.way_mut(from, to);
        way.cuts = if cut { way.cuts + 1 } else { way.cuts.saturating_sub(1) };
    }

    /// What passes takes so much longer from now on.
    pub fn slow(&self, from: HostId, to: HostId, by: Duration) {
        self.lock().way_mut(from, to).slower = by;
    }

    /// Moves everything to `now`.
    pub fn step(&self, now: Duration) {
        let mut wakers = Vec::new();
        let mut gone = Vec::new();
        let mut accepted = Vec::new();
        {
            let mut state = self.lock();
            state.now = now;
            state.watch_links(&mut wakers);
            state.deliver(&mut accepted, &mut gone);
            state.move_pipes(&mut wakers);
        }
        for (listener, incoming) in accepted {
            // A host that listens no more drops the stream, and with it breaks it.
            let _ = listener.send(incoming);
        }
        drop(gone);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Where clients reach a node.
#[must_use]
pub fn address_of(node: HostId) -> String {
    format!("n{node}:1")
}

impl Lines for Net {
    fn dial(
        &self,
        client: HostId,
        node: HostId,
        port: Port,
    ) -> BoxFuture<'static, Option<(LineReader, LineWriter)>> {
        // Between clients and nodes nothing but the stream itself is ever lost.
        let opened = self.open(client, node, port);
        let boxed = |(reader, writer)| (Box::new(reader) as LineReader, Box::new(writer) as LineWriter);
        std::future::ready(opened.map(boxed)).boxed()
    }

    fn run_of(&self, _: HostId) -> u64 {
        // Streams to an earlier run are broken when the next one begins.
        0
    }

    fn answers(&self, client: HostId, node: HostId, _: u64) -> bool {
        let state = self.lock();
        let is_up = state.hosts[node].up && !state.hosts[node].paused;
        is_up && state.is_open(client, node) && state.is_open(node, client)
    }

    fn address_of(&self, node: HostId) -> String {
        address_of(node)
    }
}

impl State {
    fn name(&mut self) -> u64 {
        self.last_name += 1;
        self.last_name
    }

    fn way(&self, from: HostId, to: HostId) -> &Way {
        &self.ways[&(from, to)]
    }

    fn way_mut(&mut self, from: HostId, to: HostId) -> &mut Way {
        self.ways.get_mut(&(from, to)).expect("all ways are there from the start")
    }

    fn is_open(&self, from: HostId, to: HostId) -> bool {
        self.way(from, to).cuts == 0
    }

    fn latency(&mut self, from: HostId, to: HostId) -> Duration {
        let Way { base, slower, .. } = *self.way(from, to);
        let jitter = Duration::from_micros(self.rng.below(3_000));
        let slow = slower.mul_f64(0.5 + self.rng.below(100) as f64 / 100.0);
        base + jitter + slow
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        let name = self.name();
        self.events.insert((at, name), event);
    }

    /// Nodes beat on their links; who is not heard for long enough is given up, with all streams.
    fn watch_links(&mut self, wakers: &mut Vec<Waker>) {
        let now = self.now;
        let nodes = self.nodes;
        for (a, b) in (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))) {
            for (from, to) in [(a, b), (b, a)] {
                let speaks = self.hosts[from].up && !self.hosts[from].paused;
                let heard = speaks && self.is_open(from, to);
                let listens = !self.hosts[to].paused;
                let way = self.way_mut(from, to);
                if heard {
                    if now.saturating_sub(way.heard) > REDIAL {
                        way.since = now;
                    }
                    way.heard = now;
                } else if !listens {
                    // Who stands still accuses nobody.
                    way.heard = way.heard.max(now.saturating_sub(REDIAL));
                }
            }
            let known_dead = [a, b].iter().any(|&host| !self.hosts[host].up && !self.hosts[host].silent);
            let silent = [(a, b), (b, a)].iter().any(|&(from, to)| now - self.way(from, to).heard >= SILENCE);
            let fine = [(a, b), (b, a)].iter().all(|&(from, to)| {
                let way = self.way(from, to);
                way.heard == now && now - way.since >= REDIAL
            });
            if known_dead || silent {
                if !self.way(a, b).lost {
                    self.break_streams(a, b, wakers);
                }
                (self.way_mut(a, b).lost, self.way_mut(b, a).lost) = (true, true);
            } else if fine {
                (self.way_mut(a, b).lost, self.way_mut(b, a).lost) = (false, false);
            }
        }
    }

    fn break_streams(&mut self, a: HostId, b: HostId, wakers: &mut Vec<Waker>) {
        for pipe in self.pipes.values_mut() {
            if [(a, b), (b, a)].contains(&pipe.ends()) {
                pipe.break_now(wakers);
            }
        }
    }

    fn deliver(
        &mut self,
        accepted: &mut Vec<(mpsc::UnboundedSender<Incoming>, Incoming)>,
        gone: &mut Vec<Event>,
    ) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.now
        {
            let event = entry.remove();
            match event {
                Event::Accept(to, port, incoming, pipe) => {
                    let from = incoming.from;
                    let broken = self.pipes.get(&pipe).is_none_or(Pipe::is_broken);
                    if broken {
                        gone.push(Event::Accept(to, port, incoming, pipe));
                    } else if !self.is_open(from, to) || (!self.hosts[to].up && self.hosts[to].silent) {
                        self.schedule(self.now + AGAIN, Event::Accept(to, port, incoming, pipe));
                    } else if let Some(listener) = self.listeners.get(&(to, port)) {
                        accepted.push((listener.clone(), incoming));
                    } else {
                        gone.push(Event::Accept(to, port, incoming, pipe));
                    }
                }
                Event::Gossip(from, to, record) => {
                    if self.is_open(from, to) && self.hosts[to].up && self.hosts[from].up {
                        self.records.insert((to, from), (self.now, record));
                    }
                }
            }
        }
    }

    fn move_pipes(&mut self, wakers: &mut Vec<Waker>) {
        let now = self.now;
        let names: Vec<u64> = self.pipes.keys().copied().collect();
        let mut over = Vec::new();
        for name in names {
            let Some((from, to)) = self.pipes.get(&name).map(Pipe::ends) else { continue };
            let open = self.is_open(from, to);
            let there = self.hosts[to].up || !self.hosts[to].silent;
            let departs = self.pipes.get(&name).is_some_and(Pipe::has_to_send);
            if departs && open {
                let at = now + self.latency(from, to);
                if let Some(pipe) = self.pipes.get_mut(&name) {
                    pipe.depart(at);
                }
            }
            let Some(pipe) = self.pipes.get_mut(&name) else { continue };
            if open && there {
                pipe.arrive(now, wakers);
            }
            if pipe.is_over() {
                over.push(name);
            }
        }
        for name in over {
            self.pipes.remove(&name);
        }
    }
}

/// Bytes on their way.
pub(crate) type Flight = VecDeque<(Duration, Vec<u8>)>;

#[cfg(test)]
mod tests;
