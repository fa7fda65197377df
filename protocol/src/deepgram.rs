//! Deepgram's interface, `/v1/listen`: what a query asks for, what a client says, and what it is told.
//!
//! Owns: the translation between that dialect's texts and a session's terms. Must never: hold audio, or decide when a segment
//! ends.
//!
//! Source: Deepgram's API reference, "Live Streaming" and "Pre-Recorded", and its Python and JavaScript libraries.

mod query;
mod told;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::native::{ErrorBody, ErrorCode, Final, TimedWord};

pub use query::{Listen, parse_query};
pub use told::Teller;

/// How long a client may say nothing, neither audio nor that it is there.
pub const SILENCE_SECONDS: u64 = 10;

/// A text message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenMessage {
    /// It is still there.
    KeepAlive,
    /// The open segment is to end.
    Finalize,
    /// No more audio will come.
    CloseStream,
}

/// Reads a text message.
///
/// # Errors
/// It is none of this dialect; the error names what was found.
pub fn parse_message(text: &str) -> Result<ListenMessage, ErrorBody> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(rename = "type")]
        kind: String,
    }
    let bad = |value: String| ErrorBody {
        code: ErrorCode::BadMessage,
        ..ErrorBody::field("type", value, "KeepAlive, Finalize or CloseStream, in a JSON object")
    };
    let shortened = || format!("{:?}", text.chars().take(64).collect::<String>());
    let Message { kind } = serde_json::from_str(text).map_err(|_| bad(shortened()))?;
    match kind.as_str() {
        "KeepAlive" => Ok(ListenMessage::KeepAlive),
        "Finalize" => Ok(ListenMessage::Finalize),
        "CloseStream" => Ok(ListenMessage::CloseStream),
        _ => Err(bad(format!("{kind:?}"))),
    }
}

/// Who answers, in every answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answerer {
    /// The request's id.
    pub request_id: String,
    /// The model's name.
    pub model: String,
    /// An id of the model's, always the same.
    pub model_uuid: String,
    /// The version that runs.
    pub version: String,
}

impl Answerer {
    fn model_info(&self) -> Value {
        json!({ "name": self.model, "version": self.version, "arch": "starling" })
    }
}

/// An error over HTTP.
#[must_use]
pub fn error_body(error: &ErrorBody, request_id: &str) -> Value {
    json!({ "err_code": err_code(error.code), "err_msg": error.message, "request_id": request_id })
}

/// An error that a stream ends with, or goes on after.
#[must_use]
pub fn error_event(error: &ErrorBody) -> String {
    json!({ "type": "Error", "variant": err_code(error.code), "description": error.message, "message": error.message })
        .to_string()
}

const fn err_code(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthorized => "INVALID_AUTH",
        ErrorCode::Forbidden => "INSUFFICIENT_PERMISSIONS",
        ErrorCode::OverQuota => "TOO_MANY_REQUESTS",
        ErrorCode::Busy | ErrorCode::ShuttingDown => "SERVICE_UNAVAILABLE",
        ErrorCode::Internal => "INTERNAL_SERVER_ERROR",
        ErrorCode::IdleTimeout | ErrorCode::SlowReader => "TIMEOUT",
        _ => "Bad Request",
    }
}

/// The reading of a text and its words.
fn alternative(text: &str, words: &[TimedWord], confidence: Option<f32>) -> Value {
    let words: Vec<Value> = words.iter().map(|word| shown(word, confidence)).collect();
    json!({ "transcript": text, "confidence": certain(confidence), "words": words })
}

fn shown(word: &TimedWord, confidence: Option<f32>) -> Value {
    let plain: String = word.word.trim_matches(|c: char| c.is_ascii_punctuation()).to_lowercase();
    json!({
        "word": if plain.is_empty() { &word.word } else { &plain },
        "start": word.start,
        "end": word.end,
        "confidence": certain(word.confidence.or(confidence)),
        "punctuated_word": word.word,
    })
}

/// The libraries want a number. An engine that gives none has no doubts that it could tell of.
fn certain(confidence: Option<f32>) -> f64 {
    // Two digits, as engines give them: without rounding 0.9 would be shown as 0.8999999761581421.
    confidence.map_or(1.0, |value| (f64::from(value) * 100.0).round() / 100.0)
}

/// What is known of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// When the request came, as RFC 3339 has it.
    pub created: String,
    /// Seconds of audio.
    pub duration: f64,
    /// Channels, mixed to one or each heard for itself.
    pub channels: u8,
}

/// The answer to a whole recording: the finals of each channel that was heard for itself.
#[must_use]
pub fn transcript(answerer: &Answerer, heard: &Heard, channels: &[&[Final]]) -> Value {
    let channels: Vec<Value> =
        channels.iter().map(|finals| json!({ "alternatives": [whole(finals)] })).collect();
    let mut metadata = metadata(answerer, heard);
    // Only a stream's has a type.
    if let Some(object) = metadata.as_object_mut() {
        object.remove("type");
    }
    json!({ "metadata": metadata, "results": { "channels": channels } })
}

fn whole(finals: &[Final]) -> Value {
    let texts: Vec<&str> =
        finals.iter().map(|last| last.text.as_str()).filter(|text| !text.is_empty()).collect();
    let words: Vec<TimedWord> = finals.iter().flat_map(|last| last.words.iter().cloned()).collect();
    let known: Vec<f32> = finals.iter().filter_map(|last| last.confidence).collect();
    let mean = (!known.is_empty()).then(|| known.iter().sum::<f32>() / known.len() as f32);
    alternative(&texts.join(" "), &words, mean)
}

/// What a stream ends with.
#[must_use]
pub fn metadata(answerer: &Answerer, heard: &Heard) -> Value {
    json!({
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": answerer.request_id,
        "sha256": heard.sha256,
        "created": heard.created,
        "duration": heard.duration,
        "channels": heard.channels,
        "models": [answerer.model_uuid],
        "model_info": { answerer.model_uuid.as_str(): answerer.model_info() },
    })
}

#[cfg(test)]
mod tests;
