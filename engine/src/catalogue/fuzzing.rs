//! A narrow door for tests that feed these readers arbitrary bytes from outside this crate. No part of what a catalogue does.

use std::path::Path;

use super::entry::FileRule;
use super::progress::Quiet;
use super::{graph, unpack};

/// Composes the two halves of a graph in `folder`; returns how many states and arcs there are.
///
/// # Errors
/// They can't be composed; in words.
pub fn compose(folder: &Path) -> Result<(u64, u64), String> {
    let composed = graph::compose(folder, &mut Quiet).map_err(|error| error.to_string())?;
    Ok((composed.states, composed.arcs))
}

/// Takes what these rules name, by pairs of from where and to where, out of an archive into `folder`.
///
/// # Errors
/// It can't be; in words.
pub fn unpack(archive: &Path, rules: &[(&str, &str)], folder: &Path) -> Result<(), String> {
    let rules = rules.iter().map(|(from, to)| FileRule { from: (*from).to_owned(), to: (*to).to_owned() });
    let rules: Vec<FileRule> = rules.collect();
    unpack::unpack(archive, &rules, folder, &mut Quiet).map_err(|error| error.to_string())
}
