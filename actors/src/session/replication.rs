//! A session's copies: what its keepers are told, and what its client is told because of it.
//!
//! Owns: the streams to keepers. Must never: decide when a client may be told; the machine does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::Timestamp;
use starling_core::placement::{Copies, keepers};
use starling_core::replica::{
    CopyItem, OpenFailure, ReplicationAction, ReplicationConfig, ReplicationEvent, ReplicationMachine,
    Standing, Tries,
};
use starling_core::session::SessionEvent as Event;
use starling_protocol::data::DATA_PROTOCOL;
use starling_protocol::native::Final;
use starling_protocol::replica::{
    Commit, CopyHeader, CopyStart, MAX_COPY_AUDIO_BYTES, SessionFacts, ToReplica, View,
};
use starling_protocol::token::TokenBody;
use starling_protocol::{DecodeOffset, Epoch, NodeName, Segment, SourceOffset};
use tracing::{debug, info};

use super::actor::{SessionMessage, SessionState};
use super::api::SessionEvent;
use crate::observe::Observation;
use crate::replica::{CopyStream, OpenedStream, WINDOW, open_copy};
use crate::task::{AbortOnDrop, Timer};

/// How often nodes are looked for while a session has too few copies: as often as gossip brings something new.
const RETRY: Duration = Duration::from_secs(1);

/// A keeper that confirms nothing for so long is given up. Links notice a dead node in less; this is for one whose keeper
/// alone stands still.
const STALLED: Duration = Duration::from_secs(2);

/// How long audio is gathered for a keeper: a message, its confirmation and the client's acknowledgement for every 300 ms cost
/// a third of what they cost for every 100 ms. What is lost with the owner the client has still.
const GATHER: Duration = Duration::from_millis(300);

/// A final that was made, and what a keeper has to know of its commit.
pub(super) struct KeptFinal {
    pub(super) last: Final,
    /// `None` for one that came with a copy.
    pub(super) commit: Option<CommitFacts>,
    /// When it was made here, until it may be told.
    pub(super) made: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct CommitFacts {
    pub(super) to: DecodeOffset,
    pub(super) answered: bool,
    pub(super) needed_from: SourceOffset,
}

/// See the module.
pub(super) struct Replication {
    machine: ReplicationMachine,
    /// There are to be copies.
    wanted: bool,
    opening: HashMap<Tries, AbortOnDrop>,
    streams: HashMap<Tries, CopyStream>,
    timer: Option<Timer>,
    /// Pauses of this process that were seen, and whether one is being seen that was not counted yet.
    pauses: (u64, bool),
    /// Who held copies when the session was taken over: they do until there are new ones.
    holders: Vec<NodeName>,
}

impl Replication {
    /// The set of copies, its members, and whether it is one.
    fn set(&self) -> (View, Vec<NodeName>, bool) {
        let keepers: Vec<NodeName> = self.machine.keepers().cloned().collect();
        let named = if keepers.is_empty() { self.holders.clone() } else { keepers };
        (self.machine.view(), named, self.machine.is_durable())
    }
}

impl SessionState {
    /// Begins to have copies made. `view` is the set that the session had before it came here, `epoch` the one that keepers
    /// are to obey.
    pub(super) fn begin_copies(
        &mut self,
        myself: &ActorRef<SessionMessage>,
        epoch: Epoch,
        view: View,
        holders: Vec<NodeName>,
    ) {
        let copies = &self.arguments.copies;
        // Who can't come back has no use for a copy.
        let wanted =
            if self.arguments.config.linger.is_zero() || copies.peers.is_none() { 0 } else { copies.copies };
        let config = ReplicationConfig {
            copies: wanted,
            patience: copies.patience,
            retry: RETRY,
            stalled: STALLED,
            gather: if self.arguments.request.dialect.sends_again() { GATHER } else { Duration::ZERO },
            piece_frames: MAX_COPY_AUDIO_BYTES as u64 / 2,
            window: WINDOW,
        };
        let mut out = Vec::new();
        let (now, standing) = (self.arguments.clock.now(), self.standing());
        let machine = ReplicationMachine::new(now, config, epoch, view, &standing, &mut out);
        let pauses = copies.pulse.as_ref().map_or(0, crate::membership::Pulse::pauses);
        self.replication = Some(Replication {
            machine,
            wanted: wanted > 0,
            opening: HashMap::new(),
            streams: HashMap::new(),
            timer: None,
            pauses: (pauses, false),
            holders,
        });
        self.perform_copies(myself, out);
    }

    pub(super) fn replicate(&mut self, myself: &ActorRef<SessionMessage>, event: ReplicationEvent) {
        let now = self.arguments.clock.now();
        let Some(replication) = &mut self.replication else { return };
        let mut out = Vec::new();
        replication.machine.handle(now, event, &mut out);
        self.perform_copies(myself, out);
        self.let_go();
        self.arm_copies(myself);
    }

    /// Whether this process stood still since it was last looked: then nothing is told before the keepers have obeyed again.
    pub(super) fn look_at_pulse(&mut self, myself: &ActorRef<SessionMessage>) {
        let Some(pulse) = &self.arguments.copies.pulse else { return };
        let (overdue, pauses) = (pulse.is_overdue(), pulse.pauses());
        let Some(replication) = &mut self.replication else { return };
        let (seen, was_overdue) = replication.pauses;
        replication.pauses = (pauses, overdue);
        // One that was seen before it was counted is the same one.
        if (overdue || pauses != seen) && !was_overdue {
            debug!(session = %self.arguments.request.session, "this process stood still; the session's keepers are asked");
            self.replicate(myself, ReplicationEvent::StoodStill);
        }
    }

    fn arm_copies(&mut self, myself: &ActorRef<SessionMessage>) {
        let now = self.arguments.clock.now();
        let Some(replication) = &mut self.replication else { return };
        let Some(at) = replication.machine.next_timeout() else { return };
        if replication.timer.as_ref().is_none_or(|timer| at < timer.at()) {
            replication.timer = Some(Timer::set(myself, now, at, || SessionMessage::CopiesTimedOut));
        }
    }

    pub(super) fn copies_timed_out(&mut self, myself: &ActorRef<SessionMessage>) {
        if let Some(replication) = &mut self.replication {
            replication.timer = None;
        }
        self.replicate(myself, ReplicationEvent::TimedOut);
    }

    pub(super) fn copy_opened(
        &mut self,
        myself: &ActorRef<SessionMessage>,
        tries: Tries,
        opened: Result<OpenedStream, OpenFailure>,
    ) {
        let Some(replication) = &mut self.replication else { return };
        // One that was closed meanwhile is not wanted any more.
        if replication.opening.remove(&tries).is_none() {
            return;
        }
        match opened {
            Ok(stream) => {
                replication.streams.insert(tries, stream.start(tries, myself.clone()));
                let standing = self.standing();
                self.replicate(myself, ReplicationEvent::Opened { tries, standing });
            }
            Err(failure) => {
                self.trace(|trace, now| trace.copy_failed(now, tries));
                self.replicate(myself, ReplicationEvent::OpenFailed { tries, failure });
            }
        }
    }

    fn perform_copies(&mut self, myself: &ActorRef<SessionMessage>, actions: Vec<ReplicationAction>) {
        let mut actions: VecDeque<ReplicationAction> = actions.into();
        while let Some(action) = actions.pop_front() {
            let Some(replication) = &mut self.replication else { return };
            match action {
                ReplicationAction::FindKeepers { excluded, count } => {
                    let nodes = self.find_keepers(&excluded, count);
                    let mut out = Vec::new();
                    let now = self.arguments.clock.now();
                    if let Some(replication) = &mut self.replication {
                        replication.machine.handle(now, ReplicationEvent::KeepersFound { nodes }, &mut out);
                    }
                    actions.extend(out);
                }
                ReplicationAction::Open { tries, node, epoch } => {
                    self.open_stream_to(myself, tries, node, epoch);
                }
                ReplicationAction::Send { tries, item } => {
                    let message = self.copy_message(item);
                    if let (Some(message), Some(replication)) = (message, &self.replication)
                        && let Some(stream) = replication.streams.get(&tries)
                    {
                        stream.send(message);
                    }
                }
                ReplicationAction::Close { tries } => {
                    replication.opening.remove(&tries);
                    replication.streams.remove(&tries);
                    self.trace(|trace, now| trace.copy_failed(now, tries));
                }
                ReplicationAction::SetDurable { durable, view, keepers } => {
                    let names: Vec<&str> = keepers.iter().map(NodeName::as_str).collect();
                    info!(
                        durable,
                        view = view.0,
                        keepers = names.join(", "),
                        "the session's copies have changed"
                    );
                    self.trace(|trace, now| trace.copied(now, durable, view.0, &keepers));
                    if !durable {
                        let dialect = self.arguments.request.dialect;
                        self.arguments.observer.observe(&Observation::SessionLeftAlone { dialect });
                    }
                    self.tell_view();
                }
                ReplicationAction::ReleaseAck { until } => {
                    if let Some(outbox) = &self.outbox {
                        outbox.set_ack(until);
                    }
                }
                ReplicationAction::ReleaseFinals { .. } => self.push_finals(),
                ReplicationAction::Fence { epoch } => {
                    info!(session = %self.arguments.request.session, %epoch, "another node speaks for the session");
                    self.leave_copy();
                    self.drive(myself, Event::Superseded);
                }
            }
        }
    }

    fn find_keepers(&self, excluded: &[NodeName], count: usize) -> Vec<NodeName> {
        let Some(peers) = &self.arguments.copies.peers else { return Vec::new() };
        let zone = peers.own_zone();
        let copies = Copies {
            session: self.arguments.request.session,
            owner: &self.arguments.copies.own,
            owner_zone: &zone,
            class: &self.placed.class,
            excluded,
            count,
        };
        keepers(&copies, &peers.keepers(&self.arguments.model)).into_iter().cloned().collect()
    }

    fn open_stream_to(
        &mut self,
        myself: &ActorRef<SessionMessage>,
        tries: Tries,
        node: NodeName,
        epoch: Epoch,
    ) {
        self.trace(|trace, now| trace.copying(now, tries, node.clone()));
        let trace = self.context();
        let (Some(peers), Some(replication)) = (&self.arguments.copies.peers, &mut self.replication) else {
            return;
        };
        let session = self.arguments.request.session;
        let header = CopyHeader { version: DATA_PROTOCOL, session, epoch, trace };
        let (peers, owner) = (Arc::clone(peers), myself.clone());
        let opening = AbortOnDrop::spawn(async move {
            let opened = open_copy(peers.open(&node), header).await;
            let opened = opened.map_err(|problem| {
                debug!(%session, %node, %problem, "a node keeps no copy");
                problem.failure()
            });
            let _ = owner.cast(SessionMessage::CopyOpened { tries, opened });
        });
        replication.opening.insert(tries, opening);
    }

    /// The session as it is now.
    pub(super) fn standing(&self) -> Standing {
        let journal = self.machine.journal();
        let entries = (0..journal.pending_entries()).filter_map(|index| journal.entry(index));
        Standing {
            finals_from: self.machine.confirmed(),
            next_segment: self.machine.open_segment(),
            audio_from: self.trim_to.max(self.store.start()),
            audio_to: journal.received(),
            entries: entries.map(|entry| (entry.at, entry.control.into())).collect(),
        }
    }

    pub(super) fn copy_message(&self, item: CopyItem) -> Option<ToReplica> {
        let kept = |segment: Segment| self.finals.iter().find(|kept| kept.last.segment == segment);
        Some(match item {
            CopyItem::Begin { view } => ToReplica::Begin(Box::new(self.copy_start(view))),
            CopyItem::Kept { segment } => ToReplica::Kept(Box::new(kept(segment)?.last.clone())),
            CopyItem::Audio { from, to } => {
                let attempt = self.machine.last_attempt();
                ToReplica::Audio { from, pcm: self.store.read(from, to), attempt }
            }
            CopyItem::Entry { at, kind } => ToReplica::Entry { at, kind },
            CopyItem::Whole => ToReplica::Whole,
            CopyItem::Commit { segment } => {
                let KeptFinal { last, commit, .. } = kept(segment)?;
                let CommitFacts { to, answered, needed_from } = (*commit)?;
                let times = self.trace.as_ref().and_then(|trace| trace.lock().times_of(segment));
                let (last, attempt) = (last.clone(), self.machine.last_attempt());
                ToReplica::Commit(Box::new(Commit { last, to, answered, needed_from, times, attempt }))
            }
            CopyItem::Confirmed { through } => ToReplica::Confirmed { through },
            CopyItem::Epoch { epoch } => ToReplica::Epoch { epoch },
            CopyItem::View { view } => ToReplica::View { view },
            CopyItem::Over => ToReplica::Over,
        })
    }

    pub(super) fn copy_start(&self, view: View) -> CopyStart {
        let (arguments, standing) = (&self.arguments, self.standing());
        let rates = &arguments.config.rates;
        let hz = |hz: u64| u32::try_from(hz).unwrap_or(u32::MAX);
        CopyStart {
            facts: SessionFacts {
                session: arguments.request.session,
                tenant: arguments.request.tenant.clone(),
                dialect: arguments.request.dialect.label().to_owned(),
                model: arguments.model.to_string(),
                digest: arguments.digest.to_string(),
                class: self.placed.class.to_string(),
                source_hz: hz(rates.source_hz()),
                decode_hz: hz(rates.decode_hz()),
                options: arguments.request.options.clone(),
                decode: arguments.options.clone(),
                linger_ms: u64::try_from(arguments.config.linger.as_millis()).unwrap_or(u64::MAX),
                trace: self.context(),
                root: self.trace.as_ref().map(|trace| trace.lock().root()).or(self.root),
                opened_unix_ms: u64::try_from(self.opened.as_millis()).unwrap_or(u64::MAX),
            },
            epoch: self.machine.last_epoch(),
            view,
            confirmed: standing.finals_from,
            next_segment: standing.next_segment,
            final_end: self.machine.final_end(),
            committed: self.machine.journal().committed(),
            audio_from: standing.audio_from,
            ended: self.machine.journal().ended(),
            recent: self.trace.as_ref().map_or_else(Vec::new, |trace| trace.lock().recent().into()),
            attempt: self.machine.last_attempt(),
        }
    }

    /// Hands finals to the connection that may go out and were not yet.
    pub(super) fn push_finals(&mut self) {
        let released = self.released().1;
        self.note_released(released);
        self.trace(|trace, now| trace.released(now, released));
        if let Some(outbox) = &self.outbox {
            let due = |kept: &&KeptFinal| kept.last.segment >= self.pushed && kept.last.segment < released;
            self.finals.iter().filter(due).for_each(|kept| outbox.push_final(kept.last.clone()));
        }
        self.pushed = self.pushed.max(released);
        self.finish_when_told();
    }

    fn note_released(&mut self, released: Segment) {
        let now = self.arguments.clock.now();
        for kept in self.finals.iter_mut().filter(|kept| kept.last.segment < released) {
            if let Some(made) = kept.made.take() {
                let (model, took) = (&*self.arguments.model, now.since(made));
                self.arguments.observer.observe(&Observation::FinalReleased { model, took });
            }
        }
    }

    /// Says that the session is done, once every final has gone out.
    pub(super) fn finish_when_told(&mut self) {
        if self.released().1 >= self.machine.open_segment()
            && let Some(done) = self.done.take()
        {
            self.finish(done);
        }
    }

    /// What the client may have been told of: audio before the first, finals before the second.
    pub(super) fn released(&self) -> (SourceOffset, Segment) {
        let own = || (self.machine.journal().received(), self.machine.open_segment());
        self.replication.as_ref().map_or_else(own, |replication| replication.machine.released())
    }

    /// Lets go of what neither the session nor a keeper needs any more.
    pub(super) fn let_go(&mut self) {
        let machine = self.replication.as_ref().map(|replication| &replication.machine);
        let until = machine
            .and_then(ReplicationMachine::audio_needed_from)
            .map_or(self.trim_to, |at| at.min(self.trim_to));
        if until > self.store.start() {
            let freed = self.store.trim(until);
            self.room.add_permits(freed);
        }
        let confirmed = self.machine.confirmed();
        let through = machine
            .and_then(ReplicationMachine::finals_needed_from)
            .map_or(confirmed, |at| at.min(confirmed));
        while self.finals.front().is_some_and(|kept| kept.last.segment < through) {
            self.finals.pop_front();
        }
    }

    pub(super) fn token(&self) -> String {
        let (view, keepers, _) = self.set();
        self.arguments.copies.sealer.seal(TokenBody {
            session: self.arguments.request.session,
            tenant: self.arguments.request.tenant.clone(),
            model: self.arguments.model.to_string(),
            digest: self.arguments.digest.to_string(),
            view,
            owner: self.arguments.copies.own.clone(),
            keepers,
            expires_unix_s: 0,
        })
    }

    /// The nodes with copies, or while there are none those that are likely to get one.
    pub(super) fn likely_keepers(&self) -> Vec<NodeName> {
        let keepers = self.keepers();
        let wanted = usize::from(self.arguments.copies.copies);
        if keepers.is_empty() { self.find_keepers(&[], wanted) } else { keepers }
    }

    pub(super) fn is_durable(&self) -> bool {
        self.set().2
    }

    /// It should have a copy and has none.
    pub(super) fn lacks_copy(&self) -> bool {
        self.replication
            .as_ref()
            .is_some_and(|replication| replication.wanted && !replication.machine.is_durable())
    }

    /// Whether it could go on elsewhere.
    pub(super) fn has_copies(&self) -> bool {
        self.replication.as_ref().is_some_and(|replication| replication.machine.keepers().next().is_some())
    }

    pub(super) fn keepers(&self) -> Vec<NodeName> {
        self.replication
            .as_ref()
            .map_or_else(Vec::new, |replication| replication.machine.keepers().cloned().collect())
    }

    pub(super) fn set(&self) -> (View, Vec<NodeName>, bool) {
        self.replication.as_ref().map_or((View(0), Vec::new(), false), Replication::set)
    }

    /// Tells the client where its copies are.
    pub(super) fn tell_view(&self) {
        let Some(outbox) = &self.outbox else { return };
        let (view, keepers, durable) = self.set();
        let peers = self.arguments.copies.peers.as_ref();
        let resume_at = keepers.iter().filter_map(|node| peers?.client_address(node)).collect();
        outbox.set_view(SessionEvent::View { view: view.0, token: self.token(), durable, resume_at });
    }
}
