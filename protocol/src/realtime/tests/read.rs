//! What clients say, and what can't be served of it.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::native::{AudioFormat, Encoding, ErrorCode};
use crate::realtime::*;

fn update(session: &Value) -> Result<Update, String> {
    let text = json!({ "type": "session.update", "session": session }).to_string();
    match parse_event(&text).event {
        Ok(ClientEvent::Update(update)) => Ok(*update),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.message),
    }
}

fn input(input: &Value) -> Result<Update, String> {
    update(&json!({ "type": "transcription", "audio": { "input": input } }))
}

#[test]
fn events_are_read() {
    for (text, event, id) in [
        (r#"{"type":"input_audio_buffer.append","audio":"AAEC"}"#, ClientEvent::Append(vec![0, 1, 2]), None),
        (
            r#"{"type":"input_audio_buffer.append","audio":"\/\/8=","event_id":"e"}"#,
            ClientEvent::Append(vec![255, 255]),
            Some("e"),
        ),
        (r#"{"audio":"AAE","type":"input_audio_buffer.append"}"#, ClientEvent::Append(vec![0, 1]), None),
        (r#"{"event_id":"1","type":"input_audio_buffer.commit","more":[]}"#, ClientEvent::Commit, Some("1")),
        (r#"{"type":"input_audio_buffer.clear"}"#, ClientEvent::Clear, None),
    ] {
        assert_eq!(parse_event(text), Said { event: Ok(event), event_id: id.map(str::to_owned) }, "{text}");
    }
}

#[test]
fn what_is_no_event_is_named_with_its_id() {
    let kinds = "it must be session.update, input_audio_buffer.append, input_audio_buffer.commit or input_audio_buffer.clear";
    let whole = "it must be a JSON object with a type, and text where an event has text";
    let base64 = "it must be base64 (RFC 4648, section 4) of bytes in the session's format";
    for (text, message, id) in [
        (
            r#"{"type":"response.create","event_id":"e"}"#,
            format!("type is \"response.create\"; {kinds}"),
            Some("e"),
        ),
        (r#"{"event_id":"e"}"#, format!("type is absent; {kinds}"), Some("e")),
        ("hello", format!("event is \"hello\"; {whole}"), None),
        ("[1]", format!("event is \"[1]\"; {whole}"), None),
        (
            r#"{"type":"input_audio_buffer.append","event_id":"e"}"#,
            format!("audio is absent; {base64}"),
            Some("e"),
        ),
        (
            r#"{"type":"input_audio_buffer.append","audio":"AA!A"}"#,
            format!("audio is no base64 at letter 2; {base64}"),
            None,
        ),
        (
            r#"{"type":"input_audio_buffer.append","audio":"A"}"#,
            format!("audio is of 1 letters; {base64}"),
            None,
        ),
    ] {
        let said = parse_event(text);
        let error = said.event.expect_err(text);
        assert_eq!((error.message, said.event_id.as_deref()), (message, id), "{text}");
        assert_eq!(error.code, ErrorCode::BadMessage);
    }
    let said = parse_event(r#"{"type":"input_audio_buffer.append","audio":7,"event_id":"e"}"#);
    let message = said.event.expect_err("a number").message;
    assert!(message.contains("expected a string"), "{message}");
    assert_eq!(said.event_id.as_deref(), Some("e"));
    let long = json!({ "type": "no", "event_id": "e".repeat(513) }).to_string();
    assert_eq!(parse_event(&long).event_id, None);
}

#[test]
fn an_event_has_as_much_audio_as_there_and_no_more() {
    let event = |letters: usize| {
        let text = format!(r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#, "A".repeat(letters));
        assert!(text.len() <= MAX_MESSAGE_BYTES);
        parse_event(&text).event
    };
    let most = MAX_AUDIO_BYTES / 3 * 4;
    assert!(event(most).is_ok());
    let message = event(most + 2).expect_err("too much").message;
    assert_eq!(message, "audio is 15728641 bytes; it must be at most 15728640 bytes");
}

#[test]
fn a_session_is_read_in_both_shapes() {
    let mono = |encoding, sample_rate| Some(AudioFormat { encoding, sample_rate, channels: 1 });
    let today = input(&json!({
        "format": { "type": "audio/pcm", "rate": 24000 },
        "transcription": { "model": "gpt-4o-transcribe", "language": "en", "prompt": "expect birds" },
        "turn_detection": { "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500 },
        "noise_reduction": { "type": "near_field" },
    }));
    let wanted = Update {
        beta: false,
        format: mono(Encoding::PcmS16le, 24_000),
        model: Some(Some("gpt-4o-transcribe".into())),
        language: Some(Some("en".into())),
        turn_detection: Some(TurnDetection::ServerVad),
        silence_ms: Some(Some(500)),
    };
    assert_eq!(today, Ok(wanted));
    for (given, wanted) in [
        (json!({}), Update::default()),
        (
            json!({ "format": { "type": "audio/pcm" } }),
            Update { format: mono(Encoding::PcmS16le, 24_000), ..Update::default() },
        ),
        (
            json!({ "format": { "type": "audio/pcmu" } }),
            Update { format: mono(Encoding::Mulaw, 8_000), ..Update::default() },
        ),
        (
            json!({ "format": { "type": "audio/pcma" } }),
            Update { format: mono(Encoding::Alaw, 8_000), ..Update::default() },
        ),
        (
            json!({ "turn_detection": null }),
            Update { turn_detection: Some(TurnDetection::Off), silence_ms: Some(None), ..Update::default() },
        ),
        (
            json!({ "turn_detection": { "type": "semantic_vad", "eagerness": "low" } }),
            Update {
                turn_detection: Some(TurnDetection::SemanticVad),
                silence_ms: Some(None),
                ..Update::default()
            },
        ),
        (
            json!({ "turn_detection": { "type": "server_vad", "silence_duration_ms": 20 } }),
            Update {
                turn_detection: Some(TurnDetection::ServerVad),
                silence_ms: Some(Some(100)),
                ..Update::default()
            },
        ),
        (
            json!({ "transcription": null }),
            Update { model: Some(None), language: Some(None), ..Update::default() },
        ),
        (
            json!({ "transcription": { "model": "m" } }),
            Update { model: Some(Some("m".into())), ..Update::default() },
        ),
        (
            json!({ "transcription": { "language": "" } }),
            Update { language: Some(None), ..Update::default() },
        ),
    ] {
        assert_eq!(input(&given), Ok(wanted), "{given}");
    }
    let older = json!({
        "type": "transcription_session.update",
        "session": {
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": { "model": "whisper-1" },
            "turn_detection": null,
        },
    });
    let wanted = Update {
        beta: true,
        format: mono(Encoding::Mulaw, 8_000),
        model: Some(Some("whisper-1".into())),
        language: None,
        turn_detection: Some(TurnDetection::Off),
        silence_ms: Some(None),
    };
    assert_eq!(parse_event(&older.to_string()).event, Ok(ClientEvent::Update(Box::new(wanted))));
}

#[test]
fn what_cannot_be_served_is_named_by_its_path() {
    for (given, message) in [
        (
            json!({ "format": { "type": "audio/opus" } }),
            "session.audio.input.format.type is \"audio/opus\"; it must be audio/pcm, audio/pcmu or audio/pcma",
        ),
        (
            json!({ "format": { "type": "audio/pcm", "rate": 4000 } }),
            "session.audio.input.format.rate is 4000; it must be a whole number from 8000 to 48000, 24000 if absent",
        ),
        (json!({ "format": "pcm16" }), "session.audio.input.format is \"pcm16\"; it must be an object"),
        (
            json!({ "turn_detection": { "type": "push" } }),
            "session.audio.input.turn_detection.type is \"push\"; it must be server_vad or semantic_vad; or turn_detection itself null",
        ),
        (
            json!({ "transcription": { "model": 5 } }),
            "session.audio.input.transcription.model is 5; it must be a text of at most 200 bytes",
        ),
    ] {
        assert_eq!(input(&given), Err(message.to_owned()), "{given}");
    }
    let realtime = update(&json!({ "type": "realtime" })).expect_err("no conversations");
    assert_eq!(
        realtime,
        "session.type is \"realtime\"; it must be \"transcription\": nothing here answers a conversation"
    );
    assert_eq!(update(&json!("x")), Err("session is \"x\"; it must be an object".to_owned()));
    let named = update(&json!({ "input_audio_format": "opus" })).expect_err("no such format");
    assert_eq!(
        named,
        "session.input_audio_format is \"opus\"; it must be pcm16 (at 24000 Hz), g711_ulaw or g711_alaw"
    );
}

#[test]
fn what_audio_is_decoded_as_stays_once_it_came() {
    let config = Config { model: Some("m".into()), ..Config::default() };
    let ulaw = input(&json!({ "format": { "type": "audio/pcmu" } })).expect("fine");
    assert_eq!(config.with(&ulaw, false).expect("in time").format.sample_rate, 8_000);
    let late = |update: &Update| config.with(update, true).expect_err("too late").field.expect("a field");
    assert_eq!(late(&ulaw), "session.audio.input.format");
    assert_eq!(late(&Update { beta: true, ..ulaw }), "session.input_audio_format");
    assert_eq!(
        late(&input(&json!({ "transcription": { "model": "n" } })).expect("fine")),
        "session.audio.input.transcription.model"
    );
    assert_eq!(
        late(&input(&json!({ "transcription": { "language": "ko" } })).expect("fine")),
        "session.audio.input.transcription.language"
    );
    let same = json!({ "format": { "type": "audio/pcm" }, "transcription": { "model": "m" }, "turn_detection": null });
    let next = config.with(&input(&same).expect("fine"), true).expect("nothing that counts");
    assert_eq!(next, Config { turn_detection: TurnDetection::Off, ..config });
}

proptest! {
    #[test]
    fn no_text_is_a_panic(text in ".{0,80}", kind in "session.update|transcription_session.update", inner in ".{0,40}") {
        let _ = parse_event(&text);
        let _ = parse_event(&json!({ "type": kind, "session": { "audio": { "input": { "format": inner } } } }).to_string());
    }

    #[test]
    fn audio_comes_out_as_it_went_in(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let audio = data_encoding::BASE64.encode(&bytes);
        let text = json!({ "type": "input_audio_buffer.append", "audio": audio }).to_string();
        prop_assert_eq!(parse_event(&text).event, Ok(ClientEvent::Append(bytes)));
    }
}
