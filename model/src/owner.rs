//! A session where it lives, as its actor does it: what its two machines ask for is carried out in the same order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::audio::{RateMap, SourceStore};
use starling_core::replica::{ReplicationEvent, SessionCopy};
use starling_core::session::{
    AttachRefusal, FailReason, Outcome, Restored, SessionAction, SessionConfig, SessionEvent, SessionMachine,
};
use starling_protocol::native::ErrorCode;
use starling_protocol::replica::View;
use starling_protocol::{CutCause, Epoch, Segment, SessionId, SourceOffset};

use crate::model::Mistake;
use crate::parts::{RATE, Store, Text, heard, pcm};
use crate::state::{
    ConnId, Decoder, Facts, Invariant, Last, Node, Outbox, Owner, Ready, State, ToServer, Work,
};

fn rates() -> RateMap {
    RateMap::new(RATE, RATE).expect("in range")
}

fn session_config() -> SessionConfig {
    SessionConfig {
        rates: rates(),
        window: 20,
        partial_interval_ms: 0,
        decoded_interval_ms: 0,
        linger: Duration::from_secs(60),
        idle: Duration::ZERO,
        slow_reader: Duration::from_secs(30),
        unconfirmed_max: 64,
        standby: false,
    }
}

/// A session that lives on a node, before it has copies.
pub(crate) fn new_owner(session: SessionMachine, store: SourceStore) -> Owner {
    Owner {
        session,
        copies: None,
        store: Store(Arc::new(store)),
        finals: VecDeque::new(),
        pushed: Segment(0),
        done: None,
        conn: None,
        attaching: None,
        trim_to: SourceOffset(0),
        holders: Vec::new(),
        granted: None,
        decoder: Decoder::default(),
        heard: String::new(),
    }
}

/// Who opens a session, or comes back to it.
#[derive(Clone, Copy)]
pub(crate) struct Opener {
    pub(crate) conn: ConnId,
    /// The number that the connection is to have, or the least if the client asks again.
    pub(crate) epoch: Epoch,
    pub(crate) again: bool,
    pub(crate) last_final: Option<Segment>,
    pub(crate) have_from: SourceOffset,
}

impl State {
    pub(crate) fn now(&self, node: Node) -> Timestamp {
        Timestamp(self.nodes[node].now)
    }

    pub(crate) fn owner(&mut self, node: Node, id: SessionId) -> Option<&mut Owner> {
        if !self.nodes[node].owners.contains_key(&id) {
            return None;
        }
        self.node(node).owners.get_mut(&id)
    }

    pub(crate) fn open(&mut self, node: Node, id: SessionId, opener: Opener) {
        if self.nodes[node].owners.contains_key(&id) {
            return self.attach(node, id, opener);
        }
        let mut out = Vec::new();
        let machine = SessionMachine::new(self.now(node), session_config(), &mut out);
        self.node(node).owners.insert(id, new_owner(machine, SourceStore::new()));
        self.attach(node, id, Opener { again: false, ..opener });
        self.perform(node, id, out);
        self.grant(node, id);
        self.begin_copies(node, id, View(0), opener.epoch);
    }

    pub(crate) fn go_on(
        &mut self,
        node: Node,
        id: SessionId,
        opener: Opener,
        copy: SessionCopy,
        skip_to: Option<(Segment, SourceOffset)>,
        holders: Vec<Node>,
    ) {
        let view = copy.view();
        let epoch = opener.epoch;
        let standing = Restored::from_copy(copy, rates(), skip_to);
        let (mut out, last) = (Vec::new(), Epoch(epoch.0.saturating_sub(1)));
        let machine = SessionMachine::restore(self.now(node), session_config(), &standing, last, &mut out);
        let mut owner = new_owner(machine, standing.audio);
        owner.trim_to = owner.store.0.start();
        owner.pushed = standing.confirmed;
        owner.finals = standing.finals.iter().map(|last| (Text::from(last), None)).collect();
        owner.holders = holders;
        self.node(node).owners.insert(id, owner);
        // The actor begins with the epoch below, which who promised refuses, and asks again a second later.
        self.begin_copies(node, id, view, epoch);
        self.attach(node, id, opener);
        self.perform(node, id, out);
        self.grant(node, id);
    }

    pub(crate) fn attach(&mut self, node: Node, id: SessionId, opener: Opener) {
        let Opener { conn, epoch, again, last_final, have_from } = opener;
        let Some(owner) = self.owner(node, id) else { return };
        owner.attaching = Some(conn);
        let epoch = if again { epoch.max(owner.session.last_epoch().next()) } else { epoch };
        self.drive(node, id, SessionEvent::Attach { epoch, last_final, have_from });
        // A client that has gone meanwhile drops what it is given.
        let gone = self.net.conns.get(&conn).is_none_or(|conn| conn.left);
        if gone && self.owner(node, id).is_some_and(|owner| owner.conn == Some(conn)) {
            self.leave(node, id, epoch);
        }
    }

    /// The client's connection is gone.
    fn leave(&mut self, node: Node, id: SessionId, epoch: Epoch) {
        self.drive(node, id, SessionEvent::Detached { epoch });
        if let Some(owner) = self.owner(node, id)
            && owner.session.attached().is_none()
        {
            owner.conn = None;
        }
    }

    pub(crate) fn drive(&mut self, node: Node, id: SessionId, event: SessionEvent) {
        let now = self.now(node);
        let Some(owner) = self.owner(node, id) else { return };
        let before = owner.session.last_epoch();
        let mut out = Vec::new();
        owner.session.handle(now, event, &mut out);
        if owner.session.last_epoch() < before {
            self.breaks(Invariant::I5, "a session's epoch fell");
        }
        self.perform(node, id, out);
        self.grant(node, id);
    }

    /// A pool here always has a slot.
    fn grant(&mut self, node: Node, id: SessionId) {
        if let Some(attempt) = self.owner(node, id).and_then(|owner| owner.granted.take()) {
            self.drive(node, id, SessionEvent::LeaseGranted { attempt });
        }
    }

    fn perform(&mut self, node: Node, id: SessionId, actions: Vec<SessionAction>) {
        for action in actions {
            let Some(owner) = self.owner(node, id) else { return };
            match action {
                SessionAction::RequestLease { attempt, .. } => owner.granted = Some(attempt),
                SessionAction::ReleaseLease { .. } => {
                    (owner.granted, owner.decoder) = (None, Decoder::default());
                }
                SessionAction::OpenStream { attempt, segment, from, .. } => {
                    owner.decoder = Decoder { attempt, segment, from, work: VecDeque::new() };
                }
                SessionAction::Feed { from, to, .. } => owner.decoder.work.push_back(Work::Step(from, to)),
                SessionAction::Flush { at, cause, .. } => {
                    owner.decoder.work.push_back(Work::Flush(at, cause));
                }
                SessionAction::TrimSource { until } => {
                    owner.trim_to = owner.trim_to.max(until);
                    owner.let_go();
                }
                SessionAction::Welcome { epoch, have_until, resend_from, .. } => {
                    self.welcome(node, id, epoch, have_until, resend_from);
                }
                SessionAction::RefuseAttach { reason, .. } => {
                    let code = match reason {
                        AttachRefusal::Superseded => ErrorCode::Superseded,
                        AttachRefusal::Gap => ErrorCode::Gap,
                        AttachRefusal::UnknownFinal => ErrorCode::BadRequest,
                    };
                    if let Some(conn) = owner.attaching.take() {
                        self.tell_last(conn, Last::Failed(code));
                    }
                }
                SessionAction::Fence { .. } => self.finish(node, id, Last::Failed(ErrorCode::Superseded)),
                SessionAction::Ack { until } => {
                    if self.mistake == Some(Mistake::AckBeforeCopy) {
                        self.tell_ack(node, id, until);
                    }
                    self.replicate(node, id, ReplicationEvent::AudioReceived { until });
                }
                SessionAction::Entered { entry, until } => {
                    let (at, kind) = (entry.at, entry.control.into());
                    self.replicate(node, id, ReplicationEvent::Entered { at, kind, until });
                }
                SessionAction::Commit { segment, decode_to, from, to, cause, answered, .. } => {
                    let needed_from = owner.session.journal().needed_from();
                    let text = std::mem::take(&mut owner.heard);
                    let facts = Facts { to: decode_to, answered, needed_from };
                    owner.finals.push_back((Text { segment, from, to, cause, text }, Some(facts)));
                    self.replicate(node, id, ReplicationEvent::Committed { segment });
                }
                SessionAction::ForgetFinals { through } => {
                    self.replicate(node, id, ReplicationEvent::Confirmed { through });
                    if let Some(owner) = self.owner(node, id) {
                        owner.let_go();
                    }
                }
                SessionAction::AnnounceDone { segments, frames } => {
                    owner.done = Some((segments, frames));
                    self.finish_when_told(node, id);
                }
                SessionAction::End(outcome) => self.end(node, id, outcome),
                _ => {}
            }
        }
    }

    fn welcome(
        &mut self,
        node: Node,
        id: SessionId,
        epoch: Epoch,
        have_until: SourceOffset,
        resend_from: Segment,
    ) {
        let Some(conn) = self.owner(node, id).and_then(|owner| owner.attaching.take()) else { return };
        self.replicate(node, id, ReplicationEvent::EpochRaised { epoch });
        if let Some(conn) = self.net().conns.get_mut(&conn) {
            conn.serves = Some((id, epoch));
        }
        let Some(owner) = self.owner(node, id) else { return };
        owner.conn = Some(conn);
        owner.pushed = resend_from;
        let mut set = owner.set(node);
        if self.mistake == Some(Mistake::DurableAtOnce) {
            set.durable = true;
        }
        let ready = Ready { session: id, epoch, set, have_until, next_segment: resend_from };
        self.with_conn(conn, |outbox| outbox.ready = Some(ready));
        self.push_finals(node, id);
        let acked = self.owner(node, id).map_or(SourceOffset(0), |owner| owner.released().0);
        if acked > SourceOffset(0) {
            self.tell_ack(node, id, acked);
        }
    }

    fn end(&mut self, node: Node, id: SessionId, outcome: Outcome) {
        match outcome {
            Outcome::Superseded => self.finish(node, id, Last::Failed(ErrorCode::Superseded)),
            Outcome::Failed(reason) => {
                if matches!(reason, FailReason::DecodersFail | FailReason::OptionsRefused) {
                    self.breaks(Invariant::I7, format!("a session fails: {reason:?}"));
                }
                self.finish(node, id, Last::Failed(ErrorCode::Internal));
            }
            _ => {}
        }
        let forget = !matches!(outcome, Outcome::Superseded | Outcome::Failed(FailReason::ShuttingDown));
        self.replicate(node, id, ReplicationEvent::Ended { forget });
        self.node(node).owners.remove(&id);
    }

    /// The decoder does the next of what it was given.
    pub(crate) fn decode(&mut self, node: Node, id: SessionId) {
        let Some(owner) = self.owner(node, id) else { return };
        let Some(work) = owner.decoder.work.pop_front() else { return };
        let Decoder { attempt, segment, from, .. } = owner.decoder;
        let (to, cause) = match work {
            Work::Step(start, to) if to.since(start) == rates().step() => (to, Some(CutCause::Endpoint)),
            Work::Step(_, to) => (to, None),
            Work::Flush(at, cause) => (at, Some(cause)),
        };
        if let Some(cause) = cause {
            owner.heard = heard(&owner.store.0, from.0, to.0);
            owner.decoder.segment = segment.next();
            owner.decoder.from = to;
            self.drive(node, id, SessionEvent::SegmentCut { attempt, segment, from, to, cause });
        }
        self.drive(node, id, SessionEvent::Decoded { attempt, until: to });
    }

    pub(crate) fn input(&mut self, node: Node, conn: ConnId, said: &ToServer) {
        let Some(conn) = self.net().conns.get_mut(&conn) else { return };
        conn.left |= matches!(said, ToServer::Closed);
        let serves = conn.serves;
        let Some((id, epoch)) = serves else { return };
        let Some(owner) = self.owner(node, id) else { return };
        let current = owner.session.attached() == Some(epoch);
        match *said {
            ToServer::Audio(from, to) if current && !owner.session.journal().ended() => {
                let frames = Arc::make_mut(&mut owner.store.0).append(&pcm(from, to));
                self.drive(node, id, SessionEvent::AudioReceived { frames });
            }
            ToServer::Finalize if current => self.drive(node, id, SessionEvent::FinalizeRequested),
            ToServer::End if current => self.drive(node, id, SessionEvent::EndRequested),
            ToServer::Confirm(segment) if current => {
                self.drive(node, id, SessionEvent::Confirmed { segment });
            }
            ToServer::Closed => self.leave(node, id, epoch),
            _ => {}
        }
    }

    pub(crate) fn with_conn(&mut self, conn: ConnId, change: impl FnOnce(&mut Outbox)) {
        if let Some(conn) = self.net().conns.get_mut(&conn)
            && conn.open
            && !conn.broken
        {
            change(&mut conn.outbox);
        }
    }

    pub(crate) fn tell_last(&mut self, conn: ConnId, last: Last) {
        self.with_conn(conn, |outbox| outbox.last = outbox.last.take().or(Some(last)));
    }

    pub(crate) fn tell_ack(&mut self, node: Node, id: SessionId, until: SourceOffset) {
        if let Some(conn) = self.owner(node, id).and_then(|owner| owner.conn) {
            self.with_conn(conn, |outbox| outbox.ack = Some(until));
        }
    }

    fn finish(&mut self, node: Node, id: SessionId, last: Last) {
        if let Some(conn) = self.owner(node, id).and_then(|owner| owner.conn.take()) {
            self.tell_last(conn, last);
        }
    }

    pub(crate) fn push_finals(&mut self, node: Node, id: SessionId) {
        let Some(owner) = self.owner(node, id) else { return };
        let released = owner.released().1;
        let (pushed, conn) = (owner.pushed, owner.conn);
        let due = owner.finals.iter().map(|(text, _)| text);
        let due: Vec<Text> =
            due.filter(|text| text.segment >= pushed && text.segment < released).cloned().collect();
        owner.pushed = pushed.max(released);
        if let Some(conn) = conn {
            self.with_conn(conn, |outbox| outbox.finals.extend(due));
        }
        self.finish_when_told(node, id);
    }

    fn finish_when_told(&mut self, node: Node, id: SessionId) {
        let Some(owner) = self.owner(node, id) else { return };
        if owner.released().1 >= owner.session.open_segment()
            && let Some((segments, frames)) = owner.done.take()
        {
            self.finish(node, id, Last::Done { segments, frames });
        }
    }
}
