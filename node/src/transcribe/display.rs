//! What is seen while a recording is transcribed: finals on standard output, the text so far and the progress below them
//! on a terminal's standard error.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use starling_client::Final;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::terminal::one_line;

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
                (bar, "{wide_msg:.dim}\n{prefix}  {bar:28.cyan/dim} {percent:>3}%  {elapsed}")
            }
            (false, None) => {
                (ProgressBar::new_spinner(), "{wide_msg:.dim}\n{prefix}  {spinner:.cyan} {elapsed}")
            }
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━━─"));
        }
        let name = file.file_name().unwrap_or(file.as_os_str());
        bar.set_prefix(name.to_string_lossy().into_owned());
        Self { bar, streamed, quiet }
    }

    pub(super) fn partial(&self, text: &str, until_s: f64) {
        self.bar.set_position((until_s * UNITS_PER_SECOND) as u64);
        self.bar.set_message(tail(&one_line(text), crate::status::size().0).into_owned());
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
        self.bar.suspend(|| eprintln!("{}", one_line(complaint)));
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// Says what it came to, unless nothing but the text is wanted.
    pub(super) fn sum_up(&self, summary: &Summary) {
        self.note(&format!("{}: {summary}", self.bar.prefix()));
    }
}

/// What a recording came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Summary {
    /// Seconds of audio.
    pub(super) audio: f64,
    /// Seconds that it took, from the opening of the session.
    pub(super) took: f64,
    /// Connections that were lost and replaced.
    pub(super) failovers: usize,
    /// Seconds of audio that have no text.
    pub(super) missing: f64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { audio, took, failovers, missing } = *self;
        write!(f, "{audio:.1} s of audio in {took:.1} s")?;
        if audio > 0.0 {
            write!(f, ", real-time factor {:.2}", took / audio)?;
        }
        match failovers {
            0 => {}
            1 => write!(f, ", 1 failover survived")?,
            several => write!(f, ", {several} failovers survived")?,
        }
        match (failovers, missing) {
            (_, missing) if missing > 0.0 => write!(f, ", {missing:.1} s missing"),
            (0, _) => Ok(()),
            _ => write!(f, ", nothing missing"),
        }
    }
}

/// The end of a text, if there is no room for all of it: what was said last is what is looked for.
fn tail(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    // A Korean letter takes two columns.
    let mut room = columns.saturating_sub(1);
    let fits = |letter: &(usize, char)| {
        let left = room.checked_sub(letter.1.width().unwrap_or_default());
        left.inspect(|left| room = *left).is_some()
    };
    let from = text.char_indices().rev().take_while(fits).last().map_or(text.len(), |(from, _)| from);
    Cow::Owned(format!("…{}", &text[from..]))
}

/// A segment as a line of text; nothing for one in which nothing was said.
pub(crate) fn line(last: &Final) -> String {
    if last.text.is_empty() { String::new() } else { format!("{}\n", one_line(&last.text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_a_line() {
        let of = |failovers, missing| Summary { audio: 10.0, took: 2.5, failovers, missing }.to_string();
        assert_eq!(of(0, 0.0), "10.0 s of audio in 2.5 s, real-time factor 0.25");
        assert_eq!(
            of(1, 0.0),
            "10.0 s of audio in 2.5 s, real-time factor 0.25, 1 failover survived, nothing missing"
        );
        assert_eq!(
            of(2, 1.25),
            "10.0 s of audio in 2.5 s, real-time factor 0.25, 2 failovers survived, 1.2 s missing"
        );
        assert_eq!(Summary::default().to_string(), "0.0 s of audio in 0.0 s");
    }

    #[test]
    fn what_was_said_last_is_seen() {
        assert_eq!(tail("it was", 6), "it was");
        assert_eq!(tail("it was the best", 9), "…the best");
        assert_eq!(tail("지금은 들립니다", 15), "지금은 들립니다");
        assert_eq!(tail("지금은 들립니다", 9), "…들립니다");
        assert_eq!(tail("지금은 들립니다", 8), "…립니다");
        assert_eq!(tail("들립니다", 0), "…");
    }
}
