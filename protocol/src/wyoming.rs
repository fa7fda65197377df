//! Wyoming, the protocol of Home Assistant's voice services: events over TCP, each a header (a line of JSON), further data
//! (JSON) and a payload (audio). Written from the specification that the package `wyoming` 1.10 comes with.
//!
//! Of its domains speech recognition (`asr`) is spoken; events of others are passed over, as the specification wants it.

use serde_json::{Map, Value, json};

use crate::limits::{MAX_CHANNELS, MAX_CLIENT_MESSAGE_BYTES, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use crate::native::{AudioFormat, Encoding, ErrorBody};
use crate::wire::{Pending, WireReader, shown};

mod told;

pub use told::{AsrModel, Teller, error_event, info_event, pong_event};

/// The longest header: what the servers of that package read of a line.
pub const MAX_HEADER_BYTES: usize = 64 << 10;

/// One event as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its `type`.
    pub kind: String,
    /// What it says.
    pub data: Map<String, Value>,
    /// Audio.
    pub payload: Vec<u8>,
}

/// Reads events.
#[derive(Debug, Default)]
pub struct EventReader {
    pending: Pending,
    /// How far it was looked for the header's end.
    looked: usize,
    head: Option<Head>,
}

/// A header whose event has not come in full.
#[derive(Debug)]
struct Head {
    kind: String,
    data: Map<String, Value>,
    data_bytes: usize,
    payload_bytes: usize,
}

impl WireReader for EventReader {
    type Frame = Event;

    fn push(&mut self, bytes: &[u8]) {
        self.pending.push(bytes);
    }

    fn next_frame(&mut self) -> Result<Option<Event>, ErrorBody> {
        if self.head.is_none() {
            self.head = self.next_head()?;
        }
        let Some(Head { data_bytes, payload_bytes, .. }) = self.head else { return Ok(None) };
        if self.pending.rest().len() < data_bytes + payload_bytes {
            return Ok(None);
        }
        let Some(Head { kind, mut data, .. }) = self.head.take() else { return Ok(None) };
        if data_bytes > 0 {
            data.extend(object("data", self.pending.take(data_bytes))?);
        }
        let payload = self.pending.take(payload_bytes).to_vec();
        Ok(Some(Event { kind, data, payload }))
    }
}

impl EventReader {
    fn next_head(&mut self) -> Result<Option<Head>, ErrorBody> {
        let rest = self.pending.rest();
        let end = rest[self.looked..].iter().position(|byte| *byte == b'\n').map(|at| self.looked + at);
        if end.unwrap_or(rest.len()) > MAX_HEADER_BYTES {
            let value = format!("over {MAX_HEADER_BYTES} bytes long");
            let allowed = "a line of JSON; long values go into the data behind it";
            return Err(ErrorBody::field("the header", value, allowed));
        }
        let Some(end) = end else {
            self.looked = rest.len();
            return Ok(None);
        };
        self.looked = 0;
        let line = self.pending.take(end + 1);
        parse_head(&line[..end]).map(Some)
    }
}

fn parse_head(line: &[u8]) -> Result<Head, ErrorBody> {
    let mut head = object("the header", line)?;
    let kind = match head.remove("type") {
        Some(Value::String(kind)) if !kind.is_empty() => kind,
        other => return Err(wrong("type", other.as_ref(), "the event's name")),
    };
    let data = match head.remove("data") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(data)) => data,
        other => return Err(wrong("data", other.as_ref(), "an object")),
    };
    let data_bytes = length(&head, "data_length")?;
    let payload_bytes = length(&head, "payload_length")?;
    Ok(Head { kind, data, data_bytes, payload_bytes })
}

fn object(field: &str, bytes: &[u8]) -> Result<Map<String, Value>, ErrorBody> {
    serde_json::from_slice(bytes).map_err(|_| {
        let value = format!("{:?}", shown(&String::from_utf8_lossy(bytes)));
        ErrorBody::field(field, value, "a JSON object, as Wyoming has it")
    })
}

fn length(head: &Map<String, Value>, field: &str) -> Result<usize, ErrorBody> {
    let value = head.get(field).filter(|value| !value.is_null());
    let Some(value) = value else { return Ok(0) };
    let bytes = value.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes <= MAX_CLIENT_MESSAGE_BYTES).ok_or_else(|| {
        wrong(field, Some(value), &format!("a whole number from 0 to {MAX_CLIENT_MESSAGE_BYTES}"))
    })
}

fn wrong(field: &str, value: Option<&Value>, allowed: &str) -> ErrorBody {
    let value = value.map_or_else(|| "missing".to_owned(), |value| shown(&value.to_string()));
    ErrorBody::field(field, value, allowed)
}

/// What a client wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// To know what there is.
    Describe,
    /// A sign of life.
    Ping {
        /// To come back.
        text: Option<String>,
    },
    /// How the audio that follows is to be heard.
    Transcribe {
        /// A model by name.
        model: Option<String>,
        /// Tag of a language.
        language: Option<String>,
    },
    /// Audio begins.
    AudioStart(AudioFormat),
    /// Audio.
    AudioChunk {
        /// As what it is sent, which repeats what the start said.
        format: AudioFormat,
        /// The samples.
        audio: Vec<u8>,
    },
    /// Audio has ended, and its text is wanted.
    AudioStop,
    /// An event of another domain or of a later version, to be passed over.
    Other(String),
}

/// Understands an event.
///
/// # Errors
/// A value can't be used; the error names it.
pub fn parse_request(event: Event) -> Result<Request, ErrorBody> {
    let Event { kind, data, payload } = event;
    match kind.as_str() {
        "describe" => Ok(Request::Describe),
        "ping" => Ok(Request::Ping { text: text(&data, "ping.text", "text")? }),
        "transcribe" => Ok(Request::Transcribe {
            model: text(&data, "transcribe.name", "name")?,
            language: text(&data, "transcribe.language", "language")?,
        }),
        "audio-start" => parse_format(&kind, &data).map(Request::AudioStart),
        "audio-chunk" => Ok(Request::AudioChunk { format: parse_format(&kind, &data)?, audio: payload }),
        "audio-stop" => Ok(Request::AudioStop),
        _ => Ok(Request::Other(kind)),
    }
}

/// A text; an empty one is none.
fn text(data: &Map<String, Value>, field: &str, name: &str) -> Result<Option<String>, ErrorBody> {
    match data.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        other => Err(wrong(field, other, "a text")),
    }
}

fn parse_format(kind: &str, data: &Map<String, Value>) -> Result<AudioFormat, ErrorBody> {
    let number = |name: &str, least: u32, most: u32, allowed: &str| {
        let found = data.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
        let found = found.filter(|number| (least..=most).contains(number));
        found.ok_or_else(|| wrong(&format!("{kind}.{name}"), data.get(name), allowed))
    };
    let rates = format!("a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}");
    let sample_rate = number("rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE, &rates)?;
    let encoding = match number("width", 1, 4, "1, 2, 3 or 4 bytes a sample")? {
        // As in WAV, and as the package's own converter has it: unsigned.
        1 => Encoding::PcmU8,
        2 => Encoding::PcmS16le,
        3 => Encoding::PcmS24le,
        _ => Encoding::PcmS32le,
    };
    let channels = number("channels", 1, MAX_CHANNELS.into(), &format!("1 to {MAX_CHANNELS}"))?;
    Ok(AudioFormat { encoding, sample_rate, channels: u8::try_from(channels).unwrap_or(MAX_CHANNELS) })
}

/// An event on its way out.
fn written(kind: &str, data: &Value, out: &mut Vec<u8>) {
    let data = data.to_string();
    let head = json!({ "type": kind, "data_length": data.len() });
    out.extend_from_slice(format!("{head}\n{data}").as_bytes());
}

#[cfg(test)]
mod tests;
