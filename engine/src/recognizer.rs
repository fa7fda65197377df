//! What an engine is to the rest of Starling.
//!
//! Owns: the traits, their errors, and the check of options that all engines share. Must never: know a concrete engine.
//!
//! The contract that failover rests on, checked for every engine by `tests/conformance.rs`:
//! the same audio from an utterance's first sample, in the same steps, under the same options gives the same cuts and
//! the same [`Utterance`]s, bit for bit, on a fresh recognizer or a reused one, and whenever `partial` was called.

use starling_protocol::lease::DecodeOptions;
use starling_protocol::limits::{MAX_ALTERNATIVES, MAX_PHRASE_BYTES, MAX_PHRASES};
use starling_protocol::{CutCause, Utterance};
use thiserror::Error;

/// What an engine can say beyond plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Words with their times.
    pub words: bool,
    /// A confidence for each word or for the whole.
    pub confidences: bool,
    /// Further readings.
    pub alternatives: bool,
    /// A list of phrases to listen for.
    pub phrases: bool,
    /// Texts with punctuation and capital letters; of those that have none, nobody can be given any.
    pub punctuation: bool,
}

/// A loaded engine, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Name and version of the engine.
    pub engine: String,
    /// Within one such string the same audio and options give the same text: engine, library, CPU class.
    pub determinism: String,
    /// The rate of the samples it takes, in Hz.
    pub sample_rate: u32,
    /// What it can say.
    pub capabilities: Capabilities,
}

/// A loaded model that recognizers are opened on. Shared by all decode threads.
pub trait Engine: Send + Sync {
    /// Opens a recognizer that is at an utterance's first sample.
    ///
    /// # Errors
    /// The options can't be served, or the engine has no recognizer to give.
    fn open(&self, options: &DecodeOptions) -> Result<Box<dyn Recognizer>, OpenError>;

    /// What was loaded.
    fn describe(&self) -> &Description;
}

/// One stream's recognizer: cuts audio into utterances and says what they hold.
pub trait Recognizer: Send {
    /// Takes the next samples: one step of the 100 ms grid, or a shorter one before a flush.
    ///
    /// After [`Step::Endpoint`] the caller must call [`finish`](Self::finish) before the next samples.
    ///
    /// # Errors
    /// The engine failed; the recognizer must be dropped.
    fn accept(&mut self, samples: &[i16]) -> Result<Step, DecodeError>;

    /// The text so far of the open utterance. Never changes what `finish` will say.
    ///
    /// # Errors
    /// The engine failed; the recognizer must be dropped.
    fn partial(&mut self) -> Result<String, DecodeError>;

    /// Ends the utterance with the samples taken so far; the next sample is the first of the next one.
    ///
    /// # Errors
    /// The engine failed; the recognizer must be dropped.
    fn finish(&mut self) -> Result<Utterance, DecodeError>;

    /// Drops the open utterance: the next sample is the first of the next one.
    ///
    /// # Errors
    /// The engine failed; the recognizer must be dropped.
    fn reset(&mut self) -> Result<(), DecodeError>;

    /// Takes other options at an utterance's first sample, so that a pooled recognizer can serve any lease. `false`: it
    /// can't, open another; the recognizer is as it was.
    fn adopt(&mut self, options: &DecodeOptions) -> bool;
}

/// What a step of audio led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The utterance goes on.
    Speech,
    /// The utterance ends with this step.
    Endpoint(CutCause),
}

/// An engine or its model can't be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A file of the model or the library is not there.
    #[error("{what} not found at {path}: run `cargo xtask setup`, or `starling models fetch`")]
    Missing {
        /// What the file is.
        what: &'static str,
        /// Where it was looked for.
        path: String,
    },
    /// The shared library can't be opened.
    #[error("{path} cannot be opened as the {what} library: {problem}")]
    Library {
        /// The library's name.
        what: &'static str,
        /// Its path.
        path: String,
        /// What the loader says.
        problem: String,
    },
    /// The model would crash the engine, or decode the same audio to different texts.
    #[error("{path}: {problem}")]
    Model {
        /// The file at fault.
        path: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A rate that the engine or its model does not take.
    #[error("sample_rate is {given} Hz; {allowed}")]
    SampleRate {
        /// The rate that was asked for.
        given: u32,
        /// What would be right.
        allowed: String,
    },
    /// This build leaves the engine out.
    #[error("this starling-decoder was built without the engine {0:?}; build it with that feature")]
    NotBuilt(starling_protocol::lease::EngineKind),
}

/// A recognizer can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// An option has a value that no engine takes.
    #[error("{field} is {given}; {allowed}")]
    Option {
        /// The option.
        field: &'static str,
        /// Its value.
        given: String,
        /// What would be right.
        allowed: String,
    },
    /// This engine or model has no such ability.
    #[error("{engine} does not support {feature}")]
    Unsupported {
        /// The engine.
        engine: String,
        /// What was asked for.
        feature: &'static str,
    },
    /// The engine's library refused.
    #[error("{engine} gave no recognizer: {problem}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// What it says.
        problem: String,
    },
}

/// An engine failed in the middle of an utterance.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The library reported an error.
    #[error("{engine} failed: {problem}")]
    Engine {
        /// The engine.
        engine: &'static str,
        /// What it says.
        problem: String,
    },
    /// The library's answer has an unknown shape.
    #[error("{engine} answered with something unexpected: {problem}")]
    Answer {
        /// The engine.
        engine: &'static str,
        /// What was wrong with it.
        problem: String,
    },
}

/// Least length of a segment's hard cut: below it words can't fit between cuts.
const LEAST_MAX_MS: u32 = 1_000;

/// Greatest length of a hard cut. A failover replays a whole segment, and Moonshine was trained on clips of up to 30 s.
const GREATEST_MAX_MS: u32 = 30_000;

/// Checks what every engine has to know before its library is called.
///
/// # Errors
/// Names the option, its value and what would be right.
pub fn check_options(options: &DecodeOptions, description: &Description) -> Result<(), OpenError> {
    let refuse = |field, given: String, allowed: String| Err(OpenError::Option { field, given, allowed });
    if options.alternatives > MAX_ALTERNATIVES {
        let allowed = format!("0 to {MAX_ALTERNATIVES} are allowed");
        return refuse("alternatives", options.alternatives.to_string(), allowed);
    }
    let cuts = &options.cuts;
    if !(LEAST_MAX_MS..=GREATEST_MAX_MS).contains(&cuts.max_ms) {
        let allowed = format!("{LEAST_MAX_MS} to {GREATEST_MAX_MS} are allowed");
        return refuse("cuts.max_ms", cuts.max_ms.to_string(), allowed);
    }
    if cuts.pause_ms == 0 {
        return refuse("cuts.pause_ms", "0".to_owned(), "a pause has a length of at least 1".to_owned());
    }
    if cuts.no_speech_ms < 500 {
        return refuse(
            "cuts.no_speech_ms",
            cuts.no_speech_ms.to_string(),
            "at least 500 is allowed".to_owned(),
        );
    }
    if options.phrases.is_empty() {
        return Ok(());
    }
    if !description.capabilities.phrases {
        return Err(OpenError::Unsupported { engine: description.engine.clone(), feature: "phrases" });
    }
    if options.phrases.len() > MAX_PHRASES {
        let allowed = format!("at most {MAX_PHRASES} are allowed");
        return refuse("phrases", format!("a list of {}", options.phrases.len()), allowed);
    }
    for phrase in &options.phrases {
        if phrase.trim().is_empty() {
            return refuse("phrases", "a list with an empty phrase".to_owned(), "leave it out".to_owned());
        }
        if phrase.len() > MAX_PHRASE_BYTES {
            let allowed = format!("at most {MAX_PHRASE_BYTES} bytes are allowed in a phrase");
            return refuse("phrases", format!("a list with a phrase of {} bytes", phrase.len()), allowed);
        }
        if phrase.chars().any(char::is_control) {
            let allowed = "control characters are not allowed".to_owned();
            return refuse("phrases", format!("a list with the phrase {phrase:?}"), allowed);
        }
    }
    Ok(())
}
