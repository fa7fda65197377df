//! Which source frames a decoder sample is made of, and back.
//!
//! Owns: the mapping between the two sample rates. Must never: depend on how audio arrived. Everything here is a function
//! of positions, so that a replay from any point hears the same samples.

use starling_protocol::limits::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, STEP_MS};
use starling_protocol::{DecodeOffset, SourceOffset};
use thiserror::Error;

/// Zero crossings of the interpolating sinc on each side. 16 gives a stop band below -80 dB with the window used here,
/// which is under the noise of 16-bit samples for speech.
const ZERO_CROSSINGS: u64 = 16;

/// A pair of rates that can't be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("sample rate {rate} is not a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}")]
pub struct RateError {
    /// The rate that is out of range.
    pub rate: u32,
}

/// The client's rate, the model's rate, and positions in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateMap {
    source: u64,
    decode: u64,
}

impl RateMap {
    /// A map from `source` Hz to `decode` Hz.
    ///
    /// # Errors
    /// One of them is out of the range that engines take.
    pub fn new(source: u32, decode: u32) -> Result<Self, RateError> {
        for rate in [source, decode] {
            if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) {
                return Err(RateError { rate });
            }
        }
        Ok(Self { source: u64::from(source), decode: u64::from(decode) })
    }

    /// The client's rate in Hz.
    #[must_use]
    pub const fn source_hz(&self) -> u64 {
        self.source
    }

    /// The model's rate in Hz.
    #[must_use]
    pub const fn decode_hz(&self) -> u64 {
        self.decode
    }

    /// Whether samples pass through unchanged.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        self.source == self.decode
    }

    /// Samples in one step of the decoding grid.
    #[must_use]
    pub const fn step(&self) -> u64 {
        self.decode * STEP_MS / 1_000
    }

    /// Decoder samples in `ms` milliseconds.
    #[must_use]
    pub const fn decode_ms(&self, ms: u64) -> u64 {
        self.decode * ms / 1_000
    }

    /// Source frames on each side of a position that one decoder sample is made of.
    #[must_use]
    pub const fn half_width(&self) -> u64 {
        if self.is_identity() {
            return 0;
        }
        // When the rate falls the filter narrows, and its response grows longer in proportion.
        let stretch = if self.source > self.decode { self.source.div_ceil(self.decode) } else { 1 };
        ZERO_CROSSINGS * stretch
    }

    /// How many decoder samples can be made of the first `received` source frames, when more may follow.
    #[must_use]
    pub const fn decodable(&self, received: SourceOffset) -> DecodeOffset {
        if self.is_identity() {
            return DecodeOffset(received.0);
        }
        DecodeOffset((received.0.saturating_sub(self.half_width()) * self.decode).div_ceil(self.source))
    }

    /// How many decoder samples `total` source frames make in all, silence taken to follow them.
    #[must_use]
    pub const fn decodable_at_end(&self, total: SourceOffset) -> DecodeOffset {
        DecodeOffset((total.0 * self.decode).div_ceil(self.source))
    }

    /// The source frame at a decoder position; never past `received`.
    #[must_use]
    pub fn to_source(&self, at: DecodeOffset, received: SourceOffset) -> SourceOffset {
        SourceOffset(at.0 * self.source / self.decode).min(received)
    }

    /// The first decoder position at a source frame: what [`RateMap::to_source`] gives back as `at`.
    #[must_use]
    pub const fn to_decode(&self, at: SourceOffset) -> DecodeOffset {
        self.decodable_at_end(at)
    }

    /// The first source frame that decoder samples from `at` on are made of.
    #[must_use]
    pub const fn needed_from(&self, at: DecodeOffset) -> SourceOffset {
        SourceOffset((at.0 * self.source / self.decode).saturating_sub(self.half_width()))
    }
}
