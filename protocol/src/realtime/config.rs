//! What a client's session is to be.

use serde_json::{Map, Value, json};

use crate::limits::{ENDPOINT_SILENCE_MS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use crate::native::{AudioFormat, Encoding, ErrorBody};

/// The original's rate of PCM.
const PCM_RATE: u32 = 24_000;

/// The rate of G.711.
const G711_RATE: u32 = 8_000;

/// Longest name of a model or a language that is read.
const MOST_NAME_BYTES: usize = 200;

/// Who says where an item ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TurnDetection {
    /// The node: each segment is an item.
    #[default]
    ServerVad,
    /// As [`Self::ServerVad`], asked for by another name.
    SemanticVad,
    /// The client, by a commit.
    Off,
}

/// What a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Of the audio.
    pub format: AudioFormat,
    /// A model by name; one of `OpenAI`'s names means the node's own choice, as does none.
    pub model: Option<String>,
    /// A language, for which a model is chosen.
    pub language: Option<String>,
    /// Who says where an item ends.
    pub turn_detection: TurnDetection,
    /// So much silence after speech ends a segment; `None` for the node's own length.
    pub silence_ms: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: AudioFormat { encoding: Encoding::PcmS16le, sample_rate: PCM_RATE, channels: 1 },
            model: None,
            language: None,
            turn_detection: TurnDetection::default(),
            silence_ms: None,
        }
    }
}

/// What a session is to be from now on. What is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Update {
    /// Whether it has the older shape, in which it is answered.
    pub beta: bool,
    /// See [`Config::format`].
    pub format: Option<AudioFormat>,
    /// See [`Config::model`].
    pub model: Option<Option<String>>,
    /// See [`Config::language`].
    pub language: Option<Option<String>>,
    /// See [`Config::turn_detection`].
    pub turn_detection: Option<TurnDetection>,
    /// See [`Config::silence_ms`].
    pub silence_ms: Option<Option<u32>>,
}

impl Update {
    /// Reads an event's `session`, in today's shape and in the older one, whichever its fields have. Fields that nothing here
    /// depends on are passed over.
    ///
    /// # Errors
    /// A field that can't be served as it is asked for; the error has its path.
    pub(super) fn parse(session: &Value, beta: bool) -> Result<Self, ErrorBody> {
        let session = object("session", session)?;
        match session.get("type").unwrap_or(&Value::Null) {
            Value::Null => {}
            Value::String(kind) if kind == "transcription" => {}
            other => {
                let allowed = "\"transcription\": nothing here answers a conversation";
                return Err(ErrorBody::field("session.type", shown(other), allowed));
            }
        }
        let mut update = Self { beta, ..Self::default() };
        if let Some(format) = session.get("input_audio_format") {
            update.format = Some(named_format(format)?);
        }
        if let Some(transcription) = session.get("input_audio_transcription") {
            update.transcription("session.input_audio_transcription", transcription)?;
        }
        if let Some(detection) = session.get("turn_detection") {
            update.turn_detection = Some(turn_detection("session.turn_detection", detection)?);
            update.silence_ms = Some(silence(detection));
        }
        if let Some(audio) = present(session, "audio") {
            let audio = object("session.audio", audio)?;
            if let Some(input) = present(audio, "input") {
                update.input(object("session.audio.input", input)?)?;
            }
        }
        Ok(update)
    }

    fn input(&mut self, input: &Map<String, Value>) -> Result<(), ErrorBody> {
        if let Some(format) = present(input, "format") {
            self.format = Some(typed_format(format)?);
        }
        if let Some(transcription) = input.get("transcription") {
            self.transcription("session.audio.input.transcription", transcription)?;
        }
        if let Some(detection) = input.get("turn_detection") {
            self.turn_detection = Some(turn_detection("session.audio.input.turn_detection", detection)?);
            self.silence_ms = Some(silence(detection));
        }
        Ok(())
    }

    fn transcription(&mut self, path: &str, given: &Value) -> Result<(), ErrorBody> {
        if given.is_null() {
            (self.model, self.language) = (Some(None), Some(None));
            return Ok(());
        }
        let given = object(path, given)?;
        for (name, place) in [("model", &mut self.model), ("language", &mut self.language)] {
            match given.get(name) {
                None => {}
                Some(Value::Null) => *place = Some(None),
                Some(Value::String(text)) if text.len() <= MOST_NAME_BYTES => {
                    *place = Some((!text.is_empty()).then(|| text.clone()));
                }
                Some(other) => {
                    let allowed = format!("a text of at most {MOST_NAME_BYTES} bytes");
                    return Err(ErrorBody::field(&format!("{path}.{name}"), shown(other), allowed));
                }
            }
        }
        Ok(())
    }
}

impl Config {
    /// This session with something changed. With `begun`, audio has come: what it is decoded as stays.
    ///
    /// # Errors
    /// A change that comes too late; the error names the field.
    pub fn with(&self, update: &Update, begun: bool) -> Result<Self, ErrorBody> {
        let next = Self {
            format: update.format.unwrap_or(self.format),
            model: update.model.clone().unwrap_or_else(|| self.model.clone()),
            language: update.language.clone().unwrap_or_else(|| self.language.clone()),
            turn_detection: update.turn_detection.unwrap_or(self.turn_detection),
            // Where segments end is settled by the first audio.
            silence_ms: if begun { self.silence_ms } else { update.silence_ms.unwrap_or(self.silence_ms) },
        };
        if !begun {
            return Ok(next);
        }
        let (format, transcription) = if update.beta {
            ("session.input_audio_format", "session.input_audio_transcription")
        } else {
            ("session.audio.input.format", "session.audio.input.transcription")
        };
        let late = |field: &str| {
            let allowed = "as it was when the first audio came; connect again for another";
            ErrorBody::field(field, "another", allowed)
        };
        if next.format != self.format {
            return Err(late(format));
        }
        if next.model != self.model {
            return Err(late(&format!("{transcription}.model")));
        }
        if next.language != self.language {
            return Err(late(&format!("{transcription}.language")));
        }
        Ok(next)
    }

    /// The session as a client is shown it: what is in effect here, and nothing else.
    pub(super) fn shown(&self, id: &str, beta: bool) -> Value {
        let transcription = json!({ "model": self.model, "language": self.language, "prompt": null });
        let detection = match self.turn_detection {
            TurnDetection::ServerVad => match self.silence_ms {
                Some(silence_ms) => json!({ "type": "server_vad", "silence_duration_ms": silence_ms }),
                None => json!({ "type": "server_vad" }),
            },
            TurnDetection::SemanticVad => json!({ "type": "semantic_vad" }),
            TurnDetection::Off => Value::Null,
        };
        let AudioFormat { encoding, sample_rate, .. } = self.format;
        let object = "realtime.transcription_session";
        if beta {
            let format = match encoding {
                Encoding::Mulaw => "g711_ulaw",
                Encoding::Alaw => "g711_alaw",
                _ => "pcm16",
            };
            return json!({
                "id": id,
                "object": object,
                "input_audio_format": format,
                "input_audio_transcription": transcription,
                "input_audio_noise_reduction": null,
                "turn_detection": detection,
                "include": null,
            });
        }
        let format = match encoding {
            Encoding::Mulaw => json!({ "type": "audio/pcmu" }),
            Encoding::Alaw => json!({ "type": "audio/pcma" }),
            _ => json!({ "type": "audio/pcm", "rate": sample_rate }),
        };
        json!({
            "id": id,
            "object": object,
            "type": "transcription",
            "audio": { "input": {
                "format": format,
                "transcription": transcription,
                "noise_reduction": null,
                "turn_detection": detection,
            } },
            "include": null,
        })
    }
}

fn named_format(given: &Value) -> Result<AudioFormat, ErrorBody> {
    match given.as_str() {
        Some("pcm16") => Ok(mono(Encoding::PcmS16le, PCM_RATE)),
        Some("g711_ulaw") => Ok(mono(Encoding::Mulaw, G711_RATE)),
        Some("g711_alaw") => Ok(mono(Encoding::Alaw, G711_RATE)),
        _ => {
            let allowed = "pcm16 (at 24000 Hz), g711_ulaw or g711_alaw";
            Err(ErrorBody::field("session.input_audio_format", shown(given), allowed))
        }
    }
}

fn typed_format(given: &Value) -> Result<AudioFormat, ErrorBody> {
    let path = "session.audio.input.format";
    let given = object(path, given)?;
    let kind = given.get("type").unwrap_or(&Value::Null);
    let rate = present(given, "rate");
    match kind.as_str() {
        Some("audio/pcm") => {
            let rate =
                rate.map_or(Some(PCM_RATE), |rate| rate.as_u64().and_then(|rate| u32::try_from(rate).ok()));
            let rate = rate.filter(|rate| (MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(rate));
            let rate = rate.ok_or_else(|| {
                let value = given.get("rate").map(shown).unwrap_or_default();
                let allowed = format!(
                    "a whole number from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}, {PCM_RATE} if absent"
                );
                ErrorBody::field(&format!("{path}.rate"), value, allowed)
            })?;
            Ok(mono(Encoding::PcmS16le, rate))
        }
        Some("audio/pcmu") => Ok(mono(Encoding::Mulaw, G711_RATE)),
        Some("audio/pcma") => Ok(mono(Encoding::Alaw, G711_RATE)),
        _ => {
            let allowed = "audio/pcm, audio/pcmu or audio/pcma";
            Err(ErrorBody::field(&format!("{path}.type"), shown(kind), allowed))
        }
    }
}

const fn mono(encoding: Encoding, sample_rate: u32) -> AudioFormat {
    AudioFormat { encoding, sample_rate, channels: 1 }
}

fn turn_detection(path: &str, given: &Value) -> Result<TurnDetection, ErrorBody> {
    if given.is_null() {
        return Ok(TurnDetection::Off);
    }
    let kind = object(path, given)?.get("type").unwrap_or(&Value::Null);
    match kind.as_str() {
        Some("server_vad") => Ok(TurnDetection::ServerVad),
        Some("semantic_vad") => Ok(TurnDetection::SemanticVad),
        // What some clients of the older shape say for null.
        Some("none") => Ok(TurnDetection::Off),
        _ => {
            let allowed = "server_vad or semantic_vad; or turn_detection itself null";
            Err(ErrorBody::field(&format!("{path}.type"), shown(kind), allowed))
        }
    }
}

/// What can be of the silence that a client wants; a number that is none is as good as absent.
fn silence(detection: &Value) -> Option<u32> {
    let wanted = detection.get("silence_duration_ms")?.as_u64()?;
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
    Some(wanted.clamp(*ENDPOINT_SILENCE_MS.start(), *ENDPOINT_SILENCE_MS.end()))
}

fn object<'a>(path: &str, given: &'a Value) -> Result<&'a Map<String, Value>, ErrorBody> {
    given.as_object().ok_or_else(|| ErrorBody::field(path, shown(given), "an object"))
}

/// A field that is there and is not null.
fn present<'a>(given: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    given.get(name).filter(|value| !value.is_null())
}

/// A value in an error, not the whole of a long one.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "absent".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        other => other.to_string(),
    }
}
