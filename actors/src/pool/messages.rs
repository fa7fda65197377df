//! What a pool actor is told.

use std::time::Duration;

use ractor::{ActorRef, RpcReplyPort};
use starling_core::pool::{HostId, PoolCounts, PoolEvent, Purpose, Refusal};
use starling_protocol::{Attempt, LeaseId};

use crate::decoder::DecoderHandle;
use crate::session::SessionMessage;

/// A session's right to a decoder.
pub(crate) struct Grant {
    pub(crate) decoder: DecoderHandle,
    pub(crate) waited: Duration,
}

/// What a session is answered.
pub(crate) type LeaseAnswer = Result<Grant, Refusal>;

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
    pub(crate) determinism: Option<String>,
}

pub(crate) enum PoolMessage {
    /// A session wants a lease; the answer is a `SessionMessage::Lease`.
    Acquire { attempt: Attempt, purpose: Purpose, session: ActorRef<SessionMessage> },
    /// A session does not want it any more, or is gone.
    Withdraw { attempt: Attempt, session: ActorRef<SessionMessage> },
    /// A lease's host has closed it.
    Released { lease: LeaseId },
    /// Something of the machine's.
    Event(PoolEvent),
    /// A heartbeat's figures.
    HostLoad { host: HostId, load: HostLoad },
    /// A host said what its decoding depends on.
    Determinism { class: String },
    /// A host said why it can't load.
    LoadFailed { message: String },
    /// How is it?
    Snapshot(RpcReplyPort<PoolSnapshot>),
    /// End all hosts; answered when they are gone.
    Stop(RpcReplyPort<()>),
}
