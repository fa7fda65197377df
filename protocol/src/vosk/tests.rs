use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::native::TimedAlternative;
use crate::{CutCause, Segment, SourceOffset};

fn a_final(text: &str, words: Vec<TimedWord>, alternatives: Vec<TimedAlternative>) -> Final {
    Final {
        segment: Segment(0),
        from: SourceOffset(0),
        to: SourceOffset(8_000),
        start: 0.0,
        end: 1.0,
        cause: CutCause::Endpoint,
        text: text.into(),
        words,
        confidence: None,
        alternatives,
        error: None,
    }
}

fn word(text: &str) -> TimedWord {
    TimedWord { word: text.into(), start: 0.81, end: 1.2, confidence: Some(0.9) }
}

#[test]
fn messages_are_read_as_leniently_as_real_clients_need() {
    let config = |text: &str| match parse_message(text) {
        VoskMessage::Config(config) => config,
        other => panic!("no config: {other:?}"),
    };
    assert_eq!(config(r#"{"config":{"sample_rate":16000}}"#).sample_rate, Some(16_000.0));
    assert_eq!(config(r#"{ "config" : { "sample_rate" : "8000", "words": 1 } }"#).sample_rate, Some(8_000.0));
    assert_eq!(config(r#"{"config":{"words":true}}"#).words, Some(true));
    assert_eq!(config(r#"{"config":{"words":0,"max_alternatives":"3"}}"#).max_alternatives, Some(3));
    assert_eq!(
        config(r#"{"config":{"phrase_list":["yes","no","[unk]"]}}"#).phrase_list,
        Some(vec!["yes".into(), "no".into(), "[unk]".into()])
    );
    for eof in [r#"{"eof" : 1}"#, r#"{"eof":1}"#, r#"{"eof":"1"}"#, r#"{"eof":true}"#] {
        assert_eq!(parse_message(eof), VoskMessage::Eof, "{eof}");
    }
    assert_eq!(parse_message(r#"{"reset":1}"#), VoskMessage::Reset);
    for other in ["", "eof", "[1]", "{}", "\u{0}"] {
        assert_eq!(parse_message(other), VoskMessage::Other, "{other:?}");
    }
}

#[test]
fn replies_have_libvosks_layout() {
    assert_eq!(partial_reply(""), "{\n  \"partial\" : \"\"\n}");
    assert_eq!(final_reply(&[a_final("", vec![], vec![])], true, false), "{\n  \"text\" : \"\"\n}");
    assert_eq!(
        final_reply(&[a_final("yes", vec![word("yes")], vec![])], true, false),
        "{\n  \"result\" : [{\n      \"conf\" : 0.900000,\n      \"end\" : 1.200000,\n      \"start\" : 0.810000,\n      \
         \"word\" : \"yes\"\n    }],\n  \"text\" : \"yes\"\n}"
    );
}

#[test]
fn alternatives_have_no_top_level_text_and_no_confidence_per_word() {
    let reading = TimedAlternative { text: "yes".into(), confidence: 170.5, words: vec![word("yes")] };
    let text = final_reply(&[a_final("yes", vec![], vec![reading])], true, true);
    let value: Value = serde_json::from_str(&text).expect("is JSON");
    assert_eq!(
        value,
        json!({"alternatives":[{"confidence":170.5,"result":[{"end":1.2,"start":0.81,"word":"yes"}],"text":"yes"}]})
    );
}

#[test]
fn silence_is_scored_as_libvosk_scores_it_and_adds_nothing_to_speech() {
    let parsed = |finals: &[Final]| -> Value {
        serde_json::from_str(&final_reply(finals, true, true)).expect("is JSON")
    };
    let nothing = json!({ "alternatives": [{ "confidence": 1.0, "text": "" }] });
    assert_eq!(parsed(&[]), nothing);
    let silence = a_final("", vec![], vec![]);
    assert_eq!(parsed(std::slice::from_ref(&silence)), nothing);
    let reading = TimedAlternative { text: "yes".into(), confidence: 170.5, words: vec![] };
    let speech = a_final("yes", vec![], vec![reading]);
    assert_eq!(parsed(&[silence, speech])["alternatives"], json!([{ "confidence": 170.5, "text": "yes" }]));
}

#[test]
fn several_finals_are_joined() {
    let finals = [
        a_final("one", vec![word("one")], vec![]),
        a_final("", vec![], vec![]),
        a_final("two", vec![word("two")], vec![]),
    ];
    let value: Value = serde_json::from_str(&final_reply(&finals, true, false)).expect("is JSON");
    assert_eq!(value["text"], "one two");
    assert_eq!(value["result"].as_array().map(Vec::len), Some(2));
    assert!(!final_reply(&finals, false, false).contains("result"));
}

#[test]
fn text_is_quoted_whatever_it_holds() {
    let value: Value = serde_json::from_str(&partial_reply("say \"no\"\n\u{1}")).expect("is JSON");
    assert_eq!(value["partial"], "say \"no\"\n\u{1}");
}

/// The names of the fields that are an empty string, wherever they are.
fn empty_fields(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(fields) => {
            let own = fields.iter().filter(|(_, value)| *value == "").map(|(name, _)| name.as_str());
            own.chain(fields.values().flat_map(empty_fields)).collect()
        }
        Value::Array(values) => values.iter().flat_map(empty_fields).collect(),
        _ => Vec::new(),
    }
}

fn words() -> impl Strategy<Value = Vec<TimedWord>> {
    let word = ("[ab\"]{0,3}", 0.0..9.0f64, proptest::option::of(0.0..1.0f32));
    let word =
        word.prop_map(|(word, at, confidence)| TimedWord { word, start: at, end: at + 0.25, confidence });
    proptest::collection::vec(word, 0..4)
}

fn any_final() -> impl Strategy<Value = Final> {
    let reading = ("[ab ]{0,4}", -9.0..900.0f32, words());
    let reading = reading.prop_map(|(text, confidence, words)| TimedAlternative { text, confidence, words });
    let readings = proptest::collection::vec(reading, 0..3);
    ("[ab ]{0,4}", words(), readings).prop_map(|(text, words, readings)| a_final(&text, words, readings))
}

proptest! {
    /// Some clients take a message with an empty string in it for one without a text, whatever the string belongs to.
    #[test]
    fn nothing_but_text_and_partial_is_ever_an_empty_string(
        finals in proptest::collection::vec(any_final(), 0..4), words: bool, alternatives: bool, partial in "[ab ]{0,4}",
    ) {
        let reply = final_reply(&finals, words, alternatives);
        let value: Value = serde_json::from_str(&reply).expect("is JSON");
        prop_assert!(empty_fields(&value).iter().all(|name| *name == "text"), "{reply}");
        prop_assert_eq!(value.get("alternatives").is_some(), alternatives);
        let reply = partial_reply(&partial);
        let value: Value = serde_json::from_str(&reply).expect("is JSON");
        prop_assert!(empty_fields(&value).iter().all(|name| *name == "partial"), "{reply}");
    }
}
