//! Frames on a byte stream: a length (u32, little endian), then that many bytes of MessagePack with named fields.
//!
//! The same framing is used into a decoder host's socket and, later, between nodes. Fields are named, so that a reader
//! can skip what a newer writer added.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 4;

/// A frame could not be written. Nothing was appended to the buffer.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The message has no MessagePack form.
    #[error("message cannot be encoded: {0}")]
    Codec(#[from] rmp_serde::encode::Error),
    /// The message is longer than the link allows.
    #[error("message of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// The body's length.
        bytes: usize,
        /// The link's limit.
        limit: usize,
    },
}

/// Bytes from the other end are no frame. The link cannot be resynchronised and must be closed.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The body is not the message that was expected.
    #[error("frame cannot be decoded: {0}")]
    Codec(#[from] rmp_serde::decode::Error),
    /// The header announces more than the link allows.
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    TooLong {
        /// The announced length.
        bytes: usize,
        /// The link's limit.
        limit: usize,
    },
}

/// Appends one frame to `out`.
///
/// # Errors
/// See [`EncodeError`]; `out` is then as it was.
pub fn encode<M: Serialize>(message: &M, limit: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    let written = rmp_serde::encode::write_named(out, message);
    let bytes = out.len() - start - HEADER_BYTES;
    let problem = match written {
        Err(error) => Some(EncodeError::Codec(error)),
        Ok(()) if bytes > limit => Some(EncodeError::TooLong { bytes, limit }),
        Ok(()) => None,
    };
    if let Some(problem) = problem {
        out.truncate(start);
        return Err(problem);
    }
    // The limit is far below u32::MAX on every link; a length that does not fit was refused above.
    let length = u32::try_from(bytes).unwrap_or(u32::MAX);
    out[start..start + HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Collects bytes and hands out whole frames.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    read: usize,
    limit: usize,
}

impl FrameReader {
    /// A reader that refuses frames over `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), read: 0, limit }
    }

    /// Refuses frames over `limit` bytes from now on. What a link's first frame may be is often less than what follows.
    pub const fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Takes bytes as they came off the link.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read > 0 && self.read == self.buffer.len() {
            self.buffer.clear();
            self.read = 0;
        } else if self.read > self.limit {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// See [`DecodeError`]; the link must be closed.
    #[expect(
        clippy::should_implement_trait,
        reason = "the message's type is the caller's to choose at each call"
    )]
    pub fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, DecodeError> {
        let pending = &self.buffer[self.read..];
        let Some(header) = pending.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes(*header) as usize;
        if bytes > self.limit {
            return Err(DecodeError::TooLong { bytes, limit: self.limit });
        }
        let Some(body) = pending.get(HEADER_BYTES..HEADER_BYTES + bytes) else {
            return Ok(None);
        };
        let message = rmp_serde::from_slice(body)?;
        self.read += HEADER_BYTES + bytes;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_chunking(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
            chunk in 1usize..17,
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                encode(message, 1 << 10, &mut bytes).expect("fits");
            }
            let mut reader = FrameReader::new(1 << 10);
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for piece in bytes.chunks(chunk) {
                reader.push(piece);
                while let Some(message) = reader.next().expect("whole") {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn garbage_is_an_error_or_nothing_but_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = FrameReader::new(128);
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next::<crate::lease::ToHost>() {}
        }
    }

    #[test]
    fn an_announced_length_over_the_limit_is_refused_before_it_is_buffered() {
        let mut reader = FrameReader::new(8);
        reader.push(&9u32.to_le_bytes());
        assert!(matches!(reader.next::<Vec<u8>>(), Err(DecodeError::TooLong { bytes: 9, limit: 8 })));
    }

    #[test]
    fn a_limit_that_is_raised_holds_for_what_comes_next() {
        let mut bytes = Vec::new();
        encode(&"abc", 64, &mut bytes).expect("fits");
        encode(&"a longer one", 64, &mut bytes).expect("fits");
        let mut reader = FrameReader::new(8);
        reader.push(&bytes);
        assert_eq!(reader.next::<String>().expect("short").as_deref(), Some("abc"));
        assert!(matches!(reader.next::<String>(), Err(DecodeError::TooLong { .. })));
        reader.set_limit(64);
        assert_eq!(reader.next::<String>().expect("fits now").as_deref(), Some("a longer one"));
    }

    #[test]
    fn a_message_over_the_limit_leaves_the_buffer_alone() {
        let mut out = vec![7];
        assert!(matches!(encode(&"123456789", 4, &mut out), Err(EncodeError::TooLong { .. })));
        assert_eq!(out, [7]);
    }
}
