//! Vosk: Kaldi by way of libvosk, opened at run time.
//!
//! Owns: the engine over [`library`]'s safe handles, the checks of [`model`], the reading of [`answer`]s. Must never: call the
//! library with anything that was not checked: it answers bad input by ending the process.
//!
//! An utterance is a pure function of its audio because every segment ends with `final_result`, which rebuilds the feature
//! pipeline; `result` would carry the speaker adaptation over, and a replay from the segment's first sample would differ.

mod answer;
pub mod fuzzing;
mod library;
mod model;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use starling_protocol::lease::DecodeOptions;
use starling_protocol::limits::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::{CutCause, Utterance};

use crate::catalogue::{self, EngineKind, PHRASES_FOLDER};
use crate::cut::{CutRule, VoiceActivity};
use crate::energy::EnergyActivity;
use crate::recognizer::check_options;
use crate::{DecodeError, Description, Engine, LoadError, OpenError, Recognizer, Step, load, pin};

/// File of the shared library in its folder.
pub const LIBRARY_FILE: &str = "libvosk.so";

/// A loaded Vosk model.
pub struct Vosk {
    library: Arc<library::Library>,
    model: Arc<library::Model>,
    description: Description,
    phrases: Phrases,
    #[cfg(feature = "measure")]
    keeps_adaptation: bool,
}

/// What lists of phrases are recognized with. A graph that was composed in advance can't be narrowed to them.
enum Phrases {
    /// The model itself: its graph is composed while it decodes.
    Same,
    /// The same model in two halves, in this folder; loaded when the first list comes.
    Halves(PathBuf, Mutex<Option<Arc<library::Model>>>),
    /// Nothing.
    Unsupported,
}

impl Vosk {
    /// Opens the library, checks the model's folder, loads it: about 1 s and 1 GB for a small model whose graph is composed.
    ///
    /// # Errors
    /// A file is missing, or the model is one that would end the process or decode differently from run to run.
    pub fn load(library_dir: &Path, model_dir: &Path, sample_rate: u32) -> Result<Self, LoadError> {
        // Below, libvosk aborts or loops; above, no speech comes.
        if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&sample_rate) {
            let allowed = format!("{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} are allowed");
            return Err(LoadError::SampleRate { given: sample_rate, allowed });
        }
        load::require(library_dir, &[LIBRARY_FILE], "the Vosk library")?;
        let shape = model::check(model_dir)?;
        let halves = model_dir.join(PHRASES_FOLDER);
        let phrases = if !shape.composed {
            Phrases::Same
        } else if halves.is_dir() {
            model::check(&halves)?;
            Phrases::Halves(halves, Mutex::new(None))
        } else {
            Phrases::Unsupported
        };
        let library = Arc::new(library::Library::open(&library_dir.join(LIBRARY_FILE))?);
        let model = Arc::new(library::Model::load(Arc::clone(&library), model_dir)?);
        let description = Description {
            engine: "vosk 0.3.45".to_owned(),
            determinism: format!("vosk 0.3.45; {}", blas_core()),
            sample_rate,
            capabilities: catalogue::capabilities(EngineKind::Vosk, model_dir),
        };
        Ok(Self {
            library,
            model,
            description,
            phrases,
            #[cfg(feature = "measure")]
            keeps_adaptation: false,
        })
    }

    /// Ends utterances with `result` from now on, to measure what `final_result` costs in accuracy. What such recognizers hear
    /// depends on what they heard before: for no other use.
    #[cfg(feature = "measure")]
    pub const fn keep_adaptation(&mut self) {
        self.keeps_adaptation = true;
    }

    /// The model for a list of phrases. At least one word has to be known: of a list without any the library makes an
    /// empty graph and then ends the process.
    fn model_for(&self, phrases: &[String]) -> Result<Arc<library::Model>, OpenError> {
        let model = match &self.phrases {
            Phrases::Same => Arc::clone(&self.model),
            Phrases::Halves(folder, loaded) => {
                // A loader that panicked left `None`.
                let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(model) = &*loaded {
                    Arc::clone(model)
                } else {
                    let model = library::Model::load(Arc::clone(&self.library), folder);
                    let model = model
                        .map_err(|error| OpenError::Engine { engine: "vosk", problem: error.to_string() })?;
                    Arc::clone(loaded.insert(Arc::new(model)))
                }
            }
            Phrases::Unsupported => {
                return Err(OpenError::Unsupported {
                    engine: self.description.engine.clone(),
                    feature: "phrases with a model whose graph was composed elsewhere",
                });
            }
        };
        let mut words = phrases.iter().flat_map(|phrase| phrase.split_whitespace());
        if words.any(|word| model.knows(word)) {
            return Ok(model);
        }
        Err(OpenError::Option {
            field: "phrases",
            given: "a list of which the model knows no word".to_owned(),
            allowed: "name words of the model's vocabulary".to_owned(),
        })
    }
}

/// The kernels OpenBLAS was told to use, or the fact that nobody told it.
fn blas_core() -> String {
    std::env::var("OPENBLAS_CORETYPE").unwrap_or_else(|_| format!("unpinned on {}", pin::cpu_class()))
}

impl Engine for Vosk {
    fn open(&self, options: &DecodeOptions) -> Result<Box<dyn Recognizer>, OpenError> {
        check_options(options, &self.description)?;
        let rate = self.description.sample_rate;
        let native = if options.phrases.is_empty() {
            library::Recognizer::open(&self.model, rate)?
        } else {
            let model = self.model_for(&options.phrases)?;
            library::Recognizer::open_with_phrases(&model, rate, &options.phrases)?
        };
        native.set_options(options.words, options.alternatives);
        Ok(Box::new(Stream {
            native,
            cuts: CutRule::new(&options.cuts, rate, None),
            voice: EnergyActivity::new(rate),
            rate,
            before: 0,
            said_something: false,
            ended: None,
            restricted: !options.phrases.is_empty(),
            #[cfg(feature = "measure")]
            keeps_adaptation: self.keeps_adaptation,
        }))
    }

    fn describe(&self) -> &Description {
        &self.description
    }
}

struct Stream {
    native: library::Recognizer,
    cuts: CutRule,
    voice: EnergyActivity,
    rate: u32,
    /// Samples the native recognizer heard before this utterance; its word times count them.
    before: u64,
    /// The decoder has words where loudness heard no speech.
    said_something: bool,
    /// What a cut in `accept` has said already.
    ended: Option<Utterance>,
    /// It was opened with a phrase list, which can't be taken away.
    restricted: bool,
    #[cfg(feature = "measure")]
    keeps_adaptation: bool,
}

impl Recognizer for Stream {
    fn accept(&mut self, samples: &[i16]) -> Result<Step, DecodeError> {
        if self.ended.is_some() {
            let problem = "more audio before the ended utterance was finished".to_owned();
            return Err(DecodeError::Engine { engine: "vosk", problem });
        }
        if samples.is_empty() {
            return Ok(Step::Speech);
        }
        let endpoint = self.native.accept(samples)?;
        let Ok(mut activity) = self.voice.step(samples);
        activity.spoke |= self.said_something;
        let Some(cause) = self.cuts.step(samples.len(), activity, endpoint) else { return Ok(Step::Speech) };
        if cause == CutCause::NoSpeech && !self.partial()?.is_empty() {
            self.said_something = true;
            return Ok(Step::Speech);
        }
        let utterance = self.end()?;
        // The endpoint after five seconds without a word is the library's way to say so.
        let silent = utterance.text.is_empty() && matches!(cause, CutCause::Endpoint | CutCause::NoSpeech);
        self.ended = Some(if silent { Utterance::default() } else { utterance });
        Ok(Step::Endpoint(match cause {
            CutCause::NoSpeech if !silent => CutCause::Endpoint,
            CutCause::Endpoint if silent => CutCause::NoSpeech,
            other => other,
        }))
    }

    fn partial(&mut self) -> Result<String, DecodeError> {
        if let Some(utterance) = &self.ended {
            return Ok(utterance.text.clone());
        }
        if self.cuts.length() == 0 {
            return Ok(String::new());
        }
        answer::partial(&self.native.partial_result()?)
    }

    fn finish(&mut self) -> Result<Utterance, DecodeError> {
        let utterance = match self.ended.take() {
            Some(utterance) => utterance,
            None if self.cuts.length() == 0 => Utterance::default(),
            None => self.end()?,
        };
        self.begin();
        Ok(utterance)
    }

    fn reset(&mut self) -> Result<(), DecodeError> {
        // The library's own reset keeps the speaker adaptation; a final result is what starts over.
        if self.cuts.length() > 0 && self.ended.is_none() {
            self.native.final_result()?;
        }
        self.begin();
        Ok(())
    }

    fn adopt(&mut self, options: &DecodeOptions) -> bool {
        if self.restricted || !options.phrases.is_empty() {
            return false;
        }
        self.native.set_options(options.words, options.alternatives);
        self.cuts = CutRule::new(&options.cuts, self.rate, None);
        true
    }
}

impl Stream {
    fn end(&mut self) -> Result<Utterance, DecodeError> {
        let answer = self.last_answer()?;
        let base_s = self.before as f64 / f64::from(self.rate);
        answer::utterance(&answer, base_s, self.rate, self.cuts.length())
    }

    fn last_answer(&mut self) -> Result<String, DecodeError> {
        #[cfg(feature = "measure")]
        if self.keeps_adaptation {
            return self.native.result();
        }
        self.native.final_result()
    }

    fn begin(&mut self) {
        self.before += self.cuts.length();
        self.cuts.reset();
        self.voice.reset();
        self.said_something = false;
        self.ended = None;
    }
}
