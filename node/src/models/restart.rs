//! Which settings differ that a running node can't take.
//!
//! Owns: the comparison of two sets of settings. Must never: count models, tenants, tokens and what is logged, which can change under a running node.

use serde_json::Value;

use crate::config::Settings;

/// The keys that differ, in order. Their tables can't be read again; a restart takes them.
#[must_use]
pub(super) fn needs_restart(started: &Settings, now: &Settings) -> Vec<String> {
    let mut keys = Vec::new();
    // Settings are always values.
    let value = |settings| serde_json::to_value(settings).unwrap_or_default();
    differences("", &value(started), &value(now), &mut keys);
    keys.retain(|key| key != "model" && key != "tenant" && key != "log.level" && !key.starts_with("jwt."));
    keys
}

fn differences(path: &str, one: &Value, other: &Value, keys: &mut Vec<String>) {
    if one == other {
        return;
    }
    let (Value::Object(one), Value::Object(other)) = (one, other) else {
        return keys.push(path.to_owned());
    };
    for (name, value) in one {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        differences(&path, value, other.get(name).unwrap_or(&Value::Null), keys);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::ModelSettings;

    fn changed(change: impl FnOnce(&mut Settings)) -> Vec<String> {
        let mut now = Settings::default();
        change(&mut now);
        needs_restart(&Settings::default(), &now)
    }

    #[test]
    fn models_change_under_a_running_node() {
        assert_eq!(changed(|_| {}), [""; 0]);
        assert_eq!(changed(|now| now.models.push(ModelSettings::named("m"))), [""; 0]);
    }

    #[test]
    fn whatever_else_differs_is_named() {
        assert_eq!(changed(|now| now.listen.http = None), ["listen.http"]);
        assert_eq!(changed(|now| now.cluster.seeds.push("a:1".into())), ["cluster.seeds"]);
        let several = changed(|now| {
            now.models.push(ModelSettings::named("m"));
            now.sessions.cuts.max = Duration::from_secs(9);
            now.log.format = crate::config::LogFormat::Json;
            now.log.level = "debug".into();
        });
        assert_eq!(several, ["log.format", "sessions.cuts.max"]);
    }
}
