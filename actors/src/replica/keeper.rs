//! The actor that keeps copies of other nodes' sessions.
//!
//! Owns: the copies, the streams that fill them. Must never: apply what comes on a stream that its machine does not obey.

mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use starling_core::Timestamp;
use starling_core::replica::{
    CutReason, KeeperAction, KeeperConfig, KeeperEvent, KeeperMachine, PromoteAnswer, RanOut, Refusal,
    SessionCopy, Shape, StreamId,
};
use starling_protocol::control::{CopySummary, ReplicaReply};
use starling_protocol::data::{DATA_PROTOCOL, StreamRefusal};
use starling_protocol::native::Final;
use starling_protocol::replica::{CopyHeader, FetchHeader, FromReplica, ToReplica};
use starling_protocol::{Epoch, NodeName, SessionId};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tracing::{debug, info, warn};

use self::wire::{confirm, hand_over, read};
use super::CopyPeers;
use super::endings::{Endings, Owner};
use crate::claim::{Claim, FilesClaims};
use crate::clock::Clock;
use crate::data::refuse;
use crate::frames::{FrameSource, Writer};
use crate::observe::Observer;
use crate::task::AbortOnDrop;
use crate::trace::{CopyTrace, Tracing, log_span};

/// Longest time that a copy takes to be read by who goes on with it. A caller waits, and has given up by then.
const FETCH: Duration = Duration::from_secs(10);

/// A copy is kept for as long as its session waits for its client, and so much longer: the owner's loss is noticed after the
/// client's.
const BEYOND_LINGER: Duration = Duration::from_secs(30);

/// How long an epoch is remembered without a copy. Nothing of an owner that was passed over is on its way for so long.
const REMEMBER: Duration = Duration::from_secs(60);

/// Sessions that are known at once; a node serves a few hundred.
const MOST_SESSIONS: usize = 16_384;

/// A copy that a peer wants to be kept.
pub(crate) struct CopyRequest {
    pub(crate) from: NodeName,
    pub(crate) header: CopyHeader,
    pub(crate) frames: FrameSource,
    pub(crate) writer: Writer,
}

/// A copy that a peer goes on with.
pub(crate) struct FetchRequest {
    pub(crate) header: FetchHeader,
    pub(crate) writer: Writer,
}

pub(crate) struct KeeperActor;

#[derive(Clone)]
pub(crate) struct KeeperArguments {
    pub(crate) memory_bytes: u64,
    pub(crate) clock: Clock,
    /// Whoever goes on with a copy here needs the files that it began with.
    pub(crate) claims: FilesClaims,
    /// What is kept, for whoever tells others.
    pub(crate) kept: watch::Sender<Kept>,
    pub(crate) tracing: Tracing,
    pub(crate) own: NodeName,
    pub(crate) peers: Option<Arc<dyn CopyPeers>>,
    pub(crate) observer: Arc<dyn Observer>,
}

/// What is known of another node's session.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptCopy {
    /// The session.
    pub session: SessionId,
    /// Owners with a lower one are not obeyed.
    pub epoch: Epoch,
    /// What there is to go on from.
    pub copy: Option<CopySummary>,
    /// Its finals that the client has not confirmed.
    pub finals: Vec<Final>,
}

/// What a node asks whose copy of a session has run out.
pub(crate) struct RanOutElsewhere {
    pub(crate) session: SessionId,
    pub(crate) copy: CopySummary,
    pub(crate) by: NodeName,
    pub(crate) reply: RpcReplyPort<ReplicaReply>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    pub(crate) copies: usize,
    pub(crate) bytes: u64,
    pub(crate) free_bytes: u64,
}

pub(crate) enum KeeperMessage {
    Copy(Box<CopyRequest>),
    Fetch(Box<FetchRequest>),
    /// An owner says something. The permit lets its stream be read on.
    Said(StreamId, Box<ToReplica>, OwnedSemaphorePermit),
    /// A stream is over.
    Ended(StreamId),
    /// Somebody wants to go on with a session.
    Promote(SessionId, Epoch, RpcReplyPort<ReplicaReply>),
    /// A session of this node's is over, and has been told of: its id, who spoke for it last, and how long it would have
    /// waited for its client.
    Over(SessionId, Epoch, Duration),
    /// A node's copy of a session has run out, of which this one may know more.
    RanOut(RanOutElsewhere),
    /// What is held of a session?
    Status(SessionId, RpcReplyPort<ReplicaReply>),
    /// All that is known of others' sessions.
    Known(RpcReplyPort<Vec<KeptCopy>>),
    /// A session of this node's goes on elsewhere; this is what it was.
    Offer(Box<SessionCopy>),
    /// The copy, for this node itself to go on with.
    Take(SessionId, Epoch, RpcReplyPort<Option<SessionCopy>>),
    TimedOut,
}

/// The way to the keeper of this node.
pub(crate) type KeeperHandle = ActorRef<KeeperMessage>;

pub(crate) struct KeeperState {
    machine: KeeperMachine,
    clock: Clock,
    copies: HashMap<SessionId, HeldCopy>,
    endings: Endings,
    claims: FilesClaims,
    streams: HashMap<StreamId, Stream>,
    last_stream: u64,
    timer: Option<Timestamp>,
    kept: watch::Sender<Kept>,
    tracing: Tracing,
    /// Who is being promoted: the answer to the event that is handled.
    answer: Option<PromoteAnswer>,
    /// The copy that the event is of that is handled.
    offered: Option<SessionCopy>,
}

/// A copy, and what is kept for as long.
struct HeldCopy {
    copy: SessionCopy,
    /// `None` for one of this node's own.
    owner: Option<Owner>,
    _claim: Claim,
}

struct Stream {
    session: SessionId,
    owner: Owner,
    filling: Option<SessionCopy>,
    applied: u64,
    replies: mpsc::Sender<FromReplica>,
    waiting: Option<(FrameSource, Writer, mpsc::Receiver<FromReplica>)>,
    _reading: Option<AbortOnDrop>,
    /// Until the copy is whole.
    trace: Option<CopyTrace>,
}

impl Message for KeeperMessage {}

impl Actor for KeeperActor {
    type Msg = KeeperMessage;
    type State = KeeperState;
    type Arguments = KeeperArguments;

    async fn pre_start(
        &self,
        _: ActorRef<KeeperMessage>,
        arguments: KeeperArguments,
    ) -> Result<KeeperState, ActorProcessingErr> {
        let config = KeeperConfig {
            max_bytes: arguments.memory_bytes,
            max_sessions: MOST_SESSIONS,
            remember: REMEMBER,
        };
        let state = KeeperState {
            machine: KeeperMachine::new(config),
            endings: Endings::new(&arguments, config),
            clock: arguments.clock,
            copies: HashMap::new(),
            claims: arguments.claims,
            streams: HashMap::new(),
            last_stream: 0,
            timer: None,
            kept: arguments.kept,
            tracing: arguments.tracing,
            answer: None,
            offered: None,
        };
        state.tell();
        Ok(state)
    }

    async fn handle(
        &self,
        myself: ActorRef<KeeperMessage>,
        message: KeeperMessage,
        state: &mut KeeperState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            KeeperMessage::Copy(request) => state.open(&myself, *request),
            KeeperMessage::Fetch(request) => state.fetch(*request),
            KeeperMessage::Said(stream, message, permit) => {
                state.said(&myself, stream, *message);
                drop(permit);
            }
            KeeperMessage::Ended(stream) => {
                state.drive(&myself, KeeperEvent::Closed { stream });
                state.streams.remove(&stream);
            }
            KeeperMessage::Promote(session, epoch, reply) => {
                state.drive(&myself, KeeperEvent::Promote { session, epoch });
                let answer = match state.answer.take() {
                    Some(PromoteAnswer::Promoted(summary)) => {
                        info!(parent: &state.log(session), %epoch, "a session goes on elsewhere");
                        ReplicaReply::Promoted(summary)
                    }
                    Some(PromoteAnswer::Fenced { epoch }) => ReplicaReply::Fenced { epoch },
                    Some(PromoteAnswer::NotHeld) | None => ReplicaReply::NotHeld,
                };
                let _ = reply.send(answer);
            }
            KeeperMessage::Over(session, epoch, linger) => state.endings.over(session, epoch, keep(linger)),
            KeeperMessage::RanOut(RanOutElsewhere { session, copy, by, reply }) => {
                let asked = RanOut { session, copy, by: &by };
                let better = state.endings.knows_better(&state.machine, &asked);
                let fenced = ReplicaReply::Fenced { epoch: copy.epoch };
                let _ = reply.send(if better { fenced } else { ReplicaReply::NotHeld });
            }
            KeeperMessage::Status(session, reply) => {
                let held = state.machine.held(session);
                let _ = reply.send(held.map_or(ReplicaReply::NotHeld, ReplicaReply::Held));
            }
            KeeperMessage::Known(reply) => drop(reply.send(state.known())),
            KeeperMessage::Offer(copy) => {
                let (session, shape) = (copy.facts().session, shape(&copy));
                state.offered = Some(*copy);
                state.drive(&myself, KeeperEvent::Offered { session, shape });
                state.offered = None;
            }
            KeeperMessage::Take(session, epoch, reply) => {
                let copy = state.copy_for(session, epoch).cloned();
                let _ = reply.send(copy);
            }
            KeeperMessage::TimedOut => {
                state.timer = None;
                state.drive(&myself, KeeperEvent::TimedOut);
            }
        }
        Ok(())
    }
}

impl KeeperState {
    /// What lines of the log say of a session that has a copy here.
    fn log(&self, session: SessionId) -> tracing::Span {
        let held = self.copies.get(&session);
        log_span(session, held.and_then(|held| held.copy.facts().trace.as_ref()))
    }

    fn drive(&mut self, myself: &ActorRef<KeeperMessage>, event: KeeperEvent) {
        let mut out = Vec::new();
        self.machine.handle(self.clock.now(), event, &mut out);
        for action in out {
            self.perform(myself, action);
        }
        self.tell();
        if let Some(at) = self.machine.next_timeout()
            && self.timer.is_none_or(|armed| at < armed)
        {
            self.timer = Some(at);
            myself.send_after(at.since(self.clock.now()), || KeeperMessage::TimedOut);
        }
    }

    fn perform(&mut self, myself: &ActorRef<KeeperMessage>, action: KeeperAction) {
        match action {
            KeeperAction::Accept { stream } => self.accept(myself, stream),
            KeeperAction::Refuse { stream, refusal } => {
                let reason = match refusal {
                    Refusal::Fenced { epoch } => StreamRefusal::Fenced { epoch },
                    Refusal::Full => StreamRefusal::Full,
                };
                if let Some((_, writer, _)) = self.streams.remove(&stream).and_then(|stream| stream.waiting) {
                    tokio::spawn(refuse(writer, reason));
                }
            }
            KeeperAction::Confirm { stream } => {
                let Some(kept) = self.streams.get_mut(&stream) else { return };
                kept.applied += 1;
                let count = kept.applied;
                // An owner has a window of unanswered messages; one that reads nothing is not confirmed, and gives up.
                let _ = kept.replies.try_send(FromReplica::Applied { count });
            }
            KeeperAction::Install { stream, session } => {
                let Some(stream) = self.streams.get_mut(&stream) else { return };
                if let Some(copy) = stream.filling.take() {
                    let log = log_span(session, copy.facts().trace.as_ref());
                    debug!(parent: &log, bytes = copy.bytes(), "a copy is whole");
                    if let Some(trace) = stream.trace.take() {
                        trace.whole(&self.tracing, self.clock.now(), copy.bytes());
                    }
                    let owner = stream.owner.clone();
                    self.keep(session, copy, Some(owner));
                }
            }
            KeeperAction::Adopt { session } => {
                if let Some(copy) = self.offered.take() {
                    self.keep(session, copy, None);
                }
            }
            KeeperAction::DropFill { stream } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.filling = None;
                }
            }
            KeeperAction::RanOut { session, held } => {
                if let Some(HeldCopy { copy, owner: Some(owner), .. }) = self.copies.get(&session) {
                    self.endings.ran_out(owner.clone(), copy, held, shape(copy).keep);
                }
            }
            KeeperAction::DropCopy { session } => drop(self.copies.remove(&session)),
            KeeperAction::Cut { stream, reason } => self.cut(stream, reason),
            KeeperAction::Answer(answer) => self.answer = Some(answer),
        }
    }

    fn open(&mut self, myself: &ActorRef<KeeperMessage>, request: CopyRequest) {
        let CopyRequest { from, header, frames, writer } = request;
        if header.version != DATA_PROTOCOL {
            let reason = StreamRefusal::Version { offered: header.version, spoken: DATA_PROTOCOL };
            tokio::spawn(refuse(writer, reason));
            return;
        }
        self.last_stream += 1;
        let stream = StreamId(self.last_stream);
        let (session, epoch) = (header.session, header.epoch);
        debug!(%from, %session, %epoch, "a peer wants a copy to be kept");
        // As many confirmations as messages may be unanswered, and a last word.
        let (replies, queue) = mpsc::channel(2 * super::stream::WINDOW as usize);
        let waiting = Some((frames, writer, queue));
        let trace = CopyTrace::begin(&self.tracing, self.clock.now(), &header);
        let owner = self.endings.owner(from);
        let kept =
            Stream { session, owner, filling: None, applied: 0, replies, waiting, _reading: None, trace };
        self.streams.insert(stream, kept);
        self.drive(myself, KeeperEvent::Opened { stream, session, epoch });
    }

    fn accept(&mut self, myself: &ActorRef<KeeperMessage>, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some((frames, writer, queue)) = stream.waiting.take() else { return };
        let keeper = myself.clone();
        stream._reading = Some(AbortOnDrop::spawn(read(frames, id, keeper)));
        let session = stream.session;
        tokio::spawn(async move {
            if let Err(error) = confirm(writer, queue).await {
                debug!(%session, %error, "an owner's stream broke");
            }
        });
    }

    fn said(&mut self, myself: &ActorRef<KeeperMessage>, id: StreamId, message: ToReplica) {
        if !self.machine.obeys(id) {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let session = stream.session;
        let applied = match message {
            ToReplica::Begin(start) if start.facts.session == session && stream.filling.is_none() => {
                stream.filling = Some(SessionCopy::begin(*start));
                Ok(())
            }
            message => {
                let held = self.copies.get_mut(&session).map(|held| &mut held.copy);
                match stream.filling.as_mut().or(held) {
                    Some(copy) => copy.apply(message),
                    None => Err(starling_core::replica::Unfit("a copy has to be begun")),
                }
            }
        };
        if let Err(problem) = applied {
            warn!(parent: &self.log(session), %problem, "a copy does not fit and is dropped");
            return self.drive(myself, KeeperEvent::Unfit { stream: id });
        }
        let copy = self.streams.get(&id).and_then(|stream| stream.filling.as_ref());
        if let Some(copy) = copy.or_else(|| self.copies.get(&session).map(|held| &held.copy)) {
            let (shape, over) = (shape(copy), copy.is_over());
            if over {
                self.endings.over(session, shape.epoch, shape.keep);
            }
            self.drive(myself, KeeperEvent::Applied { stream: id, shape, over });
        }
    }

    fn cut(&mut self, id: StreamId, reason: CutReason) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let last = match reason {
            CutReason::Fenced { epoch } => FromReplica::Fenced { epoch },
            CutReason::Full => FromReplica::Full,
            CutReason::Unfit => FromReplica::Unfit,
            // The stream's end says enough.
            CutReason::Replaced | CutReason::Over => return,
        };
        debug!(session = %stream.session, ?reason, "a copy's stream is cut");
        let _ = stream.replies.try_send(last);
    }

    fn keep(&mut self, session: SessionId, copy: SessionCopy, owner: Option<Owner>) {
        let _claim = self.claims.claim(&copy.facts().model, &copy.facts().digest);
        self.copies.insert(session, HeldCopy { copy, owner, _claim });
    }

    fn known(&self) -> Vec<KeptCopy> {
        let known = |(session, epoch)| {
            let copy = self.machine.held(session);
            let finals = self.copies.get(&session).filter(|_| copy.is_some());
            let finals = finals.map_or_else(Vec::new, |held| held.copy.finals().cloned().collect());
            KeptCopy { session, epoch, copy, finals }
        };
        self.machine.all_known().map(known).collect()
    }

    fn copy_for(&self, session: SessionId, epoch: Epoch) -> Option<&SessionCopy> {
        let copy = self.copies.get(&session).map(|held| &held.copy);
        copy.filter(|_| self.machine.is_promoted(session, epoch))
    }

    fn fetch(&self, request: FetchRequest) {
        let FetchRequest { header, writer } = request;
        let Some(copy) = self.copy_for(header.session, header.epoch) else {
            tokio::spawn(refuse(writer, StreamRefusal::NotHeld));
            return;
        };
        let copy = Arc::new(copy.clone());
        tokio::spawn(async move {
            let session = header.session;
            match tokio::time::timeout(FETCH, hand_over(writer, &copy)).await {
                Ok(Ok(())) => debug!(%session, "a copy was handed over"),
                Ok(Err(error)) => debug!(%session, %error, "a copy could not be handed over"),
                Err(_) => debug!(%session, "a copy was not read in time"),
            }
        });
    }

    fn tell(&self) {
        let now = Kept {
            copies: self.machine.copies(),
            bytes: self.machine.bytes(),
            free_bytes: self.machine.free(),
        };
        self.kept.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}

fn shape(copy: &SessionCopy) -> Shape {
    Shape::of(copy, keep(Duration::from_millis(copy.facts().linger_ms)))
}

/// How long a copy is kept whose owner is lost.
pub(crate) const fn keep(linger: Duration) -> Duration {
    linger.saturating_add(BEYOND_LINGER)
}
