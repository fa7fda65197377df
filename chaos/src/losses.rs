//! Decoders that nodes noticed to be lost, and why.
//!
//! Owns: how nodes' logs tell of them. Must never: be what a caller is judged by.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a node logs then; its field `cause` says why.
const MESSAGE: &str = "a session lost its decoder";

/// How many, by cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Losses(BTreeMap<String, u64>);

impl Losses {
    /// Those of which a log tells.
    pub(crate) fn count(&mut self, log: &str) {
        for line in log.lines().filter(|line| line.contains(MESSAGE)) {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if line["message"] == MESSAGE {
                let cause = line["cause"].as_str().unwrap_or("unknown").to_owned();
                *self.0.entry(cause).or_default() += 1;
            }
        }
    }

    /// Those that came since.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (cause, count) in &mut self.0 {
            *count -= before.0.get(cause).copied().unwrap_or(0).min(*count);
        }
        self.0.retain(|_, count| *count > 0);
        self
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// As `silent 3, killed 1`.
    pub(crate) fn in_words(&self) -> String {
        let causes: Vec<String> = self.0.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
        causes.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_by_cause() {
        let line =
            |cause: &str| format!("{{\"level\":\"INFO\",\"message\":\"{MESSAGE}\",\"cause\":\"{cause}\"}}\n");
        let mut before = Losses::default();
        before.count(&line("killed"));
        let mut all = Losses::default();
        all.count(&[line("killed"), line("silent"), "no JSON\n".to_owned(), line("silent")].concat());
        all.count(&format!("{{\"message\":\"something else\",\"said\":\"{MESSAGE}\"}}\n"));
        let since = all.since(&before);
        assert_eq!((since.total(), since.in_words().as_str()), (2, "silent 2"));
    }
}
