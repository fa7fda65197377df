//! The JSON of vosk-server's WebSocket protocol: what its clients send, and what libvosk would have printed.
//!
//! Clients are read leniently, as the Python server does: numbers may be strings, `eof` may have any value.
//! Replies have libvosk's own layout, because some clients look for substrings rather than parse.

use std::fmt::Write as _;

use serde_json::Value;

use crate::native::{Final, TimedWord};

/// A text message of a vosk-server client.
#[derive(Debug, Clone, PartialEq)]
pub enum VoskMessage {
    /// Settings for this connection. Gets no reply.
    Config(VoskConfig),
    /// No more audio: a final, then close.
    Eof,
    /// A final now; the connection stays open.
    Reset,
    /// Anything else. The original server takes it for audio; it is ignored with a reply here.
    Other,
}

/// Settings of one connection; absent ones stay as they were.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VoskConfig {
    /// Frames a second.
    pub sample_rate: Option<f64>,
    /// Words with times in finals.
    pub words: Option<bool>,
    /// Readings in finals.
    pub max_alternatives: Option<i64>,
    /// Words and phrases to listen for.
    pub phrase_list: Option<Vec<String>>,
    /// A model by name.
    pub model: Option<String>,
}

/// Reads one text message.
#[must_use]
pub fn parse_message(text: &str) -> VoskMessage {
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) else {
        return VoskMessage::Other;
    };
    if let Some(config) = object.get("config") {
        return VoskMessage::Config(parse_config(config));
    }
    if object.contains_key("eof") {
        return VoskMessage::Eof;
    }
    if object.contains_key("reset") {
        return VoskMessage::Reset;
    }
    VoskMessage::Other
}

fn parse_config(config: &Value) -> VoskConfig {
    let phrases = config.get("phrase_list").and_then(Value::as_array);
    VoskConfig {
        sample_rate: config.get("sample_rate").and_then(number),
        words: config.get("words").and_then(flag),
        // A value that fits no i64 is far beyond every limit and is refused as such.
        max_alternatives: config.get("max_alternatives").and_then(number).map(|value| value as i64),
        phrase_list: phrases.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        model: config.get("model").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        other => number(other).map(|number| number != 0.0),
    }
}

/// The reply to audio that ended no segment.
#[must_use]
pub fn partial_reply(text: &str) -> String {
    format!("{{\n  \"partial\" : {}\n}}", quoted(text))
}

/// The reply that carries one or more finals, joined when several came since the last reply.
///
/// `words` adds `result` where something was recognised. With `alternatives`, each final's first readings are joined and
/// there is neither a top-level `text` nor a confidence per word, as libvosk has it.
#[must_use]
pub fn final_reply(finals: &[Final], words: bool, alternatives: bool) -> String {
    if alternatives { alternatives_reply(finals, words) } else { text_reply(finals, words) }
}

fn text_reply(finals: &[Final], words: bool) -> String {
    let mut out = String::from("{\n");
    let all: Vec<&TimedWord> = finals.iter().flat_map(|last| spoken(&last.words)).collect();
    if words && !all.is_empty() {
        write_words(&mut out, &all, "  ", true);
        out.push_str(",\n");
    }
    let text = joined(finals.iter().map(|last| last.text.as_str()));
    let _ = write!(out, "  \"text\" : {}\n}}", quoted(&text));
    out
}

/// What libvosk says of a reading where nothing was decoded (`StoreEmptyReturn` of its recognizer).
const OF_NOTHING: f64 = 1.0;

fn alternatives_reply(finals: &[Final], words: bool) -> String {
    let readings = finals.iter().map(|last| last.alternatives.len()).max().unwrap_or(0).max(1);
    let mut out = String::from("{\n  \"alternatives\" : [");
    for reading in 0..readings {
        let mut texts = Vec::new();
        let mut all = Vec::new();
        let mut score: Option<f64> = None;
        for last in finals {
            // A final with fewer readings lends its best, so that each joined reading covers the whole audio.
            match last.alternatives.get(reading).or_else(|| last.alternatives.first()) {
                Some(alternative) => {
                    texts.push(alternative.text.as_str());
                    all.extend(spoken(&alternative.words));
                    // Logarithms: of one after the other the sum.
                    score = Some(score.unwrap_or_default() + f64::from(alternative.confidence));
                }
                None => texts.push(last.text.as_str()),
            }
        }
        out.push_str(if reading == 0 { "{\n" } else { ", {\n" });
        let _ = writeln!(out, "      \"confidence\" : {:.6},", score.unwrap_or(OF_NOTHING));
        if words && !all.is_empty() {
            write_words(&mut out, &all, "      ", false);
            out.push_str(",\n");
        }
        let _ = write!(out, "      \"text\" : {}\n    }}", quoted(&joined(texts.into_iter())));
    }
    out.push_str("]\n}");
    out
}

/// The words that are some: clients take a message with an empty string in it for one without a text.
fn spoken(words: &[TimedWord]) -> impl Iterator<Item = &TimedWord> {
    words.iter().filter(|word| !word.word.is_empty())
}

fn write_words(out: &mut String, words: &[&TimedWord], indent: &str, confidence: bool) {
    let _ = write!(out, "{indent}\"result\" : [");
    for (index, word) in words.iter().enumerate() {
        out.push_str(if index == 0 { "{\n" } else { ", {\n" });
        if confidence {
            let _ = writeln!(out, "{indent}    \"conf\" : {:.6},", word.confidence.unwrap_or(1.0));
        }
        let _ = writeln!(out, "{indent}    \"end\" : {:.6},", word.end);
        let _ = writeln!(out, "{indent}    \"start\" : {:.6},", word.start);
        let _ = write!(out, "{indent}    \"word\" : {}\n{indent}  }}", quoted(&word.word));
    }
    out.push(']');
}

fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    texts.join(" ")
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
