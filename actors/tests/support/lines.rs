//! What is logged on this thread.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::fmt::format::FmtSpan;

/// The log, a line of JSON for each event.
#[derive(Debug, Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Gathers what is logged until the guard is dropped, and a line for each span's end.
    pub fn gather(&self) -> (DefaultGuard, Dispatch) {
        let lines = self.clone();
        // Of one subscriber alone, whichever thread comes to a line first would say whether it is wanted: mostly one that has none.
        let second = Dispatch::new(NoSubscriber::default());
        let log = tracing_subscriber::fmt().with_span_events(FmtSpan::CLOSE);
        let log = log.json().flatten_event(true).with_span_list(false).with_writer(move || lines.clone());
        (tracing::subscriber::set_default(log.finish()), second)
    }

    /// The lines with this in them.
    pub fn containing(&self, text: &str) -> Vec<Value> {
        let log = String::from_utf8(self.0.lock().expect("no panic").clone()).expect("is text");
        let found = log.lines().filter(|line| line.contains(text));
        found.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The spans of this name that are over, by their fields.
    pub fn spans(&self, name: &str) -> Vec<Value> {
        let mut closed = self.containing("\"close\"");
        closed.retain(|line| line["span"]["name"] == name);
        closed.into_iter().map(|mut line| line["span"].take()).collect()
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
