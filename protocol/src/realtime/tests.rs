mod whole;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::native::{AudioFormat, Encoding, ErrorBody, ErrorCode, Final};
use crate::{CutCause, Segment, SourceOffset};

fn a_final(from: u64, to: u64, text: &str, cause: CutCause) -> Final {
    Final {
        segment: Segment(0),
        from: SourceOffset(from),
        to: SourceOffset(to),
        start: 0.0,
        end: 0.0,
        cause,
        text: text.to_owned(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: (cause == CutCause::GivenUp).then(|| "three decoders died of it".to_owned()),
    }
}

fn teller(turn_detection: TurnDetection) -> Teller {
    Teller::new("s", Config { turn_detection, ..Config::default() }, false)
}

/// Positions and cuts that are the same, as without resampling.
fn mark(at: u64) -> Mark {
    Mark { at: SourceOffset(at), cut: SourceOffset(at) }
}

/// What is told, as JSON.
fn told<T>(act: impl FnOnce(&mut Vec<String>) -> T) -> Vec<Value> {
    let mut out = Vec::new();
    act(&mut out);
    out.iter().map(|text| serde_json::from_str(text).expect("JSON")).collect()
}

/// Their kinds, without what all of them begin with.
fn kinds(events: &[Value]) -> Vec<&str> {
    let kind = |event: &Value| -> &'static str {
        let kinds = [
            ("input_audio_buffer.speech_started", "started"),
            ("input_audio_buffer.speech_stopped", "stopped"),
            ("input_audio_buffer.committed", "committed"),
            ("input_audio_buffer.cleared", "cleared"),
            ("conversation.item.added", "added"),
            ("conversation.item.done", "done"),
            ("conversation.item.created", "created"),
            ("conversation.item.input_audio_transcription.delta", "delta"),
            ("conversation.item.input_audio_transcription.completed", "completed"),
            ("conversation.item.input_audio_transcription.failed", "failed"),
            ("error", "error"),
        ];
        kinds.iter().find(|(long, _)| event["type"] == *long).expect("a known kind").1
    };
    events.iter().map(kind).collect()
}

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
            Update { turn_detection: Some(TurnDetection::Off), ..Update::default() },
        ),
        (
            json!({ "turn_detection": { "type": "semantic_vad", "eagerness": "low" } }),
            Update { turn_detection: Some(TurnDetection::SemanticVad), ..Update::default() },
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

#[test]
fn a_session_is_shown_as_it_is() {
    let created = told(|out| teller(TurnDetection::ServerVad).created(out));
    let wanted = json!({
        "type": "session.created",
        "event_id": "event_s_1",
        "session": {
            "id": "sess_s",
            "object": "realtime.transcription_session",
            "type": "transcription",
            "audio": { "input": {
                "format": { "type": "audio/pcm", "rate": 24000 },
                "transcription": { "model": null, "language": null, "prompt": null },
                "noise_reduction": null,
                "turn_detection": { "type": "server_vad" },
            } },
            "include": null,
        },
    });
    assert_eq!(created, [wanted]);
    let mut beta = Teller::new("s", Config::default(), true);
    assert_eq!(told(|out| beta.created(out))[0]["type"], "transcription_session.created");
    let format = AudioFormat { encoding: Encoding::Alaw, sample_rate: 8_000, channels: 1 };
    let config = Config { format, turn_detection: TurnDetection::Off, ..Config::default() };
    let updated = told(|out| beta.updated(config.clone(), true, out));
    assert_eq!(updated[0]["type"], "transcription_session.updated");
    assert_eq!(updated[0]["session"]["input_audio_format"], "g711_alaw");
    assert_eq!(updated[0]["session"]["turn_detection"], Value::Null);
    let updated = told(|out| beta.updated(config, false, out));
    assert_eq!(updated[0]["type"], "session.updated");
    assert_eq!(updated[0]["session"]["audio"]["input"]["format"], json!({ "type": "audio/pcma" }));
}

#[test]
fn each_segment_with_words_is_an_item() {
    let mut teller = teller(TurnDetection::ServerVad);
    let at = SourceOffset;
    assert_eq!(told(|out| teller.partial(at(0), "", out)), [Value::Null; 0]);
    assert_eq!(told(|out| teller.last(&a_final(0, 12_000, "", CutCause::NoSpeech), out)), [Value::Null; 0]);
    let events = told(|out| teller.partial(at(12_000), "two", out));
    assert_eq!(kinds(&events), ["started"]);
    assert_eq!((&events[0]["audio_start_ms"], &events[0]["item_id"]), (&500.into(), &"item_s_1".into()));
    let events = told(|out| {
        teller.partial(at(12_000), "two roads", out);
        teller.partial(at(12_000), "two roads diverged", out);
    });
    assert_eq!(kinds(&events), ["delta", "delta"]);
    assert_eq!((&events[0]["delta"], &events[1]["delta"]), (&"two".into(), &" roads".into()));
    let events =
        told(|out| teller.last(&a_final(12_000, 60_000, "two roads diverged.", CutCause::Endpoint), out));
    assert_eq!(kinds(&events), ["stopped", "committed", "added", "done", "delta", "completed"]);
    assert_eq!(events[0]["audio_end_ms"], 2_500);
    assert_eq!(events[1]["previous_item_id"], Value::Null);
    assert_eq!(events[2]["item"]["content"][0]["type"], "input_audio");
    assert_eq!(events[4]["delta"], " diverged.");
    assert_eq!(events[5]["transcript"], "two roads diverged.");
    assert_eq!(events[5]["usage"], json!({ "type": "duration", "seconds": 2.0 }));
    assert_eq!((&events[5]["logprobs"], &events[5]["content_index"]), (&Value::Null, &0.into()));
    // One that no partial came before.
    let events = told(|out| teller.last(&a_final(60_000, 72_000, "in", CutCause::Pause), out));
    assert_eq!(kinds(&events), ["started", "stopped", "committed", "added", "done", "delta", "completed"]);
    assert_eq!(
        (&events[2]["previous_item_id"], &events[2]["item_id"]),
        (&"item_s_1".into(), &"item_s_2".into())
    );
}

#[test]
fn what_was_told_and_is_no_longer_true_is_followed_by_the_truth_alone() {
    let mut teller = teller(TurnDetection::ServerVad);
    let events = told(|out| {
        teller.partial(SourceOffset(0), "to roads", out);
        teller.partial(SourceOffset(0), "to roads diverged", out);
        teller.partial(SourceOffset(0), "two roads diverged in", out);
        teller.partial(SourceOffset(0), "two roads diverged in a", out);
        teller.last(&a_final(0, 24_000, "two roads diverged in a wood", CutCause::Endpoint), out);
    });
    assert_eq!(kinds(&events), ["started", "delta", "stopped", "committed", "added", "done", "completed"]);
    assert_eq!(events[1]["delta"], "to roads");
    assert_eq!(events[6]["transcript"], "two roads diverged in a wood");
}

#[test]
fn words_that_turn_out_to_be_none_end_an_item_without_text() {
    let mut teller = teller(TurnDetection::SemanticVad);
    let events = told(|out| {
        teller.partial(SourceOffset(0), "huh", out);
        teller.last(&a_final(0, 24_000, "", CutCause::NoSpeech), out);
    });
    assert_eq!(kinds(&events), ["started", "stopped", "committed", "added", "done", "completed"]);
    assert_eq!(events[5]["transcript"], "");
}

#[test]
fn without_turn_detection_a_commit_alone_ends_an_item() {
    let mut teller = teller(TurnDetection::Off);
    let events = told(|out| {
        teller.partial(SourceOffset(0), "one", out);
        teller.partial(SourceOffset(0), "one two", out);
        teller.last(&a_final(0, 24_000, "one two", CutCause::Pause), out);
        teller.last(&a_final(24_000, 48_000, "", CutCause::NoSpeech), out);
    });
    assert_eq!(kinds(&events), ["delta", "delta"]);
    let events = told(|out| assert!(teller.commit(mark(72_000), None, out)));
    assert_eq!(kinds(&events), ["committed", "added", "done"]);
    let events = told(|out| {
        teller.partial(SourceOffset(48_000), "three", out);
        teller.partial(SourceOffset(48_000), "three four", out);
        teller.last(&a_final(48_000, 72_000, "three four", CutCause::Finalize), out);
    });
    assert_eq!(kinds(&events), ["delta", "delta", "completed"]);
    assert_eq!((&events[0]["delta"], &events[1]["delta"]), (&" three".into(), &" four".into()));
    assert_eq!(events[2]["transcript"], "one two three four");
    assert_eq!(events[2]["usage"]["seconds"], 3.0);
}

#[test]
fn what_is_too_short_to_be_an_item_is_an_error_of_theirs() {
    let mut teller = teller(TurnDetection::Off);
    let events = told(|out| assert!(!teller.commit(mark(2_399), Some("mine"), out)));
    let error = &events[0]["error"];
    assert_eq!(
        (&error["type"], &error["code"], &error["event_id"]),
        (&"invalid_request_error".into(), &"input_audio_buffer_commit_empty".into(), &"mine".into())
    );
    assert_eq!(error["message"], "99.96 ms of audio were appended; it takes 100 ms to commit them");
    told(|out| assert!(teller.commit(mark(2_400), None, out)));
    told(|out| assert!(!teller.commit(mark(2_400), None, out)));
    // With turn detection, what a segment took is no longer there.
    let mut teller = self::teller(TurnDetection::ServerVad);
    told(|out| teller.last(&a_final(0, 24_000, "one", CutCause::Pause), out));
    told(|out| assert!(!teller.commit(mark(26_000), None, out)));
}

#[test]
fn with_turn_detection_a_commit_ends_the_open_item_early() {
    let mut teller = teller(TurnDetection::ServerVad);
    let events = told(|out| {
        teller.partial(SourceOffset(0), "one", out);
        assert!(teller.commit(mark(24_000), None, out));
        teller.last(&a_final(0, 12_000, "one", CutCause::Endpoint), out);
        teller.last(&a_final(12_000, 24_000, "two", CutCause::Finalize), out);
        teller.last(&a_final(24_000, 48_000, "three", CutCause::Endpoint), out);
    });
    let first = ["started", "committed", "added", "done", "delta", "delta", "completed"];
    let second = ["started", "stopped", "committed", "added", "done", "delta", "completed"];
    assert_eq!(kinds(&events), [first, second].concat());
    assert_eq!((&events[6]["transcript"], &events[13]["transcript"]), (&"one two".into(), &"three".into()));
}

#[test]
fn what_was_cleared_is_not_told_and_what_was_committed_before_is() {
    let mut teller = teller(TurnDetection::Off);
    let cut = |at: u64| Mark { at: SourceOffset(at), cut: SourceOffset(at - 24) };
    let events = told(|out| {
        assert!(teller.commit(cut(24_000), None, out));
        teller.partial(SourceOffset(0), "kept", out);
        assert!(teller.clear(cut(48_000), out));
        assert!(!teller.clear(cut(48_000), out));
        teller.last(&a_final(0, 23_976, "kept", CutCause::Finalize), out);
        teller.partial(SourceOffset(23_976), "gone", out);
        teller.partial(SourceOffset(23_976), "gone for good", out);
        teller.last(&a_final(23_976, 30_000, "gone", CutCause::Pause), out);
        teller.last(&a_final(30_000, 47_976, "for good", CutCause::Finalize), out);
        teller.last(&a_final(47_976, 60_000, "new", CutCause::Pause), out);
        assert!(teller.commit(cut(72_000), None, out));
        teller.last(&a_final(60_000, 71_976, "", CutCause::Finalize), out);
    });
    let wanted = [
        "committed",
        "added",
        "done",
        "cleared",
        "cleared",
        "delta",
        "completed",
        "delta",
        "committed",
        "added",
        "done",
        "completed",
    ];
    assert_eq!(kinds(&events), wanted);
    assert_eq!((&events[6]["transcript"], &events[11]["transcript"]), (&"kept".into(), &"new".into()));
    assert_eq!(events[11]["usage"]["seconds"], 1.0);
}

#[test]
fn an_item_with_a_hole_has_failed() {
    let mut teller = teller(TurnDetection::ServerVad);
    let events = told(|out| teller.last(&a_final(0, 24_000, "", CutCause::GivenUp), out));
    assert_eq!(kinds(&events), ["started", "stopped", "committed", "added", "done", "failed"]);
    let error = &events[5]["error"];
    assert_eq!(error["type"], "server_error");
    assert_eq!(error["message"], "a part of the audio could not be decoded: three decoders died of it");
    // One that ends where a final was asked for stands for it; one before it does not.
    for (to, completed) in [(23_976, true), (12_000, false)] {
        let mut teller = self::teller(TurnDetection::Off);
        let events = told(|out| {
            let mark = Mark { at: SourceOffset(24_000), cut: SourceOffset(23_976) };
            assert!(teller.commit(mark, None, out));
            teller.last(&a_final(0, to, "", CutCause::GivenUp), out);
        });
        assert_eq!(kinds(&events).contains(&"failed"), completed, "{to}");
    }
}

#[test]
fn nobody_waits_for_what_will_not_come() {
    let mut teller = teller(TurnDetection::Off);
    let events = told(|out| {
        assert!(teller.commit(mark(24_000), None, out));
        teller.over(&ErrorBody::new(ErrorCode::IdleTimeout, "no audio came"), None, out);
    });
    assert_eq!(kinds(&events), ["committed", "added", "done", "failed", "error"]);
    assert_eq!(
        (&events[3]["error"]["message"], &events[4]["error"]["code"]),
        (&"no audio came".into(), &"session_expired".into())
    );
}

#[test]
fn the_older_shape_has_its_own_event_of_an_item() {
    let mut teller = Teller::new("s", Config::default(), true);
    let events = told(|out| teller.last(&a_final(0, 24_000, "one", CutCause::Pause), out));
    assert_eq!(kinds(&events), ["started", "stopped", "committed", "created", "delta", "completed"]);
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
