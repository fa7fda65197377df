//! `docs/protocol.md` against the types it describes: everything is mentioned, and every example is read.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use starling_protocol::native::stream::{Frame, NATIVE_ALPN, StreamReader, read_client};
use starling_protocol::native::{CLOSES, Close, ServerMessage, parse_client};

const PAGE: &str = include_str!("../../docs/protocol.md");
const NATIVE: &str = include_str!("../../protocol/src/native.rs");
const LEASE: &str = include_str!("../../protocol/src/lease.rs");
const TRANSCRIPT: &str = include_str!("../../protocol/src/transcript.rs");

/// The body of each `enum` or `struct` of a source file, by name.
fn bodies<'a>(source: &'a str, keyword: &str) -> Vec<(&'a str, &'a str)> {
    let start = format!("pub {keyword} ");
    source
        .split(start.as_str())
        .skip(1)
        .filter_map(|rest| {
            let (name, rest) = rest.split_once(" {\n")?;
            let (body, _) = rest.split_once("\n}")?;
            Some((name, body))
        })
        .filter(|(name, _)| name.chars().all(char::is_alphanumeric))
        .collect()
}

/// Names at the first level of an enum's body.
fn variants(body: &str) -> Vec<&str> {
    let lines = body.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    lines
        .filter_map(|line| line.trim().split(['(', '{', ',', ' ']).next())
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect()
}

/// Names of fields at any level.
fn fields(body: &str) -> Vec<&str> {
    body.lines()
        .map(|line| line.trim().trim_start_matches("pub "))
        .filter(|line| !line.starts_with('/') && !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name)
        .collect()
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// Words that the page sets as code or uses in its examples and diagrams.
fn mentioned() -> BTreeSet<&'static str> {
    PAGE.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect()
}

#[test]
fn every_native_message_code_and_field_is_on_the_page() {
    let mentioned = mentioned();
    let mut missing = Vec::new();
    let mut count = 0;
    let enums = bodies(NATIVE, "enum").into_iter().chain(bodies(TRANSCRIPT, "enum"));
    for (name, body) in enums {
        for variant in variants(body) {
            count += 1;
            let written = snake(variant);
            if !PAGE.contains(&format!("`{written}`")) && !mentioned.contains(written.as_str()) {
                missing.push(format!("{name}::{variant}"));
            }
        }
    }
    let structs = bodies(NATIVE, "struct").into_iter().chain(bodies(NATIVE, "enum"));
    for (name, body) in structs {
        for field in fields(body) {
            count += 1;
            if !mentioned.contains(field) {
                missing.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(
        count > 60,
        "only {count} names were found; the types are no longer written as this test reads them"
    );
    assert_eq!(missing, Vec::<String>::new(), "not in docs/protocol.md");
}

#[test]
fn every_error_code_has_a_line_in_the_table() {
    let (_, body) = bodies(NATIVE, "enum")
        .into_iter()
        .find(|(name, _)| *name == "ErrorCode")
        .expect("native.rs has the codes");
    let codes = variants(body);
    assert!(codes.len() >= 12, "{codes:?}");
    for code in codes {
        let row = format!("| `{}` |", snake(code));
        assert!(PAGE.contains(&row), "no line {row} in docs/protocol.md");
    }
}

#[test]
fn every_end_has_its_numbers_in_the_tables() {
    for close in CLOSES {
        let (websocket, stream) = (close.websocket(), close.stream());
        let (row, end) = match close {
            Close::Error(code) => {
                let name = serde_json::to_value(code).expect("a name");
                let row = format!("| `{}` |", name.as_str().expect("text"));
                (row, format!("| {websocket} | 0x{stream:02x} |"))
            }
            Close::NotText => ("| a text message that".to_owned(), format!("| {websocket} | — |")),
            _ => (String::from("| "), format!("| {websocket} | 0x{stream:02x} |")),
        };
        let found = PAGE.lines().any(|line| line.starts_with(&row) && line.ends_with(&end));
        assert!(found, "no line {row} ... {end} in docs/protocol.md");
    }
}

#[test]
fn the_frames_on_the_page_are_frames() {
    let mut seen = Vec::new();
    for line in PAGE.lines().filter_map(|line| line.strip_prefix("F: ")) {
        let bytes = HEXLOWER.decode(line.replace(' ', "").as_bytes()).expect("hexadecimal");
        let mut reader = StreamReader::of_client();
        reader.push(&bytes);
        seen.push(match reader.next().expect("a frame").expect("a whole one") {
            Frame::Message(body) => {
                serde_json::to_string(&read_client(body).expect("a message")).expect("JSON")
            }
            Frame::Audio(samples) => format!("{} bytes", samples.len()),
        });
        assert!(!reader.is_within_frame(), "{line}");
    }
    assert_eq!(seen, [r#"{"type":"end"}"#, r#"{"type":"confirm","segment":300}"#, "4 bytes"]);
    let protocol = String::from_utf8_lossy(NATIVE_ALPN);
    assert!(PAGE.contains(&format!("ALPN `{protocol}`")));
}

#[test]
fn every_lease_message_is_on_the_page() {
    let mentioned = mentioned();
    for (name, body) in bodies(LEASE, "enum") {
        if !["ToHost", "FromHost"].contains(&name) {
            continue;
        }
        let variants = variants(body);
        assert!(variants.len() >= 7, "{name}: {variants:?}");
        for variant in variants {
            assert!(mentioned.contains(variant), "{name}::{variant} is not in docs/protocol.md");
        }
    }
}

#[test]
fn every_example_is_a_message() {
    let mut count = 0;
    for line in PAGE.lines() {
        if let Some(text) = line.strip_prefix("C: {") {
            count += 1;
            let text = format!("{{{text}");
            parse_client(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        if let Some(text) = line.strip_prefix("S: {") {
            count += 1;
            let text = format!("{{{text}");
            let message: ServerMessage =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let again: serde_json::Value = serde_json::to_value(&message).expect("serializes");
            let shown: serde_json::Value = serde_json::from_str(&text).expect("is JSON");
            assert_eq!(close(&again), close(&shown), "fields are missing or too many");
        }
    }
    assert!(count >= 15, "only {count} examples were found");
}

/// The value with its numbers rounded: confidences are single precision on the wire.
fn close(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Number(number) => {
            let thousandths = number.as_f64().unwrap_or(f64::NAN) * 1_000.0;
            Value::from(thousandths.round())
        }
        Value::Array(values) => values.iter().map(close).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), close(value))).collect(),
        other => other.clone(),
    }
}

#[test]
fn the_limits_on_the_page_are_the_ones_in_the_code() {
    use starling_protocol::limits;
    let [low, high] = [limits::MIN_SAMPLE_RATE, limits::MAX_SAMPLE_RATE];
    for said in [
        format!("| `sample_rate` | {low} to {high} |"),
        format!("| `alternatives` | {} |", limits::MAX_ALTERNATIVES),
        format!("| `phrases` | {}, each at most {} bytes |", limits::MAX_PHRASES, limits::MAX_PHRASE_BYTES),
        format!("| one message from a client | {} MiB |", limits::MAX_CLIENT_MESSAGE_BYTES >> 20),
        format!("at most {} MiB", limits::MAX_LEASE_FRAME_BYTES >> 20),
    ] {
        assert!(PAGE.contains(&said), "not in docs/protocol.md: {said}");
    }
}
