//! The head of a WAV recording, read as it arrives.
//!
//! Recordings are decoded while they are still being sent, and many come out of a pipe with no length in their head; the
//! readers there are want a whole file with a right length. Only the head is read here, the samples are passed on as they
//! are. That of RF64 and BW64 is the same with 64-bit lengths in a chunk of its own (EBU Tech 3306, ITU-R BS.2088).

use starling_core::audio::PcmReader;
use starling_protocol::limits::{MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::native::{AudioFormat, Encoding, ErrorBody};

/// Metadata before the samples is a few hundred bytes; a head without end is no recording.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// What a recording begins with whose head is read here: RIFF, the two with 64-bit lengths, and RIFX, which is told what it is not.
const KINDS: [&[u8; 4]; 4] = [b"RIFF", b"RF64", b"BW64", b"RIFX"];

/// Where in `ds64` the samples' length is, behind that of the whole.
const DATA_LENGTH_AT: usize = 8;

/// Format tags of mmreg.h.
const PCM: u16 = 1;
const FLOAT: u16 = 3;
const ALAW: u16 = 6;
const MULAW: u16 = 7;
/// The format's real tag is then in an extension (Microsoft's WAVEFORMATEXTENSIBLE).
const EXTENSIBLE: u16 = 0xFFFE;
const SUBFORMAT_AT: usize = 24;

/// What the head says of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WavHead {
    /// How the samples are encoded.
    pub format: AudioFormat,
    /// Where the samples begin.
    pub data_at: usize,
    /// How many bytes of samples there are; `None` when the writer didn't know.
    pub data_bytes: Option<u64>,
}

impl WavHead {
    /// How long so many bytes of samples last.
    #[must_use]
    pub fn seconds(&self, bytes: u64) -> f64 {
        bytes as f64 / self.reader().frame_bytes() as f64 / f64::from(self.format.sample_rate)
    }

    /// What makes mono PCM16 of the samples.
    #[must_use]
    pub fn reader(&self) -> PcmReader {
        PcmReader::new(self.format.encoding, self.format.channels)
    }
}

/// Whether a recording that begins so has a head of this kind; by its first four bytes.
#[must_use]
pub fn is_wav(bytes: &[u8]) -> bool {
    KINDS.iter().any(|kind| bytes.starts_with(*kind))
}

/// Reads the head off the beginning of a recording; `None` while more of it is needed.
///
/// # Errors
/// It is no WAV, or not of the kind that is taken; the error names the field.
pub fn parse_head(bytes: &[u8]) -> Result<Option<WavHead>, ErrorBody> {
    let not_wav = || ErrorBody::field("body", "no WAV recording", "a RIFF, RF64 or BW64 WAVE file");
    let begins = |at: usize, mark: &[u8]| bytes.get(at..at + mark.len()).is_none_or(|found| found == mark);
    if bytes.starts_with(b"RIFX") {
        let allowed = "a RIFF, RF64 or BW64 WAVE file, whose samples are little endian";
        return Err(ErrorBody::field("body", "a RIFX file, whose samples are big endian", allowed));
    }
    if !KINDS.iter().any(|kind| begins(0, *kind)) || !begins(8, b"WAVE") {
        return Err(not_wav());
    }
    let mut at = 12;
    let (mut described, mut long) = (None, None);
    while let (Some(name), Some(length)) = (bytes.get(at..at + 4), u32_at(bytes, at + 4)) {
        let body = at + 8;
        match name {
            b"fmt " => {
                if length < 16 || length as usize > MAX_HEAD_BYTES {
                    return Err(not_wav());
                }
                let Some(format) = bytes.get(body..body + length as usize) else {
                    return Ok(None);
                };
                described = Some(checked_format(format)?);
            }
            b"ds64" => {
                if (length as usize) < DATA_LENGTH_AT + 8 {
                    return Err(not_wav());
                }
                let Some(length) = u64_at(bytes, body + DATA_LENGTH_AT) else {
                    return Ok(None);
                };
                long = Some(length);
            }
            b"data" => {
                let format = described.ok_or_else(not_wav)?;
                let length = match length {
                    u32::MAX => long.unwrap_or(u64::MAX),
                    length => length.into(),
                };
                let unknown = length == 0 || length == u64::MAX;
                return Ok(Some(WavHead { format, data_at: body, data_bytes: (!unknown).then_some(length) }));
            }
            _ => {}
        }
        // Chunks begin at even places.
        at = body + length as usize + (length % 2) as usize;
        if at > MAX_HEAD_BYTES {
            return Err(ErrorBody::field(
                "body",
                format!("over {MAX_HEAD_BYTES} bytes before the samples"),
                "a WAV recording with its metadata behind the samples",
            ));
        }
    }
    Ok(None)
}

fn checked_format(format: &[u8]) -> Result<AudioFormat, ErrorBody> {
    let short = |at| u16_at(format, at).unwrap_or(0);
    let tag = match short(0) {
        EXTENSIBLE => short(SUBFORMAT_AT),
        tag => tag,
    };
    let (channels, sample_rate, bits) = (short(2), u32_at(format, 4).unwrap_or(0), short(14));
    let encoding = match (tag, bits) {
        (PCM, 8) => Encoding::PcmU8,
        (PCM, 16) => Encoding::PcmS16le,
        (PCM, 24) => Encoding::PcmS24le,
        (PCM, 32) => Encoding::PcmS32le,
        (FLOAT, 32) => Encoding::PcmF32le,
        (FLOAT, 64) => Encoding::PcmF64le,
        (ALAW, 8) => Encoding::Alaw,
        (MULAW, 8) => Encoding::Mulaw,
        (PCM | FLOAT | ALAW | MULAW, _) => {
            let allowed = if tag == PCM {
                "8, 16, 24 or 32"
            } else if tag == FLOAT {
                "32 or 64"
            } else {
                "8"
            };
            return Err(ErrorBody::field("wav.bits_per_sample", bits.to_string(), allowed));
        }
        _ => {
            let allowed = "PCM (format 1), floating point (3), A-law (6) or mu-law (7)";
            return Err(ErrorBody::field("wav.encoding", format!("format {tag}"), allowed));
        }
    };
    let Some(channels) = u8::try_from(channels).ok().filter(|count| (1..=MAX_CHANNELS).contains(count))
    else {
        let allowed = format!("1 to {MAX_CHANNELS}");
        return Err(ErrorBody::field("wav.channels", channels.to_string(), allowed));
    };
    if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&sample_rate) {
        let allowed = format!("a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
        return Err(ErrorBody::field("wav.sample_rate", sample_rate.to_string(), allowed));
    }
    Ok(AudioFormat { encoding, sample_rate, channels })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
