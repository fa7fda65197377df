//! How loaded a node is, as it tells the others.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{Generation, NodeId, NodeName};

/// The longest encoded record: two fit into one packet beside what membership itself has to say.
pub const MAX_RECORD_BYTES: usize = 400;

/// The format that is written, the first byte of each record. It rises only if a field changes its meaning or goes; fields
/// that are added leave it as it is, and readers skip those they don't know.
pub const RECORD_FORMAT: u8 = 1;

/// What one run of a node tells of itself. A later revision replaces an earlier one.
///
/// Keys on the wire are single letters: with 400 bytes for everything, names of fields would take a third of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// The node's name.
    #[serde(rename = "n")]
    pub name: NodeName,
    /// Which run of it.
    #[serde(rename = "g")]
    pub generation: Generation,
    /// Rises with each record of a run, from 1.
    #[serde(rename = "s")]
    pub revision: u64,
    /// The program's version.
    #[serde(rename = "v", default)]
    pub version: String,
    /// Where it stands; empty for nowhere in particular. Copies go to other zones first.
    #[serde(rename = "z", default)]
    pub zone: String,
    /// What it does.
    #[serde(rename = "r", default)]
    pub roles: Roles,
    /// It takes no new sessions.
    #[serde(rename = "d", default)]
    pub draining: bool,
    /// It is about to go of its own accord: its end is no failure.
    #[serde(rename = "l", default)]
    pub leaving: bool,
    /// Where it listens.
    #[serde(rename = "a", default)]
    pub addresses: Addresses,
    /// Room for copies of other nodes' sessions, in bytes.
    #[serde(rename = "f", default)]
    pub replica_bytes_free: u64,
    /// What it serves, the default model first.
    #[serde(rename = "m", default)]
    pub models: Vec<ModelLoad>,
    /// Models it serves too that had no room here.
    #[serde(rename = "o", default)]
    pub models_omitted: u16,
}

/// What a node does, as bits; unknown ones are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub struct Roles {
    /// It takes clients.
    pub gateway: bool,
    /// It decodes.
    pub decoder: bool,
}

impl From<u8> for Roles {
    fn from(bits: u8) -> Self {
        Self { gateway: bits & 1 != 0, decoder: bits & 2 != 0 }
    }
}

impl From<Roles> for u8 {
    fn from(roles: Roles) -> Self {
        Self::from(roles.gateway) | Self::from(roles.decoder) << 1
    }
}

/// Where a node listens, as others reach it; `None` for what it doesn't offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Addresses {
    /// Control, over TCP.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub control: Option<SocketAddr>,
    /// Audio and copies, over QUIC.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub data: Option<SocketAddr>,
    /// Clients, over HTTP and WebSocket.
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
}

/// How loaded a node is with one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelLoad {
    /// Its name.
    #[serde(rename = "n")]
    pub name: String,
    /// Streams it can decode at once.
    #[serde(rename = "t", default)]
    pub slots_total: u16,
    /// Streams it decodes now, those in the reserve counted, those that wait to go on, and slots that are kept for sessions on
    /// their way.
    #[serde(rename = "b", default)]
    pub slots_busy: u16,
    /// Slots that a new session could have now, without what is kept for the streams of other nodes.
    #[serde(rename = "i", default)]
    pub slots_idle: u16,
    /// CPU time for each second of audio, in thousandths; `None` before any was heard.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub real_time_factor_milli: Option<u32>,
    /// Digest of the determinism class: nodes of which it is equal decode the same audio to the same text. `None` until a
    /// host has told its class.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub determinism_class: Option<u64>,
    /// The first 32 bits of the digest of the model's files, so that a session is sent where it finds the model it began with.
    /// A hint: who is asked for a decoder is told the whole digest. `None` from nodes that don't tell it.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u32>,
    /// It has been replaced or taken away: only the sessions that began with it go on here.
    #[serde(rename = "l", default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// It has no host, and loads one for the first who asks. Older nodes skip this, and see a model without slots.
    #[serde(rename = "w", default, skip_serializing_if = "std::ops::Not::not")]
    pub on_demand: bool,
}

/// A record can't be written. Nothing was.
#[derive(Debug, Error)]
pub enum LoadEncodeError {
    /// It has no MessagePack form.
    #[error("load record cannot be encoded: {0}")]
    Codec(#[from] rmp_serde::encode::Error),
    /// It is longer than a record may be.
    #[error("load record of {bytes} bytes is over the limit of {MAX_RECORD_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Bytes are no record.
#[derive(Debug, Error)]
pub enum LoadDecodeError {
    /// They are longer than a record may be.
    #[error("load record of {bytes} bytes is over the limit of {MAX_RECORD_BYTES}")]
    TooLong {
        /// Their length.
        bytes: usize,
    },
    /// They are in a format of a later version.
    #[error("load record has format {0}; this version reads {RECORD_FORMAT}")]
    Format(u8),
    /// There are none.
    #[error("load record is empty")]
    Empty,
    /// They are something else.
    #[error("load record cannot be decoded: {0}")]
    Codec(#[from] rmp_serde::decode::Error),
}

impl LoadRecord {
    /// Whose it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId { name: self.name.clone(), generation: self.generation }
    }

    /// Whether this one replaces `other` of the same node.
    #[must_use]
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.generation, self.revision) > (other.generation, other.revision)
    }

    /// The record's bytes.
    ///
    /// # Errors
    /// See [`LoadEncodeError`].
    pub fn encode(&self) -> Result<Vec<u8>, LoadEncodeError> {
        let mut bytes = vec![RECORD_FORMAT];
        rmp_serde::encode::write_named(&mut bytes, self)?;
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(LoadEncodeError::TooLong { bytes: bytes.len() });
        }
        Ok(bytes)
    }

    /// The record's bytes, without the last models if that is what it takes. A record that can't be told in full is better
    /// than none: without one a node gets no work at all.
    ///
    /// # Errors
    /// See [`LoadEncodeError`]; it is too long even with no model.
    pub fn encode_what_fits(&mut self) -> Result<Vec<u8>, LoadEncodeError> {
        loop {
            match self.encode() {
                Err(LoadEncodeError::TooLong { .. }) if self.models.pop().is_some() => {
                    self.models_omitted = self.models_omitted.saturating_add(1);
                }
                done => return done,
            }
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// See [`LoadDecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LoadDecodeError> {
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(LoadDecodeError::TooLong { bytes: bytes.len() });
        }
        match bytes.split_first() {
            None => Err(LoadDecodeError::Empty),
            Some((&RECORD_FORMAT, body)) => Ok(rmp_serde::from_slice(body)?),
            Some((&format, _)) => Err(LoadDecodeError::Format(format)),
        }
    }
}

#[cfg(test)]
mod tests;
