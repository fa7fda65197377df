//! The JSON and the media types of kaldi-gstreamer-server: what its clients send, and what its master and workers would have
//! answered.
//!
//! Owns: the wording of this dialect. Must never: decide when something is said.
//! Source: `master_server.py`, `worker.py` and `common.py` of alumae/kaldi-gstreamer-server.

use serde_json::{Map, Value, json};

use crate::limits::{MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use crate::native::{AudioFormat, Encoding, ErrorBody, ErrorCode, Final};
use crate::number::whole;

/// The end of the audio, as a text or a binary message of its own.
pub const END_OF_STREAM: &str = "EOS";

/// An adaptation state for a client that gave none: the empty string, compressed by zlib (RFC 1950), in base64.
const EMPTY_STATE: &str = "eJwDAAAAAAE=";

/// Status codes of `common.py`; those that are never sent are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A result.
    Success = 0,
    /// Nothing was said for too long.
    NoSpeech = 1,
    /// The recognition was broken off.
    Aborted = 2,
    /// The request can't be served, or the decoder failed.
    NotAllowed = 5,
    /// No decoder is free.
    NotAvailable = 9,
}

impl Status {
    /// What an error of a session is to this dialect's clients.
    #[must_use]
    pub const fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::Busy | ErrorCode::OverQuota => Self::NotAvailable,
            ErrorCode::IdleTimeout => Self::NoSpeech,
            ErrorCode::ShuttingDown | ErrorCode::Superseded | ErrorCode::SlowReader => Self::Aborted,
            _ => Self::NotAllowed,
        }
    }
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Samples without a head.
    Raw(AudioFormat),
    /// A recording whose head says what it is.
    Container,
}

/// Reads a content type: GStreamer caps as in a query (`audio/x-raw, layout=(string)interleaved, rate=(int)16000, …`) or a media
/// type with parameters as in a header (`audio/x-raw-int; rate=16000`). Without one the recording's head says what it is.
///
/// # Errors
/// Raw audio of a kind that is not taken; the error names the part.
pub fn parse_content_type(text: Option<&str>) -> Result<Media, ErrorBody> {
    let mut parts = text.unwrap_or_default().split([',', ';']).map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let companded = match kind.as_str() {
        "audio/x-raw" | "audio/x-raw-int" | "audio/x-raw-float" | "audio/l16" => None,
        "audio/x-mulaw" | "audio/basic" => Some(Encoding::Mulaw),
        "audio/x-alaw" => Some(Encoding::Alaw),
        _ => return Ok(Media::Container),
    };
    // What upstream assumes of raw audio; of companded audio, telephony's rate.
    let mut format = AudioFormat {
        encoding: companded.unwrap_or_default(),
        sample_rate: if companded.is_some() { 8_000 } else { 16_000 },
        channels: 1,
    };
    let mut sample = Sample::default();
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        let (name, value) = (name.trim(), unquoted(value));
        match name {
            "rate" => format.sample_rate = whole(&part("rate"), value, MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)?,
            "channels" => format.channels = whole(&part("channels"), value, 1, MAX_CHANNELS)?,
            "layout" if value != "interleaved" => {
                return Err(refused("layout", value, "interleaved".to_owned()));
            }
            _ if companded.is_none() => sample.read(name, value)?,
            _ => {}
        }
    }
    if companded.is_none() {
        format.encoding = sample.encoding(&kind)?;
    }
    Ok(Media::Raw(format))
}

/// What caps say of raw samples: by a name (GStreamer 1.0), or by what they are made of (0.10).
#[derive(Default)]
struct Sample<'a> {
    format: Option<Encoding>,
    /// Bits.
    width: Option<u8>,
    depth: Option<u8>,
    signed: Option<bool>,
    /// What was said of it, and whether that is the little end first.
    endianness: Option<(&'a str, bool)>,
}

impl<'a> Sample<'a> {
    fn read(&mut self, name: &str, value: &'a str) -> Result<(), ErrorBody> {
        match name {
            "format" => self.format = Some(sample_format(value)?),
            "width" => self.width = Some(whole(&part("width"), value, 8, 64)?),
            "depth" => self.depth = Some(whole(&part("depth"), value, 8, 64)?),
            "signed" => match value.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => self.signed = Some(true),
                "false" | "no" | "0" => self.signed = Some(false),
                _ => return Err(refused("signed", value, "true or false".to_owned())),
            },
            // The numbers of C's endian.h; other services' clients have words.
            "endianness" => match value.to_ascii_lowercase().as_str() {
                "1234" | "little-endian" | "little_endian" => self.endianness = Some((value, true)),
                "4321" | "big-endian" | "big_endian" => self.endianness = Some((value, false)),
                _ => return Err(refused("endianness", value, LITTLE.to_owned())),
            },
            _ => {}
        }
        Ok(())
    }

    fn encoding(&self, kind: &str) -> Result<Encoding, ErrorBody> {
        let float = kind == "audio/x-raw-float";
        let width = self.width.unwrap_or(if float { 32 } else { 16 });
        if let Some(depth) = self.depth.filter(|depth| *depth != width && self.format.is_none()) {
            return Err(refused("depth", &depth.to_string(), format!("the width, {width}")));
        }
        let encoding = match (self.format, float, width, self.signed) {
            (Some(format), ..) => format,
            (None, true, 32, _) => Encoding::PcmF32le,
            (None, true, ..) => return Err(refused("width", &width.to_string(), "32".to_owned())),
            (None, false, 8, Some(false)) => Encoding::PcmU8,
            (None, false, 16, None | Some(true)) => Encoding::PcmS16le,
            (None, false, 24, None | Some(true)) => Encoding::PcmS24le,
            (None, false, 32, None | Some(true)) => Encoding::PcmS32le,
            (None, false, 8, signed) => {
                let value = signed.map_or("absent", |_| "true");
                return Err(refused("signed", value, "false for a width of 8".to_owned()));
            }
            (None, false, 16 | 24 | 32, Some(false)) => {
                return Err(refused("signed", "false", format!("true for a width of {width}")));
            }
            (None, false, ..) => {
                return Err(refused("width", &width.to_string(), "8, 16, 24 or 32".to_owned()));
            }
        };
        match self.endianness {
            Some((value, false)) if encoding != Encoding::PcmU8 => {
                Err(refused("endianness", value, LITTLE.to_owned()))
            }
            // RFC 2586, section 3: its samples have the big end first, unless somebody says that they don't.
            None if kind == "audio/l16" && self.format.is_none() => Err(refused(
                "endianness",
                "absent",
                format!("{LITTLE} for audio/l16, which is big-endian by itself"),
            )),
            _ => Ok(encoding),
        }
    }
}

/// How samples of several bytes have to come.
const LITTLE: &str = "1234 (little-endian)";

/// `(string)S16LE` and `"S16LE"` are `S16LE`.
fn unquoted(value: &str) -> &str {
    let value = value.trim();
    let untyped =
        value.strip_prefix('(').and_then(|rest| rest.split_once(')')).map_or(value, |(_, rest)| rest);
    untyped.trim().trim_matches('"')
}

fn sample_format(value: &str) -> Result<Encoding, ErrorBody> {
    Ok(match value {
        "S16LE" => Encoding::PcmS16le,
        "U8" => Encoding::PcmU8,
        "S24LE" => Encoding::PcmS24le,
        "S32LE" => Encoding::PcmS32le,
        "F32LE" => Encoding::PcmF32le,
        _ => return Err(refused("format", value, "S16LE, U8, S24LE, S32LE or F32LE".to_owned())),
    })
}

fn refused(name: &str, value: &str, allowed: String) -> ErrorBody {
    ErrorBody::field(&part(name), format!("{value:?}"), allowed)
}

/// How a parameter is named in errors.
fn part(name: &str) -> String {
    format!("content-type {name}")
}

/// A text message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMessage {
    /// No more audio will come.
    EndOfStream,
    /// What the decoder had learnt of this speaker, as an earlier session's end told it. Kept and given back; nothing here learns.
    AdaptationState(Box<Value>),
    /// Neither.
    Other,
}

/// Reads a text message.
#[must_use]
pub fn parse_text(text: &str) -> TextMessage {
    if text.trim() == END_OF_STREAM {
        return TextMessage::EndOfStream;
    }
    let object: Option<Map<String, Value>> = serde_json::from_str(text).ok();
    let state = object.and_then(|mut object| object.remove("adaptation_state"));
    state.map_or(TextMessage::Other, |state| TextMessage::AdaptationState(Box::new(state)))
}

/// The text so far of the open segment.
#[must_use]
pub fn partial_event(id: &str, segment: u64, transcript: &str) -> String {
    let result = json!({ "hypotheses": [{ "transcript": transcript }], "final": false });
    json!({ "status": 0, "segment": segment, "result": result, "id": id }).to_string()
}

/// A segment's last text, or what went wrong with it: a failure is never a success with an empty text.
#[must_use]
pub fn final_event(id: &str, last: &Final) -> String {
    let mut event = json!({
        "status": Status::Success as u8,
        "segment": last.segment.0,
        "segment-start": seconds(last.start),
        "segment-length": seconds(last.end - last.start),
        "total-length": seconds(last.end),
        "id": id,
    });
    if let Some(error) = &last.error {
        event["status"] = json!(Status::NotAllowed as u8);
        event["message"] = json!(error);
    } else {
        event["result"] = json!({ "hypotheses": hypotheses(last), "final": true });
    }
    event.to_string()
}

fn hypotheses(last: &Final) -> Vec<Value> {
    let mut best = json!({ "transcript": last.text });
    if let Some(confidence) = last.confidence {
        best["confidence"] = json!(confidence);
    }
    if let Some(first) = last.alternatives.first() {
        best["likelihood"] = json!(first.confidence);
    }
    if !last.words.is_empty() {
        let words = last.words.iter().map(|word| {
            json!({
                "word": word.word,
                "start": seconds(word.start - last.start),
                "length": seconds(word.end - word.start),
                "confidence": word.confidence.unwrap_or(1.0),
            })
        });
        best["word-alignment"] = words.collect();
    }
    let others = last.alternatives.iter().skip(1);
    let others = others.map(|other| json!({ "transcript": other.text, "likelihood": other.confidence }));
    std::iter::once(best).chain(others).collect()
}

/// Hundredths: Kaldi's frames.
fn seconds(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// What a client may give to its next session: what it gave itself. `time` is `YYYY-MM-DDThh:mm:ss`.
#[must_use]
pub fn adaptation_event(id: &str, given: Option<&Value>, time: &str) -> String {
    let value = given.and_then(|state| state.get("value")).cloned().unwrap_or_else(|| json!(EMPTY_STATE));
    let kind = given.and_then(|state| state.get("type")).cloned();
    let kind = kind.unwrap_or_else(|| json!("string+gzip+base64"));
    let state = json!({ "id": id, "value": value, "type": kind, "time": time });
    json!({ "status": 0, "adaptation_state": state }).to_string()
}

/// Something went wrong, and nothing more will come.
#[must_use]
pub fn error_event(id: &str, status: Status, message: &str) -> String {
    json!({ "status": status as u8, "message": message, "id": id }).to_string()
}

/// The answer to a recording over HTTP.
#[must_use]
pub fn recognized(id: &str, text: &str) -> String {
    json!({ "status": 0, "id": id, "hypotheses": [{ "utterance": text }] }).to_string()
}

#[cfg(test)]
mod tests;
