//! What a client is told.

use serde_json::{Value, json};

use super::written;
use crate::native::{ErrorBody, Final};

/// A model as `info` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsrModel {
    /// Its name.
    pub name: String,
    /// The language it was made for.
    pub language: String,
    /// Who made the engine that runs it, and where that is found.
    pub made_by: (&'static str, &'static str),
}

/// The answer to `describe`: one program with these models.
#[must_use]
pub fn info_event(version: &str, models: &[AsrModel]) -> Vec<u8> {
    let attribution = |(name, url): (&str, &str)| json!({ "name": name, "url": url });
    let models: Vec<Value> = models
        .iter()
        .map(|model| {
            json!({
                "name": model.name,
                "languages": [model.language],
                "attribution": attribution(model.made_by),
                "installed": true,
                "description": model.name,
                "version": null,
            })
        })
        .collect();
    let program = json!({
        "name": "starling",
        "description": "Speech to text that never drops a caller",
        "attribution": attribution(("Starling", "")),
        "installed": true,
        "version": version,
        "models": models,
        "supports_transcript_streaming": true,
        // Where an utterance ends its client says, by audio-stop.
        "requires_external_vad": true,
    });
    let mut info = json!({ "asr": [program] });
    for domain in ["tts", "handle", "intent", "wake", "mic", "snd"] {
        info[domain] = json!([]);
    }
    one("info", &info)
}

/// The answer to `ping`.
#[must_use]
pub fn pong_event(text: Option<&str>) -> Vec<u8> {
    one("pong", &json!({ "text": text }))
}

/// What is wrong, with the code of the native protocol.
#[must_use]
pub fn error_event(error: &ErrorBody) -> Vec<u8> {
    one("error", &json!({ "text": error.message, "code": error.code }))
}

fn one(kind: &str, data: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    written(kind, data, &mut out);
    out
}

/// One utterance as its client is told of it: parts as they are final, then the whole. The parts one after another are
/// the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Teller {
    language: Option<String>,
    text: String,
    begun: bool,
}

impl Teller {
    /// Of an utterance in this language.
    #[must_use]
    pub const fn new(language: Option<String>) -> Self {
        Self { language, text: String::new(), begun: false }
    }

    /// A final. One of silence has nothing to tell.
    pub fn last(&mut self, last: &Final, out: &mut Vec<u8>) {
        if last.text.is_empty() {
            return;
        }
        self.begin(out);
        let part = if self.text.is_empty() { last.text.clone() } else { format!(" {}", last.text) };
        written("transcript-chunk", &json!({ "text": part }), out);
        self.text.push_str(&part);
    }

    /// The end: all was told.
    #[must_use]
    pub fn end(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.begin(&mut out);
        let whole = self.with_language(json!({ "text": self.text }));
        // In the specification's order: clients that know nothing of parts are waiting for the whole.
        written("transcript", &whole, &mut out);
        written("transcript-stop", &json!({}), &mut out);
        out
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            written("transcript-start", &self.with_language(json!({})), out);
        }
    }

    fn with_language(&self, mut data: Value) -> Value {
        if let Some(language) = &self.language {
            data["language"] = language.as_str().into();
        }
        data
    }
}
