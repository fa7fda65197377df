//! What libvosk answers, read leniently: fields it leaves out are empty, fields it adds are skipped.
//!
//! Owns: JSON to [`Utterance`], times counted from the utterance's first sample, the filter of junk tokens. Must never: fail
//! on a shape that still holds a text.

use serde::Deserialize;
use starling_protocol::{Alternative, Utterance, Word};

use crate::DecodeError;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    text: String,
    partial: String,
    result: Vec<RawWord>,
    alternatives: Vec<RawAlternative>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawAlternative {
    text: String,
    confidence: f32,
    result: Vec<RawWord>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawWord {
    word: String,
    start: f64,
    end: f64,
    conf: Option<f32>,
}

/// The text so far.
pub(super) fn partial(json: &str) -> Result<String, DecodeError> {
    Ok(clean(&read(json)?.partial))
}

/// A final result. `base_s` is the recognizer's time at the utterance's first sample; `length` its length in samples.
pub(super) fn utterance(json: &str, base_s: f64, rate: u32, length: u64) -> Result<Utterance, DecodeError> {
    let answer = read(json)?;
    let clock = Times { base_s, rate, length };
    let alternatives: Vec<Alternative> = answer
        .alternatives
        .iter()
        .map(|reading| Alternative {
            text: clean(&reading.text),
            confidence: reading.confidence,
            words: clock.words(&reading.result),
        })
        .collect();
    if let Some(best) = alternatives.first() {
        let (text, words) = (best.text.clone(), best.words.clone());
        return Ok(Utterance { text, words, confidence: None, alternatives });
    }
    let words = clock.words(&answer.result);
    let sum: f32 = words.iter().filter_map(|word| word.confidence).sum();
    let confidence = (!words.is_empty()).then(|| to_two_digits(sum / words.len() as f32));
    Ok(Utterance { text: clean(&answer.text), words, confidence, alternatives })
}

fn read(json: &str) -> Result<Answer, DecodeError> {
    serde_json::from_str(json)
        .map_err(|error| DecodeError::Answer { engine: "vosk", problem: format!("{error} in {json:?}") })
}

/// Some models print the numbers of symbols that are no words, such as `[2]`.
fn is_junk(token: &str) -> bool {
    let number = token.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn clean(text: &str) -> String {
    text.split_whitespace().filter(|token| !is_junk(token)).collect::<Vec<_>>().join(" ")
}

/// A confidence is a sum over a lattice, in an order that depends on what the recognizer heard before: beyond the third
/// digit it says nothing, and would only make equal results look different.
fn to_two_digits(confidence: f32) -> f32 {
    (confidence * 100.0).round() / 100.0
}

struct Times {
    base_s: f64,
    rate: u32,
    length: u64,
}

impl Times {
    fn words(&self, raw: &[RawWord]) -> Vec<Word> {
        let kept = raw.iter().filter(|word| !is_junk(&word.word));
        kept.map(|word| {
            let start = self.sample(word.start);
            let end = self.sample(word.end).max(start);
            Word { text: word.word.clone(), start, end, confidence: word.conf.map(to_two_digits) }
        })
        .collect()
    }

    /// Kaldi's times are whole frames of 10 ms, printed after an addition in single precision; rounding to the frame gives
    /// the same number whatever was added.
    fn sample(&self, time_s: f64) -> u32 {
        let frames = ((time_s - self.base_s) * 100.0).round().max(0.0);
        let sample = frames * f64::from(self.rate) / 100.0;
        (sample as u64).min(self.length).try_into().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_count_from_the_utterance_and_junk_is_gone() {
        let json = r#"{"result":[{"conf":0.5,"end":10.36,"start":10.2,"word":"안녕"},
            {"conf":1,"end":10.5,"start":10.4,"word":"[2]"}],"text":"안녕 [2]","new":1}"#;
        let said = utterance(json, 10.0, 16_000, 8_000).expect("reads");
        assert_eq!(said.text, "안녕");
        assert_eq!((said.words[0].start, said.words[0].end, said.words.len()), (3_200, 5_760, 1));
        assert_eq!(said.confidence, Some(0.5));
    }

    #[test]
    fn times_are_the_same_after_hours() {
        for base in [0.0_f64, 12.3, 3_599.7, 20_000.4] {
            let time = f64::from(base as f32 + 1.23_f32);
            let json = format!(r#"{{"result":[{{"start":{time},"end":{time},"word":"a"}}],"text":"a"}}"#);
            let said = utterance(&json, base, 16_000, 160_000).expect("reads");
            assert_eq!(said.words[0].start, 19_680, "{base}");
        }
    }

    #[test]
    fn alternatives_name_the_text() {
        let json = r#"{"alternatives":[{"confidence":200.1,"text":"a b"},{"confidence":190,"text":"a"}]}"#;
        let said = utterance(json, 0.0, 16_000, 1).expect("reads");
        assert_eq!((said.text.as_str(), said.alternatives.len()), ("a b", 2));
    }

    #[test]
    fn other_shapes_are_empty_or_an_error_but_no_panic() {
        assert_eq!(utterance("{}", 0.0, 16_000, 1).expect("reads"), Utterance::default());
        assert!(utterance("nonsense", 0.0, 16_000, 1).is_err());
        assert!(partial("").is_err());
    }
}
