//! What nodes noticed of a fault, as their logs tell it: a fault that nobody noticed was none.
//!
//! Owns: how logs tell of copies and of nodes that are down. Must never: be what a caller is judged by.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

/// What a node logs when a session of its own has other copies, or none.
const COPIES: &str = "the session's copies have changed";

/// What it logs when it takes another for dead.
const DOWN: &str = "is down";

/// How often each was noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Noticed {
    /// Sessions whose owner has their copy elsewhere than before.
    pub(crate) copies_moved: u64,
    /// Nodes that others took for dead.
    pub(crate) downs: u64,
}

impl Noticed {
    /// What the log of one node tells of.
    pub(crate) fn count(&mut self, log: &str) {
        let mut keepers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains(COPIES) || line.contains(DOWN)) {
            let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if line["message"] == DOWN {
                self.downs += 1;
            }
            if line["message"] == COPIES && line["durable"] == true {
                keepers.entry(text(&line["span"]["id"])).or_default().insert(text(&line["keepers"]));
            }
        }
        // A node that takes a session over has the first copy of its own, which is no other one.
        self.copies_moved += keepers.values().map(|keepers| keepers.len() as u64 - 1).sum::<u64>();
    }

    /// What came since.
    pub(crate) const fn since(self, before: Self) -> Self {
        Self {
            copies_moved: self.copies_moved.saturating_sub(before.copies_moved),
            downs: self.downs.saturating_sub(before.downs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_moved_when_its_owner_has_another() {
        let copies = |session: &str, durable: bool, keepers: &str| {
            format!(
                "{{\"message\":\"{COPIES}\",\"durable\":{durable},\"keepers\":\"{keepers}\",\"span\":{{\"id\":\"{session}\"}}}}\n"
            )
        };
        let log = [
            copies("1", true, "b"),
            copies("2", true, "b"),
            copies("1", false, ""),
            copies("1", true, "c"),
            copies("2", true, "b"),
            "{\"level\":\"WARN\",\"message\":\"is down\",\"node\":\"b\"}\n".to_owned(),
            "{\"message\":\"a peer is down\"}\n".to_owned(),
        ];
        let mut noticed = Noticed::default();
        noticed.count(&log.concat());
        assert_eq!(noticed, Noticed { copies_moved: 1, downs: 1 });
        // Another node that goes on with the session.
        noticed.count(&copies("2", true, "c"));
        assert_eq!(
            noticed.since(Noticed { copies_moved: 1, downs: 0 }),
            Noticed { copies_moved: 0, downs: 1 }
        );
    }
}
