//! The keeper's side: which owner of a session is obeyed, how long copies are kept, and how much of them.
//!
//! The copies themselves stand beside the machine; here are their shapes. A copy that is being filled does not take the
//! place of an older one before it is whole.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};

use super::copy::SessionCopy;
use crate::Timestamp;
use crate::sabotage::{Bug, is};

/// How much is kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeeperConfig {
    /// Bytes of all copies together.
    pub max_bytes: u64,
    /// Sessions, those counted of which only an epoch is remembered.
    pub max_sessions: usize,
    /// How long an epoch is remembered when there is no copy any more: longer than a message of an owner that nobody obeys
    /// can be on its way.
    pub remember: Duration,
}

/// A stream from an owner, unique within a node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// What a copy is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The highest epoch that it was told of.
    pub epoch: Epoch,
    /// The set that it belongs to.
    pub view: View,
    /// The first segment that is not committed.
    pub next_segment: Segment,
    /// The end of its audio.
    pub audio_end: SourceOffset,
    /// What it takes.
    pub bytes: u64,
    /// Whether it can be gone on from.
    pub whole: bool,
    /// How long it is to be kept when its owner is gone.
    pub keep: Duration,
}

impl Shape {
    /// That of a copy, to be kept for so long when its owner is gone.
    #[must_use]
    pub fn of(copy: &SessionCopy, keep: Duration) -> Self {
        Self {
            epoch: copy.epoch(),
            view: copy.view(),
            next_segment: copy.next_segment(),
            audio_end: copy.audio_end(),
            bytes: copy.bytes() as u64,
            whole: copy.is_whole(),
            keep,
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeeperEvent {
    /// An owner wants a copy to be kept.
    Opened {
        /// The stream.
        stream: StreamId,
        /// Whose.
        session: SessionId,
        /// The owner's epoch.
        epoch: Epoch,
    },
    /// A message of the owner's was applied, and the copy is like this now. Only while [`KeeperMachine::obeys`].
    Applied {
        /// The stream.
        stream: StreamId,
        /// What it was applied to.
        shape: Shape,
        /// Whether it was the last: the session is over.
        over: bool,
    },
    /// A message of the owner's can't be applied.
    Unfit {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is gone.
    Closed {
        /// Which.
        stream: StreamId,
    },
    /// A session that lived on this node was handed over to a higher epoch; its own copy is kept like any other.
    Adopted {
        /// Whose.
        session: SessionId,
        /// Its copy.
        shape: Shape,
    },
    /// Somebody wants to go on with the session.
    Promote {
        /// Which.
        session: SessionId,
        /// As this.
        epoch: Epoch,
    },
    /// `next_timeout` has come.
    TimedOut,
}

/// Why a stream is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A higher epoch is obeyed.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
    /// There is no room.
    Full,
}

/// Why a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CutReason {
    /// A higher epoch is obeyed from now on.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
    /// There is no more room.
    Full,
    /// What was said does not fit.
    Unfit,
    /// The same owner has opened another.
    Replaced,
    /// The session is over.
    Over,
}

/// The answer to who wants to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PromoteAnswer {
    /// It is obeyed from now on.
    Promoted(CopySummary),
    /// It is obeyed from now on, but there is nothing here.
    NotHeld,
    /// An epoch as high is obeyed already; nothing has changed.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
}

/// Something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeeperAction {
    /// Take the stream; what comes on it fills a new copy.
    Accept {
        /// Which.
        stream: StreamId,
    },
    /// Don't.
    Refuse {
        /// Which.
        stream: StreamId,
        /// Why.
        refusal: Refusal,
    },
    /// Tell the owner that the message that was just applied is.
    Confirm {
        /// On which stream.
        stream: StreamId,
    },
    /// The copy that the stream has filled takes the place of the session's older one.
    Install {
        /// Which stream.
        stream: StreamId,
        /// Whose copy.
        session: SessionId,
    },
    /// Let go of what the stream was filling, if it is not installed.
    DropFill {
        /// Which stream.
        stream: StreamId,
    },
    /// The session's copy has run out, and nobody asked for it: its owner is gone, and its client has not come back.
    RanOut {
        /// Whose.
        session: SessionId,
        /// What it was like.
        held: CopySummary,
    },
    /// Let go of the session's copy.
    DropCopy {
        /// Whose.
        session: SessionId,
    },
    /// End the stream, and say why.
    Cut {
        /// Which.
        stream: StreamId,
        /// Why.
        reason: CutReason,
    },
    /// Answer who wants to go on.
    Answer(PromoteAnswer),
}

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
            KeeperEvent::Adopted { session, shape } => self.adopted(now, session, shape, out),
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

    fn adopted(&mut self, now: Timestamp, session: SessionId, shape: Shape, out: &mut Vec<KeeperAction>) {
        if !self.make_room(session) || self.free() < shape.bytes {
            return out.push(KeeperAction::DropCopy { session });
        }
        let kept = self.known(now, session);
        kept.copy = Some(shape);
        kept.expires = now.plus(shape.keep);
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
        let unknown = Kept { epoch: Epoch(0), stream: None, filling: None, copy: None, expires };
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
