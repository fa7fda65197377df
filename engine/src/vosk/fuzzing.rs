//! A narrow door for tests that feed what is read of a model and of libvosk's answers arbitrary bytes from outside this crate. No
//! part of what an engine does.

use std::path::Path;

use starling_protocol::Utterance;

use super::{answer, model};

/// Whether libvosk may see a model's folder; and whether its graph was composed in advance.
///
/// # Errors
/// It may not; in words.
pub fn check(folder: &Path) -> Result<bool, String> {
    model::check(folder).map(|shape| shape.composed).map_err(|error| error.to_string())
}

/// An answer of libvosk's of an utterance that began `base_s` seconds after its recognizer, and is `length` samples long.
///
/// # Errors
/// It is none; in words.
pub fn utterance(json: &str, base_s: f64, rate: u32, length: u64) -> Result<Utterance, String> {
    answer::utterance(json, base_s, rate, length).map_err(|error| error.to_string())
}
