//! A client that comes back: the SDK's own machine, with a driver on simulated connections.

use std::time::Duration;

use starling_client::machine::{Action, Entropy, Event, Input, Machine, Server, Settings, Which, Write};
use starling_protocol::native::{ClientMessage, Hello};
use tokio::time::{Instant, sleep_until};

use crate::client::{Client, PACE, PIECE};
use crate::connection::{Connection, Heard};
use crate::net::Port;

/// One of those.
pub struct NativeClient {
    /// Who.
    pub client: Client,
    /// Blocks of audio that it holds to send again.
    pub ring_blocks: u64,
}

struct Driver {
    client: Client,
    machine: Machine,
    start: Instant,
    link: Option<Connection>,
    next_link: Option<Connection>,
    spoken: u64,
    ended: bool,
}

enum Happened {
    Timeout,
    Spoke,
    Heard(Which, Heard),
    Wrote,
    Stalled,
}

impl NativeClient {
    /// Speaks, listens and comes back until all is said.
    pub async fn run(self) {
        let Self { mut client, ring_blocks } = self;
        let (home, nodes) = (client.home, client.nodes);
        let settings = Settings {
            servers: (0..nodes).map(|turn| client.lines.address_of((home + turn) % nodes)).collect(),
            ring_frames: ring_blocks * PIECE,
            open_deadline: Duration::from_secs(60),
            wait_when_busy: true,
            give_up: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(2),
            liveness: Duration::from_secs(3),
            backoff_first: Duration::from_millis(100),
            backoff_most: Duration::from_secs(1),
        };
        let machine = Machine::new(settings, client.hello());
        let start = Instant::now();
        let driver = Driver { client, machine, start, link: None, next_link: None, spoken: 0, ended: false };
        driver.run().await;
    }
}

impl Driver {
    async fn run(mut self) {
        self.input(Input::Start);
        while !self.machine.is_over() {
            self.offer_write();
            match self.next().await {
                Happened::Timeout => {
                    if *self.client.stalled.borrow() {
                        // The silence is this end's: nothing is being read.
                        self.input(Input::Heard(Which::Present));
                    }
                    self.input(Input::Tick);
                }
                Happened::Spoke => self.speak(),
                Happened::Heard(which, heard) => self.heard(which, heard),
                Happened::Wrote | Happened::Stalled => {}
            }
        }
        // What was written last has to get out.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    async fn next(&mut self) -> Happened {
        let timeout = self.machine.next_timeout().map(|at| self.start + at);
        let speaks = self.start + PACE * u32::try_from(self.spoken / PIECE + 1).unwrap_or(u32::MAX);
        let reading = !*self.client.stalled.borrow_and_update();
        let waits_to_write = self.link.as_ref().is_some_and(|link| !link.has_room());
        let wrote = self.link.as_ref().map(Connection::wrote);
        tokio::select! {
            biased;
            _ = self.client.stalled.changed() => Happened::Stalled,
            heard = next_of(&mut self.link), if reading => Happened::Heard(Which::Present, heard),
            heard = next_of(&mut self.next_link) => Happened::Heard(Which::Next, heard),
            // With its ring full it waits for the server.
            () = sleep_until(speaks), if !self.ended && self.machine.room() > 0 => Happened::Spoke,
            () = maybe(wrote), if waits_to_write => Happened::Wrote,
            () = at(timeout) => Happened::Timeout,
        }
    }

    fn speak(&mut self) {
        let all = self.client.frames();
        let asks = self.client.speech.requests.iter().find(|asks| **asks > self.spoken).copied();
        let piece = PIECE.min(asks.unwrap_or(all) - self.spoken).min(self.machine.room());
        if piece > 0 {
            self.spoken += piece;
            self.input(Input::Audio(piece));
        }
        if asks == Some(self.spoken) {
            self.client.oracle.note(self.client.index, &format!("asks for a final at {}", self.spoken));
            self.input(Input::Finalize);
        }
        if self.spoken == all {
            self.ended = true;
            self.client.oracle.spoke(self.client.index);
            self.input(Input::End);
        }
    }

    fn heard(&mut self, which: Which, heard: Heard) {
        match heard {
            Heard::Message(message) => {
                let link = if which == Which::Present { &self.link } else { &self.next_link };
                if let Some(link) = link {
                    self.client.oracle.said(self.client.index, link.node, link.facts, &message);
                }
                self.input(Input::Message(which, message));
            }
            Heard::Pong => self.input(Input::Heard(which)),
            Heard::Lost => {
                match which {
                    Which::Present => self.link = None,
                    Which::Next => self.next_link = None,
                }
                self.input(Input::Lost(which, "the connection is gone".to_owned()));
            }
        }
    }

    fn offer_write(&mut self) {
        let Some(link) = self.link.as_ref().filter(|link| link.has_room()) else { return };
        match self.machine.next_write() {
            None => {}
            Some(Write::Audio(frames)) => {
                self.client.oracle.resent(self.client.index, frames.start, self.machine.start());
                link.audio(&self.client.bytes(frames.start, frames.end));
            }
            Some(Write::Confirm(segment)) => link.say(&ClientMessage::Confirm { segment }),
            Some(Write::Finalize) => link.say(&ClientMessage::Finalize {}),
            Some(Write::End) => link.say(&ClientMessage::End {}),
        }
    }

    fn input(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let jitter = self.client.rng.next() as u32;
            let entropy = Entropy { jitter, session: self.client.session_id() };
            let mut out = Vec::new();
            self.machine.handle(self.start.elapsed(), input, entropy, &mut out);
            for action in out {
                inputs.extend(self.perform(action));
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Connect { server, hello } => {
                self.next_link = None;
                self.link = Some(self.connect(&server, *hello));
            }
            Action::ConnectNext { server, hello } => self.next_link = Some(self.connect(&server, *hello)),
            Action::DropNext => self.next_link = None,
            Action::Switch => self.link = self.next_link.take(),
            Action::Disconnect => (self.link, self.next_link) = (None, None),
            Action::Farewell(segment) => {
                self.next_link = None;
                if let Some(link) = &self.link {
                    link.say(&ClientMessage::Confirm { segment });
                }
            }
            Action::Ping => {
                if let Some(link) = &self.link {
                    link.ping();
                }
            }
            Action::Opened(_) => self.client.oracle.opened(self.client.index),
            Action::OpenFailed(error) => self.client.oracle.failed(self.client.index, &error.to_string()),
            Action::Failed(error) => self.client.oracle.failed(self.client.index, &error.to_string()),
            Action::Deliver(event) => {
                let delivered = match &event {
                    Event::Final(last) => Some(Input::Delivered(last.segment)),
                    _ => None,
                };
                self.client.oracle.delivered(self.client.index, &event);
                return delivered;
            }
            Action::Complaint(body) => {
                self.client.oracle.violation(format!(
                    "client {} is complained of: {:?} {}",
                    self.client.index, body.code, body.message
                ));
            }
            Action::HintsIgnored { first, .. } => {
                self.client.oracle.violation(format!("a hint is no address: {first}"));
            }
        }
        None
    }

    fn connect(&self, server: &Server, hello: Hello) -> Connection {
        let node = match server {
            Server::Configured(index) => (self.client.home + index) % self.client.nodes,
            Server::Suggested(address) => {
                let is_it = |node: &usize| self.client.lines.address_of(*node) == *address;
                (0..self.client.nodes).find(is_it).unwrap_or(0)
            }
        };
        let resume =
            hello.resume.as_ref().map(|resume| (resume.epoch.0, resume.last_final, resume.have_from.0));
        self.client.oracle.note(self.client.index, &format!("connects to n{node} {resume:?}"));
        self.client.oracle.asks(self.client.index, node);
        let first = ClientMessage::Hello(Box::new(hello));
        Connection::open(&self.client.lines, self.client.host, node, Port::Native, &first)
    }
}

async fn next_of(link: &mut Option<Connection>) -> Heard {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn maybe(event: Option<impl Future<Output = ()>>) {
    match event {
        Some(event) => event.await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
