//! How a client's audio is encoded.

use serde::{Deserialize, Serialize};

/// How audio is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioFormat {
    /// The encoding of one sample.
    #[serde(default)]
    pub encoding: Encoding,
    /// Frames a second: a whole number from 8000 to 48000.
    #[serde(default = "default_sample_rate")]
    pub sample_rate: u32,
    /// Interleaved channels, 1 to 8, which are mixed to their mean.
    #[serde(default = "one_channel")]
    pub channels: u8,
}

const fn default_sample_rate() -> u32 {
    16_000
}

const fn one_channel() -> u8 {
    1
}

impl Default for AudioFormat {
    fn default() -> Self {
        Self { encoding: Encoding::PcmS16le, sample_rate: default_sample_rate(), channels: one_channel() }
    }
}

/// Encodings of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Encoding {
    /// Signed 16 bit, little endian.
    #[default]
    #[serde(rename = "pcm_s16le")]
    PcmS16le,
    /// Unsigned 8 bit.
    PcmU8,
    /// Signed 24 bit in three bytes, little endian.
    PcmS24le,
    /// Signed 32 bit, little endian.
    PcmS32le,
    /// 32-bit floating point, little endian, full scale at 1.
    PcmF32le,
    /// 64-bit floating point, little endian, full scale at 1.
    PcmF64le,
    /// mu-law of ITU-T G.711, one byte.
    Mulaw,
    /// A-law of ITU-T G.711, one byte.
    Alaw,
    /// Opus (RFC 6716): each message is one packet. Its frames count as they are decoded, at the rate that was said.
    Opus,
}
