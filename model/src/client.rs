//! The client's side: the SDK's machine, its connection, and whether what it is told is as it should be.

use std::collections::VecDeque;
use std::sync::Arc;

use starling_client::Event;
use starling_client::machine::{Action, Entropy, Input, Server, Which, Write};
use starling_core::invariants::{FinalsLedger, Violation};
use starling_protocol::native::{ErrorBody, Final, Hello, ServerMessage};
use starling_protocol::{SessionId, SourceOffset};
use uuid::Uuid;

use crate::parts::{ALL, Text, expected};
use crate::state::{Conn, ConnId, Invariant, Last, Node, Outbox, Ready, Set, State, ToServer, address};

/// Far more than a run with so few faults needs.
const MOST_EPOCHS: u64 = 24;

impl State {
    pub(crate) fn client_input(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let client = self.client();
            let session = SessionId(Uuid::from_u128(client.fresh + 1));
            let entropy = Entropy { jitter: 0, session };
            let mut out = Vec::new();
            client.machine.handle(client.now, input, entropy, &mut out);
            for action in out {
                self.client_does(action, session, &mut inputs);
            }
            let client = self.client();
            if inputs.is_empty() && client.machine.next_timeout().is_some_and(|at| at <= client.now) {
                inputs.push_back(Input::Tick);
            }
        }
        self.client_writes();
    }

    fn client_does(&mut self, action: Action, fresh: SessionId, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Connect { server, hello } => {
                self.hang_up();
                if hello.session == Some(fresh) {
                    self.client().fresh += 1;
                }
                if hello.resume.as_ref().is_some_and(|resume| resume.epoch.0 > MOST_EPOCHS) {
                    return self.breaks(Invariant::I7, "the client comes back again and again");
                }
                let node = node_of(&server);
                if self.nodes[node].up {
                    self.connect(node, hello);
                } else {
                    inputs.push_back(Input::Lost(Which::Present, "refused".into()));
                }
            }
            Action::Disconnect => self.hang_up(),
            Action::Farewell(segment) => {
                if let Some(conn) = self.client.conn.and_then(|conn| self.net().conns.get_mut(&conn)) {
                    conn.to_server.push_back(ToServer::Confirm(segment));
                }
                self.hang_up();
            }
            Action::Deliver(event) => self.deliver(event, inputs),
            Action::Failed(error) => self.client().failed = Some(error.to_string()),
            Action::OpenFailed(error) => self.client().failed = Some(error.to_string()),
            Action::Complaint(body) => self.client().failed = Some(body.message),
            Action::Ping | Action::Opened(_) => {}
            other => unreachable!("nobody asked the client to leave: {other:?}"),
        }
        if let Some(error) = self.client.failed.clone() {
            self.breaks(Invariant::I7, format!("the client gives up: {error}"));
        }
    }

    fn connect(&mut self, node: Node, hello: Box<Hello>) {
        let id = self.net().next_id();
        let conn = Conn {
            node,
            serves: None,
            to_server: VecDeque::from([ToServer::Hello(hello)]),
            outbox: Outbox::default(),
            open: true,
            broken: false,
            left: false,
        };
        self.net().conns.insert(id, conn);
        self.client().conn = Some(id);
    }

    /// The client drops its connection. What it had written arrives.
    fn hang_up(&mut self) {
        let Some(id) = self.client().conn.take() else { return };
        let Some(conn) = self.net().conns.get_mut(&id) else { return };
        conn.open = false;
        conn.outbox = Outbox::default();
        if !conn.broken {
            conn.to_server.push_back(ToServer::Closed);
        }
        self.forget_conn(id);
    }

    /// A connection that neither end has any more is gone.
    pub(crate) fn forget_conn(&mut self, id: ConnId) {
        let gone = self
            .net
            .conns
            .get(&id)
            .is_some_and(|conn| !conn.open && (conn.to_server.is_empty() || !self.nodes[conn.node].up));
        if gone {
            self.net().conns.remove(&id);
        }
    }

    fn client_writes(&mut self) {
        while let Some(id) = self.client.conn
            && let Some(write) = self.client().machine.next_write()
        {
            let Some(conn) = self.net().conns.get_mut(&id) else { return };
            if conn.broken {
                continue;
            }
            conn.to_server.push_back(match write {
                Write::Audio(frames) => ToServer::Audio(frames.start, frames.end),
                Write::Confirm(segment) => ToServer::Confirm(segment),
                Write::Finalize => ToServer::Finalize,
                Write::End => ToServer::End,
            });
        }
    }

    fn deliver(&mut self, event: Event, inputs: &mut VecDeque<Input>) {
        match event {
            Event::Final(last) => {
                inputs.push_back(Input::Delivered(last.segment));
                self.hear(&last);
            }
            Event::Gap { from, to } => {
                let ledger = &mut self.client().ledger;
                let (next, end) = (ledger.next(), ledger.end());
                *ledger = FinalsLedger::resume(next, to);
                if from != end {
                    self.breaks(Invariant::I1, format!("a gap from {from}, after {end}"));
                }
                self.breaks(Invariant::I4, format!("audio from {from} to {to} is lost"));
            }
            Event::Done { .. } => {
                self.client().done = true;
                let end = self.client.ledger.end();
                if end != SourceOffset(ALL) {
                    self.breaks(Invariant::I1, format!("done after {end} of {ALL} frames"));
                }
            }
            _ => {}
        }
    }

    /// The consumer gets a final.
    fn hear(&mut self, last: &Final) {
        if let Err(violation) = self.client().ledger.record(last.segment, last.from, last.to) {
            let which = match violation {
                Violation::OutOfOrder { .. } => Invariant::I2,
                _ => Invariant::I1,
            };
            self.breaks(which, violation.to_string());
        }
        if last.from < last.to && last.text != expected(last.from.0, last.to.0) {
            self.breaks(Invariant::I2, format!("segment {} says {:?}", last.segment, last.text));
        }
    }

    /// The client reads what it is told next.
    pub(crate) fn client_reads(&mut self, id: ConnId) {
        let Some(conn) = self.net().conns.get_mut(&id) else { return };
        let outbox = &mut conn.outbox;
        let message = if let Some(ready) = outbox.ready.take() {
            self.note_ready(&ready);
            ready.into_message()
        } else if let Some(set) = outbox.view.take() {
            self.note_durable(set.durable);
            let resume_at = set.keepers.iter().map(|&node| address(node)).collect();
            let Set { view, durable, .. } = set;
            ServerMessage::View { view: view.0, token: set.token(), durable, resume_at }
        } else if let Some(text) = outbox.finals.pop_front() {
            let session = conn.serves.map(|(session, _)| session);
            self.note_told(session, &text);
            ServerMessage::Final(text.to_final())
        } else if let Some(until) = outbox.ack.take() {
            self.note_ack(until);
            ServerMessage::Ack { until }
        } else {
            match outbox.last.take() {
                Some(Last::Failed(code)) => ServerMessage::Error(ErrorBody::new(code, "")),
                Some(Last::Done { segments, frames }) => ServerMessage::Done { segments, frames },
                None => return,
            }
        };
        self.client_input(Input::Message(Which::Present, Box::new(message)));
    }

    /// I2, whatever the client makes of it.
    fn note_told(&mut self, session: Option<SessionId>, text: &Text) {
        let Some(session) = session else { return };
        let before = Arc::make_mut(&mut self.seen).told.insert((session, text.segment), text.clone());
        if before.is_some_and(|before| before != *text) {
            self.breaks(Invariant::I2, format!("segment {} has two contents", text.segment));
        }
    }

    fn note_ready(&mut self, ready: &Ready) {
        let (session, promised) = self.seen.promised;
        if session == Some(ready.session) {
            if ready.have_until.0 < promised {
                let have = ready.have_until;
                self.breaks(Invariant::I4, format!("{have} frames are left of {promised} acknowledged"));
            }
        } else {
            Arc::make_mut(&mut self.seen).promised = (Some(ready.session), 0);
            self.client().acked = 0;
        }
        // An earlier node's word for what this one does not have is worth nothing any more.
        let acked = &mut self.client().acked;
        *acked = ready.have_until.0.min(*acked);
        self.note_durable(ready.set.durable);
    }

    fn note_durable(&mut self, durable: bool) {
        self.client().durable = durable;
        let acked = self.client.acked;
        if durable {
            let promised = &mut Arc::make_mut(&mut self.seen).promised.1;
            *promised = acked.max(*promised);
        }
    }

    fn note_ack(&mut self, until: SourceOffset) {
        let acked = &mut self.client().acked;
        *acked = until.0.max(*acked);
        let durable = self.client.durable;
        self.note_durable(durable);
    }

    /// I4: what was acknowledged can be gone on from.
    pub(crate) fn promise_is_kept(&self) -> bool {
        let (Some(session), promised) = self.seen.promised else { return true };
        // Once the client has every final nobody needs anything.
        if promised == 0 || self.client.done || self.client.ledger.end().0 >= promised {
            return true;
        }
        self.nodes.iter().filter(|node| node.up).any(|node| {
            let owned = node.owners.get(&session).map(|owner| owner.session.journal().received());
            let copied = node.copies.get(&session).map(|copy| copy.get().audio_end());
            owned.max(copied) >= Some(SourceOffset(promised))
        })
    }
}

impl Ready {
    fn into_message(self) -> ServerMessage {
        let Self { session, epoch, set, have_until, next_segment } = self;
        ServerMessage::Ready {
            node: None,
            session,
            epoch,
            token: set.token(),
            model: String::new(),
            have_until,
            next_segment,
            resumed: epoch.0 > 1,
            durable: set.durable,
            linger_ms: 60_000,
        }
    }
}

impl Set {
    fn token(&self) -> String {
        let keepers: String = self.keepers.iter().map(ToString::to_string).collect();
        format!("{}:{}:{keepers}", self.view.0, self.owner)
    }

    /// What a token says: the set, the owner, the keepers.
    pub(crate) fn of_token(token: &str) -> Self {
        let mut parts = token.split(':');
        let mut part = || parts.next().unwrap_or_default();
        let (view, owner, keepers) = (part(), part(), part());
        Self {
            view: starling_protocol::replica::View(view.parse().unwrap_or_default()),
            owner: owner.parse().unwrap_or_default(),
            keepers: keepers.chars().filter_map(|node| node.to_digit(10)).map(|node| node as Node).collect(),
            durable: false,
        }
    }
}

fn node_of(server: &Server) -> Node {
    match server {
        Server::Configured(index) => *index,
        Server::Suggested(address) => unreachable!("every node is configured, {address} too"),
    }
}

pub(crate) fn servers() -> Vec<String> {
    (0..crate::state::NODES).map(address).collect()
}
