//! Asterisk's `AudioSocket`: a call's audio over TCP, in frames of a type (one byte), the length of what follows (two bytes, big
//! endian) and that. The types are those of Asterisk's documentation (Configuration, Channel Drivers, `AudioSocket`) as of
//! Asterisk 23.
//!
//! The protocol has no word for a transcript: what was said is told elsewhere, as [`CallEvent`]s.

use serde::Serialize;
use uuid::Uuid;

use crate::native::{ErrorBody, Final};
use crate::wire::{Pending, WireReader};
use crate::{SessionId, SourceOffset};

const HEADER_BYTES: usize = 3;
const HANGUP: u8 = 0x00;
const ID: u8 = 0x01;
const DTMF: u8 = 0x03;
const FIRST_AUDIO: u8 = 0x10;
const ERROR: u8 = 0xFF;

/// Frames a second of the types of audio from 0x10 on; each is signed 16 bit, little endian, mono. Releases before
/// 2025 have the first alone.
const RATES: [u32; 9] = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The call is over.
    Hangup,
    /// Which call it is; comes first.
    Call(SessionId),
    /// A key was pressed.
    Dtmf(char),
    /// Audio, mono PCM16.
    Audio {
        /// Frames a second.
        rate: u32,
        /// The samples.
        pcm: Vec<u8>,
    },
    /// Something went wrong at the other end; Asterisk's codes are 1, 2 and 4.
    Error(Option<u8>),
    /// Of a type that is not known, to be passed over.
    Other(u8),
}

/// Reads frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    pending: Pending,
}

impl WireReader for FrameReader {
    type Frame = Frame;

    fn push(&mut self, bytes: &[u8]) {
        self.pending.push(bytes);
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, ErrorBody> {
        let Some(&[kind, high, low]) = self.pending.rest().first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if self.pending.rest().len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let payload = &self.pending.take(HEADER_BYTES + length)[HEADER_BYTES..];
        parse(kind, payload).map(Some)
    }
}

fn parse(kind: u8, payload: &[u8]) -> Result<Frame, ErrorBody> {
    if let Some(rate) = kind.checked_sub(FIRST_AUDIO).and_then(|at| RATES.get(usize::from(at))) {
        return Ok(Frame::Audio { rate: *rate, pcm: payload.to_vec() });
    }
    match (kind, payload) {
        (HANGUP, _) => Ok(Frame::Hangup),
        (ID, payload) => {
            let bytes: [u8; 16] = payload.try_into().map_err(|_| {
                let value = format!("{} bytes long", payload.len());
                ErrorBody::field("the call's UUID (type 0x01)", value, "16 bytes long")
            })?;
            Ok(Frame::Call(SessionId(Uuid::from_bytes(bytes))))
        }
        (DTMF, &[digit, ..]) if digit.is_ascii_graphic() => Ok(Frame::Dtmf(char::from(digit))),
        (ERROR, payload) => Ok(Frame::Error(payload.first().copied())),
        (other, _) => Ok(Frame::Other(other)),
    }
}

/// The frame that ends a call.
#[must_use]
pub const fn hangup() -> [u8; HEADER_BYTES] {
    [HANGUP, 0, 0]
}

/// A frame of 20 ms of silence at one of the rates of this protocol, or at 8000 Hz. 20 ms is what Asterisk sends itself.
#[must_use]
pub fn silence(rate: u32) -> Vec<u8> {
    let at = RATES.iter().position(|known| *known == rate).unwrap_or(0);
    let bytes = RATES[at] / 50 * 2;
    // The longest are 7,680 bytes.
    let length = u16::try_from(bytes).unwrap_or(u16::MAX);
    let mut frame = vec![FIRST_AUDIO + at as u8];
    frame.extend_from_slice(&length.to_be_bytes());
    frame.resize(HEADER_BYTES + usize::from(length), 0);
    frame
}

/// What is told of a call to whoever listens, as JSON with a `type`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CallEvent<'a> {
    /// The first audio has come.
    Begin {
        /// The call's UUID.
        call: SessionId,
        /// The model that hears it.
        model: &'a str,
        /// Frames a second of its audio.
        sample_rate: u32,
    },
    /// A segment's text, as in the native protocol.
    Final(&'a Final),
    /// A key was pressed.
    Dtmf {
        /// Which.
        digit: char,
    },
    /// The listener came too late, or reads too slowly, for what was told before.
    Missed {
        /// How many events.
        events: u64,
    },
    /// All was told. The last event.
    Done {
        /// How many segments there were.
        segments: u64,
        /// How many frames were heard.
        frames: SourceOffset,
    },
    /// There will be no more, because something went wrong. The last event.
    Error(&'a ErrorBody),
}

impl CallEvent<'_> {
    /// As a line of JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        // It has no map whose keys are no text, which is all that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether nothing follows it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Error(_))
    }
}

#[cfg(test)]
mod tests;
