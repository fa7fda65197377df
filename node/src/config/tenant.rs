//! `[[tenant]]`: who may use the node, and how much of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling_core::tenant::TenantLimits;

use super::units;
use crate::tenants::{KeyHash, TenantFacts};

/// The variable with further keys, `NAME=sha256:…` with commas between. One underscore, so that it is taken for no setting.
pub(super) const KEYS_VARIABLE: &str = "STARLING_KEYS";

/// A tenant's name has as many characters at most.
const MOST_NAME_BYTES: usize = 63;

/// One `[[tenant]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSettings {
    /// Its name, in logs and figures.
    pub name: String,
    /// What its keys hash to, as `starling keys new` prints it.
    #[serde(default)]
    pub keys: Vec<String>,
    /// A file with more of them, one a line.
    #[serde(default)]
    pub keys_file: PathBuf,
    /// The models it may use; empty for all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Whether it may look after the cluster.
    #[serde(default)]
    pub operator: bool,
    /// Sessions at once; 0 for as many as there is room for.
    #[serde(default)]
    pub sessions: u32,
    /// Sessions begun in a second; 0 for as many as come.
    #[serde(default)]
    pub opens_per_second: u32,
    /// Audio in a day; 0s for as much as comes.
    #[serde(default, with = "units::duration")]
    pub audio_per_day: Duration,
}

impl TenantSettings {
    /// One that nothing is known of but its name.
    #[must_use]
    pub(super) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            keys: Vec::new(),
            keys_file: PathBuf::new(),
            models: Vec::new(),
            operator: false,
            sessions: 0,
            opens_per_second: 0,
            audio_per_day: Duration::ZERO,
        }
    }

    /// As it is served, with further keys.
    pub(super) fn facts(&self, mut keys: Vec<KeyHash>) -> TenantFacts {
        keys.extend(self.keys.iter().filter_map(|key| key.parse::<KeyHash>().ok()));
        let limits = TenantLimits {
            sessions: self.sessions,
            opens_per_second: self.opens_per_second,
            audio_per_day: self.audio_per_day,
        };
        let (name, models, operator) = (self.name.clone(), self.models.clone(), self.operator);
        TenantFacts { name, keys, models, operator, limits }
    }
}

/// Whether a tenant can have this name.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // Dots alone would be another folder.
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    begins && name.len() <= MOST_NAME_BYTES && name.chars().all(allowed)
}

/// The hashes in a file's text, or what is wrong with it, to follow "which".
pub(crate) fn keys_in(text: &str) -> Result<Vec<KeyHash>, String> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let hashes = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    // Never the line itself: it may be a key that was pasted by mistake.
    let parsed = hashes.map(|(number, line)| {
        line.parse().map_err(|_| format!("has no hash of a key in line {number}; it must be {ALLOWED}"))
    });
    parsed.collect()
}

/// Names and hashes in the variable's text, or what is wrong with it.
pub(crate) fn keys_of_variable(text: &str) -> Result<Vec<(String, KeyHash)>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).enumerate();
    let parsed = entries.map(|(index, entry)| {
        let wrong = || format!("entry {} of {}", index + 1, text.split(',').count());
        let (name, hash) = entry.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        match hash.parse() {
            Ok(hash) if is_name(name) => Ok((name.to_owned(), hash)),
            _ => Err(wrong()),
        }
    });
    parsed.collect()
}

/// What a hash must be, for messages.
const ALLOWED: &str = "sha256: and 64 hexadecimal digits, as `starling keys new` prints it";

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: &str) -> String {
        KeyHash::of(key).to_string()
    }

    #[test]
    fn a_file_has_a_hash_a_line() {
        let text = format!("# Acme's\n{}\n\n  {}  \n", hash("a"), hash("b"));
        assert_eq!(keys_in(&text), Ok(vec![KeyHash::of("a"), KeyHash::of("b")]));
        assert_eq!(keys_in(""), Ok(Vec::new()));
        let problem = keys_in("\nstarling_abc\n").expect_err("no hash");
        assert!(problem.contains("line 2") && !problem.contains("abc"), "{problem}");
    }

    #[test]
    fn the_variable_has_names_too() {
        let text = format!("acme={}, other = {} ,", hash("a"), hash("b"));
        let wanted = vec![("acme".to_owned(), KeyHash::of("a")), ("other".to_owned(), KeyHash::of("b"))];
        assert_eq!(keys_of_variable(&text), Ok(wanted));
        for wrong in ["acme", "acme=key", &format!("={}", hash("a")), &format!("a b={}", hash("a"))] {
            assert_eq!(keys_of_variable(wrong), Err("entry 1 of 1".to_owned()), "{wrong}");
        }
    }
}
