//! What a node's log says of faults in the node itself, which it heals so that no caller notices.
//!
//! Owns: which lines those are. Must never: excuse one that a scenario does not name.

/// Lines that are told one by one; further ones are counted.
const MOST_TOLD: usize = 4;

/// Errors and panics in a log, but for lines that have one of `allowed` in them. A node that is killed leaves half a line.
pub(crate) fn of(node: &str, log: &str, allowed: &[String]) -> Vec<String> {
    let is_alarm =
        |line: &&str| alarms(line) && !allowed.iter().any(|allowed| line.contains(allowed.as_str()));
    let lines: Vec<&str> = log.lines().filter(is_alarm).collect();
    let mut told: Vec<String> =
        lines.iter().take(MOST_TOLD).map(|line| format!("{node} logged: {line}")).collect();
    if lines.len() > MOST_TOLD {
        told.push(format!("{node} logged {} such lines more", lines.len() - MOST_TOLD));
    }
    told
}

fn alarms(line: &str) -> bool {
    if line.contains("panicked at") {
        return true;
    }
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => line["level"] == "ERROR",
        // Decoder hosts write to the same place, in plain text: the time, and then the level.
        Err(_) => line.split_whitespace().nth(1) == Some("ERROR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_are_found_wherever_they_were_logged() {
        let log = "{\"level\":\"INFO\",\"message\":\"ERROR is a word\"}\n\
                   {\"level\":\"ERROR\",\"message\":\"an actor of a model pool failed\"}\n\
                   thread 'main' panicked at core/src/pool.rs:1:\n\
                   2026-11-30T00:00:00Z ERROR cannot load\n\
                   2026-11-30T00:00:00Z  INFO loaded\n\
                   {\"level\":\"ERR";
        let told = of("a", log, &[]);
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().all(|line| line.starts_with("a logged: ")), "{told:?}");
        assert_eq!(of("a", log, &["cannot load".to_owned()]).len(), 2);
        assert_eq!(
            of("a", &log.repeat(3), &[]).last().map(String::as_str),
            Some("a logged 5 such lines more")
        );
    }
}
