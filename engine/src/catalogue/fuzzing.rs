//! A narrow door for tests that feed these readers arbitrary bytes from outside this crate. No part of what a catalogue does.

use std::path::Path;

use super::graph;
use super::progress::Quiet;

/// Composes the two halves of a graph in `folder`; returns how many states and arcs there are.
///
/// # Errors
/// They can't be composed; in words.
pub fn compose(folder: &Path) -> Result<(u64, u64), String> {
    let composed = graph::compose(folder, &mut Quiet).map_err(|error| error.to_string())?;
    Ok((composed.states, composed.arcs))
}
