mod read;
mod whole;

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
