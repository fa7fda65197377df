//! The owner's side: what its keepers are told, and what its client may be told because of it.
//!
//! While copies are wanted and there are any, nothing goes out before every one of them has it. When the last is lost the
//! session waits a while for another, then says that it is not durable and goes on alone; it says that it is durable again
//! once a copy is whole.

use std::collections::BTreeMap;

use starling_protocol::replica::{EntryKind, View};
use starling_protocol::{DecodeOffset, Epoch, NodeName, Segment, SourceOffset};

use super::line::{Line, Phase};
use super::messages::{
    CopyItem, OpenFailure, ReplicationAction, ReplicationConfig, ReplicationEvent, Standing, Tries,
};
use crate::Timestamp;
use crate::sabotage::{Bug, is};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReplicationMachine {
    config: ReplicationConfig,
    epoch: Epoch,
    view: View,
    standing: Durability,
    lines: BTreeMap<Tries, Line>,
    last_try: Tries,
    /// Nodes that failed, until all are asked again.
    failed: Vec<NodeName>,
    /// When to search again.
    search_at: Option<Timestamp>,
    /// What the owner itself has.
    received: SourceOffset,
    next_segment: Segment,
    /// What the client was told.
    acked: SourceOffset,
    released: Segment,
    over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Durability {
    /// Nothing goes out: there is no copy yet, or none any more.
    Seeking {
        /// When to go on without.
        until: Timestamp,
        /// There never was one.
        first: bool,
    },
    /// What goes out is in this copy alone.
    Alone,
    /// What goes out is in all whole copies.
    Durable,
}

impl ReplicationMachine {
    /// A session that begins, or goes on from a copy: `standing` is what its client may have been told already. Asks for
    /// keepers at once.
    #[must_use]
    pub fn new(
        now: Timestamp,
        config: ReplicationConfig,
        epoch: Epoch,
        view: View,
        standing: &Standing,
        out: &mut Vec<ReplicationAction>,
    ) -> Self {
        let durability = match config.copies {
            0 => Durability::Alone,
            _ => Durability::Seeking { until: now.plus(config.patience), first: true },
        };
        let mut machine = Self {
            config,
            epoch,
            view,
            standing: durability,
            lines: BTreeMap::new(),
            last_try: Tries(0),
            failed: Vec::new(),
            search_at: None,
            received: standing.audio_to,
            next_segment: standing.next_segment,
            acked: SourceOffset(0),
            // What is in a copy already may go to whoever lacks it.
            released: standing.next_segment,
            over: false,
        };
        machine.search(out);
        machine
    }

    /// Takes an event and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: ReplicationEvent, out: &mut Vec<ReplicationAction>) {
        if self.over {
            return;
        }
        match event {
            ReplicationEvent::AudioReceived { until } => {
                let from = self.received;
                self.received = self.received.max(until);
                self.tell(CopyItem::Audio { from, to: self.received });
            }
            ReplicationEvent::Entered { at, kind, until } => self.entered(at, kind, until, out),
            ReplicationEvent::Committed { segment } => {
                self.next_segment = segment.next();
                self.tell(CopyItem::Commit { segment });
            }
            ReplicationEvent::Confirmed { through } => self.tell(CopyItem::Confirmed { through }),
            ReplicationEvent::EpochRaised { epoch } => {
                if epoch > self.epoch {
                    self.epoch = epoch;
                    self.tell(CopyItem::Epoch { epoch });
                }
            }
            ReplicationEvent::KeepersFound { nodes } => self.found(now, nodes, out),
            ReplicationEvent::Opened { tries, standing } => self.opened(now, tries, &standing, out),
            ReplicationEvent::OpenFailed { tries, failure } | ReplicationEvent::Lost { tries, failure } => {
                self.lost(now, tries, failure, out);
            }
            ReplicationEvent::Applied { tries, count } => self.applied(now, tries, count, out),
            ReplicationEvent::StoodStill => {
                let epoch = self.epoch;
                self.lines.values_mut().for_each(|line| line.doubt(epoch));
            }
            ReplicationEvent::Ended { forget } => self.ended(forget, out),
            ReplicationEvent::TimedOut => self.timed_out(now, out),
        }
        if !self.over {
            self.release(out);
            self.send(now, out);
        }
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if self.over {
            return None;
        }
        let patience = match self.standing {
            Durability::Seeking { until, .. } => Some(until),
            _ => None,
        };
        let stalls = self.lines.values().filter_map(|line| line.stalls_at(self.config.stalled));
        let gathered = self.lines.values().filter_map(|line| line.gathers_until(self.config.gather));
        stalls.chain(gathered).chain(patience).chain(self.search_at).min()
    }

    /// Whether what is acknowledged is in two copies.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.standing == Durability::Durable
    }

    /// The set of copies.
    #[must_use]
    pub const fn view(&self) -> View {
        self.view
    }

    /// Who keeps the copies of that set.
    pub fn keepers(&self) -> impl Iterator<Item = &NodeName> {
        self.lines.values().filter(|line| line.phase == Phase::Member).map(|line| &line.node)
    }

    /// What the client was told of: audio before the first, finals before the second.
    #[must_use]
    pub const fn released(&self) -> (SourceOffset, Segment) {
        (self.acked, self.released)
    }

    /// The first audio that some keeper is still to be sent: it must not be let go.
    #[must_use]
    pub fn audio_needed_from(&self) -> Option<SourceOffset> {
        self.lines.values().filter_map(Line::audio_from).min()
    }

    /// The first final that some keeper is still to be sent: it must not be let go.
    #[must_use]
    pub fn finals_needed_from(&self) -> Option<Segment> {
        self.lines.values().filter_map(Line::finals_from).min()
    }

    fn tell(&mut self, item: CopyItem) {
        self.lines.values_mut().for_each(|line| line.push(item));
    }

    fn entered(
        &mut self,
        at: DecodeOffset,
        kind: EntryKind,
        until: SourceOffset,
        out: &mut Vec<ReplicationAction>,
    ) {
        self.tell(CopyItem::Entry { at, kind });
        // Nothing new to be covered, so no copy has to answer: the client hears at once that its end has come.
        if kind == EntryKind::End && until == self.acked {
            out.push(ReplicationAction::ReleaseAck { until });
        }
    }

    fn search(&mut self, out: &mut Vec<ReplicationAction>) {
        let missing = usize::from(self.config.copies).saturating_sub(self.lines.len());
        if missing > 0 && self.search_at.is_none() {
            let kept = self.lines.values().map(|line| line.node.clone());
            let excluded = kept.chain(self.failed.iter().cloned()).collect();
            out.push(ReplicationAction::FindKeepers { excluded, count: missing });
        }
    }

    fn found(&mut self, now: Timestamp, nodes: Vec<NodeName>, out: &mut Vec<ReplicationAction>) {
        let missing = usize::from(self.config.copies).saturating_sub(self.lines.len());
        let enough = nodes.len() >= missing;
        for node in nodes.into_iter().take(missing) {
            if self.lines.values().any(|line| line.node == node) {
                continue;
            }
            self.last_try = Tries(self.last_try.0 + 1);
            let (tries, epoch) = (self.last_try, self.epoch);
            self.lines.insert(tries, Line::new(now, node.clone()));
            out.push(ReplicationAction::Open { tries, node, epoch });
        }
        if !enough {
            self.search_at = Some(now.plus(self.config.retry));
        }
        if self.lines.is_empty()
            && let Durability::Seeking { first: true, .. } = self.standing
        {
            // The client was told with its welcome that it is not durable.
            self.standing = Durability::Alone;
        }
    }

    fn opened(
        &mut self,
        now: Timestamp,
        tries: Tries,
        standing: &Standing,
        out: &mut Vec<ReplicationAction>,
    ) {
        let view = self.view.next();
        match self.lines.get_mut(&tries) {
            Some(line) if line.phase == Phase::Opening => line.fill(now, view, standing),
            Some(_) => {}
            None => out.push(ReplicationAction::Close { tries }),
        }
    }

    fn lost(&mut self, now: Timestamp, tries: Tries, failure: OpenFailure, out: &mut Vec<ReplicationAction>) {
        let Some(line) = self.lines.remove(&tries) else { return };
        if let OpenFailure::Fenced { epoch } = failure
            && epoch > self.epoch
        {
            self.over = true;
            let others = self.lines.keys().map(|&tries| ReplicationAction::Close { tries });
            out.extend(others);
            self.lines.clear();
            out.push(ReplicationAction::Fence { epoch });
            return;
        }
        self.failed.push(line.node);
        if line.phase == Phase::Member {
            self.fewer(now, out);
        }
        if self.lines.is_empty() && matches!(self.standing, Durability::Seeking { .. }) {
            // A client waits: the next search does not.
            self.search_at = None;
        }
        self.search(out);
    }

    /// A good copy is gone.
    fn fewer(&mut self, now: Timestamp, out: &mut Vec<ReplicationAction>) {
        if self.keepers().next().is_some() {
            self.change_view(true, out);
        } else {
            self.standing = Durability::Seeking { until: now.plus(self.config.patience), first: false };
        }
    }

    fn change_view(&mut self, durable: bool, out: &mut Vec<ReplicationAction>) {
        self.view = self.view.next();
        self.standing = if durable { Durability::Durable } else { Durability::Alone };
        let (view, keepers) = (self.view, self.keepers().cloned().collect());
        self.tell(CopyItem::View { view });
        out.push(ReplicationAction::SetDurable { durable, view, keepers });
    }

    fn applied(&mut self, now: Timestamp, tries: Tries, count: u64, out: &mut Vec<ReplicationAction>) {
        let Some(line) = self.lines.get_mut(&tries) else { return };
        if line.applied(now, count).is_err() {
            out.push(ReplicationAction::Close { tries });
            self.lost(now, tries, OpenFailure::Refused, out);
        }
    }

    fn ended(&mut self, forget: bool, out: &mut Vec<ReplicationAction>) {
        self.over = true;
        for (&tries, line) in &self.lines {
            if forget && line.phase != Phase::Opening {
                out.push(ReplicationAction::Send { tries, item: CopyItem::Over });
            }
            out.push(ReplicationAction::Close { tries });
        }
        self.lines.clear();
    }

    fn timed_out(&mut self, now: Timestamp, out: &mut Vec<ReplicationAction>) {
        let stalled = self.config.stalled;
        let given_up: Vec<Tries> = self
            .lines
            .iter()
            .filter(|(_, line)| line.stalls_at(stalled).is_some_and(|at| at <= now))
            .map(|(&tries, _)| tries)
            .collect();
        for tries in given_up {
            out.push(ReplicationAction::Close { tries });
            self.lost(now, tries, OpenFailure::Unreachable, out);
        }
        if let Durability::Seeking { until, first } = self.standing
            && until <= now
        {
            if first {
                self.standing = Durability::Alone;
            } else {
                self.change_view(false, out);
            }
        }
        if self.search_at.is_some_and(|at| at <= now) {
            self.search_at = None;
            self.failed.clear();
            self.search(out);
        }
    }

    fn send(&mut self, now: Timestamp, out: &mut Vec<ReplicationAction>) {
        for (&tries, line) in &mut self.lines {
            while let Some(item) = line.next(now, &self.config) {
                out.push(ReplicationAction::Send { tries, item });
            }
            debug_assert!(
                line.unanswered() <= u64::from(self.config.window),
                "I6: more on its way than the window"
            );
        }
    }

    fn release(&mut self, out: &mut Vec<ReplicationAction>) {
        let whole = || self.lines.values().filter(|line| line.is_whole());
        if whole().any(|line| line.doubted) {
            return;
        }
        let held = whole().fold((self.received, self.next_segment), |held, line| {
            (held.0.min(line.audio_to), held.1.min(line.next_segment))
        });
        self.join(out);
        if matches!(self.standing, Durability::Seeking { .. }) {
            return;
        }
        let (mut ack, mut finals) = held;
        if is(Bug::AckBeforeReplica) {
            ack = self.received;
        }
        if is(Bug::PublishBeforeCommit) {
            finals = self.next_segment;
        }
        if finals > self.released {
            self.released = finals;
            out.push(ReplicationAction::ReleaseFinals { through: Segment(finals.0 - 1) });
        }
        if ack > self.acked {
            self.acked = ack;
            out.push(ReplicationAction::ReleaseAck { until: ack });
        }
    }

    /// Counts on the copies that have all that the client was told of.
    fn join(&mut self, out: &mut Vec<ReplicationAction>) {
        let (acked, released) = (self.acked, self.released);
        let caught_up = |line: &&mut Line| {
            line.phase == Phase::Whole && line.audio_to >= acked && line.next_segment >= released
        };
        let mut joined = false;
        for line in self.lines.values_mut().filter(caught_up) {
            line.phase = Phase::Member;
            joined = true;
        }
        if joined {
            self.change_view(true, out);
        }
    }
}
