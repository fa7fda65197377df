use super::*;
use crate::native::TimedWord;
use crate::{CutCause, Segment, SourceOffset};

fn raw(text: &str) -> AudioFormat {
    match parse_content_type(Some(text)).expect(text) {
        Media::Raw(format) => format,
        Media::Container => panic!("{text} is raw"),
    }
}

#[test]
fn caps_are_read_as_clients_write_them() {
    let format = |encoding, sample_rate, channels| AudioFormat { encoding, sample_rate, channels };
    for (text, expected) in [
        (
            // client.py's own.
            "audio/x-raw, layout=(string)interleaved, rate=(int)8000, format=(string)S16LE, channels=(int)1",
            format(Encoding::PcmS16le, 8_000, 1),
        ),
        ("audio/x-raw-int; rate=44100", format(Encoding::PcmS16le, 44_100, 1)),
        ("audio/x-raw", format(Encoding::PcmS16le, 16_000, 1)),
        ("audio/x-raw, format=(string)F32LE, channels=2", format(Encoding::PcmF32le, 16_000, 2)),
        ("audio/x-raw, format=\"U8\"", format(Encoding::PcmU8, 16_000, 1)),
        ("audio/x-mulaw, rate=(int)8000, channels=(int)1", format(Encoding::Mulaw, 8_000, 1)),
        ("audio/x-alaw", format(Encoding::Alaw, 8_000, 1)),
        ("Audio/X-Raw, depth=(int)16, signed=(boolean)true", format(Encoding::PcmS16le, 16_000, 1)),
        (
            "audio/x-raw-int, rate=(int)8000, width=(int)8, depth=(int)8, signed=(boolean)false, endianness=(int)4321",
            format(Encoding::PcmU8, 8_000, 1),
        ),
        ("audio/x-raw-int, width=(int)24, depth=(int)24", format(Encoding::PcmS24le, 16_000, 1)),
        ("audio/x-raw-int, width=(int)32, endianness=(int)1234", format(Encoding::PcmS32le, 16_000, 1)),
        ("audio/x-raw-float, rate=44100", format(Encoding::PcmF32le, 44_100, 1)),
        ("audio/x-raw-float, width=(int)32, endianness=1234", format(Encoding::PcmF32le, 16_000, 1)),
        ("audio/l16; rate=8000; endianness=little-endian", format(Encoding::PcmS16le, 8_000, 1)),
        ("audio/x-mulaw, width=(int)64", format(Encoding::Mulaw, 8_000, 1)),
    ] {
        assert_eq!(raw(text), expected, "{text}");
    }
    for text in [None, Some(""), Some("audio/x-wav"), Some("audio/ogg; codecs=opus")] {
        assert_eq!(parse_content_type(text), Ok(Media::Container), "{text:?}");
    }
}

#[test]
fn caps_that_are_not_taken_are_named() {
    for (text, field) in [
        ("audio/x-raw, rate=(int)7999", "rate"),
        ("audio/x-raw, rate=fast", "rate"),
        ("audio/x-raw, channels=(int)9", "channels"),
        ("audio/x-raw, channels=(int)0", "channels"),
        ("audio/x-raw, format=(string)S16BE", "format"),
        ("audio/x-raw, layout=(string)non-interleaved", "layout"),
        ("audio/x-raw-int, width=(int)8", "signed"),
        ("audio/x-raw-int, width=(int)8, signed=(boolean)true", "signed"),
        ("audio/x-raw-int, width=(int)16, signed=(boolean)false", "signed"),
        ("audio/x-raw-int, width=(int)12", "width"),
        ("audio/x-raw-int, width=wide", "width"),
        ("audio/x-raw-int, width=(int)32, depth=(int)24", "depth"),
        ("audio/x-raw-int, width=(int)16, endianness=(int)4321", "endianness"),
        ("audio/x-raw, format=S16LE, endianness=4321", "endianness"),
        ("audio/x-raw-float, width=(int)64", "width"),
        ("audio/x-raw-float, endianness=middle", "endianness"),
        ("audio/l16; rate=8000", "endianness"),
    ] {
        let error = parse_content_type(Some(text)).expect_err(text);
        assert_eq!(error.field, Some(format!("content-type {field}")), "{text}");
    }
}

#[test]
fn text_messages_are_an_end_or_a_state_or_nothing() {
    assert_eq!(parse_text("EOS"), TextMessage::EndOfStream);
    let state = json!({ "type": "string+gzip+base64", "value": "eJw=" });
    let text = json!({ "adaptation_state": state }).to_string();
    assert_eq!(parse_text(&text), TextMessage::AdaptationState(Box::new(state)));
    for text in ["", "eos", "{}", "[1]", "{\"adaptation\":1}", "not json"] {
        assert_eq!(parse_text(text), TextMessage::Other, "{text}");
    }
}

fn last() -> Final {
    Final {
        segment: Segment(3),
        from: SourceOffset(16_000),
        to: SourceOffset(40_000),
        start: 1.0,
        end: 2.5,
        cause: CutCause::Endpoint,
        text: "one two".into(),
        words: vec![TimedWord { word: "one".into(), start: 1.1, end: 1.3, confidence: Some(0.5) }],
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("is JSON")
}

#[test]
fn events_have_the_original_shapes() {
    let partial = json!({
        "status": 0, "segment": 3, "id": "x",
        "result": { "hypotheses": [{ "transcript": "one" }], "final": false },
    });
    assert_eq!(parsed(&partial_event("x", 3, "one")), partial);
    let whole = json!({
        "status": 0, "segment": 3, "id": "x", "segment-start": 1.0, "segment-length": 1.5, "total-length": 2.5,
        "result": { "final": true, "hypotheses": [{
            "transcript": "one two",
            "word-alignment": [{ "word": "one", "start": 0.1, "length": 0.2, "confidence": 0.5 }],
        }]},
    });
    assert_eq!(parsed(&final_event("x", &last())), whole);
    let error = json!({ "status": 9, "message": "no", "id": "x" });
    assert_eq!(parsed(&error_event("x", Status::NotAvailable, "no")), error);
    let answer = json!({ "status": 0, "id": "x", "hypotheses": [{ "utterance": "one" }] });
    assert_eq!(parsed(&recognized("x", "one")), answer);
}

#[test]
fn a_segment_that_failed_is_no_success() {
    let event = parsed(&final_event("x", &Final { error: Some("it kills".into()), ..last() }));
    assert_eq!((&event["status"], &event["message"]), (&json!(5), &json!("it kills")));
    assert_eq!(event["result"], Value::Null);
}

#[test]
fn an_adaptation_state_comes_back_as_it_was_given() {
    let given = json!({ "type": "string+gzip+base64", "value": "abc", "id": "earlier" });
    let event = parsed(&adaptation_event("x", Some(&given), "2026-01-02T03:04:05"));
    let state =
        json!({ "id": "x", "value": "abc", "type": "string+gzip+base64", "time": "2026-01-02T03:04:05" });
    assert_eq!(event, json!({ "status": 0, "adaptation_state": state }));
    let event = parsed(&adaptation_event("x", None, "now"));
    assert_eq!(event["adaptation_state"]["value"], EMPTY_STATE);
}
