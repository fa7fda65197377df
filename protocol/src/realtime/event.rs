//! What a client says.

use std::borrow::Cow;

use data_encoding::BASE64_NOPAD;
use serde::Deserialize;
use serde_json::Value;

use super::MAX_AUDIO_BYTES;
use super::config::Update;
use crate::native::{ErrorBody, ErrorCode};

/// Longest id of an event that is given back, as the original has it.
const MOST_ID_BYTES: usize = 512;

/// Events of the original that are about conversations and not about transcribing.
const KINDS: &str =
    "session.update, input_audio_buffer.append, input_audio_buffer.commit or input_audio_buffer.clear";

/// An event of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// The session is to be another.
    Update(Box<Update>),
    /// More audio, as bytes in the session's format.
    Append(Vec<u8>),
    /// What was appended is an item.
    Commit,
    /// What was appended is not wanted.
    Clear,
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Its event; an error if it is none of this dialect, or wants what can't be served. The error names what was found.
    pub event: Result<ClientEvent, ErrorBody>,
    /// As the client has named it, if it has.
    pub event_id: Option<String>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, rename = "type", borrow)]
    kind: Option<Text<'a>>,
    #[serde(default, borrow)]
    event_id: Option<Text<'a>>,
    #[serde(default, borrow)]
    audio: Option<Text<'a>>,
    #[serde(default)]
    session: Option<Value>,
}

/// Borrowed from the message where nothing in it is escaped: audio may be nearly all of a long one.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a message.
#[must_use]
pub fn parse_event(text: &str) -> Said {
    match serde_json::from_str::<Message<'_>>(text) {
        Ok(message) => {
            let event_id = message.event_id.as_ref().and_then(|id| short_id(&id.0));
            Said { event: read(&message), event_id }
        }
        Err(error) => misshapen(text, &error),
    }
}

fn read(message: &Message<'_>) -> Result<ClientEvent, ErrorBody> {
    let Some(Text(kind)) = &message.kind else {
        return Err(bad("type", "absent".to_owned(), KINDS));
    };
    let update = |beta| {
        let session = message.session.as_ref();
        Update::parse(session.unwrap_or(&Value::Null), beta)
            .map(|update| ClientEvent::Update(Box::new(update)))
    };
    match &**kind {
        "input_audio_buffer.append" => audio(message.audio.as_ref()).map(ClientEvent::Append),
        "input_audio_buffer.commit" => Ok(ClientEvent::Commit),
        "input_audio_buffer.clear" => Ok(ClientEvent::Clear),
        "session.update" => update(false),
        "transcription_session.update" => update(true),
        _ => Err(bad("type", format!("{:?}", shortened(kind)), KINDS)),
    }
}

fn audio(given: Option<&Text<'_>>) -> Result<Vec<u8>, ErrorBody> {
    let allowed = "base64 (RFC 4648, section 4) of bytes in the session's format";
    let Some(Text(text)) = given else { return Err(bad("audio", "absent".to_owned(), allowed)) };
    // Some encoders leave out what fills up the last four letters.
    let letters = text.trim_end_matches('=');
    let bytes = BASE64_NOPAD
        .decode_len(letters.len())
        .map_err(|_| bad("audio", format!("of {} letters", letters.len()), allowed))?;
    if bytes > MAX_AUDIO_BYTES {
        let allowed = format!("at most {MAX_AUDIO_BYTES} bytes");
        return Err(bad("audio", format!("{bytes} bytes"), &allowed));
    }
    BASE64_NOPAD
        .decode(letters.as_bytes())
        .map_err(|error| bad("audio", format!("no base64 at letter {}", error.position), allowed))
}

/// Why a text is no message, and whose it is if that can be found out.
fn misshapen(text: &str, error: &serde_json::Error) -> Said {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let event_id = value.as_ref().and_then(|value| value["event_id"].as_str()).and_then(short_id);
    let found = match value {
        Some(Value::Object(_)) => error.to_string(),
        _ => format!("{:?}", shortened(text)),
    };
    let allowed = "a JSON object with a type, and text where an event has text";
    Said { event: Err(bad("event", found, allowed)), event_id }
}

fn bad(field: &str, value: String, allowed: &str) -> ErrorBody {
    ErrorBody { code: ErrorCode::BadMessage, ..ErrorBody::field(field, value, allowed) }
}

fn short_id(id: &str) -> Option<String> {
    (id.len() <= MOST_ID_BYTES).then(|| id.to_owned())
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
