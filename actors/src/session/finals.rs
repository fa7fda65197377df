//! From what an engine heard to what a client is told: times in seconds from the session's first frame.

use starling_core::audio::RateMap;
use starling_protocol::native::{Final, TimedAlternative, TimedWord};
use starling_protocol::{CutCause, DecodeOffset, Segment, SourceOffset, Utterance, Word};

/// Where a final stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) segment: Segment,
    pub(super) decode_from: DecodeOffset,
    pub(super) from: SourceOffset,
    pub(super) to: SourceOffset,
    pub(super) cause: CutCause,
}

pub(super) fn make_final(rates: &RateMap, place: Place, heard: Utterance, words: bool) -> Final {
    let Place { segment, decode_from, from, to, cause } = place;
    let seconds = |at: SourceOffset| round_to_ms(at.0 as f64 / rates.source_hz() as f64);
    let timed = |heard: Vec<Word>| match words {
        true => heard.into_iter().map(|word| timed_word(rates, decode_from, word)).collect(),
        false => Vec::new(),
    };
    let error = (cause == CutCause::GivenUp)
        .then(|| "this segment could not be decoded: every decoder that tried it died".to_owned());
    Final {
        segment,
        from,
        to,
        start: seconds(from),
        end: seconds(to),
        cause,
        text: heard.text,
        words: timed(heard.words),
        confidence: heard.confidence,
        alternatives: heard
            .alternatives
            .into_iter()
            .map(|reading| TimedAlternative {
                text: reading.text,
                confidence: reading.confidence,
                words: timed(reading.words),
            })
            .collect(),
        error,
    }
}

fn timed_word(rates: &RateMap, from: DecodeOffset, word: Word) -> TimedWord {
    let seconds = |at: u32| round_to_ms((from.0 + u64::from(at)) as f64 / rates.decode_hz() as f64);
    TimedWord {
        start: seconds(word.start),
        end: seconds(word.end),
        word: word.text,
        confidence: word.confidence,
    }
}

/// Engines know times to 10 ms at best; more digits would only be noise on the wire.
fn round_to_ms(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}
