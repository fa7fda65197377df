//! What the commands read: a node's answers, and the files and variables that an operator gives them.

use std::collections::BTreeMap;

use serde_json::Value;
use starling_client::Final;
use starling_node::fuzzing;
use starling_node::traces::TraceSettings;
use unicode_width::UnicodeWidthStr as _;

use super::split;

/// A model takes 80 bytes at least to be told of, and a line of the table has six columns of 160 at most.
const MOST_GROWTH: usize = 20;

/// Of what a server says where it should say something else, as much is shown as has so many bytes at most.
const MOST_SHOWN_BYTES: usize = 8_200;

/// A terminal shows it and obeys nothing of it.
fn is_plain(text: &str) {
    let unfit = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(unfit, None, "{text:?}");
}

/// What a node answers to a command: the first byte says how wide and how high the terminal is.
pub fn server_answers(data: &[u8]) {
    let (choice, answer) = split(data);
    let (columns, rows) = (1 + usize::from(choice) * 3 % 200, 1 + usize::from(choice) % 60);
    match fuzzing::status(answer, columns, rows) {
        Ok(shown) => {
            is_plain(&shown.table);
            is_plain(&shown.screen);
            assert!(shown.screen.lines().count() < rows.max(2), "{}", shown.screen);
            for line in shown.screen.lines() {
                assert!(line.width() <= columns, "{} of {columns} columns: {line}", line.width());
            }
            let mut parts = shown.coloured.split("\x1b[");
            let first = parts.next().unwrap_or_default().to_owned();
            let uncoloured = parts.fold(first, |text, part| text + part.split_once('m').expect("a colour").1);
            assert_eq!(uncoloured, shown.screen, "the same but for its colours");
            let most = 4_000 + MOST_GROWTH * answer.len();
            assert!(shown.table.len() <= most, "{} bytes of {}", shown.table.len(), answer.len());
        }
        Err(problem) => said(&problem),
    }
    match fuzzing::status_json(answer) {
        Ok(shown) => {
            let told: Value = serde_json::from_slice(answer).expect("was read");
            let shown: Value = serde_json::from_str(&shown).expect("is JSON");
            assert_eq!(without_numbers(shown), without_numbers(told));
        }
        Err(problem) => said(&problem),
    }
    match fuzzing::model_added(answer) {
        Ok((table, failures)) => {
            is_plain(&table);
            failures.iter().for_each(|failure| is_plain(&failure.replace('\n', "\0")));
        }
        Err(problem) => said(&problem),
    }
    let status = 100 + u16::from(choice) * 2;
    match fuzzing::no_yes(status, answer) {
        Some(problem) => {
            assert!(!(200..300).contains(&status) && problem.contains(&status.to_string()), "{problem}");
            assert!(problem.len() <= MOST_SHOWN_BYTES, "a page of {} bytes", problem.len());
            is_plain(&problem.replace('\t', ""));
        }
        None => assert!((200..300).contains(&status), "{status}"),
    }
}

/// A number with more digits than a machine's loses some of them.
fn without_numbers(value: Value) -> Value {
    match value {
        Value::Number(_) => Value::Null,
        Value::Array(values) => values.into_iter().map(without_numbers).collect(),
        Value::Object(values) => {
            values.into_iter().map(|(name, value)| (name, without_numbers(value))).collect()
        }
        value => value,
    }
}

/// A command that can't read an answer says so, and does not repeat all of it.
fn said(problem: &str) {
    assert!(problem.contains("does not speak this version's language"), "{problem}");
    assert!(problem.len() <= MOST_SHOWN_BYTES, "{} bytes", problem.len());
    is_plain(&problem.replace('\t', ""));
}

/// Finals, one a line, as they become text and subtitles.
pub fn transcript(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n');
    let finals: Vec<Final> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let spoken = finals.iter().filter(|last| !last.text.is_empty()).count();
    let [text, srt, vtt] = fuzzing::transcript(&finals);
    for shown in [&text, &srt, &vtt] {
        is_plain(shown);
    }
    assert_eq!(text.lines().count(), spoken, "a segment is a line");
    // Three lines and an empty one for each in SubRip; in WebVTT two and an empty one, behind a head.
    let blocks = |shown: &str, lines: usize| {
        let all: Vec<&str> = shown.split('\n').collect();
        assert_eq!(all.len(), spoken * lines + 1, "{shown}");
        let times = all.chunks_exact(lines).filter(|block| block[lines - 3].contains(" --> ")).count();
        assert_eq!(times, spoken, "{shown}");
    };
    blocks(&srt, 4);
    let cues = vtt.strip_prefix("WEBVTT\n\n").expect("a head");
    blocks(cues, 3);
    assert_eq!(cues.matches("-->").count(), spoken, "an arrow begins a cue: {vtt}");
    assert!(!cues.contains('<'), "markup: {vtt}");
}

/// A file with hashes of keys, and the variable that may hold some.
pub fn key_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match fuzzing::keys_in_file(text) {
        Ok(keys) => {
            let written: Vec<String> = keys.iter().map(ToString::to_string).collect();
            assert_eq!(fuzzing::keys_in_file(&written.join("\n")), Ok(keys));
        }
        Err(problem) => {
            // A key that was pasted by mistake is not repeated: another in its place is refused in the same words.
            let number =
                problem.split_once("in line ").and_then(|(_, rest)| rest.split(';').next()?.parse().ok());
            let number: usize = number.unwrap_or_else(|| panic!("no line: {problem}"));
            let other =
                text.lines().enumerate().map(|(index, line)| if index + 1 == number { "k" } else { line });
            assert_eq!(fuzzing::keys_in_file(&other.collect::<Vec<_>>().join("\n")), Err(problem));
        }
    }
    match fuzzing::keys_in_variable(text) {
        Ok(keys) => {
            let written: Vec<String> = keys.iter().map(|(name, key)| format!("{name}={key}")).collect();
            assert_eq!(fuzzing::keys_in_variable(&written.join(",")), Ok(keys));
        }
        Err(problem) => assert!(problem.starts_with("entry ") && problem.len() <= 60, "{problem}"),
    }
}

/// The variables by which traces are set, one a line: `NAME=value`.
pub fn trace_variables(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let set: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let variable = |name: &str| set.get(name).map(|value| (*value).to_owned());
    let mut warnings = Vec::new();
    match TraceSettings::from_variables(&variable, &mut warnings) {
        // What is switched off needs nothing else to be right.
        Ok(_) => {}
        Err(error) => {
            let error = error.to_string();
            assert!(set.keys().any(|name| error.starts_with(name)) && error.contains("must be"), "{error}");
        }
    }
    for warning in warnings {
        assert!(warning.contains("OTEL_"), "names no variable: {warning}");
        // An endpoint may have a password in it. Shorter ones may be words of the warning's own.
        let mut endpoints = set.iter().filter(|(name, value)| name.contains("ENDPOINT") && value.len() > 40);
        assert!(endpoints.all(|(_, value)| !warning.contains(value)), "{warning}");
    }
}
