//! The native protocol on a stream of bytes: a QUIC stream, alone or under WebTransport.
//!
//! A frame is a length (u32, big endian, as the network has it), then so many bytes: a [`FrameKind`] and its body. The body of
//! a message is one map in MessagePack, with the fields and values that the same message has as JSON, ids as texts; that of
//! audio is the samples as they are. There is one bidirectional stream for each connection of a session.
//!
//! Names and numbers are never given another meaning.

use std::io::Cursor;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::parse::{bad, from_value};
use super::{ClientMessage, ParseError, ServerMessage};
use crate::limits::MAX_CLIENT_MESSAGE_BYTES;

/// The protocol's name in a QUIC connection's handshake (ALPN), with its version.
pub const NATIVE_ALPN: &[u8] = b"starling/1";

/// Bytes before a frame's body: its length and its kind.
pub const FRAME_HEAD_BYTES: usize = 5;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// Deepest nesting of a message that is read. No message has more than four levels.
const MAX_DEPTH: usize = 16;

/// A buffer that one long frame has made larger than this is given back after it: most frames are of 3 KiB.
const KEPT_BYTES: usize = 64 * 1024;

/// What a frame's body is. The first byte after its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A message in MessagePack.
    Message = 1,
    /// Samples.
    Audio = 2,
}

impl FrameKind {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::Audio),
            _ => None,
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The MessagePack of a message, unread.
    Message(&'a [u8]),
    /// Samples.
    Audio(&'a [u8]),
}

/// The bytes are no frames. The stream can't be resynchronised and has to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A length of zero, which leaves no room for the kind.
    #[error("a frame has no kind: its length is 0")]
    Empty,
    /// The kind is none that is known.
    #[error("a frame is of the kind {0}; it must be 1 for a message or 2 for audio")]
    Kind(u8),
    /// The body is longer than may be.
    #[error("a frame's body has {bytes} bytes; it may have {limit} at most")]
    TooLong {
        /// As its length announced it.
        bytes: usize,
        /// The most.
        limit: usize,
    },
}

/// Appends a message's frame to `out`.
///
/// # Errors
/// The message has no MessagePack form; `out` is then as it was. No message of this protocol is such a one.
pub fn encode_message<M: Serialize>(message: &M, out: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error> {
    let start = out.len();
    begin(FrameKind::Message, out);
    let mut serializer = rmp_serde::Serializer::new(&mut *out).with_struct_map().with_human_readable();
    if let Err(error) = message.serialize(&mut serializer) {
        out.truncate(start);
        return Err(error);
    }
    finish(start, out);
    Ok(())
}

/// Appends a frame of audio to `out`.
pub fn encode_audio(samples: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(FRAME_HEAD_BYTES + samples.len());
    begin(FrameKind::Audio, out);
    out.extend_from_slice(samples);
    finish(start, out);
}

fn begin(kind: FrameKind, out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.push(kind as u8);
}

fn finish(start: usize, out: &mut [u8]) {
    let bytes = out.len() - start - LENGTH_BYTES;
    // Both ends refuse frames that are far shorter than that.
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Reads the body of a client's message and checks its ranges.
///
/// # Errors
/// It is no MessagePack, no message of this protocol, or a value is out of its range.
pub fn read_client(body: &[u8]) -> Result<ClientMessage, ParseError> {
    let value: Value =
        unpack(body).map_err(|problem| bad(format!("message is not MessagePack: {problem}")))?;
    from_value(value)
}

/// Reads the body of a server's message.
///
/// # Errors
/// It is none that this build knows; a client passes over it. In words.
pub fn read_server(body: &[u8]) -> Result<ServerMessage, String> {
    unpack(body)
}

fn unpack<M: DeserializeOwned>(body: &[u8]) -> Result<M, String> {
    let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(body));
    deserializer.set_max_depth(MAX_DEPTH);
    let mut deserializer = deserializer.with_human_readable();
    let message = M::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    let read = deserializer.get_ref().position();
    match (body.len() as u64).saturating_sub(read) {
        0 => Ok(message),
        rest => Err(format!("{rest} bytes follow the map")),
    }
}

/// Collects bytes and hands out whole frames.
#[derive(Debug)]
pub struct StreamReader {
    buffer: Vec<u8>,
    read: usize,
    limit: usize,
}

impl StreamReader {
    /// A reader of what a client sends.
    #[must_use]
    pub const fn of_client() -> Self {
        Self::new(MAX_CLIENT_MESSAGE_BYTES)
    }

    /// A reader that refuses bodies over `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), read: 0, limit }
    }

    /// Takes bytes as they came off the stream. Frames that are whole are to be taken out before more is pushed; so what is
    /// held is one frame and one push at most.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
            if self.buffer.capacity() > KEPT_BYTES && self.buffer.len() < KEPT_BYTES {
                self.buffer.shrink_to(KEPT_BYTES);
            }
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a part of a frame has come and the rest has not.
    #[must_use]
    pub const fn is_within_frame(&self) -> bool {
        self.read < self.buffer.len()
    }

    /// The next whole frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// See [`FrameError`]; the stream has to be ended.
    #[expect(clippy::should_implement_trait, reason = "a frame borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let pending = &self.buffer[self.read..];
        let Some((length, rest)) = pending.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let bytes = length.checked_sub(1).ok_or(FrameError::Empty)?;
        if bytes > self.limit {
            return Err(FrameError::TooLong { bytes, limit: self.limit });
        }
        let Some(&kind) = rest.first() else { return Ok(None) };
        let kind = FrameKind::of(kind).ok_or(FrameError::Kind(kind))?;
        let Some(body) = rest.get(1..length) else { return Ok(None) };
        self.read += LENGTH_BYTES + length;
        Ok(Some(match kind {
            FrameKind::Message => Frame::Message(body),
            FrameKind::Audio => Frame::Audio(body),
        }))
    }
}

#[cfg(test)]
mod tests;
