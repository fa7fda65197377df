//! Going on with a session whose owner is gone: who has copies is asked to obey, and the best copy is read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use starling_core::Timestamp;
use starling_core::replica::{Answer, Choice, SessionCopy, Wanted, choose, suffices};
use starling_protocol::control::{CopySummary, ReplicaReply};
use starling_protocol::data::{DATA_PROTOCOL, HeaderReply, MAX_HEADER_BYTES, StreamHeader};
use starling_protocol::lease::TraceContext;
use starling_protocol::native::{ErrorBody, ErrorCode, Resume};
use starling_protocol::replica::{FetchHeader, MAX_COPY_FRAME_BYTES, ToReplica, View};
use starling_protocol::token::TokenBody;
use starling_protocol::{Epoch, NodeName, Segment, SessionId, SourceOffset};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::keeper::{KeeperHandle, KeeperMessage};
use super::{CopyArguments, CopyPeers};
use crate::data::PeerStream;
use crate::frames::{FrameSource, write_frame};
use crate::trace::{Parting, log_span};

/// The own keeper answers at once, busy as it may be.
const OWN: Duration = Duration::from_secs(1);

/// Reading a copy: 4 MiB at most over a network between nodes.
const FETCH: Duration = Duration::from_secs(3);

/// So long a takeover waits at most for its owner to say that it lives: nodes answer each other within a few milliseconds, and of one
/// that is gone the link is closed. A caller waits, and all that depends on it is how it is told of.
const OWNER: Duration = Duration::from_millis(100);

/// A session that is to go on here.
pub(crate) struct TakeoverRequest {
    pub(crate) token: TokenBody,
    pub(crate) resume: Resume,
    pub(crate) trace: Option<TraceContext>,
    /// When its client came.
    pub(crate) since: Timestamp,
    /// Whether nothing is known but its id: then the token's owner is only one of those that have something of it.
    pub(crate) by_id: bool,
}

/// What it goes on from.
pub(crate) struct TakenOver {
    pub(crate) copy: SessionCopy,
    /// See [`Choice::GoOn`].
    pub(crate) skip_to: Option<(Segment, SourceOffset)>,
    /// Who holds copies or may do, this node apart: where the session could be found again until it has new ones.
    pub(crate) holders: Vec<NodeName>,
    /// When its client came.
    pub(crate) since: Timestamp,
    /// Whose copy it is.
    pub(crate) from: NodeName,
    /// How it left its owner.
    pub(crate) parting: Parting,
}

/// Why a session does not go on here.
pub(crate) enum NotTaken {
    /// Its client is told this.
    Refused(ErrorBody),
    /// As far as was answered it is this; but somebody has not answered, so that the client had better ask again.
    Unanswered(ErrorBody),
}

impl NotTaken {
    fn new(body: ErrorBody, unanswered: bool) -> Self {
        if unanswered { Self::Unanswered(body) } else { Self::Refused(body) }
    }
}

/// Asks all who may have a copy, and reads the best.
pub(crate) async fn take_over(
    request: &TakeoverRequest,
    copies: &CopyArguments,
    keeper: &KeeperHandle,
) -> Result<TakenOver, NotTaken> {
    let TakeoverRequest { token, resume, trace, since, by_id, .. } = request;
    let (session, epoch) = (token.session, resume.epoch);
    let named = std::iter::once(&token.owner).chain(&token.keepers);
    let mut nodes: Vec<NodeName> = named.filter(|node| **node != copies.own).cloned().collect();
    nodes.dedup();
    let Resume { last_final, final_to, have_from, .. } = *resume;
    let wanted = Wanted { last_final, final_to, have_from, by_id: *by_id };
    let mut answers = vec![Answer::Silent; nodes.len() + 1];
    answers[0] = ask_own(keeper, session, epoch).await;
    let asking = nodes.iter().enumerate().map(|(index, node)| {
        let asked = ask(copies.peers.as_ref(), node, session, epoch, trace.clone());
        async move { (index + 1, asked.await) }
    });
    let mut asking: FuturesUnordered<_> = asking.collect();
    // Who does not answer is waited for only while the others' answers leave something open.
    while !answers.iter().any(|answer| suffices(answer, token.view, &wanted))
        && let Some((index, answer)) = asking.next().await
    {
        answers[index] = answer;
    }
    debug!(%session, %epoch, ?nodes, ?answers, "who has copies was asked");
    match choose(&answers, &wanted) {
        Choice::GoOn { index, skip_to } => {
            let from = index.checked_sub(1).map_or(&copies.own, |index| &nodes[index]);
            let copy = async {
                match index.checked_sub(1) {
                    None => own_copy(keeper, session, epoch).await,
                    Some(index) => {
                        let version = DATA_PROTOCOL;
                        let header = FetchHeader { version, session, epoch, trace: trace.clone() };
                        fetch(copies.peers.as_ref(), &nodes[index], header).await
                    }
                }
            };
            let (copy, parting) = tokio::join!(copy, parting(request, copies, from));
            let copy = copy.ok_or_else(|| {
                let message = "the session's copy could not be read; come back";
                NotTaken::Refused(ErrorBody::new(ErrorCode::Internal, message))
            })?;
            let log = log_span(session, copy.facts().trace.as_ref());
            let (segment, audio) = (copy.next_segment().0, copy.audio_end().0);
            info!(parent: &log, %epoch, %from, segment, audio, "a session goes on here");
            // Who has not answered may have what its session there left when it heard of this one.
            let held = |(_, answer): &(&NodeName, &Answer)| !matches!(answer, Answer::NotHeld);
            let holders = nodes.iter().zip(&answers[1..]).filter(held).map(|(node, _)| node.clone());
            let (holders, from) = (holders.collect(), from.clone());
            Ok(TakenOver { copy, skip_to, holders, since: *since, from, parting })
        }
        Choice::Superseded { epoch } => {
            let message = format!("epoch {epoch} speaks for this session; come back with a higher one");
            Err(NotTaken::Refused(ErrorBody::new(ErrorCode::Superseded, message)))
        }
        Choice::Gap { unanswered } => {
            let message = "resume.have_from lies beyond the audio that any node has: what is between is lost";
            Err(NotTaken::new(ErrorBody::new(ErrorCode::Gap, message), unanswered))
        }
        Choice::Unknown { unanswered } => Err(NotTaken::new(unknown(), unanswered)),
    }
}

/// How the session that goes on from this node's copy left its owner. Of one that comes by its id alone nobody knows who that is.
async fn parting(request: &TakeoverRequest, copies: &CopyArguments, from: &NodeName) -> Parting {
    let owner = &request.token.owner;
    if request.by_id || *owner == copies.own {
        return Parting::Lost;
    }
    if from == owner {
        return Parting::HandedOver;
    }
    let Some(peers) = &copies.peers else { return Parting::Lost };
    // One that was started again has nothing of it.
    match tokio::time::timeout(OWNER, peers.held(owner, request.token.session)).await {
        Ok(Some(ReplicaReply::Held(_) | ReplicaReply::Busy)) => Parting::Left { owner: owner.clone() },
        _ => Parting::Lost,
    }
}

/// Looks for a session of which nothing is known but its id, on all nodes. `None` when nobody has it.
pub(crate) async fn find_by_id(
    session: SessionId,
    since: Timestamp,
    copies: &CopyArguments,
    keeper: &KeeperHandle,
) -> Option<TakeoverRequest> {
    let peers = copies.peers.as_ref()?;
    let nodes: Vec<NodeName> = peers.keepers("").into_iter().map(|keeper| keeper.node).collect();
    let others = join_all(nodes.iter().map(|node| peers.held(node, session)));
    let (own, others) = tokio::join!(held_here(keeper, session), others);
    let own = (copies.own.clone(), own);
    let answers = std::iter::once(own).chain(nodes.into_iter().zip(others));
    let held: Vec<(NodeName, CopySummary)> = answers
        .filter_map(|(node, reply)| match reply {
            Some(ReplicaReply::Held(summary)) => Some((node, summary)),
            _ => None,
        })
        .collect();
    let epoch = held.iter().map(|(_, summary)| summary.epoch).max()?.next();
    let mut holders = held.into_iter().map(|(node, _)| node);
    let token = TokenBody {
        session,
        tenant: String::new(),
        model: String::new(),
        digest: String::new(),
        // Of no set that would need no other: all are asked.
        view: View::default(),
        owner: holders.next()?,
        keepers: holders.collect(),
        expires_unix_s: 0,
    };
    let (last_final, final_to, have_from) = (None, None, SourceOffset(0));
    let resume = Resume { token: String::new(), epoch, last_final, final_to, have_from };
    Some(TakeoverRequest { token, resume, trace: None, since, by_id: true })
}

async fn held_here(keeper: &KeeperHandle, session: SessionId) -> Option<ReplicaReply> {
    let (reply, answer) = oneshot::channel();
    keeper.cast(KeeperMessage::Status(session, reply.into())).ok()?;
    tokio::time::timeout(OWN, answer).await.ok()?.ok()
}

/// So that two rounds of asking are no longer apart than a node takes to answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a client is told of a session that a node may have which does not say so.
pub(crate) fn unanswered() -> ErrorBody {
    let message = "a node that may have this session has not answered yet; ask again";
    let retry_after_ms = u64::try_from(ASK_AGAIN_AFTER.as_millis()).ok();
    ErrorBody { retry_after_ms, ..ErrorBody::new(ErrorCode::Busy, message) }
}

/// What a client is told of a session that is nowhere.
pub(crate) fn unknown() -> ErrorBody {
    let message = "no such session: it has ended, was waited for long enough, or every copy of it is gone";
    ErrorBody::new(ErrorCode::UnknownSession, message)
}

async fn ask(
    peers: Option<&Arc<dyn CopyPeers>>,
    node: &NodeName,
    session: SessionId,
    epoch: Epoch,
    trace: Option<TraceContext>,
) -> Answer {
    let Some(peers) = peers else { return Answer::Silent };
    match peers.promote(node, session, epoch, trace).await {
        Some(ReplicaReply::Promoted(summary)) => Answer::Held(summary),
        Some(ReplicaReply::Fenced { epoch }) => Answer::Fenced { epoch },
        Some(ReplicaReply::NotHeld) => Answer::NotHeld,
        Some(ReplicaReply::Busy) => Answer::Busy,
        _ => Answer::Silent,
    }
}

async fn ask_own(keeper: &KeeperHandle, session: SessionId, epoch: Epoch) -> Answer {
    let (reply, answer) = oneshot::channel();
    let _ = keeper.cast(KeeperMessage::Promote(session, epoch, reply.into()));
    match tokio::time::timeout(OWN, answer).await {
        Ok(Ok(ReplicaReply::Promoted(summary))) => Answer::Held(summary),
        Ok(Ok(ReplicaReply::Fenced { epoch })) => Answer::Fenced { epoch },
        Ok(Ok(_)) => Answer::NotHeld,
        _ => Answer::Silent,
    }
}

async fn own_copy(keeper: &KeeperHandle, session: SessionId, epoch: Epoch) -> Option<SessionCopy> {
    let (reply, answer) = oneshot::channel();
    keeper.cast(KeeperMessage::Take(session, epoch, reply.into())).ok()?;
    tokio::time::timeout(OWN, answer).await.ok()?.ok()?
}

async fn fetch(
    peers: Option<&Arc<dyn CopyPeers>>,
    node: &NodeName,
    header: FetchHeader,
) -> Option<SessionCopy> {
    let log = log_span(header.session, header.trace.as_ref());
    let stream = peers?.open(node);
    let reading = async {
        let stream = stream.await.map_err(io::Error::other)?;
        read(stream, header).await
    };
    match tokio::time::timeout(FETCH, reading).await {
        Ok(Ok(copy)) => Some(copy),
        Ok(Err(error)) => {
            warn!(parent: &log, %node, %error, "a copy could not be read");
            None
        }
        Err(_) => {
            warn!(parent: &log, %node, "a copy was not handed over in time");
            None
        }
    }
}

async fn read(stream: PeerStream, header: FetchHeader) -> io::Result<SessionCopy> {
    let session = header.session;
    let PeerStream { reader, mut writer } = stream;
    write_frame(&mut writer, &StreamHeader::Fetch(header), MAX_HEADER_BYTES).await?;
    let mut frames = FrameSource::new(reader).limit(MAX_COPY_FRAME_BYTES);
    match frames.next().await?.ok_or(io::ErrorKind::UnexpectedEof)? {
        HeaderReply::Accepted => {}
        HeaderReply::Refused { reason } => return Err(io::Error::other(reason)),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    let mut copy = match frames.next().await?.ok_or(io::ErrorKind::UnexpectedEof)? {
        ToReplica::Begin(start) if start.facts.session == session => SessionCopy::begin(*start),
        _ => return Err(io::Error::other("it begins with something else")),
    };
    while !copy.is_whole() {
        let message = frames.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        copy.apply(message).map_err(io::Error::other)?;
    }
    Ok(copy)
}
