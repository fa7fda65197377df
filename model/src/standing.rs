//! How a session stands, as its actor tells keepers and clients.

use std::sync::Arc;

use starling_core::replica::{CopyItem, ReplicationMachine, SessionCopy, Standing};
use starling_protocol::replica::{Commit, CopyStart, ToReplica, View};
use starling_protocol::{Attempt, Segment, SessionId, SourceOffset};

use crate::parts::facts;
use crate::state::{Facts, Node, Owner, Set, number};

impl Owner {
    pub(crate) fn standing(&self) -> Standing {
        let journal = self.session.journal();
        let entries = (0..journal.pending_entries()).filter_map(|index| journal.entry(index));
        Standing {
            finals_from: self.session.confirmed(),
            next_segment: self.session.open_segment(),
            audio_from: self.trim_to.max(self.store.0.start()),
            audio_to: journal.received(),
            entries: entries.map(|entry| (entry.at, entry.control.into())).collect(),
        }
    }

    pub(crate) fn message(&self, id: SessionId, item: CopyItem) -> Option<ToReplica> {
        let kept = |segment: Segment| self.finals.iter().find(|(text, _)| text.segment == segment);
        Some(match item {
            CopyItem::Begin { view } => ToReplica::Begin(Box::new(self.start(id, view))),
            CopyItem::Kept { segment } => ToReplica::Kept(Box::new(kept(segment)?.0.to_final())),
            CopyItem::Audio { from, to } => {
                ToReplica::Audio { from, pcm: self.store.0.read(from, to), attempt: Attempt(0) }
            }
            CopyItem::Entry { at, kind } => ToReplica::Entry { at, kind },
            CopyItem::Whole => ToReplica::Whole,
            CopyItem::Commit { segment } => {
                let (text, facts) = kept(segment)?;
                let Facts { to, answered, needed_from } = (*facts)?;
                let (last, times, attempt) = (text.to_final(), None, Attempt(0));
                ToReplica::Commit(Box::new(Commit { last, to, answered, needed_from, times, attempt }))
            }
            CopyItem::Confirmed { through } => ToReplica::Confirmed { through },
            CopyItem::Epoch { epoch } => ToReplica::Epoch { epoch },
            CopyItem::View { view } => ToReplica::View { view },
            CopyItem::Over => ToReplica::Over,
        })
    }

    fn start(&self, id: SessionId, view: View) -> CopyStart {
        let standing = self.standing();
        CopyStart {
            facts: facts(id),
            epoch: self.session.last_epoch(),
            view,
            confirmed: standing.finals_from,
            next_segment: standing.next_segment,
            final_end: self.session.final_end(),
            committed: self.session.journal().committed(),
            audio_from: standing.audio_from,
            ended: self.session.journal().ended(),
            recent: Vec::new(),
            // Nothing follows from how many there were; counted, they would only make more states.
            attempt: Attempt(0),
        }
    }

    /// The session as a copy, for another node to go on with.
    pub(crate) fn as_copy(&self, id: SessionId) -> Option<SessionCopy> {
        let standing = self.standing();
        let mut copy = SessionCopy::begin(self.start(id, self.copies.as_ref()?.view()));
        let finals = (standing.finals_from.0..standing.next_segment.0)
            .map(|segment| CopyItem::Kept { segment: Segment(segment) });
        let audio = CopyItem::Audio { from: standing.audio_from, to: standing.audio_to };
        let audio = (standing.audio_to > standing.audio_from).then_some(audio);
        let entries = standing.entries.iter().map(|&(at, kind)| CopyItem::Entry { at, kind });
        for item in finals.chain(audio).chain(entries).chain([CopyItem::Whole]) {
            copy.apply(self.message(id, item)?).ok()?;
        }
        Some(copy)
    }

    pub(crate) fn set(&self, node: Node) -> Set {
        let copies = self.copies.as_ref();
        let keepers: Vec<Node> =
            copies.map(|copies| copies.keepers().map(number).collect()).unwrap_or_default();
        Set {
            view: copies.map_or(View(0), ReplicationMachine::view),
            owner: node,
            keepers: if keepers.is_empty() { self.holders.clone() } else { keepers },
            durable: copies.is_some_and(ReplicationMachine::is_durable),
        }
    }

    pub(crate) fn released(&self) -> (SourceOffset, Segment) {
        let own = || (self.session.journal().received(), self.session.open_segment());
        self.copies.as_ref().map_or_else(own, ReplicationMachine::released)
    }

    pub(crate) fn let_go(&mut self) {
        let copies = self.copies.as_ref();
        let needed = copies.and_then(ReplicationMachine::audio_needed_from);
        let until = needed.map_or(self.trim_to, |at| at.min(self.trim_to));
        if until > self.store.0.start() {
            Arc::make_mut(&mut self.store.0).trim(until);
        }
        let confirmed = self.session.confirmed();
        let through = copies.and_then(ReplicationMachine::finals_needed_from);
        let through = through.map_or(confirmed, |at| at.min(confirmed));
        while self.finals.front().is_some_and(|(text, _)| text.segment < through) {
            self.finals.pop_front();
        }
    }
}
