//! What is logged on this thread.

use std::io;
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;

/// The log, a line of JSON for each event.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Gathers what is logged until the guard is dropped.
    pub fn gather(&self) -> DefaultGuard {
        let lines = self.clone();
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false);
        tracing::subscriber::set_default(log.with_writer(move || lines.clone()).finish())
    }

    /// The one line with this in it.
    pub fn containing(&self, text: &str) -> String {
        let log = String::from_utf8(self.0.lock().expect("no panic").clone()).expect("is text");
        let mut found = log.lines().filter(|line| line.contains(text));
        match (found.next(), found.next()) {
            (Some(line), None) => line.to_owned(),
            _ => panic!("{text:?} is not in one line of\n{log}"),
        }
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
