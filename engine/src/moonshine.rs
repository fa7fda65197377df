//! Moonshine: a small English transformer on ONNX Runtime, with Silero for voice activity.
//!
//! Owns: the engine, and which part of a segment is decoded. Must never: let a partial change a final, or say word times,
//! which the model does not have.
//!
//! The model hears a whole segment at once. What is decoded is the part from just before the first speech to just after the
//! last, so silence around it costs nothing and can't be taken for words; a segment without speech is empty without asking
//! the model. The text is a pure function of that part, so a partial's text for the very same part is the final's.

pub mod fuzzing;
mod model;
mod runtime;
mod silero;
mod tokenizer;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use starling_protocol::Utterance;
use starling_protocol::lease::DecodeOptions;

use crate::catalogue::{self, EngineKind};
use crate::cut::{CutRule, VoiceActivity};
use crate::recognizer::check_options;
use crate::{DecodeError, Description, Engine, LoadError, OpenError, Recognizer, Step, load};
use model::Model;
use runtime::Runtime;
use silero::Silero;

/// File of the shared library in its folder.
pub const LIBRARY_FILE: &str = "libonnxruntime.so.1";

/// Files of a model.
pub const MODEL_FILES: [&str; 4] =
    ["encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin", "silero_vad.onnx"];

/// The rate that the model and Silero hear, in Hz.
const SAMPLE_RATE: u32 = 16_000;

/// Silence after speech that ends an utterance. The model needs its context: on 9 recordings of 190 words 800 ms gives 4.7 %
/// word errors, 700 ms 6.8 %, 600 ms 6.8 %, whole recordings 4.7 %.
const ENDPOINT_SILENCE_MS: u32 = 800;

/// Decoded before the first window that Silero takes for speech: soft onsets lie before it. 200 ms was the best of 150 to
/// 500 ms on the same recordings.
const BEFORE_SPEECH: usize = 3_200;

/// Decoded after the last such window: soft endings lie behind it.
const AFTER_SPEECH: usize = 3_200;

/// A loaded model.
pub struct Moonshine {
    shared: Arc<Shared>,
    description: Description,
}

struct Shared {
    model: Model,
    silero: Silero,
}

impl Moonshine {
    /// Opens the library and loads the model and Silero.
    ///
    /// # Errors
    /// A file is missing, is no such model, or the rate is not the model's.
    pub fn load(library_dir: &Path, model_dir: &Path, sample_rate: u32) -> Result<Self, LoadError> {
        if sample_rate != SAMPLE_RATE {
            let allowed = format!("Moonshine hears {SAMPLE_RATE}");
            return Err(LoadError::SampleRate { given: sample_rate, allowed });
        }
        load::require(library_dir, &[LIBRARY_FILE], "ONNX Runtime")?;
        load::require(model_dir, &MODEL_FILES, "a file of the Moonshine model")?;
        let runtime = Runtime::open(&library_dir.join(LIBRARY_FILE))?;
        let shared = Shared {
            model: Model::load(&runtime, model_dir)?,
            silero: Silero::load(&runtime, &model_dir.join("silero_vad.onnx"))?,
        };
        let description = Description {
            engine: format!("moonshine on onnxruntime {}", runtime.version()),
            determinism: format!("moonshine; onnxruntime {}", runtime.version()),
            sample_rate,
            capabilities: catalogue::capabilities(EngineKind::Moonshine, model_dir),
        };
        Ok(Self { shared: Arc::new(shared), description })
    }
}

impl Engine for Moonshine {
    fn open(&self, options: &DecodeOptions) -> Result<Box<dyn Recognizer>, OpenError> {
        check_options(options, &self.description)?;
        Ok(Box::new(Stream {
            voice: silero::Activity::new(Arc::clone(&self.shared)),
            shared: Arc::clone(&self.shared),
            cuts: CutRule::new(&options.cuts, SAMPLE_RATE, Some(ENDPOINT_SILENCE_MS)),
            samples: Vec::new(),
            decoded: None,
        }))
    }

    fn describe(&self) -> &Description {
        &self.description
    }
}

struct Stream {
    shared: Arc<Shared>,
    voice: silero::Activity,
    cuts: CutRule,
    /// The open segment, as the model takes it; the hard cut bounds it.
    samples: Vec<f32>,
    /// The last part that was decoded, and its text.
    decoded: Option<(Range<usize>, String)>,
}

impl Recognizer for Stream {
    fn accept(&mut self, samples: &[i16]) -> Result<Step, DecodeError> {
        self.samples.extend(samples.iter().map(|sample| f32::from(*sample) / 32_768.0));
        let activity = self.voice.step(samples)?;
        Ok(self.cuts.step(samples.len(), activity, false).map_or(Step::Speech, Step::Endpoint))
    }

    fn partial(&mut self) -> Result<String, DecodeError> {
        let Some(part) = self.part() else { return Ok(String::new()) };
        if let Some((decoded, text)) = &self.decoded {
            // While silence runs on, only the silent tail grows; once it is whole the text is the final's, and is decoded.
            let nothing_new = self.voice.speech().is_some_and(|speech| speech.end <= decoded.end);
            if nothing_new && part.end == self.samples.len() {
                return Ok(text.clone());
            }
        }
        self.decode(part)
    }

    fn finish(&mut self) -> Result<Utterance, DecodeError> {
        let text = match self.part() {
            Some(part) => self.decode(part)?,
            None => String::new(),
        };
        self.reset()?;
        Ok(Utterance { text, words: Vec::new(), confidence: None, alternatives: Vec::new() })
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        self.samples.clear();
        self.decoded = None;
        self.cuts.reset();
        self.voice.reset();
        Ok(())
    }

    fn adopt(&mut self, options: &DecodeOptions) -> bool {
        self.cuts = CutRule::new(&options.cuts, SAMPLE_RATE, Some(ENDPOINT_SILENCE_MS));
        options.phrases.is_empty()
    }
}

impl Stream {
    /// The part of the segment with speech in it.
    fn part(&self) -> Option<Range<usize>> {
        let speech = self.voice.speech()?;
        let end = (speech.end + AFTER_SPEECH).min(self.samples.len());
        Some(speech.start.saturating_sub(BEFORE_SPEECH)..end)
    }

    fn decode(&mut self, part: Range<usize>) -> Result<String, DecodeError> {
        if let Some((decoded, text)) = &self.decoded
            && *decoded == part
        {
            return Ok(text.clone());
        }
        let text = self.shared.model.transcribe(&self.samples[part.clone()])?;
        self.decoded = Some((part, text.clone()));
        Ok(text)
    }
}
