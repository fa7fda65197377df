//! The transformer: audio to tokens, greedily.
//!
//! Owns: the encoder, the decoder and its caches of keys and values. Must never: sample; the best token is taken, the first
//! of equals.

use std::path::Path;

use ort::inputs;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorRef};

use super::runtime::{Runtime, Sessions, failed, unexpected};
use super::tokenizer::Tokenizer;
use crate::{DecodeError, LoadError};

const VOCABULARY: usize = 32_768;
const BEGIN: i64 = 1;
const END: i64 = 2;

/// English has under five tokens a second in this vocabulary; beyond this rate the model repeats itself.
const TOKENS_PER_SECOND: f64 = 6.5;

/// Attention heads and their width, as the tiny model has them: the shape of an empty cache.
const HEADS: usize = 8;
const HEAD_WIDTH: usize = 36;

/// The least audio the model makes sense of: shorter parts are padded with silence to this, one second.
const LEAST_SAMPLES: usize = 16_000;

/// The loaded model.
pub(super) struct Model {
    encoder: Sessions,
    decoder: Sessions,
    tokenizer: Tokenizer,
    layers: usize,
}

impl Model {
    pub(super) fn load(runtime: &Runtime, folder: &Path) -> Result<Self, LoadError> {
        let encoder = Sessions::load(*runtime, &folder.join("encoder_model.ort"))?;
        let decoder = Sessions::load(*runtime, &folder.join("decoder_model_merged.ort"))?;
        let inputs = decoder.inputs();
        let is_key = |name: &&String| name.starts_with("past_key_values.") && name.ends_with(".decoder.key");
        let layers = inputs.iter().filter(is_key).count();
        if layers == 0 {
            return Err(LoadError::Model {
                path: folder.join("decoder_model_merged.ort").display().to_string(),
                problem: format!(
                    "its inputs are {inputs:?}; past_key_values.0.decoder.key and so on are wanted"
                ),
            });
        }
        let path = folder.join("tokenizer.bin");
        let problem = |problem: String| LoadError::Model { path: path.display().to_string(), problem };
        let bytes = std::fs::read(&path).map_err(|error| problem(format!("cannot be read: {error}")))?;
        let tokenizer = Tokenizer::read(&bytes, VOCABULARY).map_err(|error| problem(error.to_string()))?;
        Ok(Self { encoder, decoder, tokenizer, layers })
    }

    /// The text of some speech at 16 kHz. A pure function of the samples.
    pub(super) fn transcribe(&self, samples: &[f32]) -> Result<String, DecodeError> {
        let most = (samples.len() as f64 / 16_000.0 * TOKENS_PER_SECOND).ceil().max(1.0) as usize;
        let mut padded = Vec::new();
        let samples = if samples.len() < LEAST_SAMPLES {
            padded.extend_from_slice(samples);
            padded.resize(LEAST_SAMPLES, 0.0);
            &padded
        } else {
            samples
        };
        let mask = vec![1_i64; samples.len()];
        let hidden = self.encoder.with(|session| encode(session, samples, &mask))?;
        let tokens = self.decoder.with(|session| self.decode(session, &hidden, &mask, most))?;
        Ok(self.tokenizer.text(&tokens))
    }

    fn decode(
        &self,
        session: &mut Session,
        hidden: &DynValue,
        mask: &[i64],
        most: usize,
    ) -> Result<Vec<i64>, DecodeError> {
        let mut caches = self.empty_caches()?;
        let mut tokens = Vec::new();
        let mut last = BEGIN;
        for step in 0..most {
            let branch = [step > 0];
            let mask = TensorRef::from_array_view(([1, mask.len()], mask)).map_err(failed)?;
            let mut inputs: Vec<(&str, SessionInputValue<'_>)> = vec![
                ("input_ids", Tensor::from_array(([1_usize, 1], vec![last])).map_err(failed)?.into()),
                ("encoder_hidden_states", hidden.into()),
                ("encoder_attention_mask", mask.into()),
                (
                    "use_cache_branch",
                    Tensor::from_array(([1_usize], branch.to_vec())).map_err(failed)?.into(),
                ),
            ];
            inputs.extend(caches.iter().map(|cache| (cache.input.as_str(), (&cache.value).into())));
            let mut outputs = session.run(inputs).map_err(failed)?;
            last = {
                let logits = outputs.get("logits").ok_or_else(|| unexpected("the decoder gave no logits"))?;
                let (_, values) = logits.try_extract_tensor::<f32>().map_err(failed)?;
                best(values)?
            };
            if last == END {
                break;
            }
            tokens.push(last);
            for cache in caches.iter_mut().filter(|cache| step == 0 || !cache.of_encoder) {
                let missing = || unexpected(format!("the decoder gave no {}", cache.output));
                cache.value = outputs.remove(&cache.output).ok_or_else(missing)?;
            }
        }
        Ok(tokens)
    }

    fn empty_caches(&self) -> Result<Vec<Cache>, DecodeError> {
        let parts = [("decoder", "key"), ("decoder", "value"), ("encoder", "key"), ("encoder", "value")];
        let all = (0..self.layers).flat_map(|layer| parts.map(|(side, kind)| (layer, side, kind)));
        all.map(|(layer, side, kind)| {
            let empty = Tensor::from_array(([1, HEADS, 0, HEAD_WIDTH], Vec::<f32>::new())).map_err(failed)?;
            Ok(Cache {
                input: format!("past_key_values.{layer}.{side}.{kind}"),
                output: format!("present.{layer}.{side}.{kind}"),
                of_encoder: side == "encoder",
                value: empty.into_dyn(),
            })
        })
        .collect()
    }
}

/// One layer's keys or values. Those of the encoder are made in the first step and stay.
struct Cache {
    input: String,
    output: String,
    of_encoder: bool,
    value: DynValue,
}

fn encode(session: &mut Session, samples: &[f32], mask: &[i64]) -> Result<DynValue, DecodeError> {
    let shape = [1, samples.len()];
    let samples = TensorRef::from_array_view((shape, samples)).map_err(failed)?;
    let mask = TensorRef::from_array_view((shape, mask)).map_err(failed)?;
    let mut outputs =
        session.run(inputs!["input_values" => samples, "attention_mask" => mask]).map_err(failed)?;
    outputs.remove("last_hidden_state").ok_or_else(|| unexpected("the encoder gave no last_hidden_state"))
}

/// The most likely token after the last position.
fn best(logits: &[f32]) -> Result<i64, DecodeError> {
    let last = logits.len().checked_sub(VOCABULARY).and_then(|from| logits.get(from..));
    let last = last.ok_or_else(|| unexpected(format!("{} logits for {VOCABULARY} tokens", logits.len())))?;
    let mut best = 0;
    for (token, value) in last.iter().enumerate() {
        if *value > last[best] {
            best = token;
        }
    }
    Ok(best as i64)
}
