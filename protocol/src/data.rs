//! The data plane between nodes: what the first frames of its streams say, and what goes on them.
//!
//! Two nodes hold one connection. Each bidirectional stream on it serves one thing: whoever opens it writes a
//! [`StreamHeader`] and is answered with a [`HeaderReply`]. What follows depends on the header.
//!
//! **A lease** ([`LeaseHeader`]): the session's node writes [`ToHost`](crate::lease::ToHost) messages (`Open`, `Feed`,
//! `Flush`, `Partials`), and reads [`LeaseReply`]; inside are the [`FromHost`] messages of the host that decodes. This is the
//! lease protocol of [`crate::lease`], credit and all, with one lease on each stream. Whoever ends the stream ends the
//! lease. A stream that ends without [`LeaseReply::Lost`] says that the node is gone, or the way to it.
//!
//! **A copy** ([`CopyHeader`], [`FetchHeader`]): see [`crate::replica`].
//!
//! Variants and fields are only ever added. Binary layout: [`crate::frame`]. A header that a node can't read is answered with
//! [`StreamRefusal::Unreadable`], so that a newer node learns that it speaks to an older one.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::lease::{FromHost, TraceContext};
use crate::replica::{CopyHeader, FetchHeader};
use crate::{Attempt, DecodeOffset, Epoch, LeaseId, SessionId};

/// Version of this protocol. A node that speaks another refuses the stream.
pub const DATA_PROTOCOL: u16 = 1;

/// The data plane's name in the TLS handshake (ALPN).
pub const DATA_ALPN: &[u8] = b"starling-data/1";

/// Largest header and answer to it: names and a trace, and room to grow.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// First frame of a stream: what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StreamHeader {
    /// A decoder's lease.
    Lease(LeaseHeader),
    /// A copy of a session is to be kept.
    Copy(CopyHeader),
    /// A copy of a session is to be read.
    Fetch(FetchHeader),
}

/// A lease that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHeader {
    /// [`DATA_PROTOCOL`] of the asking node.
    pub version: u16,
    /// The asking node's name for the lease; every message on the stream bears it.
    pub lease: LeaseId,
    /// Whose audio it is.
    pub session: SessionId,
    /// Which connection speaks for the session.
    pub epoch: Epoch,
    /// Which of the session's decoders this would be.
    pub attempt: Attempt,
    /// The model's name.
    pub model: String,
    /// Digest of the model's files; a node that has others under the same name refuses.
    pub digest: String,
    /// What it is for.
    pub purpose: LeasePurpose,
    /// The first sample that will be fed.
    pub start: DecodeOffset,
    /// How long the asking node waits for a slot; with 0 one must be free now.
    pub patience_ms: u32,
    /// A slot that was reserved before, by the name the decoding node gave it.
    pub reservation: Option<u64>,
    /// The session's trace.
    pub trace: Option<TraceContext>,
}

/// What a lease is for; decides who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeasePurpose {
    /// A session that begins.
    New,
    /// A session that has lost its decoder, or is moving; goes first and may use the reserve.
    Continue,
    /// As `Continue`, alone in a host: the segment may kill what decodes it.
    Quarantine,
    /// A second decoder for a session that has one elsewhere. Has what nobody else needs: it is refused at once where somebody
    /// waits, and asked to go when a session finds no slot. A node that does not know the word refuses it as unreadable.
    Standby,
}

/// First frame back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum HeaderReply {
    /// The stream serves what the header asked for.
    Accepted,
    /// It does not; nothing was held for it, and it is closed.
    Refused {
        /// Why.
        reason: StreamRefusal,
    },
}

/// Why a stream is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum StreamRefusal {
    /// The nodes speak different versions.
    #[error("this node speaks version {spoken} of the data plane, not {offered}")]
    Version {
        /// What the header said.
        offered: u16,
        /// What this node speaks.
        spoken: u16,
    },
    /// The header can't be read, or asks for something this node does not know.
    #[error("the stream's header can't be read: {message}")]
    Unreadable {
        /// What is wrong with it.
        message: String,
    },
    /// The model is not served here.
    #[error("no model {model:?} is served here")]
    UnknownModel {
        /// Its name.
        model: String,
    },
    /// Another model is served under this name.
    #[error("model {model:?} has the digest {served} here, not {offered}")]
    WrongDigest {
        /// Its name.
        model: String,
        /// What the header said.
        offered: String,
        /// What this node has.
        served: String,
    },
    /// No slot came free in time.
    #[error("no decoder is free")]
    Busy,
    /// No slot came free in time, and the pool says when one may.
    #[error("no decoder is free; one may be in {retry_after_ms} ms")]
    BusyFor {
        /// When it is worth asking again.
        retry_after_ms: u32,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Draining,
    /// A higher epoch speaks for the session.
    #[error("epoch {epoch} speaks for the session")]
    Fenced {
        /// Which.
        epoch: Epoch,
    },
    /// There is no room for another copy.
    #[error("no room for another copy")]
    Full,
    /// There is no copy of the session here.
    #[error("no copy of the session is held")]
    NotHeld,
}

/// From the node that decodes to the session's node, once the header was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LeaseReply {
    /// First of all: the slot is there, and `Open` may come.
    Granted {
        /// How long it was waited for.
        waited_ms: u32,
        /// The determinism class of the node's hosts; empty when it is not known.
        determinism: String,
    },
    /// The host said this.
    Host(FromHost),
    /// The host is to be replaced: leave at the next cut.
    Retiring,
    /// The lease is gone. Comes last.
    Lost {
        /// Why.
        cause: LeaseLost,
    },
}

/// Why a lease is gone, as the node judged that had the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LeaseLost {
    /// The host died by itself.
    Crashed {
        /// Whether it was working on this lease, by its flight recorder.
        suspect: bool,
    },
    /// The host was killed from outside, or stopped.
    Killed,
    /// The host's heartbeats stopped.
    Silent,
    /// A native call did not return.
    Stuck {
        /// Whether it worked on this lease.
        suspect: bool,
    },
    /// The engine answered with an error; its host lives on.
    EngineFailed,
    /// One of the ends said something that can't be.
    Protocol,
    /// A node that was asked lost the node that decodes.
    NodeLost,
}

/// Why a connection is closed: the number that its last packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum ConnectionClose {
    /// The node is stopping.
    Stopping = 0,
    /// Another connection serves this pair of nodes.
    Superseded = 1,
    /// The peer counts as lost.
    PeerLost = 2,
    /// The peer fell silent on this connection.
    Silent = 3,
    /// The peer's certificate names no node, or not the one that was meant.
    WrongPeer = 4,
}

impl ConnectionClose {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The words that go with it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Stopping => "the node is stopping",
            Self::Superseded => "another connection serves these nodes",
            Self::PeerLost => "the peer counts as lost",
            Self::Silent => "the peer fell silent",
            Self::WrongPeer => "the certificate names another node",
        }
    }
}

#[cfg(test)]
mod tests;
