//! Where a session's decoders come from: the node's own pool, or a peer's.
//!
//! Owns: the search for one decoder. Must never: choose (see `starling_core::placement`), or keep a lease that its session
//! does not want any more.

mod standby;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorRef};
use starling_core::Timestamp;
use starling_core::admission::NodeSlots;
use starling_core::placement::{Own, Place, Room, Round, Want, place, search_order};
use starling_core::pool::{Purpose, Refusal, Refused};
use starling_core::session::LeaseKind;
use starling_protocol::data::{DATA_PROTOCOL, LeaseHeader, LeasePurpose, StreamRefusal};
use starling_protocol::lease::TraceContext;
use starling_protocol::{Attempt, DecodeOffset, Epoch, LeaseId, NodeName, SessionId};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tracing::{Instrument as _, debug, error, info};

pub(crate) use self::standby::StandbyAsk;
use crate::claim::Claim;
use crate::clock::Clock;
use crate::data::{AskError, LeaseStream, Peers, ask};
use crate::decoder::{DecoderActor, DecoderArguments, DecoderHandle, HolderMessage, Seat};
use crate::pool::{Grant, PoolMessage, PoolSnapshot};
use crate::reservations::{Kept, Wanted, reserve};
use crate::session::SessionMessage;
use crate::task::AbortOnDrop;
use crate::trace::LeaseTrace;

/// A peer answers within a round trip and what its pool was given to wait. One that takes so much longer is passed over:
/// there are others, and a caller waits.
const ANSWER: Duration = Duration::from_millis(500);

/// How long the own pool may take to say how full it is.
const SNAPSHOT: Duration = Duration::from_secs(1);

/// What a peer is given to find a slot for a session that goes on, once nobody has an idle one.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// A host of one's own has to be started first, and to load the model.
const QUARANTINE_PATIENCE: Duration = Duration::from_secs(60);

/// Wait after nobody gave anything, doubling up to the longest. Peers that come back are noticed within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// See [`FIRST_PAUSE`].
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A model's decoders.
#[derive(Clone)]
pub(crate) struct Decoders {
    pub(crate) pool: ActorRef<PoolMessage>,
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Keeps the pool, also while nothing is decoded.
    pub(crate) _claim: Claim,
}

/// What it takes to ask peers.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) model: Arc<str>,
    pub(crate) digest: Arc<str>,
    /// Whether this node has hosts for the model.
    pub(crate) own_hosts: bool,
    /// Longest time a new session waits.
    pub(crate) queue_wait: Duration,
    /// What a refused client is told to wait when no peer says anything else.
    pub(crate) retry_after: Duration,
    /// Places for new sessions that wait for a peer, where there is no pool of the node's own to wait in.
    pub(crate) queue: Arc<Semaphore>,
    /// Longest time a new session waits for a peer to load its first host.
    pub(crate) load_wait: Duration,
    /// Places for those that do: one at least, as somebody has to ask for that host.
    pub(crate) loading: Arc<Semaphore>,
    /// Names for leases on peers, unique on this node.
    pub(crate) names: Arc<AtomicU64>,
    pub(crate) clock: Clock,
}

/// A decoder that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) attempt: Attempt,
    pub(crate) purpose: Purpose,
    pub(crate) start: DecodeOffset,
    /// The class that decoded the session so far; may be empty.
    pub(crate) class: Arc<str>,
    /// Peers that failed at this, the last one at the end.
    pub(crate) failed: Vec<NodeName>,
    pub(crate) trace: Option<TraceContext>,
}

/// A search that goes on. Dropping it ends it.
pub(crate) struct Search {
    _task: AbortOnDrop,
}

impl Decoders {
    /// Looks for a decoder. The answer is a [`HolderMessage::Answer`] to the session.
    pub(crate) fn find(&self, ask: Ask, session: &ActorRef<SessionMessage>) -> Option<Search> {
        let (pool, session) = (self.pool.clone(), session.clone());
        let Some(elsewhere) = self.elsewhere.clone() else {
            acquire(&pool, &ask, &session);
            return None;
        };
        let searching = Searching { pool, elsewhere, ask, session };
        Some(Search { _task: AbortOnDrop::spawn(searching.run().in_current_span()) })
    }

    /// The session does not want what it asked for.
    pub(crate) fn withdraw(&self, attempt: Attempt, session: &ActorRef<SessionMessage>) {
        let _ = self.pool.cast(PoolMessage::Withdraw { attempt, holder: session.get_derived() });
    }
}

fn acquire(pool: &ActorRef<PoolMessage>, ask: &Ask, session: &ActorRef<SessionMessage>) {
    let (attempt, purpose, holder) = (ask.attempt, ask.purpose, session.get_derived());
    let standby = matches!(purpose, Purpose::Standby { .. });
    let trace = Some(LeaseTrace { session: ask.session, epoch: ask.epoch, standby });
    let _ = pool.cast(PoolMessage::Acquire { attempt, purpose, claim: None, holder, trace });
}

struct Searching {
    pool: ActorRef<PoolMessage>,
    elsewhere: Elsewhere,
    ask: Ask,
    session: ActorRef<SessionMessage>,
}

/// How far a search has come.
struct Progress<'a> {
    /// Peers that are not asked again for now.
    excluded: Vec<NodeName>,
    /// When it began.
    since: Timestamp,
    /// The session's place in the queue, once it needs one.
    waiting: Option<SemaphorePermit<'a>>,
    /// Its place among those that wait for a host to load.
    loading: Option<SemaphorePermit<'a>>,
    /// The earliest that a peer expects a slot.
    retry_after: Option<Duration>,
}

/// A peer gave nothing.
struct Denied {
    problem: String,
    /// When it is worth asking it again, if it said so.
    retry_after: Option<Duration>,
}

impl<E: ToString> From<E> for Denied {
    fn from(problem: E) -> Self {
        Self { problem: problem.to_string(), retry_after: None }
    }
}

/// What one round over all nodes came to.
enum Found {
    Own,
    Lease {
        node: NodeName,
        lease: LeaseId,
        stream: LeaseStream,
    },
    /// Nobody has a slot, but one may come free.
    Nothing,
    /// Nobody has a slot, and too many wait for one.
    Full,
}

impl Searching {
    async fn run(self) {
        let new = self.ask.purpose == Purpose::New;
        let since = self.elsewhere.clock.now();
        let deadline = since.plus(self.elsewhere.queue_wait);
        let excluded = self.ask.failed.clone();
        let mut so_far = Progress { since, excluded, waiting: None, loading: None, retry_after: None };
        let mut pause = FIRST_PAUSE;
        loop {
            match self.round(&mut so_far).await {
                Found::Own => return acquire(&self.pool, &self.ask, &self.session),
                Found::Lease { node, lease, stream } => {
                    info!(%node, attempt = self.ask.attempt.0, "decoding goes on at a peer");
                    return self.deliver(node, lease, stream);
                }
                Found::Full => return self.refuse(Refusal::QueueFull, &so_far),
                Found::Nothing => {}
            }
            if new && self.elsewhere.clock.now() >= deadline {
                return self.refuse(Refusal::WaitedTooLong, &so_far);
            }
            // With nobody else there, one that failed at it is asked again: it may have been its host alone.
            let excluded = &mut so_far.excluded;
            let untried = excluded.iter().all(|node| self.ask.failed.contains(node)) && pause == FIRST_PAUSE;
            if excluded.is_empty() || !untried {
                tokio::time::sleep(pause).await;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            excluded.clear();
        }
    }

    fn refuse(&self, reason: Refusal, so_far: &Progress<'_>) {
        let retry_after = so_far.retry_after.unwrap_or(self.elsewhere.retry_after);
        let answer = Err(Refused { reason, retry_after });
        let answer = HolderMessage::Answer { attempt: self.ask.attempt, answer };
        let _ = self.session.cast(SessionMessage::Decoder(answer));
    }

    /// Asks everybody once, in the order of placement.
    async fn round<'a>(&'a self, so_far: &mut Progress<'a>) -> Found {
        let Elsewhere { peers, model, digest, own_hosts, .. } = &self.elsewhere;
        if self.ask.purpose == Purpose::Continue(LeaseKind::Quarantine) && *own_hosts {
            return Found::Own;
        }
        let own = if *own_hosts { snapshot(&self.pool).await } else { None };
        let own_class = own.as_ref().and_then(|own| own.class.clone()).unwrap_or_default();
        let own = own.filter(|own| own.counts.hosts_ready > 0);
        let own = own.map(|own| Own { idle: own_slots(&own).1, class: &own_class });
        for &Round { rooms, any_class } in search_order(self.ask.purpose, *own_hosts) {
            if self.queues(rooms) && so_far.waiting.is_none() {
                let Ok(permit) = self.elsewhere.queue.try_acquire() else { return Found::Full };
                so_far.waiting = Some(permit);
            }
            loop {
                let candidates = peers.candidates(model, digest);
                let last = self.ask.failed.last();
                let lost = candidates.iter().find(|candidate| Some(&candidate.node) == last);
                let want = Want {
                    own,
                    class: &self.ask.class,
                    avoid_zone: lost.map(|lost| lost.zone.as_str()),
                    excluded: &so_far.excluded,
                    rooms,
                    any_class,
                    model,
                };
                let node = match place(&want, &candidates, random()) {
                    None => break,
                    Some(Place::Own) => return Found::Own,
                    Some(Place::Peer(candidate)) => candidate.node.clone(),
                };
                if *rooms == [Room::OnDemand] && so_far.loading.is_none() {
                    let Ok(permit) = self.elsewhere.loading.try_acquire() else { break };
                    so_far.loading = Some(permit);
                }
                match self.ask_peer(&node, self.patience(rooms, so_far.since)).await {
                    Ok((lease, stream)) => return Found::Lease { node, lease, stream },
                    Err(Denied { problem, retry_after }) => {
                        debug!(session = %self.ask.session, %node, problem, "a peer gives no decoder");
                        so_far.excluded.push(node);
                        so_far.retry_after = so_far.retry_after.into_iter().chain(retry_after).min();
                    }
                }
            }
        }
        if *own_hosts { Found::Own } else { Found::Nothing }
    }

    /// Whether a session that begins and does with these rooms waits in this node's queue.
    fn queues(&self, rooms: &[Room]) -> bool {
        self.ask.purpose == Purpose::New && rooms.contains(&Room::Crowded)
    }

    fn patience(&self, rooms: &[Room], since: Timestamp) -> Duration {
        if rooms == [Room::Idle] {
            return Duration::ZERO;
        }
        match self.ask.purpose {
            Purpose::New => {
                let Elsewhere { queue_wait, load_wait, clock, .. } = &self.elsewhere;
                let longest = if rooms == [Room::OnDemand] { load_wait } else { queue_wait };
                since.plus(*longest).since(clock.now())
            }
            // A host that has to load has not by then. It goes on loading, and is asked again: meanwhile somebody may be back.
            Purpose::Continue(LeaseKind::Shared) => CONTINUE_PATIENCE,
            Purpose::Continue(LeaseKind::Quarantine) => QUARANTINE_PATIENCE,
            Purpose::Standby { .. } => Duration::ZERO,
        }
    }

    /// Asks for a slot that is free now by way of a reservation, if the session is a new one: a refusal costs one small
    /// question then, and says when to come back. A session that goes on, or is to wait, asks on the stream at once, which
    /// takes one round trip less.
    async fn ask_peer(&self, node: &NodeName, patience: Duration) -> Result<(LeaseId, LeaseStream), Denied> {
        let kept = if self.ask.purpose == Purpose::New && patience.is_zero() {
            self.reserve(node).await?
        } else {
            None
        };
        let lease = LeaseId(self.elsewhere.names.fetch_add(1, Ordering::Relaxed));
        let header = LeaseHeader {
            version: DATA_PROTOCOL,
            lease,
            session: self.ask.session,
            epoch: self.ask.epoch,
            attempt: self.ask.attempt,
            model: self.elsewhere.model.to_string(),
            digest: self.elsewhere.digest.to_string(),
            purpose: match self.ask.purpose {
                Purpose::New => LeasePurpose::New,
                Purpose::Continue(LeaseKind::Shared) => LeasePurpose::Continue,
                Purpose::Continue(LeaseKind::Quarantine) => LeasePurpose::Quarantine,
                Purpose::Standby { .. } => LeasePurpose::Standby,
            },
            start: self.ask.start,
            patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
            reservation: kept.as_ref().and_then(Kept::number),
            trace: self.ask.trace.clone(),
        };
        let asking = async {
            let stream = self.elsewhere.peers.open(node).await?;
            ask(stream, header).await.map_err(|error| match error {
                AskError::Refused(StreamRefusal::BusyFor { retry_after_ms }) => Denied {
                    problem: error.to_string(),
                    retry_after: Some(Duration::from_millis(retry_after_ms.into())),
                },
                error => error.into(),
            })
        };
        let answered = tokio::time::timeout(patience.saturating_add(ANSWER), asking).await;
        let stream = answered.map_err(|_| Denied::from("no answer in time"))??;
        debug!(session = %self.ask.session, %node, reserved = kept.is_some(), "a peer gives a decoder");
        if let Some(kept) = kept {
            kept.was_used();
        }
        Ok((lease, stream))
    }

    /// Has a peer keep a slot; `None` when it has to be asked on the stream.
    async fn reserve(&self, node: &NodeName) -> Result<Option<Kept>, Denied> {
        let Elsewhere { peers, model, digest, .. } = &self.elsewhere;
        let Some(reservations) = peers.reservations() else { return Ok(None) };
        let Ask { session, ref trace, .. } = self.ask;
        let wanted = Wanted { model, digest, session, trace: trace.clone() };
        match reserve(reservations, node, wanted, ANSWER).await {
            Ok(kept) => Ok(kept),
            Err(refused) => {
                let retry_after = refused.retry_after();
                Err(Denied { problem: refused.to_string(), retry_after })
            }
        }
    }

    /// Hands the lease to the session. In a task of its own, so that a search which ends now leaves no decoder behind: a
    /// session that does not want it drops it.
    fn deliver(&self, node: NodeName, lease: LeaseId, stream: LeaseStream) {
        let (session, attempt) = (self.session.clone(), self.ask.attempt);
        tokio::spawn(async move {
            let (waited, class) = (stream.waited, stream.class.as_str().into());
            let holder = session.get_derived();
            let seat = Seat::Peer(stream);
            let arguments = DecoderArguments { lease, attempt, holder, seat, trace: None };
            match Actor::spawn_linked(None, DecoderActor, arguments, session.get_cell()).await {
                Ok((decoder, _)) => {
                    let decoder = DecoderHandle::new(decoder, lease);
                    let answer = Ok(Grant { decoder, waited, node: Some(node), class });
                    let answer = HolderMessage::Answer { attempt, answer };
                    let _ = session.cast(SessionMessage::Decoder(answer));
                }
                // Only a session that has just ended can't have children.
                Err(problem) => error!(%problem, "a peer's decoder cannot be started"),
            }
        });
    }
}

/// How full a pool is.
async fn snapshot(pool: &ActorRef<PoolMessage>) -> Option<PoolSnapshot> {
    let (reply, answer) = oneshot::channel();
    pool.cast(PoolMessage::Snapshot(reply.into())).ok()?;
    tokio::time::timeout(SNAPSHOT, answer).await.ok()?.ok()
}

/// A pool's slots as admission counts them, and how many a new session could have.
fn own_slots(own: &PoolSnapshot) -> (NodeSlots, u32) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (total, busy) = (count(own.counts.slots), count(own.counts.streams()));
    (NodeSlots { total, busy, draining: false }, count(own.counts.idle))
}

/// Every bit of both halves but those that say which kind of UUID it is.
pub(crate) fn random() -> u64 {
    let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
    high ^ low.rotate_left(32)
}
