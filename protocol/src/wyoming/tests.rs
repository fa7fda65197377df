use proptest::prelude::*;

use super::*;
use crate::native::{ErrorCode, Final};
use crate::wire::tests::read_in_pieces;
use crate::{CutCause, Segment, SourceOffset};

/// As the package's own writer lays an event out.
fn event(kind: &str, data: &Value, payload: &[u8]) -> Vec<u8> {
    let body = if data.is_null() { String::new() } else { data.to_string() };
    let mut head = json!({ "type": kind, "version": "1.10.2" });
    if !body.is_empty() {
        head["data_length"] = body.len().into();
    }
    if !payload.is_empty() {
        head["payload_length"] = payload.len().into();
    }
    [head.to_string().as_bytes(), b"\n", body.as_bytes(), payload].concat()
}

fn read(bytes: &[u8]) -> (Vec<Event>, Option<ErrorBody>) {
    read_in_pieces(EventReader::default(), bytes, &[])
}

fn request(kind: &str, data: &Value) -> Result<Request, ErrorBody> {
    let (mut events, error) = read(&event(kind, data, &[]));
    assert_eq!((events.len(), error), (1, None));
    parse_request(events.remove(0))
}

fn refusal(bytes: &[u8]) -> String {
    let (events, error) = read(bytes);
    assert!(events.is_empty(), "{events:?}");
    error.expect("is refused").message
}

#[test]
fn an_exchange_of_the_packages_own_client_is_understood() {
    let format = json!({ "rate": 16000, "width": 2, "channels": 1, "timestamp": null });
    let bytes = [
        event("transcribe", &json!({ "language": "en" }), &[]),
        event("audio-start", &format, &[]),
        event("audio-chunk", &format, b"12\n4"),
        event("audio-stop", &json!({ "timestamp": null }), &[]),
        event("describe", &Value::Null, &[]),
        event("select-program", &json!({ "name": "x" }), &[]),
    ]
    .concat();
    let (events, error) = read(&bytes);
    assert_eq!(error, None);
    let requests: Vec<Request> =
        events.into_iter().map(|event| parse_request(event).expect("is understood")).collect();
    let format = AudioFormat::default();
    assert_eq!(
        requests,
        [
            Request::Transcribe { model: None, language: Some("en".to_owned()) },
            Request::AudioStart(format),
            Request::AudioChunk { format, audio: b"12\n4".to_vec() },
            Request::AudioStop,
            Request::Describe,
            Request::Other("select-program".to_owned()),
        ]
    );
}

#[test]
fn data_may_stand_in_the_header_and_what_follows_wins() {
    let line = b"{\"type\":\"transcribe\",\"data\":{\"name\":\"a\",\"language\":\"en\"},\"data_length\":12}\n{\"name\":\"b\"}";
    let (events, error) = read(line);
    assert_eq!(error, None);
    let request = parse_request(events[0].clone()).expect("is understood");
    let wanted = Request::Transcribe { model: Some("b".to_owned()), language: Some("en".to_owned()) };
    assert_eq!(request, wanted);
}

#[test]
fn widths_are_encodings() {
    for (width, encoding) in
        [(1, Encoding::PcmU8), (2, Encoding::PcmS16le), (3, Encoding::PcmS24le), (4, Encoding::PcmS32le)]
    {
        let data = json!({ "rate": 8000, "width": width, "channels": 2 });
        let format = AudioFormat { encoding, sample_rate: 8_000, channels: 2 };
        assert_eq!(request("audio-start", &data), Ok(Request::AudioStart(format)));
    }
}

#[test]
fn a_value_that_cannot_be_used_is_named() {
    let table = [
        ("audio-start", json!({ "width": 2, "channels": 1 })),
        ("audio-start", json!({ "rate": 4000, "width": 2, "channels": 1 })),
        ("audio-start", json!({ "rate": "16000", "width": 2, "channels": 1 })),
        ("audio-start", json!({ "rate": 16000, "width": 5, "channels": 1 })),
        ("audio-start", json!({ "rate": 16000, "width": 2, "channels": 0 })),
        ("audio-chunk", json!({ "rate": 16000.5, "width": 2, "channels": 1 })),
        ("transcribe", json!({ "name": 7 })),
        ("transcribe", json!({ "language": ["en"] })),
        ("ping", json!({ "text": {} })),
    ];
    let refusals: Vec<String> = table
        .iter()
        .map(|(kind, data)| {
            let error = request(kind, data).expect_err("is refused");
            assert!(error.code == ErrorCode::BadRequest && error.field.is_some());
            error.message
        })
        .collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn what_is_no_event_is_refused() {
    let table: [&[u8]; 10] = [
        b"GET / HTTP/1.1\r\n",
        b"\n",
        b"[]\n",
        b"\xff\xfe\n",
        b"{\"type\":\"\"}\n",
        b"{\"data\":{}}\n",
        b"{\"type\":\"ping\",\"data\":[]}\n",
        b"{\"type\":\"ping\",\"data_length\":-1}\n",
        b"{\"type\":\"audio-chunk\",\"payload_length\":1048577}\n",
        b"{\"type\":\"ping\",\"data_length\":3}\nabc",
    ];
    let refusals: Vec<String> = table.iter().map(|bytes| refusal(bytes)).collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_header_without_an_end_is_not_gathered_for_ever() {
    let mut reader = EventReader::default();
    for _ in 0..MAX_HEADER_BYTES / 1_024 {
        reader.push(&[b' '; 1_024]);
        assert_eq!(reader.next_frame(), Ok(None));
    }
    reader.push(b" ");
    let message = reader.next_frame().expect_err("is refused").message;
    assert!(message.starts_with("the header is over 65536 bytes long"), "{message}");
}

fn a_final(text: &str) -> Final {
    Final {
        segment: Segment(0),
        from: SourceOffset(0),
        to: SourceOffset(0),
        start: 0.0,
        end: 0.0,
        cause: CutCause::Endpoint,
        text: text.to_owned(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    }
}

fn told(bytes: &[u8]) -> Vec<(String, Value)> {
    let (events, error) = read(bytes);
    assert_eq!(error, None);
    events.into_iter().map(|event| (event.kind, Value::Object(event.data))).collect()
}

#[test]
fn parts_make_the_whole() {
    let mut teller = Teller::new(Some("en".to_owned()));
    let mut out = Vec::new();
    for text in ["", "turn on", "", "the light"] {
        teller.last(&a_final(text), &mut out);
    }
    out.extend(teller.end());
    let of = |kind: &str, data: Value| (kind.to_owned(), data);
    assert_eq!(
        told(&out),
        [
            of("transcript-start", json!({ "language": "en" })),
            of("transcript-chunk", json!({ "text": "turn on" })),
            of("transcript-chunk", json!({ "text": " the light" })),
            of("transcript", json!({ "text": "turn on the light", "language": "en" })),
            of("transcript-stop", json!({})),
        ]
    );
}

#[test]
fn nothing_said_is_an_empty_transcript() {
    let told: Vec<String> =
        told(&Teller::new(None).end()).iter().map(|(kind, data)| format!("{kind} {data}")).collect();
    assert_eq!(told, ["transcript-start {}", "transcript {\"text\":\"\"}", "transcript-stop {}"]);
}

#[test]
fn answers_are_events() {
    let models = [AsrModel {
        name: "m".to_owned(),
        language: "en".to_owned(),
        made_by: ("Vosk", "https://alphacephei.com/vosk/"),
    }];
    let error = ErrorBody::field("audio-start.rate", "1", "more");
    let bytes =
        [info_event("0.1.0", &models), pong_event(Some("a")), pong_event(None), error_event(&error)].concat();
    let told: Vec<String> = told(&bytes).iter().map(|(kind, data)| format!("{kind} {data:#}")).collect();
    insta::assert_snapshot!(told.join("\n"));
}

proptest! {
    /// Parts one after another are the whole, in the order that the specification has, whatever is said.
    #[test]
    fn whatever_is_said_parts_make_the_whole(
        language in proptest::option::of("[a-z]{2}"),
        texts in proptest::collection::vec("(\\PC{1,12}|)", 0..12),
    ) {
        let mut teller = Teller::new(language.clone());
        let mut out = Vec::new();
        for text in &texts {
            teller.last(&a_final(text), &mut out);
        }
        out.extend(teller.end());
        let told = told(&out);
        let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
        let parts = kinds.iter().filter(|kind| **kind == "transcript-chunk").count();
        let spoken: Vec<&str> = texts.iter().filter(|text| !text.is_empty()).map(String::as_str).collect();
        prop_assert_eq!(parts, spoken.len());
        prop_assert_eq!(kinds[0], "transcript-start");
        prop_assert_eq!(&kinds[kinds.len() - 2..], ["transcript", "transcript-stop"]);
        prop_assert_eq!(kinds.len(), parts + 3);
        let text = |data: &Value| data["text"].as_str().expect("a text").to_owned();
        let joined: String = told[1..=parts].iter().map(|(_, data)| text(data)).collect();
        let whole = &told[parts + 1].1;
        prop_assert_eq!(&joined, &text(whole));
        prop_assert_eq!(joined, spoken.join(" "));
        prop_assert_eq!(whole["language"].as_str(), language.as_deref());
    }
}

fn events() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    let kinds = prop_oneof![Just("audio-chunk"), Just("ping"), Just("transcribe"), Just("unheard-of")];
    let data = prop_oneof![
        Just(Value::Null),
        Just(json!({ "rate": 16000, "width": 2, "channels": 1 })),
        "\\PC{0,20}".prop_map(|text| json!({ "text": text, "name": text })),
    ];
    let any_event = (kinds, data, payload).prop_map(|(kind, data, payload)| event(kind, &data, &payload));
    proptest::collection::vec(any_event, 0..8).prop_map(|events: Vec<Vec<u8>>| events.concat())
}

proptest! {
    #[test]
    fn where_bytes_are_cut_makes_no_difference(
        bytes in events(), cuts in proptest::collection::vec(1usize..200, 0..60),
    ) {
        let at_once = read(&bytes);
        prop_assert!(at_once.1.is_none());
        prop_assert_eq!(read_in_pieces(EventReader::default(), &bytes, &cuts), at_once);
    }

    #[test]
    fn no_bytes_do_harm(
        mut bytes in events(), noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cuts in proptest::collection::vec(1usize..50, 0..60),
    ) {
        for (at, byte) in noise {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let at_once = read(&bytes);
        prop_assert_eq!(&read_in_pieces(EventReader::default(), &bytes, &cuts), &at_once);
        for event in at_once.0 {
            let _ = parse_request(event);
        }
    }
}
