//! Silero: the probability of speech for each window of 32 ms.
//!
//! Owns: windows, the network's state between them, and what counts as speech. Must never: keep anything across segments.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ort::inputs;
use ort::value::{Tensor, TensorRef};

use super::Shared;
use super::runtime::{Runtime, Sessions, failed, unexpected};
use crate::cut::{self, VoiceActivity};
use crate::{DecodeError, LoadError};

/// Samples the network takes at a time at 16 kHz.
const WINDOW: usize = 512;

/// Samples of the window before that it wants to see again.
const CONTEXT: usize = 64;

/// Size of its state: two layers of 128.
const STATE: [usize; 3] = [2, 1, 128];

/// Speech begins at this probability and goes on down to the lower one: the network's authors use both.
const BEGINS: f32 = 0.5;
const GOES_ON: f32 = 0.35;

/// Windows in a row before it counts: 64 ms; a click is shorter.
const LEAST_WINDOWS: usize = 2;

/// The loaded network.
pub(super) struct Silero {
    sessions: Sessions,
}

impl Silero {
    pub(super) fn load(runtime: &Runtime, path: &Path) -> Result<Self, LoadError> {
        let sessions = Sessions::load(*runtime, path)?;
        let inputs = sessions.inputs();
        if ["input", "state", "sr"].iter().all(|wanted| inputs.iter().any(|input| input == wanted)) {
            return Ok(Self { sessions });
        }
        let problem = format!("its inputs are {inputs:?}; Silero 5 or 6 has input, state and sr");
        Err(LoadError::Model { path: path.display().to_string(), problem })
    }

    /// The probability of speech in a window with its context in front; `state` is carried on.
    fn window(&self, samples: &[f32], state: &mut Vec<f32>) -> Result<f32, DecodeError> {
        self.sessions.with(|session| {
            let outputs = session
                .run(inputs![
                    "input" => TensorRef::from_array_view(([1_usize, samples.len()], samples)).map_err(failed)?,
                    "state" => TensorRef::from_array_view((STATE, state.as_slice())).map_err(failed)?,
                    "sr" => Tensor::from_array((Vec::<i64>::new(), vec![16_000_i64])).map_err(failed)?,
                ])
                .map_err(failed)?;
            let read = |name: &str| {
                let output = outputs.get(name).ok_or_else(|| unexpected(format!("Silero gave no {name}")))?;
                output.try_extract_tensor::<f32>().map(|(_, values)| values).map_err(failed)
            };
            let probability = *read("output")?.first().ok_or_else(|| unexpected("Silero gave nothing"))?;
            let next = read("stateN")?;
            if next.len() != state.len() {
                return Err(unexpected(format!("Silero's state has {} values", next.len())));
            }
            state.copy_from_slice(next);
            Ok(probability)
        })
    }
}

/// One stream's voice activity.
pub(super) struct Activity {
    shared: Arc<Shared>,
    state: Vec<f32>,
    /// Context, then samples that fill no window yet.
    pending: Vec<f32>,
    /// Samples heard in whole windows.
    heard: usize,
    total: usize,
    run: usize,
    speech: Option<Range<usize>>,
}

impl Activity {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut activity =
            Self { shared, state: Vec::new(), pending: Vec::new(), heard: 0, total: 0, run: 0, speech: None };
        activity.reset();
        activity
    }

    /// From the first sample of speech in the segment to the last; `None` when there was none.
    pub(super) fn speech(&self) -> Option<Range<usize>> {
        self.speech.clone()
    }

    fn count(&mut self, probability: f32) {
        let threshold = if self.run > 0 { GOES_ON } else { BEGINS };
        if probability < threshold {
            self.run = 0;
            return;
        }
        self.run += 1;
        if self.run < LEAST_WINDOWS {
            return;
        }
        let start = self.heard - self.run * WINDOW;
        let end = self.heard;
        self.speech = Some(self.speech.take().map_or(start..end, |speech| speech.start..end));
    }
}

impl VoiceActivity for Activity {
    type Error = DecodeError;

    fn step(&mut self, samples: &[i16]) -> Result<cut::Activity, DecodeError> {
        self.total += samples.len();
        self.pending.extend(samples.iter().map(|sample| f32::from(*sample) / 32_768.0));
        while self.pending.len() >= CONTEXT + WINDOW {
            let shared = Arc::clone(&self.shared);
            let probability = shared.silero.window(&self.pending[..CONTEXT + WINDOW], &mut self.state)?;
            self.pending.drain(..WINDOW);
            self.heard += WINDOW;
            self.count(probability);
        }
        let last = self.speech.as_ref().map_or(0, |speech| speech.end);
        let silence = u32::try_from(self.total - last).unwrap_or(u32::MAX);
        // Speech that is still going on reaches into the window that is not full yet.
        let silence = if self.run > 0 { 0 } else { silence };
        Ok(cut::Activity { spoke: self.speech.is_some(), silence })
    }

    fn reset(&mut self) {
        self.state = vec![0.0; STATE.iter().product()];
        self.pending = vec![0.0; CONTEXT];
        (self.heard, self.total, self.run) = (0, 0, 0);
        self.speech = None;
    }
}
