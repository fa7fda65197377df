//! What nodes ask of each other over the control plane: three services, each a question and an answer.
//!
//! Owns: the messages of [`NodeAgent`], [`ModelPool`] and [`Replica`], and how they are written. Must never: fail because a
//! peer is newer. What a node doesn't understand it answers with `Unknown`, and an answer that isn't understood reads as
//! `Unknown` too; whoever asked then knows, and doesn't wait for its timeout.
//!
//! A message is MessagePack with named fields, and fits [`MAX_CONTROL_MESSAGE_BYTES`]. Variants and fields are only ever
//! added; a field that is added has a default.

use std::fmt::Debug;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

mod report;

pub use report::{
    EndedSession, KilledDecoder, MAX_RECENT_ENDED, MAX_RECENT_EVENTS, MAX_STATUS_SESSIONS, ModelReport,
    NodeEvent, NodeRecent, NodeReport, SessionReport,
};

use crate::lease::TraceContext;
use crate::{Epoch, NodeId, Segment, SessionId, SourceOffset};

/// Version of these messages. It rises when a variant or a field is added, and is for people who read logs: a message is
/// understood or not by what it says, not by this number.
pub const CONTROL_PROTOCOL: u16 = 4;

/// Longest message of the control plane. The longest one there is, a status with [`MAX_STATUS_SESSIONS`] sessions, has
/// half of that; what is larger than this belongs on the data plane.
pub const MAX_CONTROL_MESSAGE_BYTES: usize = 256 * 1024;

/// One of the three services of a node.
pub trait Service: Debug + Clone + Copy + Send + Sync + 'static {
    /// What is asked.
    type Request: Serialize + DeserializeOwned + Debug + Clone + PartialEq + Send + 'static;
    /// What is answered.
    type Reply: Serialize + DeserializeOwned + Debug + Clone + PartialEq + Send + 'static;

    /// Its name on the wire and in logs.
    const NAME: &'static str;

    /// The answer to what this node doesn't understand.
    fn unknown() -> Self::Reply;

    /// The answer when too many requests are being worked on. Nothing has changed; ask later.
    fn busy() -> Self::Reply;
}

macro_rules! service {
    ($(#[$doc:meta])* $name:ident, $wire:literal, $request:ident, $reply:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        impl Service for $name {
            type Request = $request;
            type Reply = $reply;

            const NAME: &'static str = $wire;

            fn unknown() -> $reply {
                $reply::Unknown { version: CONTROL_PROTOCOL }
            }

            fn busy() -> $reply {
                $reply::Busy
            }
        }
    };
}

service! {
    /// The node as a whole: whether it lives, how it is, and that it should go.
    NodeAgent, "node-agent", NodeRequest, NodeReply
}
service! {
    /// The right to a node's decoders.
    ModelPool, "model-pool", PoolRequest, PoolReply
}
service! {
    /// The copies of sessions' journals that a node keeps for others.
    Replica, "replica", ReplicaRequest, ReplicaReply
}

/// What is asked of a [`NodeAgent`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeRequest {
    /// Are you there?
    Heartbeat {
        /// Counts heartbeats on this link.
        sequence: u64,
    },
    /// How are you?
    Status,
    /// Take no more sessions, hand over those you have, and end.
    Drain {
        /// How long that may take.
        deadline_ms: u64,
    },
    /// Serve this model too, or in place of the one of its name.
    AddModel(ModelOffer),
    /// What has happened lately?
    Recent {
        /// Events up to this one are known; 0 for none.
        after: u64,
    },
    /// End a decoder host as a crash would, for everybody to see what follows.
    KillDecoder {
        /// Of which model; any if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
    },
    /// Take no more sessions, hand over those you have, and stay when you have none: whoever asks takes your machine away then. A drain
    /// that is asked for while it stays has it end. To be asked again changes nothing.
    Retire {
        /// How long that may take.
        deadline_ms: u64,
        /// How long it stays; if it is there still, it was forgotten and ends, to be started anew.
        stay_ms: u64,
    },
    /// How far has that come?
    Retirement,
}

/// How far a node has come that was asked to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retirement {
    /// Where it stands.
    pub phase: RetirementPhase,
    /// Sessions that it has left.
    pub sessions: u32,
    /// Streams of other nodes' sessions that it decodes still.
    pub streams: u32,
}

/// Where a node stands on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetirementPhase {
    /// It was not asked to, or ends for another reason.
    Not,
    /// It drains, and is going to stay.
    Draining,
    /// It has nobody left, and stays.
    Drained,
}

/// A model that a running node is to serve. What is left open is as the node's settings have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOffer {
    /// Its name in the catalogue of each node.
    pub name: String,
    /// Decoder hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<u16>,
    /// Streams that one host takes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u16>,
    /// Decode threads of one host; 0 shares the machine's cores out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u16>,
    /// Recognizers of one host that are warmed before it counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prewarm: Option<u16>,
}

/// What a [`NodeAgent`] answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum NodeReply {
    /// Here I am.
    Heartbeat {
        /// That of the question.
        sequence: u64,
    },
    /// As I am.
    Status(Box<NodeReport>),
    /// The drain has begun, or had before.
    Draining,
    /// The model is served, or will be once it is loaded.
    ModelTaken {
        /// What became of it, as a label: added, replacing, unchanged, restored.
        change: String,
        /// Its manifest's digest on this node.
        digest: String,
    },
    /// The model is not taken, and all is served as before.
    ModelRefused {
        /// For people.
        reason: String,
    },
    /// What has happened lately.
    Recent(Box<NodeRecent>),
    /// A host was killed.
    DecoderKilled(KilledDecoder),
    /// No host was killed.
    KillRefused {
        /// For people.
        reason: String,
    },
    /// How far it has come.
    Retirement(Retirement),
    /// Too much is being asked. Nothing has changed.
    Busy,
    /// The question, or this answer, is not understood.
    Unknown {
        /// [`CONTROL_PROTOCOL`] of the node that doesn't understand.
        version: u16,
    },
}

/// What is asked of a [`ModelPool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PoolRequest {
    /// Keep a slot free for a lease that is about to be opened over the data plane.
    Reserve {
        /// The model's name in the catalogue.
        model: String,
        /// Its manifest's digest: another manifest gives another text.
        digest: String,
        /// Who is going to use it. A session that asks twice has one reservation.
        session: SessionId,
        /// How long to keep the slot.
        ttl_ms: u32,
        /// Whether the session has lost a decoder, and so may have what is kept back from new ones.
        failover: bool,
        /// For traces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceContext>,
    },
    /// The reservation won't be used. One that is gone already is no error.
    Release {
        /// Which one.
        reservation: ReservationId,
    },
}

/// A slot that is kept, unique within a node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReservationId(pub u64);

/// What a [`ModelPool`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PoolReply {
    /// The slot is kept.
    Reserved {
        /// To open the lease with, or to release.
        reservation: ReservationId,
        /// How long it is kept from now on.
        ttl_ms: u32,
    },
    /// There is no slot.
    Refused {
        /// When it is worth asking again.
        retry_after_ms: u32,
    },
    /// This node does not have that manifest of that model.
    NoSuchModel,
    /// The reservation is gone.
    Released,
    /// Too much is being asked. Nothing has changed.
    Busy,
    /// The question, or this answer, is not understood.
    Unknown {
        /// [`CONTROL_PROTOCOL`] of the node that doesn't understand.
        version: u16,
    },
}

/// What is asked of a [`Replica`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReplicaRequest {
    /// Obey me as this session's owner from now on, unless somebody with as high an epoch or a higher one came first.
    Promote {
        /// The session.
        session: SessionId,
        /// The epoch of who asks. Higher than any before, or the answer is `Fenced`.
        epoch: Epoch,
        /// For traces.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<TraceContext>,
    },
    /// What do you hold of this session?
    Status {
        /// The session.
        session: SessionId,
    },
    /// My copy of this session has run out: its owner is gone, and its client has not come back. Am I to tell of its end?
    /// `NotHeld` if so; `Fenced` if it goes on, or somebody else tells or has told.
    RanOut {
        /// The session.
        session: SessionId,
        /// What the copy was like.
        copy: CopySummary,
    },
}

/// What a [`Replica`] answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ReplicaReply {
    /// The epoch is stored; an owner with a lower one is refused from now on.
    Promoted(CopySummary),
    /// An epoch as high was stored before. Nothing has changed.
    Fenced {
        /// The epoch that is stored.
        epoch: Epoch,
    },
    /// What is held.
    Held(CopySummary),
    /// There is no copy of that session here.
    NotHeld,
    /// Too much is being asked. Nothing has changed.
    Busy,
    /// The question, or this answer, is not understood.
    Unknown {
        /// [`CONTROL_PROTOCOL`] of the node that doesn't understand.
        version: u16,
    },
}

/// How far a copy of a session goes. Copies rank by these fields in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CopySummary {
    /// The highest epoch that it obeyed before it was asked.
    pub epoch: Epoch,
    /// The set of copies that it belonged to.
    pub view: u64,
    /// The first segment that is not committed in it.
    pub next_segment: Segment,
    /// The end of its audio.
    pub audio_end: SourceOffset,
}

/// A question as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call<R> {
    /// [`CONTROL_PROTOCOL`] of who asks.
    pub version: u16,
    /// Who asks.
    pub from: NodeId,
    /// What.
    pub request: R,
}

/// An answer as it travels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answer<R> {
    version: u16,
    reply: R,
}

/// A message that can't be written. Nothing was sent.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// It has no MessagePack form.
    #[error("the message can't be written: {0}")]
    Codec(#[from] rmp_serde::encode::Error),
    /// It is over [`MAX_CONTROL_MESSAGE_BYTES`].
    #[error("the message has {bytes} bytes, and {MAX_CONTROL_MESSAGE_BYTES} is the limit")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// A question that this node doesn't understand. Answer [`Service::unknown`].
#[derive(Debug, Error)]
#[error("the request is not understood: {0}")]
pub struct NotUnderstood(#[from] rmp_serde::decode::Error);

/// Writes a question.
///
/// # Errors
/// It is too long.
pub fn encode_call<S: Service>(from: &NodeId, request: &S::Request) -> Result<Vec<u8>, EncodeError> {
    #[derive(Serialize)]
    struct Borrowed<'a, R> {
        version: u16,
        from: &'a NodeId,
        request: &'a R,
    }
    bounded(rmp_serde::to_vec_named(&Borrowed { version: CONTROL_PROTOCOL, from, request })?)
}

/// Reads a question.
///
/// # Errors
/// It is a newer node's, or none at all.
pub fn decode_call<S: Service>(bytes: &[u8]) -> Result<Call<S::Request>, NotUnderstood> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Writes an answer. One that is too long, which no answer of this version is, becomes [`Service::unknown`].
#[must_use]
pub fn encode_reply<S: Service>(reply: &S::Reply) -> Vec<u8> {
    let written =
        |reply: &S::Reply| bounded(rmp_serde::to_vec_named(&Answer { version: CONTROL_PROTOCOL, reply })?);
    // An empty message reads as `Unknown`, like anything that is no answer.
    written(reply).or_else(|_| written(&S::unknown())).unwrap_or_default()
}

/// Reads an answer. A newer node's that isn't understood is [`Service::unknown`].
#[must_use]
pub fn decode_reply<S: Service>(bytes: &[u8]) -> S::Reply {
    rmp_serde::from_slice(bytes).map_or_else(|_| S::unknown(), |answer: Answer<S::Reply>| answer.reply)
}

fn bounded(bytes: Vec<u8>) -> Result<Vec<u8>, EncodeError> {
    if bytes.len() > MAX_CONTROL_MESSAGE_BYTES {
        return Err(EncodeError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
