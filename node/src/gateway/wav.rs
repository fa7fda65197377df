//! The head of a WAV recording, read as it arrives.
//!
//! Recordings are decoded while they are still being sent, and many come out of a pipe with no length in their head; the
//! readers there are want a whole file with a right length. Only the head is read here, the samples are passed on as they
//! are.

use starling_protocol::limits::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::native::ErrorBody;

/// Metadata before the samples is a few hundred bytes; a head without end is no recording.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

const PCM: u16 = 1;
/// The format's real tag is then in an extension (Microsoft's WAVEFORMATEXTENSIBLE).
const EXTENSIBLE: u16 = 0xFFFE;
const SUBFORMAT_AT: usize = 24;

/// What the head says of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WavHead {
    /// Frames a second.
    pub sample_rate: u32,
    /// Where the samples begin.
    pub data_at: usize,
    /// How many bytes of samples there are; `None` when the writer didn't know.
    pub data_bytes: Option<u64>,
}

/// Reads the head off the beginning of a recording; `None` while more of it is needed.
///
/// # Errors
/// It is no WAV, or not of the kind that is taken; the error names the field.
pub fn parse_head(bytes: &[u8]) -> Result<Option<WavHead>, ErrorBody> {
    let not_wav = || ErrorBody::field("body", "no WAV recording", "a RIFF WAVE file");
    let begins = |at: usize, mark: &[u8]| bytes.get(at..at + mark.len()).is_none_or(|found| found == mark);
    if !begins(0, b"RIFF") || !begins(8, b"WAVE") {
        return Err(not_wav());
    }
    let mut at = 12;
    let mut sample_rate = None;
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
                sample_rate = Some(checked_rate(format)?);
            }
            b"data" => {
                let sample_rate = sample_rate.ok_or_else(not_wav)?;
                let unknown = length == 0 || length == u32::MAX;
                return Ok(Some(WavHead {
                    sample_rate,
                    data_at: body,
                    data_bytes: (!unknown).then(|| u64::from(length)),
                }));
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

fn checked_rate(format: &[u8]) -> Result<u32, ErrorBody> {
    let short = |at| u16_at(format, at).unwrap_or(0);
    let tag = match short(0) {
        EXTENSIBLE => short(SUBFORMAT_AT),
        tag => tag,
    };
    let (channels, rate, bits) = (short(2), u32_at(format, 4).unwrap_or(0), short(14));
    if tag != PCM {
        let value = match tag {
            3 => "floating point".to_owned(),
            6 => "A-law".to_owned(),
            7 => "mu-law".to_owned(),
            other => format!("format {other}"),
        };
        return Err(ErrorBody::field("wav.encoding", value, "PCM (format 1)"));
    }
    if bits != 16 {
        return Err(ErrorBody::field("wav.bits_per_sample", bits.to_string(), "16"));
    }
    if channels != 1 {
        return Err(ErrorBody::field("wav.channels", channels.to_string(), "1"));
    }
    if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) {
        let allowed = format!("a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
        return Err(ErrorBody::field("wav.sample_rate", rate.to_string(), allowed));
    }
    Ok(rate)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests;
