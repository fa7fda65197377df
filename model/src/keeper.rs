//! The keeper's side, as its actor does it: streams, copies, promises.

use std::sync::Arc;
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::replica::{
    Answer, CutReason, KeeperAction, KeeperEvent, OpenFailure, PromoteAnswer, Refusal, Shape, StreamId,
};
use starling_protocol::replica::ToReplica;
use starling_protocol::{Epoch, SessionId};

use crate::model::Mistake;
use crate::parts::{Copy, Message};
use crate::state::{Filling, Invariant, LinkId, Node, State, ToKeeper, ToOwner, name};

fn shape(copy: &Copy) -> Shape {
    Shape::of(copy.get(), Duration::from_secs(90))
}

impl State {
    /// Hands the keeper an event; what it answers to a promotion.
    pub(crate) fn keep(
        &mut self,
        node: Node,
        session: SessionId,
        event: KeeperEvent,
    ) -> Option<PromoteAnswer> {
        let peer = self.node(node);
        let mut out = Vec::new();
        peer.keeper.handle(Timestamp(peer.now), event, &mut out);
        let (after, holds) = (peer.keeper.obeyed(session), peer.keeper.check());
        if let Err(problem) = holds {
            self.breaks(Invariant::I10, problem);
        }
        self.note_obeyed(node, session, after);
        let mut answer = None;
        for action in out {
            match action {
                KeeperAction::Accept { stream } => self.reply(node, stream, ToOwner::Opened),
                KeeperAction::Refuse { stream, refusal } => {
                    let failure = match refusal {
                        Refusal::Fenced { epoch } => OpenFailure::Fenced { epoch },
                        Refusal::Full => OpenFailure::Refused,
                    };
                    self.reply(node, stream, ToOwner::Refused(failure));
                    self.end_stream(node, stream);
                }
                KeeperAction::Confirm { stream } => {
                    let Some(filling) = self.node(node).streams.get_mut(&stream) else { continue };
                    filling.applied += 1;
                    let count = filling.applied;
                    self.reply(node, stream, ToOwner::Applied(count));
                }
                KeeperAction::Install { stream, session } => {
                    let peer = self.node(node);
                    let filled = peer.streams.get_mut(&stream).and_then(|filling| filling.copy.take());
                    if let Some(copy) = filled {
                        self.install(node, session, copy);
                    }
                }
                KeeperAction::Adopt { session } => {
                    if let Some(copy) = self.node(node).offered.take() {
                        self.install(node, session, copy);
                    }
                }
                KeeperAction::DropFill { stream } => {
                    if let Some(filling) = self.node(node).streams.get_mut(&stream) {
                        filling.copy = None;
                    }
                }
                // Who tells of a session that nobody came back to changes nothing for anybody.
                KeeperAction::RanOut { .. } => {}
                KeeperAction::DropCopy { session } => drop(self.node(node).copies.remove(&session)),
                KeeperAction::Cut { stream, reason } => {
                    let failure = match reason {
                        CutReason::Fenced { epoch } => OpenFailure::Fenced { epoch },
                        CutReason::Full | CutReason::Unfit => OpenFailure::Refused,
                        // The stream's end says enough.
                        CutReason::Replaced | CutReason::Over => OpenFailure::Unreachable,
                    };
                    self.reply(node, stream, ToOwner::Lost(failure));
                    self.end_stream(node, stream);
                }
                KeeperAction::Answer(said) => answer = Some(said),
            }
        }
        answer
    }

    /// I5: who was obeyed once is obeyed until nothing of an earlier owner can be on its way any more.
    fn note_obeyed(&mut self, node: Node, session: SessionId, obeyed: Option<Epoch>) {
        let Some(obeyed) = obeyed else { return };
        let before = Arc::make_mut(&mut self.seen).obeyed.insert((node, session), obeyed);
        if let Some(before) = before.filter(|&before| before > obeyed) {
            self.breaks(Invariant::I5, format!("{} obeys epoch {obeyed} after {before}", name(node)));
        }
    }

    /// I5: a copy never makes way for one of a lower epoch.
    fn install(&mut self, node: Node, session: SessionId, copy: Copy) {
        let epoch = copy.get().epoch();
        let before = self.node(node).copies.insert(session, copy).map(|before| before.get().epoch());
        if before > Some(epoch) {
            let keeper = name(node);
            self.breaks(Invariant::I5, format!("{keeper} had a copy of {before:?} and takes one of {epoch}"));
        }
    }

    fn reply(&mut self, node: Node, stream: StreamId, said: ToOwner) {
        let Some(link) = self.nodes[node].streams.get(&stream).map(|filling| filling.link) else { return };
        if let Some(link) = self.net().links.get_mut(&link)
            && link.owner_listens
        {
            link.to_owner.push_back(said);
        }
    }

    fn end_stream(&mut self, node: Node, stream: StreamId) {
        let Some(Filling { link, .. }) = self.node(node).streams.remove(&stream) else { return };
        if let Some(link) = self.net().links.get_mut(&link) {
            link.keeper_listens = false;
            link.to_keeper.clear();
        }
        self.forget_link(link);
    }

    /// A stream that neither end has any more is gone.
    pub(crate) fn forget_link(&mut self, id: LinkId) {
        if self.net.links.get(&id).is_some_and(|link| !link.owner_listens && !link.keeper_listens) {
            self.net().links.remove(&id);
        }
    }

    /// The keeper reads what an owner said.
    pub(crate) fn keeper_reads(&mut self, id: LinkId) {
        let Some(link) = self.net().links.get_mut(&id) else { return };
        let (node, session) = (link.keeper, link.session);
        let (stream, said) = (link.stream, link.to_keeper.pop_front());
        match (said, stream) {
            (Some(ToKeeper::Open(epoch)), _) => self.stream_opened(id, node, session, epoch),
            (Some(ToKeeper::Says(message)), Some(stream)) => self.said(node, stream, session, &message),
            (Some(ToKeeper::Closed), stream) => {
                if let Some(stream) = stream {
                    self.keep(node, session, KeeperEvent::Closed { stream });
                    self.end_stream(node, stream);
                }
                if let Some(link) = self.net().links.get_mut(&id) {
                    link.keeper_listens = false;
                }
                self.forget_link(id);
            }
            _ => {}
        }
    }

    fn stream_opened(&mut self, id: LinkId, node: Node, session: SessionId, epoch: Epoch) {
        let peer = self.node(node);
        peer.last_stream += 1;
        let stream = StreamId(peer.last_stream);
        peer.streams.insert(stream, Filling { link: id, session, copy: None, applied: 0 });
        let obeyed = peer.keeper.obeyed(session).unwrap_or_default();
        if let Some(link) = self.net().links.get_mut(&id) {
            link.stream = Some(stream);
        }
        let epoch = if self.mistake == Some(Mistake::NoEpochCheck) { epoch.max(obeyed) } else { epoch };
        self.keep(node, session, KeeperEvent::Opened { stream, session, epoch });
    }

    fn said(&mut self, node: Node, stream: StreamId, session: SessionId, message: &Message) {
        if !self.nodes[node].keeper.obeys(stream) {
            return;
        }
        let message = ToReplica::clone(&message.message);
        let peer = self.node(node);
        let Some(filling) = peer.streams.get_mut(&stream) else { return };
        let applied = match message {
            ToReplica::Begin(start) if filling.copy.is_none() => {
                let copy = Copy::new(starling_core::replica::SessionCopy::begin(*start));
                filling.copy = Some(copy.clone());
                Some(copy)
            }
            message => match &mut filling.copy {
                Some(copy) => copy.applied(message).inspect(|applied| *copy = applied.clone()),
                None => match peer.copies.get_mut(&session) {
                    Some(copy) => copy.applied(message).inspect(|applied| *copy = applied.clone()),
                    None => None,
                },
            },
        };
        let Some(copy) = applied else {
            self.breaks(Invariant::I4, format!("what is said to {} does not fit its copy", name(node)));
            self.keep(node, session, KeeperEvent::Unfit { stream });
            return;
        };
        let (shape, over) = (shape(&copy), copy.get().is_over());
        self.keep(node, session, KeeperEvent::Applied { stream, shape, over });
        if over && self.mistake == Some(Mistake::TombstoneForgotten) {
            self.forgets(node, session);
        }
    }

    /// A session of this node's goes on elsewhere; this is what it was.
    pub(crate) fn offer(&mut self, node: Node, session: SessionId, copy: Copy) {
        let shape = shape(&copy);
        self.node(node).offered = Some(copy);
        self.keep(node, session, KeeperEvent::Offered { session, shape });
        self.node(node).offered = None;
    }

    /// The node is asked to obey an epoch from now on.
    pub(crate) fn promote(&mut self, node: Node, session: SessionId, epoch: Epoch) -> Answer {
        let answer = match self.keep(node, session, KeeperEvent::Promote { session, epoch }) {
            Some(PromoteAnswer::Promoted(summary)) => Answer::Held(summary),
            Some(PromoteAnswer::Fenced { epoch }) => Answer::Fenced { epoch },
            Some(PromoteAnswer::NotHeld) | None => Answer::NotHeld,
        };
        if answer == Answer::NotHeld && self.mistake == Some(Mistake::PromiseForgotten) {
            self.forgets(node, session);
        }
        answer
    }

    /// The copy, for who was promoted at this epoch.
    pub(crate) fn copy_for(&self, node: Node, session: SessionId, epoch: Epoch) -> Option<Copy> {
        let peer = &self.nodes[node];
        peer.copies.get(&session).filter(|_| peer.keeper.is_promoted(session, epoch)).cloned()
    }

    /// A mistake: what is remembered of a session without a copy runs out at once.
    fn forgets(&mut self, node: Node, session: SessionId) {
        let peer = self.node(node);
        let mut out = Vec::new();
        let far = Timestamp(peer.now + Duration::from_secs(1_000_000));
        peer.keeper.handle(far, KeeperEvent::TimedOut, &mut out);
        peer.copies.remove(&session);
    }
}
