//! What is seen while a recording is transcribed: finals on standard output, the text so far and the progress below them
//! on a terminal's standard error.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use starling_client::Final;

/// Tenths of a second: what a bar can show the progress of.
const UNITS_PER_SECOND: f64 = 10.0;

/// One recording's display.
pub(super) struct Display {
    bar: ProgressBar,
    /// Whether finals are printed as they come.
    streamed: bool,
    quiet: bool,
}

impl Display {
    pub(super) fn new(file: &Path, seconds: Option<f64>, quiet: bool, streamed: bool) -> Self {
        let (bar, template) = match (quiet, seconds) {
            (true, _) => (ProgressBar::hidden(), "{msg}"),
            (false, Some(seconds)) => {
                let bar = ProgressBar::new((seconds * UNITS_PER_SECOND) as u64);
                (bar, "{prefix} {percent:>3}% {wide_msg:.dim}")
            }
            (false, None) => (ProgressBar::new_spinner(), "{prefix} {spinner} {wide_msg:.dim}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let name = file.file_name().unwrap_or(file.as_os_str());
        bar.set_prefix(name.to_string_lossy().into_owned());
        Self { bar, streamed, quiet }
    }

    pub(super) fn partial(&self, text: &str, until_s: f64) {
        self.bar.set_position((until_s * UNITS_PER_SECOND) as u64);
        self.bar.set_message(text.to_owned());
    }

    pub(super) fn last(&self, last: &Final) {
        self.bar.set_position((last.end * UNITS_PER_SECOND) as u64);
        self.bar.set_message("");
        if self.streamed {
            self.bar.suspend(|| print!("{}", line(last)));
        }
    }

    /// Says it, unless nothing but the text is wanted.
    pub(super) fn note(&self, note: &str) {
        if !self.quiet {
            self.complain(note);
        }
    }

    /// Says it in any case: the text alone would mislead.
    pub(super) fn complain(&self, complaint: &str) {
        self.bar.suspend(|| eprintln!("{complaint}"));
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A segment as a line of text; nothing for one in which nothing was said.
pub(super) fn line(last: &Final) -> String {
    if last.text.is_empty() { String::new() } else { format!("{}\n", last.text) }
}
