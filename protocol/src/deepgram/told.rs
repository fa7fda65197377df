//! What a stream's client is told of the session's events.

use serde_json::{Value, json};

use super::{Answerer, Listen, alternative};
use crate::native::Final;
use crate::{CutCause, SourceOffset};

/// A session as this dialect's clients hear it. Its results adjoin: each final begins where the one before it ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Teller {
    answerer: Answerer,
    /// Which channel it is, and of how many.
    channel: [u8; 2],
    sample_rate: u32,
    interim: bool,
    vad_events: bool,
    utterance_end_s: Option<f64>,
    /// Whether the open segment has words.
    speaking: bool,
    /// Where the last word of a final ended, until the client heard that nobody speaks.
    last_word_end: Option<f64>,
}

impl Teller {
    /// For a session of audio with so many frames a second: one channel of several, by its place, or all of them as one.
    #[must_use]
    pub fn new(answerer: Answerer, channel: [u8; 2], sample_rate: u32, listen: &Listen) -> Self {
        Self {
            answerer,
            channel,
            sample_rate: sample_rate.max(1),
            interim: listen.interim,
            vad_events: listen.vad_events,
            utterance_end_s: listen.utterance_end_ms.map(|ms| f64::from(ms) / 1_000.0),
            speaking: false,
            last_word_end: None,
        }
    }

    /// Who answers.
    #[must_use]
    pub const fn answerer(&self) -> &Answerer {
        &self.answerer
    }

    /// The text so far of the open segment. Where it has none up to here, nobody has spoken since the last final.
    pub fn partial(&mut self, from: SourceOffset, until: SourceOffset, text: &str, out: &mut Vec<String>) {
        self.note_speech(!text.is_empty(), from, out);
        if self.interim {
            let (start, end) = (self.seconds(from), self.seconds(until));
            let result = self.result(start, end, &alternative(text, &[], None));
            out.push(result.to_string());
        }
        self.note_silence(self.seconds(until), out);
    }

    /// A final. One that was made because nothing was said, or that could not be decoded, is told as one without words.
    pub fn last(&mut self, last: &Final, out: &mut Vec<String>) {
        self.note_speech(!last.text.is_empty(), last.from, out);
        self.speaking = false;
        let (start, end) = (self.seconds(last.from), self.seconds(last.to));
        let mut result = self.result(start, end, &alternative(&last.text, &last.words, last.confidence));
        result["is_final"] = true.into();
        result["speech_final"] = ends_speech(last.cause).into();
        result["from_finalize"] = (last.cause == CutCause::Finalize).into();
        out.push(result.to_string());
        if !last.text.is_empty() {
            self.last_word_end = Some(last.words.last().map_or(end, |word| word.end));
        }
        self.note_silence(end, out);
    }

    fn note_speech(&mut self, words: bool, from: SourceOffset, out: &mut Vec<String>) {
        if words && !self.speaking && self.vad_events {
            let timestamp = self.seconds(from);
            let event = json!({ "type": "SpeechStarted", "channel": self.channel, "timestamp": timestamp });
            out.push(event.to_string());
        }
        self.speaking |= words;
    }

    fn note_silence(&mut self, now: f64, out: &mut Vec<String>) {
        let (Some(gap), Some(last_word_end)) = (self.utterance_end_s, self.last_word_end) else { return };
        if !self.speaking && millis(now - last_word_end) >= gap {
            self.last_word_end = None;
            let event =
                json!({ "type": "UtteranceEnd", "channel": self.channel, "last_word_end": last_word_end });
            out.push(event.to_string());
        }
    }

    fn result(&self, start: f64, end: f64, alternative: &Value) -> Value {
        json!({
            "type": "Results",
            "channel_index": self.channel,
            "start": start,
            "duration": millis(end - start),
            "is_final": false,
            "speech_final": false,
            "from_finalize": false,
            "channel": { "alternatives": [alternative] },
            "metadata": {
                "request_id": self.answerer.request_id,
                "model_info": self.answerer.model_info(),
                "model_uuid": self.answerer.model_uuid,
            },
        })
    }

    /// The time of a frame, from the first.
    #[must_use]
    pub fn seconds(&self, at: SourceOffset) -> f64 {
        millis(at.0 as f64 / f64::from(self.sample_rate))
    }
}

/// To the millisecond: what is shown is no sum of rounding errors.
fn millis(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

const fn ends_speech(cause: CutCause) -> bool {
    matches!(cause, CutCause::Endpoint | CutCause::Pause | CutCause::Finalize | CutCause::End)
}
