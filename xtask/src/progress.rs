//! Draws the catalogue's progress as a bar; where there is no terminal, one line for each step.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};
use starling_engine::catalogue::Progress;

/// A bar for what one entry is going through.
pub(crate) struct Bar {
    name: String,
    bar: ProgressBar,
}

impl Bar {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), bar: ProgressBar::hidden() }
    }
}

impl Progress for Bar {
    fn step(&mut self, what: &str, total_bytes: Option<u64>) {
        self.bar.finish_and_clear();
        let message = format!("{}: {what}", self.name);
        if !std::io::stderr().is_terminal() {
            eprintln!("  {message}");
            return;
        }
        let (bar, template) = match total_bytes {
            Some(total) => {
                (ProgressBar::new(total), "  {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
            }
            None => (ProgressBar::new_spinner(), "  {msg} {spinner} {bytes}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar = bar.with_style(style.progress_chars("=> ")).with_message(message);
    }

    fn at(&mut self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| eprintln!("  {}: {text}", self.name));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
