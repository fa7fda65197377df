//! What the nodes logged, for the facts beside each fault.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::Value;

/// A line of a node's log.
pub(super) struct Told {
    pub(super) node: String,
    pub(super) when: SystemTime,
    pub(super) message: String,
    /// How much audio it speaks of, and how long something took; empty where it does not.
    pub(super) audio: String,
    pub(super) took: String,
}

/// The lines of one log that can be read, in their order.
pub(super) fn read(node: &str, path: &Path) -> Result<Vec<Told>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.lines().filter_map(|line| told(node, line)).collect())
}

fn told(node: &str, line: &str) -> Option<Told> {
    let line: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let when = humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()?;
    Some(Told {
        node: node.to_owned(),
        when,
        message: text("message"),
        audio: text("audio"),
        took: text("took"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_is_read() {
        let line = r#"{"timestamp":"2026-01-02T03:04:05.678901Z","level":"INFO","message":"caught up","audio":"3.2s","took":"11ms"}"#;
        let read = told("one", line).expect("a line");
        assert_eq!(
            (read.message.as_str(), read.audio.as_str(), read.took.as_str()),
            ("caught up", "3.2s", "11ms")
        );
        assert!(told("one", "no line").is_none());
    }
}
