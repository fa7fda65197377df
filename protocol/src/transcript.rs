//! What an engine makes of an utterance. Times count decoder samples from the utterance's first sample.

use serde::{Deserialize, Serialize};

/// One recognised word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The word as the engine writes it.
    pub text: String,
    /// First sample, counted at the model's rate from the utterance's first sample.
    pub start: u32,
    /// Sample after the last.
    pub end: u32,
    /// How sure the engine is, 0 to 1; `None` where the engine doesn't say.
    pub confidence: Option<f32>,
}

/// Another reading of the same utterance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The reading's text.
    pub text: String,
    /// The engine's own score; higher is better, the scale is the engine's.
    pub confidence: f32,
    /// The reading's words, when words were asked for.
    pub words: Vec<Word>,
}

/// What a recognizer says of one utterance.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Utterance {
    /// The text; empty when nothing was said.
    pub text: String,
    /// The words with their times, where the engine has them and they were asked for.
    pub words: Vec<Word>,
    /// How sure the engine is of the whole, 0 to 1; `None` where it doesn't say.
    pub confidence: Option<f32>,
    /// Further readings, best first, when they were asked for. The first of them is this utterance's own text.
    pub alternatives: Vec<Alternative>,
}

/// Why a segment ended where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CutCause {
    /// The engine heard the end of an utterance.
    Endpoint,
    /// A short pause, late in a long segment.
    Pause,
    /// The longest a segment may be.
    Length,
    /// Nothing was said for a while; the text is empty.
    NoSpeech,
    /// The client asked for a final.
    Finalize,
    /// The client's audio ended.
    End,
    /// The segment could not be decoded; the final carries an error.
    GivenUp,
}
