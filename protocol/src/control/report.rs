//! What nodes tell of themselves over the control plane: how they are, what they own, what has happened lately.

use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeName, SessionId};

/// Most sessions in one status.
pub const MAX_STATUS_SESSIONS: usize = 256;

/// Most events in one answer.
pub const MAX_RECENT_EVENTS: usize = 128;

/// Most ended sessions in one answer.
pub const MAX_RECENT_ENDED: usize = 64;

/// A decoder host that was killed on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KilledDecoder {
    /// Its model.
    pub model: String,
    /// Its process.
    pub pid: u32,
    /// Sessions that it decoded.
    pub leases: u32,
}

/// What has happened on a node lately.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeRecent {
    /// The last ones, [`MAX_RECENT_EVENTS`] at most, the oldest first.
    pub events: Vec<NodeEvent>,
    /// Sessions that ended there, [`MAX_RECENT_ENDED`] at most, the oldest first.
    pub ended: Vec<EndedSession>,
}

/// Something that happened on a node. Flat, so that a node can tell of more than another one knows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeEvent {
    /// Counts the events of a node's run, from 1.
    pub sequence: u64,
    /// When, in milliseconds since 1970 by the node's clock.
    pub at_ms: u64,
    /// What, as a label: `session_began`, `decoder_lost`, `caught_up`, `taken_over`, `session_ended`, `host_ready`, `host_gone`.
    pub kind: String,
    /// The model.
    #[serde(default)]
    pub model: String,
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The node whose decoder it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<NodeName>,
    /// Why, as a label.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
    /// Audio that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_ms: Option<u64>,
}

/// A session that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// When it ended, in milliseconds since 1970 by the node's clock.
    pub at_ms: u64,
    /// How, as a label: `done`, `failed`, `abandoned`, `lingered_out` or `superseded`.
    pub outcome: String,
    /// How it was then.
    pub report: SessionReport,
}

/// A node's own account of itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// Of the program.
    pub version: String,
    /// Whether it is on its way out.
    pub draining: bool,
    /// How long it has run.
    pub uptime_ms: u64,
    /// Its models.
    pub models: Vec<ModelReport>,
    /// Its sessions, [`MAX_STATUS_SESSIONS`] at most.
    pub sessions: Vec<SessionReport>,
    /// How many sessions there are in all.
    pub sessions_total: u32,
}

/// One model of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Its name in the catalogue.
    pub model: String,
    /// Its manifest's digest.
    pub digest: String,
    /// Decoders there may be.
    pub total_slots: u32,
    /// Decoders that are free.
    pub idle_slots: u32,
    /// Seconds of CPU per second of audio, as measured; 0 before anything was.
    pub real_time_factor: f32,
    /// Decoder hosts that are ready.
    #[serde(default)]
    pub hosts_ready: u32,
    /// Decoder hosts that there are to be.
    #[serde(default)]
    pub hosts_total: u32,
}

/// One session that a node owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Which one.
    pub session: SessionId,
    /// Which way its client came in, as a label.
    #[serde(default)]
    pub dialect: String,
    /// Its model.
    #[serde(default)]
    pub model: String,
    /// Where its copies are.
    pub replicas: Vec<NodeName>,
    /// Whether what its client was told is in two copies.
    #[serde(default)]
    pub durable: bool,
    /// Whether its client is there.
    #[serde(default)]
    pub connected: bool,
    /// Where its decoder is, if it has one.
    pub decoder: Option<NodeName>,
    /// Where its standby is, if it has one.
    #[serde(default)]
    pub standby: Option<NodeName>,
    /// Which decoder the first of them is.
    pub attempt: u32,
    /// Which connection speaks for it.
    #[serde(default)]
    pub epoch: Epoch,
    /// Audio received and not yet decoded.
    pub lag_ms: u64,
    /// Whose it is; empty where nobody has a name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Audio received since its beginning, on whatever node.
    #[serde(default)]
    pub audio_ms: u64,
    /// How long it has lived, on whichever node.
    #[serde(default)]
    pub age_ms: u64,
    /// Its trace, 32 hexadecimal digits, if it has one that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}
