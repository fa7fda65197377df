//! What a pool actor is told.

use std::sync::Arc;
use std::time::Duration;

use ractor::RpcReplyPort;
use starling_core::pool::{Claim, HostId, PoolCounts, PoolEvent, Purpose, Refused};
use starling_protocol::control::ReservationId;
use starling_protocol::{Attempt, LeaseId, NodeName, SessionId};

use crate::decoder::{DecoderHandle, Holder};
use crate::node::PoolScale;
use crate::trace::LeaseTrace;

/// The right to a decoder.
pub(crate) struct Grant {
    pub(crate) decoder: DecoderHandle,
    pub(crate) waited: Duration,
    /// The peer that decodes; `None` for this node.
    pub(crate) node: Option<NodeName>,
    /// The determinism class of its host; empty when it is not known.
    pub(crate) class: Arc<str>,
}

/// What whoever asked is answered.
pub(crate) type LeaseAnswer = Result<Grant, Refused>;

/// A slot that is kept, and for how long, or why none is.
pub(crate) type ReserveAnswer = Result<(ReservationId, Duration), Refused>;

/// What a host's heartbeat said of its load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HostLoad {
    pub(crate) resident_bytes: u64,
    pub(crate) audio_ms: u64,
    pub(crate) busy_ms: u64,
}

/// A pool as it is now.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolSnapshot {
    pub(crate) counts: PoolCounts,
    pub(crate) load: HostLoad,
    pub(crate) last_error: Option<String>,
    /// The determinism class of its hosts, once one has been ready.
    pub(crate) class: Option<Arc<str>>,
    /// How many hosts there should be and why, if that changes.
    pub(crate) scaling: Option<PoolScale>,
}

pub(crate) enum PoolMessage {
    /// Somebody wants a lease, and may have had a slot kept for it; the answer is a `HolderMessage::Answer`.
    Acquire {
        attempt: Attempt,
        purpose: Purpose,
        claim: Option<Claim>,
        holder: Holder,
        trace: Option<LeaseTrace>,
    },
    /// They do not want it any more, or are gone.
    Withdraw { attempt: Attempt, holder: Holder },
    /// They wait no longer, and want to be told. Has no effect once they were answered.
    GiveUp { attempt: Attempt, holder: Holder },
    /// Somebody wants a slot kept. Answered at once.
    Reserve { session: SessionId, ttl: Duration, failover: bool, reply: RpcReplyPort<ReserveAnswer> },
    /// They don't want it any more. One that is not this pool's is none of its business.
    Unreserve { reservation: ReservationId },
    /// A lease's host has closed it.
    Released { lease: LeaseId },
    /// Something of the machine's.
    Event(PoolEvent),
    /// What a host that is about to be ready decodes alike with.
    HostClass { host: HostId, class: Arc<str> },
    /// A heartbeat's figures.
    HostLoad { host: HostId, load: HostLoad },
    /// Nothing is left of a host's process. May come before or after the machine hears of its end.
    HostGone { host: HostId },
    /// A host said why it can't load.
    LoadFailed { message: String },
    /// How is it?
    Snapshot(RpcReplyPort<PoolSnapshot>),
    /// End the busiest host as a crash would; answered with its process and how many it decoded for, if there is one.
    KillOne(RpcReplyPort<Option<(u32, usize)>>),
    /// End all hosts; answered when they are gone.
    Stop(RpcReplyPort<()>),
}
