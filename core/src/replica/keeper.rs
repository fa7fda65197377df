//! The keeper's side: which owner of a session is obeyed, how long copies are kept, and how much of them.
//!
//! The copies themselves stand beside the machine; here are their shapes. A copy that is being filled does not take the
//! place of an older one before it is whole.

mod messages;

use std::collections::BTreeMap;

use starling_protocol::control::CopySummary;
use starling_protocol::{Epoch, SessionId};

pub use self::messages::{
    CutReason, KeeperAction, KeeperConfig, KeeperEvent, PromoteAnswer, Refusal, Shape, StreamId,
};
use crate::Timestamp;
use crate::sabotage::{Bug, is};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeeperMachine {
    config: KeeperConfig,
    sessions: BTreeMap<SessionId, Kept>,
    streams: BTreeMap<StreamId, SessionId>,
}

/// What is known of one session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kept {
    /// Lower ones are not obeyed.
    epoch: Epoch,
    stream: Option<StreamId>,
    /// What the stream is filling, until that is whole.
    filling: Option<Shape>,
    copy: Option<Shape>,
    /// The session has ended.
    over: bool,
    /// When all of this is forgotten, while no owner writes.
    expires: Timestamp,
}

impl Kept {
    fn bytes(&self) -> u64 {
        [self.filling, self.copy].into_iter().flatten().map(|shape| shape.bytes).sum()
    }
}

impl KeeperMachine {
    /// A node that keeps nothing yet.
    #[must_use]
    pub const fn new(config: KeeperConfig) -> Self {
        Self { config, sessions: BTreeMap::new(), streams: BTreeMap::new() }
    }

    /// Takes an event and appends what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: KeeperEvent, out: &mut Vec<KeeperAction>) {
        match event {
            KeeperEvent::Opened { stream, session, epoch } => self.opened(now, stream, session, epoch, out),
            KeeperEvent::Applied { stream, shape, over } => self.applied(now, stream, shape, over, out),
            KeeperEvent::Unfit { stream } => self.cut(now, stream, CutReason::Unfit, out),
            KeeperEvent::Closed { stream } => drop(self.let_go(now, stream, out)),
            KeeperEvent::Offered { session, shape } => self.offered(now, session, shape, out),
            KeeperEvent::Promote { session, epoch } => self.promote(now, session, epoch, out),
            KeeperEvent::TimedOut => self.expire(now, out),
        }
        debug_assert_eq!(self.check(), Ok(()));
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.sessions.values().filter(|kept| kept.stream.is_none()).map(|kept| kept.expires).min()
    }

    /// Whether what comes on the stream is still to be applied.
    #[must_use]
    pub fn obeys(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// Whether the owner with this epoch is the one that is obeyed: it alone may read the copy.
    #[must_use]
    pub fn is_promoted(&self, session: SessionId, epoch: Epoch) -> bool {
        self.sessions.get(&session).is_some_and(|kept| kept.epoch == epoch && kept.copy.is_some())
    }

    /// The epoch that is obeyed, if the session is known: a lower one is not.
    #[must_use]
    pub fn obeyed(&self, session: SessionId) -> Option<Epoch> {
        self.sessions.get(&session).map(|kept| kept.epoch)
    }

    /// What is held of a session.
    #[must_use]
    pub fn held(&self, session: SessionId) -> Option<CopySummary> {
        self.sessions.get(&session)?.copy.as_ref().map(summary)
    }

    /// Whether an owner writes to a session's copy, or begins to.
    #[must_use]
    pub fn is_written(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|kept| kept.stream.is_some())
    }

    /// All sessions that are known, and the epoch that each is obeyed by, whether there is a copy or not.
    pub fn all_known(&self) -> impl Iterator<Item = (SessionId, Epoch)> {
        self.sessions.iter().map(|(&session, kept)| (session, kept.epoch))
    }

    /// Bytes that copies take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.sessions.values().map(Kept::bytes).sum()
    }

    /// Copies that could be gone on from.
    #[must_use]
    pub fn copies(&self) -> usize {
        self.sessions.values().filter(|kept| kept.copy.is_some()).count()
    }

    /// The bytes that may still come.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.config.max_bytes.saturating_sub(self.bytes())
    }

    /// What must hold whatever happens: I6 in its part of memory, and that streams and sessions know each other.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.bytes() > self.config.max_bytes {
            return Err("I6: copies take more than they may");
        }
        if self.sessions.len() > self.config.max_sessions {
            return Err("I6: more sessions are known than may be");
        }
        let linked = |(stream, session): (&StreamId, &SessionId)| {
            self.sessions.get(session).is_some_and(|kept| kept.stream == Some(*stream))
        };
        if !self.streams.iter().all(linked) {
            return Err("a stream is obeyed that its session does not know");
        }
        if self.sessions.values().any(|kept| kept.filling.is_some() && kept.stream.is_none()) {
            return Err("I10: a copy is being filled by nobody");
        }
        Ok(())
    }

    fn opened(
        &mut self,
        now: Timestamp,
        stream: StreamId,
        session: SessionId,
        epoch: Epoch,
        out: &mut Vec<KeeperAction>,
    ) {
        let obeyed = self.sessions.get(&session).map_or(Epoch(0), |kept| kept.epoch);
        if epoch < obeyed && !is(Bug::NoEpochCheck) {
            return out.push(KeeperAction::Refuse { stream, refusal: Refusal::Fenced { epoch: obeyed } });
        }
        if !self.make_room(session) {
            return out.push(KeeperAction::Refuse { stream, refusal: Refusal::Full });
        }
        if let Some(earlier) = self.sessions.get(&session).and_then(|kept| kept.stream) {
            let reason = if epoch > obeyed { CutReason::Fenced { epoch } } else { CutReason::Replaced };
            self.cut(now, earlier, reason, out);
        }
        let kept = self.known(now, session);
        kept.epoch = epoch;
        kept.stream = Some(stream);
        self.streams.insert(stream, session);
        out.push(KeeperAction::Accept { stream });
    }

    fn applied(
        &mut self,
        now: Timestamp,
        stream: StreamId,
        shape: Shape,
        over: bool,
        out: &mut Vec<KeeperAction>,
    ) {
        let Some(&session) = self.streams.get(&stream) else { return };
        let others = self.bytes() - self.sessions.get(&session).map_or(0, Kept::bytes);
        let Some(kept) = self.sessions.get_mut(&session) else { return };
        kept.epoch = kept.epoch.max(shape.epoch);
        if over {
            // The copy goes; that the session is over stays, so that nobody fills it again from what is old.
            let had = kept.copy.take().is_some();
            kept.over = true;
            self.cut(now, stream, CutReason::Over, out);
            if had {
                out.push(KeeperAction::DropCopy { session });
            }
            if is(Bug::TombstoneForgotten) {
                self.sessions.remove(&session);
            }
            return;
        }
        let installs = shape.whole && (kept.filling.is_some() || kept.copy.is_none());
        if shape.whole {
            kept.filling = None;
            kept.copy = Some(shape);
        } else {
            kept.filling = Some(shape);
        }
        if installs {
            out.push(KeeperAction::Install { stream, session });
        }
        if others + kept.bytes() > self.config.max_bytes {
            // A copy that can't go on is worse than none: its owner would count on it.
            kept.copy = kept.copy.filter(|_| !shape.whole);
            let gone = shape.whole;
            self.cut(now, stream, CutReason::Full, out);
            if gone {
                out.push(KeeperAction::DropCopy { session });
            }
            return;
        }
        out.push(KeeperAction::Confirm { stream });
    }

    fn offered(&mut self, now: Timestamp, session: SessionId, shape: Shape, out: &mut Vec<KeeperAction>) {
        let kept = self.sessions.get(&session);
        let held = kept.and_then(|kept| kept.copy);
        // The next owner may have made its copy here by now: that one is better, and what comes on its stream fits no other.
        let written = kept.is_some_and(|kept| kept.stream.is_some() && kept.filling.is_none());
        let better = held.is_some_and(|held| written || summary(&held) >= summary(&shape));
        let over = kept.is_some_and(|kept| kept.over);
        let free = self.free() + held.map_or(0, |held| held.bytes);
        if over || better || is(Bug::FencedOwnerForgets) || free < shape.bytes || !self.make_room(session) {
            return;
        }
        let kept = self.known(now, session);
        kept.epoch = kept.epoch.max(shape.epoch);
        kept.copy = Some(shape);
        kept.expires = now.plus(shape.keep);
        out.push(KeeperAction::Adopt { session });
    }

    fn promote(&mut self, now: Timestamp, session: SessionId, epoch: Epoch, out: &mut Vec<KeeperAction>) {
        let obeyed = self.sessions.get(&session).map(|kept| kept.epoch);
        if let Some(obeyed) = obeyed.filter(|&obeyed| obeyed >= epoch) {
            return out.push(KeeperAction::Answer(PromoteAnswer::Fenced { epoch: obeyed }));
        }
        if obeyed.is_none() && !self.make_room(session) {
            // With so many sessions known, one more promise can't be kept; there is nothing here to be promised.
            return out.push(KeeperAction::Answer(PromoteAnswer::NotHeld));
        }
        if let Some(stream) = self.sessions.get(&session).and_then(|kept| kept.stream) {
            self.cut(now, stream, CutReason::Fenced { epoch }, out);
        }
        let remember = self.config.remember;
        let kept = self.known(now, session);
        let before = kept.copy.as_ref().map(summary);
        kept.epoch = epoch;
        kept.expires = now.plus(kept.copy.map_or(remember, |copy| copy.keep.max(remember)));
        out.push(KeeperAction::Answer(before.map_or(PromoteAnswer::NotHeld, PromoteAnswer::Promoted)));
    }

    fn known(&mut self, now: Timestamp, session: SessionId) -> &mut Kept {
        let expires = now.plus(self.config.remember);
        let unknown = Kept { epoch: Epoch(0), stream: None, filling: None, copy: None, over: false, expires };
        self.sessions.entry(session).or_insert(unknown)
    }

    /// Whether one more session may be known. Those of which only an epoch is left make room, the oldest first.
    fn make_room(&mut self, session: SessionId) -> bool {
        if self.sessions.contains_key(&session) || self.sessions.len() < self.config.max_sessions {
            return true;
        }
        let bare = self.sessions.iter().filter(|(_, kept)| kept.stream.is_none() && kept.copy.is_none());
        let oldest = bare.min_by_key(|(_, kept)| kept.expires).map(|(&session, _)| session);
        oldest.and_then(|session| self.sessions.remove(&session)).is_some()
    }

    fn cut(&mut self, now: Timestamp, stream: StreamId, reason: CutReason, out: &mut Vec<KeeperAction>) {
        if self.let_go(now, stream, out) {
            out.push(KeeperAction::Cut { stream, reason });
        }
    }

    /// The stream is obeyed no more; what it has not filled goes with it.
    fn let_go(&mut self, now: Timestamp, stream: StreamId, out: &mut Vec<KeeperAction>) -> bool {
        let Some(session) = self.streams.remove(&stream) else { return false };
        if let Some(kept) = self.sessions.get_mut(&session) {
            kept.stream = None;
            kept.filling = None;
            kept.expires = now.plus(kept.copy.map_or(self.config.remember, |copy| copy.keep));
        }
        out.push(KeeperAction::DropFill { stream });
        true
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<KeeperAction>) {
        let due = |kept: &Kept| kept.stream.is_none() && kept.expires <= now;
        let gone: Vec<SessionId> =
            self.sessions.iter().filter(|(_, kept)| due(kept)).map(|(&session, _)| session).collect();
        for session in gone {
            let Some(Kept { epoch, copy: Some(copy), .. }) = self.sessions.remove(&session) else { continue };
            // Whoever was promoted has the session, and what becomes of it is theirs to tell.
            if copy.epoch == epoch {
                out.push(KeeperAction::RanOut { session, held: summary(&copy) });
            }
            out.push(KeeperAction::DropCopy { session });
        }
    }
}

const fn summary(shape: &Shape) -> CopySummary {
    let &Shape { epoch, view, next_segment, audio_end, .. } = shape;
    CopySummary { epoch, view: view.0, next_segment, audio_end }
}
