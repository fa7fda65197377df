//! What servers say in each dialect, as far as it is measured.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use starling_protocol::native::ServerMessage;

/// A message of a server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// A session is open, or the connection is to be set up.
    Ready,
    /// All audio before this frame is held.
    Ack(u64),
    /// A text of the open segment, or its last one.
    Text {
        /// The number of its last word.
        last: Option<u32>,
        is_final: bool,
        /// Where the dialect numbers them.
        segment: Option<u64>,
    },
    /// All was told.
    Done,
    /// Nothing that is looked at.
    Other,
}

/// The number of the last word of a text that the scripted engine made of words without letters: `"3: 4: 5:"`.
pub(super) fn last_word(text: &str) -> Option<u32> {
    text.rsplit(' ').next()?.strip_suffix(':')?.parse().ok()
}

fn text(text: &str, is_final: bool, segment: Option<u64>) -> Heard {
    Heard::Text { last: last_word(text), is_final, segment }
}

pub(super) fn native(message: &ServerMessage) -> Result<Heard> {
    Ok(match message {
        ServerMessage::Ready { .. } => Heard::Ready,
        ServerMessage::Ack { until } => Heard::Ack(until.0),
        ServerMessage::Partial { segment, text: said, .. } => text(said, false, Some(segment.0)),
        ServerMessage::Final(last) => text(&last.text, true, Some(last.segment.0)),
        ServerMessage::Done { .. } => Heard::Done,
        ServerMessage::Error(error) => bail!("the server says: {}", error.message),
        _ => Heard::Other,
    })
}

/// As [`native`]. Only what is looked at is read: the callers must cost little.
pub(super) fn native_json(message: &str) -> Result<Heard> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(default)]
        text: String,
        segment: Option<u64>,
        until: Option<u64>,
    }
    let Message { kind, text: said, segment, until } = read(message)?;
    Ok(match (kind, until) {
        ("ready", _) => Heard::Ready,
        ("ack", Some(until)) => Heard::Ack(until),
        ("partial", _) => text(&said, false, segment),
        ("final", _) => text(&said, true, segment),
        ("done", _) => Heard::Done,
        ("error", _) => bail!("the server says: {message}"),
        _ => Heard::Other,
    })
}

pub(super) fn vosk(message: &str) -> Result<Heard> {
    #[derive(Deserialize)]
    struct Message {
        partial: Option<String>,
        text: Option<String>,
    }
    let Message { partial, text: last } = read(message)?;
    match (partial, last) {
        (Some(said), None) => Ok(text(&said, false, None)),
        (None, Some(said)) => Ok(text(&said, true, None)),
        _ => bail!("no reply of vosk-server's: {message}"),
    }
}

pub(super) fn gstreamer(message: &str) -> Result<Heard> {
    #[derive(Deserialize)]
    struct Message {
        status: i64,
        result: Option<Spoken>,
        adaptation_state: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Spoken {
        hypotheses: Vec<Transcript>,
        #[serde(rename = "final")]
        is_final: bool,
    }
    let Message { status, result, adaptation_state } = read(message)?;
    if status != 0 {
        bail!("the server says: {message}");
    }
    Ok(match result {
        Some(Spoken { hypotheses, is_final }) => text(first(&hypotheses), is_final, None),
        None if adaptation_state.is_some() => Heard::Done,
        None => Heard::Other,
    })
}

pub(super) fn deepgram(message: &str) -> Result<Heard> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(default)]
        is_final: bool,
        channel: Option<Channel>,
    }
    #[derive(Deserialize)]
    struct Channel {
        alternatives: Vec<Transcript>,
    }
    let Message { kind, is_final, channel } = read(message)?;
    Ok(match (kind, channel) {
        ("Results", Some(channel)) => text(first(&channel.alternatives), is_final, None),
        ("Metadata", _) => Heard::Done,
        ("Error", _) => bail!("the server says: {message}"),
        _ => Heard::Other,
    })
}

/// Deltas are left out: they tell words that the next partial has confirmed, and so are late by design.
pub(super) fn realtime(message: &str) -> Result<Heard> {
    #[derive(Deserialize)]
    struct Message<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(default)]
        transcript: String,
    }
    let Message { kind, transcript } = read(message)?;
    Ok(match kind {
        "session.created" => Heard::Ready,
        "conversation.item.input_audio_transcription.completed" => text(&transcript, true, None),
        "error" | "conversation.item.input_audio_transcription.failed" => {
            bail!("the server says: {message}")
        }
        _ => Heard::Other,
    })
}

#[derive(Deserialize)]
struct Transcript {
    transcript: String,
}

fn first(readings: &[Transcript]) -> &str {
    readings.first().map_or("", |reading| reading.transcript.as_str())
}

fn read<'a, M: Deserialize<'a>>(message: &'a str) -> Result<M> {
    serde_json::from_str(message).with_context(|| format!("a message that was not expected: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(last: u32, is_final: bool, segment: Option<u64>) -> Heard {
        Heard::Text { last: Some(last), is_final, segment }
    }

    #[test]
    fn the_last_word_is_found_and_damage_is_not_taken_for_one() {
        assert_eq!(["0:", "3: 4: 15:"].map(last_word), [Some(0), Some(15)]);
        assert_eq!(["", "-", "3: !4", "4:word"].map(last_word), [None; 4]);
    }

    #[test]
    fn every_dialect_is_read() {
        let partial = r#"{"type":"partial","segment":2,"from":0,"until":3200,"text":"0: 1:"}"#;
        assert_eq!(native_json(partial).unwrap(), said(1, false, Some(2)));
        assert_eq!(native_json(r#"{"type":"ack","until":1600}"#).unwrap(), Heard::Ack(1_600));
        assert_eq!(vosk(r#"{"partial" : "7:"}"#).unwrap(), said(7, false, None));
        assert_eq!(
            vosk(r#"{"text" : ""}"#).unwrap(),
            Heard::Text { last: None, is_final: true, segment: None }
        );
        let event =
            r#"{"status":0,"segment":0,"result":{"hypotheses":[{"transcript":"9:"}],"final":true},"id":"x"}"#;
        assert_eq!(gstreamer(event).unwrap(), said(9, true, None));
        assert_eq!(gstreamer(r#"{"status":0,"adaptation_state":{"id":"x"}}"#).unwrap(), Heard::Done);
        let result =
            r#"{"type":"Results","is_final":false,"channel":{"alternatives":[{"transcript":"1: 2:"}]}}"#;
        assert_eq!(deepgram(result).unwrap(), said(2, false, None));
        let completed =
            r#"{"type":"conversation.item.input_audio_transcription.completed","transcript":"4:"}"#;
        assert_eq!(realtime(completed).unwrap(), said(4, true, None));
    }

    #[test]
    fn refusals_are_errors() {
        assert!(native_json(r#"{"type":"error","code":"busy","message":"no decoder is free"}"#).is_err());
        assert!(gstreamer(r#"{"status":9,"message":"No decoder available"}"#).is_err());
        assert!(vosk("{}").is_err());
        assert!(realtime(r#"{"type":"error","error":{}}"#).is_err());
    }
}
