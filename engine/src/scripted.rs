//! The scripted engine: reads its text out of the samples. For tests and load only; it recognises no speech.
//!
//! Owns: the engine and its [`encoding`]. Must never: be offered where a caller expects recognition.
//!
//! Each block of samples says `number:word`, so that a lost, repeated or reordered block shows in the text; a block with a
//! wrong sample in it says `!number`, and samples that belong to no block say `-`. Blocks of zeros are silence, and
//! [`ENDPOINT_SILENCE_MS`] of it after a word is the endpoint. Some blocks do harm instead: see [`Harm`].

pub mod encoding;

use std::path::Path;

use starling_protocol::lease::DecodeOptions;
use starling_protocol::{Utterance, Word};

use crate::catalogue::{self, EngineKind};
use crate::cut::{Activity, CutRule};
use crate::recognizer::check_options;
use crate::{DecodeError, Description, Engine, OpenError, Recognizer, Step};
pub use encoding::{BLOCK_SAMPLES, Harm, SAMPLE_RATE, encode, encode_from, harm, silence};
use encoding::{Parser, Symbol};

/// Silence after a word that ends the utterance: five blocks.
pub const ENDPOINT_SILENCE_MS: u32 = 500;

/// Loads nothing.
#[derive(Debug)]
pub struct Scripted {
    description: Description,
}

impl Scripted {
    /// The engine.
    #[must_use]
    pub fn new() -> Self {
        let capabilities = catalogue::capabilities(EngineKind::Scripted, Path::new(""));
        let description = Description {
            engine: "scripted".to_owned(),
            determinism: "scripted".to_owned(),
            sample_rate: SAMPLE_RATE,
            capabilities,
        };
        Self { description }
    }
}

impl Default for Scripted {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for Scripted {
    fn open(&self, options: &DecodeOptions) -> Result<Box<dyn Recognizer>, OpenError> {
        check_options(options, &self.description)?;
        Ok(Box::new(Reader {
            cuts: CutRule::new(&options.cuts, SAMPLE_RATE, Some(ENDPOINT_SILENCE_MS)),
            words_wanted: options.words,
            parser: Parser::default(),
            words: Vec::new(),
            spoke: false,
            silence: 0,
        }))
    }

    fn describe(&self) -> &Description {
        &self.description
    }
}

struct Reader {
    cuts: CutRule,
    words_wanted: bool,
    parser: Parser,
    words: Vec<Word>,
    spoke: bool,
    silence: u32,
}

impl Recognizer for Reader {
    fn accept(&mut self, samples: &[i16]) -> Result<Step, DecodeError> {
        for sample in samples {
            match self.parser.push(*sample) {
                None => {}
                Some(Symbol::Silence) => self.silence += 1,
                Some(symbol) => {
                    self.silence = 0;
                    self.spoke = true;
                    self.take(symbol)?;
                }
            }
        }
        let activity = Activity { spoke: self.spoke, silence: self.silence };
        Ok(self.cuts.step(samples.len(), activity, false).map_or(Step::Speech, Step::Endpoint))
    }

    fn partial(&mut self) -> Result<String, DecodeError> {
        Ok(text(&self.words))
    }

    fn finish(&mut self) -> Result<Utterance, DecodeError> {
        if let Some(symbol) = self.parser.finish() {
            self.take(symbol)?;
        }
        let words = std::mem::take(&mut self.words);
        self.reset()?;
        Ok(Utterance {
            text: text(&words),
            confidence: (!words.is_empty()).then_some(1.0),
            words: if self.words_wanted { words } else { Vec::new() },
            alternatives: Vec::new(),
        })
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        self.parser = Parser::default();
        self.words.clear();
        self.spoke = false;
        self.silence = 0;
        self.cuts.reset();
        Ok(())
    }

    fn adopt(&mut self, options: &DecodeOptions) -> bool {
        self.cuts = CutRule::new(&options.cuts, SAMPLE_RATE, Some(ENDPOINT_SILENCE_MS));
        self.words_wanted = options.words;
        options.phrases.is_empty()
    }
}

impl Reader {
    fn take(&mut self, symbol: Symbol) -> Result<(), DecodeError> {
        let (start, said) = match symbol {
            Symbol::Silence | Symbol::Started => return Ok(()),
            Symbol::Word { start, number, word } => (start, format!("{number}:{word}")),
            Symbol::Damaged { start, number } => (start, format!("!{number}")),
            Symbol::Stray { start } => (start, "-".to_owned()),
            Symbol::Harm { start, number, harm, once } => {
                (start, format!("{number}:{}", encoding::inflict(harm, &once)?))
            }
        };
        let end = self.parser.position();
        self.words.push(Word { text: said, start, end, confidence: Some(1.0) });
        Ok(())
    }
}

fn text(words: &[Word]) -> String {
    words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
