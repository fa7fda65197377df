//! Sealed packets: everything that goes over the gossip socket.
//!
//! ```text
//! 0   format, 1
//! 1   key id          u32 LE    which key seals it, so that keys can be changed one node at a time
//! 5   generation      u64 LE    the sender's run
//! 13  sequence        u64 LE    from 1, never twice within a run
//! 21  salt            16 bytes  drawn once for each run
//! 37  length of the name, then the sender's name
//!     the payload, sealed with XChaCha20-Poly1305, and its tag of 16 bytes
//! ```
//!
//! All that comes before the payload is authenticated with it.
//!
//! **The nonce** is the salt followed by the sequence, 24 bytes together. All nodes and all their runs seal with one key,
//! and nobody hands out nonces, so a nonce must be unique without any memory: within a run the sequence never repeats, and two
//! runs collide only if they draw the same 128 random bits. ChaCha20-Poly1305 proper has room for 12 bytes: with a sequence
//! of 8, the 4 that are left would repeat after some ten thousand starts; wholly random ones would after a few billion
//! packets, which a busy cluster sends in a year.

use chacha20poly1305::aead::{Aead, KeyInit, Payload as Sealing};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;

use crate::ids::{Generation, NodeId, NodeName};

/// The longest packet. With the heads of IPv6 and UDP this is 1,280 bytes, which every IPv6 path carries whole: a packet
/// in fragments is lost with any of them, and lost packets make live nodes suspect.
pub const MAX_PACKET_BYTES: usize = 1_232;

/// The longest payload, whatever the sender's name.
pub const MAX_PAYLOAD_BYTES: usize = MAX_PACKET_BYTES - FIXED_BYTES - NodeName::MAX_BYTES - TAG_BYTES;

const FORMAT: u8 = 1;
const FIXED_BYTES: usize = 38;
const TAG_BYTES: usize = 16;
const SALT_BYTES: usize = 16;

/// Bytes drawn once for each run of a node; see the module's text for what they are for.
pub type Salt = [u8; SALT_BYTES];

/// A key that packets are sealed with.
#[derive(Clone)]
pub struct PacketKey {
    /// Tells it from other keys; not secret.
    pub id: u32,
    /// The key.
    pub bytes: [u8; 32],
}

impl std::fmt::Debug for PacketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PacketKey {{ id: {:08x} }}", self.id)
    }
}

/// What stands before the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The key that sealed it.
    pub key_id: u32,
    /// Who sent it. True only of a packet that was opened.
    pub sender: NodeId,
    /// Which of the run's packets it is.
    pub sequence: u64,
    /// The run's salt.
    pub salt: Salt,
}

/// A packet can't be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The payload is longer than a packet takes.
    #[error("payload of {bytes} bytes is over the limit of {MAX_PAYLOAD_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The cipher refused, which it does not do for payloads this short.
    #[error("payload cannot be sealed")]
    Cipher,
}

/// A packet is not to be trusted. Nothing in it was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum OpenError {
    /// It is longer than any packet, too short for one, of another format, or its name is none.
    #[error("not a packet of format {FORMAT}")]
    Malformed,
    /// It was sealed with a key that this node does not have.
    #[error("sealed with an unknown key")]
    UnknownKey,
    /// It was not sealed with the key it names, or was changed on its way.
    #[error("the seal is broken")]
    Forged,
}

/// Seals one packet. The caller never uses a sequence twice with one salt.
///
/// # Errors
/// See [`SealError`].
pub fn seal(
    key: &PacketKey,
    sender: &NodeId,
    salt: &Salt,
    sequence: u64,
    payload: &[u8],
) -> Result<Vec<u8>, SealError> {
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(SealError::TooLong { bytes: payload.len() });
    }
    let name = sender.name.as_str().as_bytes();
    let mut packet = Vec::with_capacity(FIXED_BYTES + name.len() + payload.len() + TAG_BYTES);
    packet.push(FORMAT);
    packet.extend_from_slice(&key.id.to_le_bytes());
    packet.extend_from_slice(&sender.generation.0.to_le_bytes());
    packet.extend_from_slice(&sequence.to_le_bytes());
    packet.extend_from_slice(salt);
    // A name has at most 63 bytes.
    packet.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    packet.extend_from_slice(name);
    let sealed = cipher(key)
        .encrypt(&nonce(salt, sequence), Sealing { msg: payload, aad: &packet })
        .map_err(|_| SealError::Cipher)?;
    packet.extend_from_slice(&sealed);
    Ok(packet)
}

/// Opens a packet with whichever of `keys` it names.
///
/// # Errors
/// See [`OpenError`].
pub fn open(keys: &[PacketKey], packet: &[u8]) -> Result<(Header, Vec<u8>), OpenError> {
    let (header, sealed_from) = header(packet).ok_or(OpenError::Malformed)?;
    let key = keys.iter().find(|key| key.id == header.key_id).ok_or(OpenError::UnknownKey)?;
    let (aad, msg) = packet.split_at(sealed_from);
    let payload = cipher(key)
        .decrypt(&nonce(&header.salt, header.sequence), Sealing { msg, aad })
        .map_err(|_| OpenError::Forged)?;
    Ok((header, payload))
}

/// What a packet says before its payload, and where that begins.
fn header(packet: &[u8]) -> Option<(Header, usize)> {
    if packet.len() > MAX_PACKET_BYTES || *packet.first()? != FORMAT {
        return None;
    }
    let length = usize::from(*packet.get(FIXED_BYTES - 1)?);
    let sealed_from = FIXED_BYTES + length;
    let name = std::str::from_utf8(packet.get(FIXED_BYTES..sealed_from)?).ok()?;
    if packet.len() < sealed_from + TAG_BYTES {
        return None;
    }
    let sender = NodeId {
        name: NodeName::parse(name).ok()?,
        generation: Generation(u64::from_le_bytes(field(packet, 5)?)),
    };
    let key_id = u32::from_le_bytes(field(packet, 1)?);
    let sequence = u64::from_le_bytes(field(packet, 13)?);
    Some((Header { key_id, sender, sequence, salt: field(packet, 21)? }, sealed_from))
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..at + N)?.try_into().ok()
}

fn cipher(key: &PacketKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&key.bytes.into())
}

fn nonce(salt: &Salt, sequence: u64) -> XNonce {
    let mut nonce = [0; SALT_BYTES + 8];
    nonce[..SALT_BYTES].copy_from_slice(salt);
    nonce[SALT_BYTES..].copy_from_slice(&sequence.to_le_bytes());
    nonce.into()
}

/// What a packet carries: one byte for its kind, and the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The membership protocol's own bytes.
    Gossip(&'a [u8]),
    /// An answer to a packet of a run that is over: the node has been started again since, as this generation.
    Superseded(Generation),
}

impl<'a> Payload<'a> {
    const GOSSIP: u8 = 0;
    const SUPERSEDED: u8 = 1;

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Gossip(bytes) => [&[Self::GOSSIP], *bytes].concat(),
            Self::Superseded(by) => [&[Self::SUPERSEDED][..], &by.0.to_le_bytes()].concat(),
        }
    }

    /// Reads it; `None` for a kind of a later version.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&Self::GOSSIP, rest) => Some(Self::Gossip(rest)),
            (&Self::SUPERSEDED, rest) => {
                Some(Self::Superseded(Generation(u64::from_le_bytes(field(rest, 0)?))))
            }
            _ => None,
        }
    }
}

/// Room that a payload leaves for the membership protocol's own bytes.
pub const MAX_GOSSIP_BYTES: usize = MAX_PAYLOAD_BYTES - 1;

#[cfg(test)]
mod tests;
