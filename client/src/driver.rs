//! The task beside a session: owns the machine, the ring and the connection, and moves things between them.
//!
//! Reads the only clock and the only randomness of this crate. Decides nothing; never blocks reading on writing.

use std::collections::VecDeque;
use std::time::Duration;

use starling_protocol::SessionId;
use starling_protocol::native::{ApiKey, ClientMessage, Hello};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::{OpenError, SessionError};
use crate::machine::{Action, Entropy, Event, Input, Machine, Opened, Server, Settings, Which, Write};
use crate::ring::{FRAME_BYTES, Ring};
use crate::session::{AudioSender, Command, Events, Session};
use crate::target::Target;
use crate::tls::Trust;

mod link;

pub(crate) use link::said_by;
use link::{Dialer, Link, LinkEvent, Outgoing};

/// Pieces of audio between a caller and the ring: enough to keep both busy, too few to hide that the ring is full.
const COMMANDS: usize = 4;

/// Events between the task and its consumer.
const EVENTS: usize = 16;

/// Events that wait for room in that channel before the connection is no longer read. Partials are left out of the
/// count, as only the newest waits; so these are finals: minutes of speech.
const MAX_WAITING_EVENTS: usize = 64;

/// Opens a session: spawns its task and waits for the first word from it.
pub(crate) async fn open(
    targets: Vec<Target>,
    api_key: Option<ApiKey>,
    trust: Option<Trust>,
    settings: Settings,
    hello: Hello,
) -> Result<Session, OpenError> {
    let (commands_in, commands) = mpsc::channel(COMMANDS);
    let (events, events_out) = mpsc::channel(EVENTS);
    let (taken_in, taken) = watch::channel(None);
    let (opened_in, opened) = oneshot::channel();
    let driver = Driver {
        targets,
        dialer: Dialer { api_key, trust, liveness: settings.liveness },
        clock: Clock::new(),
        machine: Machine::new(settings, hello),
        ring: Ring::default(),
        link: Link::None,
        next_link: Link::None,
        commands,
        pending: None,
        ended: false,
        opened: Some(opened_in),
        events,
        waiting: VecDeque::new(),
        taken,
    };
    tokio::spawn(driver.run());
    // These two live here, so that a caller who stops waiting ends the task.
    let (sender, events) = (AudioSender::new(commands_in), Events::new(events_out, taken_in));
    match opened.await {
        Ok(opened) => opened.map(|opened| Session { opened, sender, events }),
        Err(_) => Err(OpenError::Unreachable {
            waited: Duration::ZERO,
            cause: "the runtime is shutting down".to_owned(),
        }),
    }
}

/// The crate's one clock; it stands still when Tokio's does.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn at(&self, time: Duration) -> Instant {
        self.0 + time
    }
}

struct Driver {
    targets: Vec<Target>,
    dialer: Dialer,
    clock: Clock,
    machine: Machine,
    ring: Ring,
    /// The present connection.
    link: Link,
    /// The one that is to take its place.
    next_link: Link,
    commands: mpsc::Receiver<Command>,
    /// Audio that found no room in the ring; nothing more is taken from the caller meanwhile.
    pending: Option<Vec<u8>>,
    /// No more will come from the caller.
    ended: bool,
    opened: Option<oneshot::Sender<Result<Opened, OpenError>>>,
    events: mpsc::Sender<Result<Event, SessionError>>,
    waiting: VecDeque<Result<Event, SessionError>>,
    taken: watch::Receiver<Option<starling_protocol::Segment>>,
}

enum Happened {
    Timeout,
    Link(Which, LinkEvent),
    Command(Option<Command>),
    EventTaken,
    Delivered,
    Abandoned,
}

impl Driver {
    async fn run(mut self) {
        self.input(Input::Start);
        loop {
            if self.machine.is_over() {
                // Whoever waits to send learns now, whoever reads slowly gets the rest.
                self.commands.close();
                if self.waiting.is_empty() {
                    break;
                }
            } else {
                self.fill_ring();
                self.offer_write();
            }
            match self.next().await {
                Happened::Timeout => {
                    if self.is_reading() {
                        self.input(Input::Tick);
                    } else {
                        // The silence is this end's: nothing is being read.
                        self.input(Input::Heard(Which::Present));
                        self.input(Input::Tick);
                    }
                }
                Happened::Link(which, event) => self.link_event(which, event),
                Happened::Command(command) => self.command(command),
                Happened::EventTaken => {}
                Happened::Delivered => {
                    let taken = *self.taken.borrow_and_update();
                    if let Some(segment) = taken {
                        self.input(Input::Delivered(segment));
                    }
                }
                Happened::Abandoned => break,
            }
        }
        self.close_all();
    }

    async fn next(&mut self) -> Happened {
        let over = self.machine.is_over();
        let reading = self.is_reading();
        let timeout = self.machine.next_timeout().map(|at| self.clock.at(at));
        let taking = !over && self.pending.is_none() && !self.ended;
        tokio::select! {
            () = sleep_until(timeout) => Happened::Timeout,
            event = self.link.next(reading), if !over => Happened::Link(Which::Present, event),
            // It says nothing for the consumer before it is the present one.
            event = self.next_link.next(true), if !over => Happened::Link(Which::Next, event),
            command = self.commands.recv(), if taking => Happened::Command(command),
            permit = self.events.reserve(), if !self.waiting.is_empty() => match (permit, self.waiting.pop_front()) {
                (Ok(permit), Some(event)) => {
                    permit.send(event);
                    Happened::EventTaken
                }
                _ => Happened::Abandoned,
            },
            changed = self.taken.changed() => match changed {
                Ok(()) => Happened::Delivered,
                Err(_) => Happened::Abandoned,
            },
        }
    }

    fn is_reading(&self) -> bool {
        self.waiting.len() < MAX_WAITING_EVENTS
    }

    fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Audio(audio)) => self.pending = Some(audio),
            Some(Command::Finalize) => self.input(Input::Finalize),
            Some(Command::End) | None => {
                self.ended = true;
                self.input(Input::End);
            }
        }
    }

    fn fill_ring(&mut self) {
        let Some(mut audio) = self.pending.take() else {
            return;
        };
        let room = usize::try_from(self.machine.room()).unwrap_or(usize::MAX);
        let taken = audio.len().min(room.saturating_mul(FRAME_BYTES));
        let rest = audio.split_off(taken);
        if taken > 0 {
            self.ring.push(&audio);
            self.input(Input::Audio((taken / FRAME_BYTES) as u64));
        }
        if !rest.is_empty() {
            self.pending = Some(rest);
        }
    }

    fn offer_write(&mut self) {
        if !self.link.wants_message() {
            return;
        }
        let Some(write) = self.machine.next_write() else {
            return;
        };
        let outgoing = match write {
            Write::Audio(frames) => match self.ring.read(frames.clone()) {
                Some(audio) => Outgoing::Audio(audio),
                None => {
                    // The machine and the ring are trimmed together; were they ever not, a loss is said, not hidden.
                    tracing::error!(?frames, "audio that is to be sent is not in the ring");
                    self.link = Link::None;
                    let cause = "audio that is to be sent is not in the ring".to_owned();
                    self.input(Input::Lost(Which::Present, cause));
                    return;
                }
            },
            Write::Confirm(segment) => Outgoing::Message(ClientMessage::Confirm { segment }),
            Write::Finalize => Outgoing::Message(ClientMessage::Finalize {}),
            Write::End => Outgoing::Message(ClientMessage::End {}),
        };
        self.link.write(outgoing);
    }

    fn link_event(&mut self, which: Which, event: LinkEvent) {
        match event {
            LinkEvent::Wrote => {}
            LinkEvent::Heard => self.input(Input::Heard(which)),
            LinkEvent::Message(message) => self.input(Input::Message(which, message)),
            LinkEvent::Lost(cause) => {
                tracing::debug!(%cause, ?which, "the connection is gone");
                match which {
                    Which::Present => self.link = Link::None,
                    Which::Next => self.next_link = Link::None,
                }
                self.input(Input::Lost(which, cause));
            }
        }
    }

    fn input(&mut self, input: Input) {
        let mut out = Vec::new();
        self.machine.handle(self.clock.now(), input, entropy(), &mut out);
        self.ring.trim(self.machine.start());
        for action in out {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { server, hello } => {
                self.close_all();
                self.link = self.connect(&server, *hello);
            }
            Action::ConnectNext { server, hello } => {
                self.next_link.close();
                self.next_link = self.connect(&server, *hello);
            }
            Action::DropNext => self.next_link.close(),
            Action::Switch => {
                self.link.close();
                self.link = std::mem::replace(&mut self.next_link, Link::None);
            }
            Action::Disconnect => self.close_all(),
            Action::Farewell(segment) => {
                self.next_link.close();
                self.link.farewell(Outgoing::Message(ClientMessage::Confirm { segment }));
            }
            Action::Ping => self.link.ping(),
            Action::Opened(opened) => self.answer(Ok(opened)),
            Action::OpenFailed(error) => self.answer(Err(error)),
            Action::Deliver(event) => self.deliver(Ok(event)),
            Action::Failed(error) => self.deliver(Err(error)),
            Action::Complaint(body) => {
                tracing::warn!(code = ?body.code, message = %body.message, "the server did not take a message");
            }
            Action::HintsIgnored { count, first } => {
                tracing::warn!(
                    count,
                    first,
                    "the server named nodes that can't be asked, which are left out"
                );
            }
        }
    }

    fn connect(&self, server: &Server, hello: Hello) -> Link {
        let target = match server {
            Server::Configured(index) => self.targets.get(*index).cloned(),
            Server::Suggested(address) => Target::suggested(address),
        };
        match target {
            Some(target) => {
                let (server, resume) = (target.place(), hello.resume.is_some());
                tracing::debug!(%server, resume, "connecting");
                Link::connect(target, hello, &self.dialer)
            }
            None => Link::refused(format!("{server:?} is no address")),
        }
    }

    fn close_all(&mut self) {
        self.next_link.close();
        self.link.close();
    }

    fn answer(&mut self, opened: Result<Opened, OpenError>) {
        if let Some(waiting) = self.opened.take() {
            // A caller that stopped waiting has dropped the other ends too, which ends the task.
            let _ = waiting.send(opened);
        }
    }

    fn deliver(&mut self, event: Result<Event, SessionError>) {
        let is_partial = |event: &Result<Event, SessionError>| matches!(event, Ok(Event::Partial { .. }));
        let overtakes = matches!(event, Ok(Event::Partial { .. } | Event::Final(_) | Event::Gap { .. }));
        if overtakes && self.waiting.back().is_some_and(is_partial) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(event);
    }
}

fn entropy() -> Entropy {
    let random = SessionId::random();
    let bytes = SessionId::random().0.into_bytes();
    Entropy {
        // The last bytes of a version 4 id are all random.
        jitter: u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
        session: random,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
