//! What can happen in a state, and its happening.

use std::sync::Arc;

use starling_client::machine::Input;
use starling_core::replica::{KeeperEvent, ReplicationEvent};
use starling_core::session::SessionEvent;
use starling_protocol::SessionId;
use uuid::Uuid;

use crate::model::Step;
use crate::parts::{ALL, PIECES};
use crate::state::{Faults, Invariant, NODES, Node, Peer, Said, State};

impl State {
    /// What happens by itself, in any order.
    pub(crate) fn ordinary(&self, steps: &mut Vec<Step>) {
        let client = &self.client;
        if client.pieces < PIECES.len() && client.machine.room() >= PIECES[client.pieces] {
            steps.push(Step::Speaks);
        }
        for (&id, conn) in &self.net.conns {
            if self.runs(conn.node) && !conn.to_server.is_empty() {
                steps.push(Step::ServerReads(id));
            }
            if client.conn != Some(id) {
                continue;
            }
            if conn.broken {
                steps.push(Step::ClientLoses);
            } else if self.runs(conn.node) && !conn.outbox.is_empty() {
                steps.push(Step::ClientReads(id));
            }
        }
        for node in (0..NODES).filter(|&node| self.runs(node)) {
            let working = self.nodes[node].owners.iter().filter(|(_, owner)| !owner.decoder.work.is_empty());
            steps.extend(working.map(|(&session, _)| Step::Decodes(node, session)));
        }
        for (&id, link) in &self.net.links {
            if self.runs(link.keeper) && !link.to_keeper.is_empty() {
                steps.push(Step::KeeperReads(id));
            }
            if self.runs(link.owner) && !link.to_owner.is_empty() {
                steps.push(Step::OwnerReads(id));
            }
        }
        for (&id, ask) in &self.net.asks {
            let at = if matches!(ask.said, Said::Promote | Said::Fetch) { ask.to } else { ask.asker };
            if self.runs(at) {
                steps.push(Step::Arrives(id));
            }
        }
        if self.paused.is_some() {
            steps.push(Step::Wakes);
        }
    }

    /// Timers that may run out when somebody is slow; all of them, when nobody is going to say anything any more.
    fn timers(&self, all: bool, steps: &mut Vec<Step>) {
        let slow = |node: Node| all || self.paused == Some(node);
        if let Some(conn) = self.client.conn.and_then(|id| self.net.conns.get(&id)) {
            // A server that is there answers the client's pings.
            let answers = conn.serves.is_some() && self.runs(conn.node) && conn.outbox.is_empty();
            if !conn.broken && slow(conn.node) && !answers {
                steps.push(Step::ClientWaited);
            }
        } else if all && self.client.machine.next_timeout().is_some() {
            steps.push(Step::ClientWaited);
        }
        for node in (0..NODES).filter(|&node| self.runs(node)) {
            for (&session, owner) in &self.nodes[node].owners {
                let waits = owner.copies.as_ref().is_some_and(|copies| copies.next_timeout().is_some());
                if waits && (all || self.paused.is_some()) {
                    steps.push(Step::CopiesWaited(node, session));
                }
            }
        }
        for (&id, ask) in &self.net.asks {
            if ask.awaited && matches!(ask.said, Said::Promote | Said::Fetch) && slow(ask.to) {
                steps.push(Step::AnswerWaited(id));
            }
        }
    }

    /// Long after all is over: what was left behind is let go, one after the other.
    fn in_the_end(&self) -> Option<Step> {
        let running = |node: &Node| self.runs(*node);
        let session = (0..NODES).filter(running).find_map(|node| {
            let waits =
                self.nodes[node].owners.iter().find(|(_, owner)| owner.session.next_timeout().is_some());
            waits.map(|(&session, _)| Step::SessionWaited(node, session))
        });
        let keeper = || {
            let waits = |node: &Node| self.nodes[*node].keeper.next_timeout().is_some();
            (0..NODES).filter(running).find(waits).map(Step::KeeperWaited)
        };
        session.or_else(keeper)
    }

    fn faults(&self, steps: &mut Vec<Step>) {
        // When the client has all, nothing can go wrong that anybody would notice, but for what is left behind.
        let Faults { losses, hangups, duplicates, crashes, pauses, early_timers } = self.faults;
        if losses + hangups > 0 {
            let present =
                self.client.conn.filter(|id| self.net.conns.get(id).is_some_and(|conn| !conn.broken));
            steps.extend(present.map(Step::ConnBreaks));
        }
        if losses > 0 {
            let links = self.net.links.iter().filter(|(_, link)| link.owner_listens && link.keeper_listens);
            steps.extend(links.map(|(&id, _)| Step::LinkBreaks(id)));
            let asks = self.net.asks.iter().filter(|(_, ask)| ask.awaited);
            steps.extend(asks.map(|(&id, _)| Step::Lost(id)));
        }
        if duplicates > 0 {
            let asks = self.net.asks.iter().filter(|(_, ask)| matches!(ask.said, Said::Promote));
            steps.extend(asks.map(|(&id, _)| Step::Twice(id)));
        }
        let up = (0..NODES).filter(|&node| self.nodes[node].up);
        if crashes > 0 {
            steps.extend(up.clone().map(Step::Crashes));
        }
        if pauses > 0 && self.paused.is_none() {
            steps.extend(up.map(Step::Pauses));
        }
        if early_timers > 0 {
            self.timers(false, steps);
        }
    }

    pub(crate) fn steps(&self, steps: &mut Vec<Step>) {
        self.ordinary(steps);
        if steps.is_empty() {
            self.timers(true, steps);
            if steps.is_empty() {
                steps.extend(self.in_the_end());
                return;
            }
        }
        if !self.client.done {
            self.faults(steps);
        }
    }

    pub(crate) fn happen(&mut self, step: Step) {
        match step {
            Step::Speaks => {
                let client = self.client();
                let frames = PIECES[client.pieces];
                client.pieces += 1;
                let last = client.pieces == PIECES.len();
                self.client_input(Input::Audio(frames));
                if last {
                    self.client_input(Input::End);
                }
            }
            // What lies there is read at once: it was sent in as many steps, and could be read between any two of them.
            Step::ClientReads(id) => {
                let waits =
                    |state: &Self| state.net.conns.get(&id).is_some_and(|conn| !conn.outbox.is_empty());
                while self.client.conn == Some(id) && waits(self) {
                    self.client_reads(id);
                }
            }
            Step::ClientLoses => self.client_loses(),
            Step::ServerReads(id) => {
                while self.net.conns.get(&id).is_some_and(|conn| !conn.to_server.is_empty()) {
                    self.server_reads(id);
                }
            }
            Step::Decodes(node, session) => self.decode(node, session),
            Step::KeeperReads(id) => {
                while self.net.links.get(&id).is_some_and(|link| !link.to_keeper.is_empty()) {
                    self.keeper_reads(id);
                }
            }
            Step::OwnerReads(id) => {
                while self.net.links.get(&id).is_some_and(|link| !link.to_owner.is_empty()) {
                    self.owner_reads(id);
                }
            }
            Step::Arrives(id) => self.ask_arrives(id),
            Step::ClientWaited => self.client_waited(),
            Step::CopiesWaited(node, session) => {
                let due = self.nodes[node]
                    .owners
                    .get(&session)
                    .and_then(|owner| owner.copies.as_ref()?.next_timeout());
                if let Some(due) = due {
                    let now = &mut self.node(node).now;
                    *now = due.0.max(*now);
                    self.replicate(node, session, ReplicationEvent::TimedOut);
                }
            }
            Step::AnswerWaited(id) => self.ask_times_out(id),
            Step::SessionWaited(node, session) => {
                let due =
                    self.nodes[node].owners.get(&session).and_then(|owner| owner.session.next_timeout());
                if let Some(due) = due {
                    let now = &mut self.node(node).now;
                    *now = due.0.max(*now);
                    self.drive(node, session, SessionEvent::TimedOut);
                }
            }
            Step::KeeperWaited(node) => {
                let peer = self.node(node);
                if let Some(due) = peer.keeper.next_timeout() {
                    peer.now = due.0.max(peer.now);
                    self.keep(node, SessionId(Uuid::nil()), KeeperEvent::TimedOut);
                }
            }
            Step::ConnBreaks(id) => self.break_conn(id),
            Step::LinkBreaks(id) => self.break_link(id),
            Step::Lost(id) => self.ask_fails(id),
            Step::Twice(id) => self.duplicate(id),
            Step::Crashes(node) => {
                if self.paused == Some(node) {
                    self.paused = None;
                }
                self.crash(node);
            }
            Step::Pauses(node) => self.paused = Some(node),
            Step::Wakes => self.wake(),
        }
    }

    /// The client's timer runs out; a ping that nobody answers is another.
    fn client_waited(&mut self) {
        for _ in 0..2 {
            let client = self.client();
            let Some(due) = client.machine.next_timeout() else { return };
            let before = client.conn;
            client.now = due.max(client.now);
            self.client_input(Input::Tick);
            if self.client.conn != before {
                return;
            }
        }
    }

    pub(crate) fn spend(&mut self, step: Step) {
        let faults = &mut self.faults;
        let spent = match step {
            Step::ConnBreaks(_) if faults.hangups > 0 => &mut faults.hangups,
            Step::ConnBreaks(_) | Step::LinkBreaks(_) | Step::Lost(_) => &mut faults.losses,
            Step::Twice(_) => &mut faults.duplicates,
            Step::Crashes(_) => &mut faults.crashes,
            Step::Pauses(_) => &mut faults.pauses,
            Step::ClientWaited | Step::CopiesWaited(..) | Step::AnswerWaited(_) => &mut faults.early_timers,
            _ => return,
        };
        *spent = spent.saturating_sub(1);
    }

    /// What does not hold, if anything.
    #[must_use]
    pub fn broken(&self) -> Option<(Invariant, String)> {
        if self.seen.broken.is_some() {
            return self.seen.broken.clone();
        }
        if !self.promise_is_kept() {
            let promised = self.seen.promised.1;
            return Some((Invariant::I4, format!("nobody has {promised} frames that were acknowledged")));
        }
        None
    }

    /// What does not hold of a state in which nothing can happen any more.
    pub(crate) fn broken_at_the_end(&self) -> Option<(Invariant, String)> {
        if !self.client.done {
            let end = self.client.ledger.end();
            return Some((
                Invariant::I7,
                format!("nothing can happen; the client was told {end} of {ALL} frames"),
            ));
        }
        let left = |peer: &Arc<Peer>| {
            !peer.owners.is_empty()
                || !peer.copies.is_empty()
                || !peer.streams.is_empty()
                || !peer.takeovers.is_empty()
        };
        if self.nodes.iter().any(left) || !self.net.links.is_empty() || !self.net.asks.is_empty() {
            return Some((Invariant::I10, "something is left".into()));
        }
        None
    }
}
