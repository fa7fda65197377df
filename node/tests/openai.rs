//! `OpenAI`'s interface for recordings over real sockets, on a node that the test plays.

mod common;

use common::answer::{Answer, request};
use common::events::{a_final, done};
use common::*;
use serde_json::{Value, json};
use starling_actors::SessionEvent;
use starling_node::config::GatewaySettings;
use starling_protocol::CutCause;
use starling_protocol::native::{ErrorBody, ErrorCode, TimedWord};
use tokio::task::JoinHandle;

const BOUNDARY: &str = "x1234";

/// A form, in the order that it is given.
fn form(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let file = if *name == "file" { "; filename=\"a.wav\"\r\ncontent-type: audio/wav" } else { "" };
        body.extend(
            format!("--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes(),
        );
        body.extend_from_slice(value);
        body.extend(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

fn wav() -> Vec<u8> {
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(16_000u32.to_le_bytes());
    wav.extend(32_000u32.to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend(3_200u32.to_le_bytes());
    wav.extend(vec![0; 3_200]);
    wav
}

async fn send(node: &FakeNode, fields: &[(&str, &[u8])]) -> Answer {
    let headers = format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\n");
    request(node.http, "POST /v1/audio/transcriptions", &headers, &form(fields)).await
}

/// Asks, and plays a session that says two things.
async fn played(node: &mut FakeNode, fields: &[(&str, &[u8])]) -> (Played, Answer) {
    let body = form(fields);
    let http = node.http;
    let asking: JoinHandle<Answer> = tokio::spawn(async move {
        let headers = format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\n");
        request(http, "POST /v1/audio/transcriptions", &headers, &body).await
    });
    let mut session = node.session().await;
    session.wait_for(&Seen::End).await;
    let SessionEvent::Final(mut first) = a_final(0, 800, "one & two", CutCause::Endpoint) else {
        panic!("a final")
    };
    (first.start, first.end) = (0.0, 1.5);
    first.words = vec![TimedWord { word: "one".into(), start: 0.25, end: 0.5, confidence: Some(0.5) }];
    let SessionEvent::Final(mut last) = a_final(1, 1_600, "three", CutCause::End) else { panic!("a final") };
    (last.start, last.end) = (1.5, 3.0);
    session.say(SessionEvent::Final(first));
    session.say(SessionEvent::Final(last));
    session.say(done(2, 1_600));
    session.say_nothing_more();
    (session, in_time(asking).await.expect("no panic"))
}

#[tokio::test]
async fn a_recording_is_answered_in_each_format() {
    let mut node = FakeNode::start().await;
    let recording = wav();
    for (format, expected) in [
        ("text", "one & two three\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,500\none & two\n\n2\n00:00:01,500 --> 00:00:03,000\nthree\n\n"),
        (
            "vtt",
            "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none &amp; two\n\n00:00:01.500 --> 00:00:03.000\nthree\n\n",
        ),
    ] {
        // What comes behind the file counts as well.
        let fields =
            [("file", &recording[..]), ("model", b"whisper-1"), ("response_format", format.as_bytes())];
        let (session, answer) = played(&mut node, &fields).await;
        assert_eq!(answer.shown(), format!("200 {expected}"));
        assert_eq!(session.request().model, None, "their model is the node's choice");
    }
    let (_, answer) = played(&mut node, &[("model", b"fake"), ("file", &recording)]).await;
    assert_eq!(
        answer.json(),
        json!({ "text": "one & two three", "usage": { "type": "duration", "seconds": 1.0 } })
    );

    let fields = [
        ("file", &recording[..]),
        ("language", b"en"),
        ("response_format", b"verbose_json"),
        ("timestamp_granularities[]", b"word"),
        ("temperature", b"0"),
    ];
    let (session, answer) = played(&mut node, &fields).await;
    assert_eq!(session.request().model.as_deref(), Some("fake"));
    assert!(session.request().options.words);
    let verbose = answer.json();
    assert_eq!((&verbose["language"], &verbose["task"]), (&json!("english"), &json!("transcribe")));
    assert_eq!(verbose["usage"], json!({ "type": "duration", "seconds": 1.0 }));
    assert_eq!(verbose["words"], json!([{ "word": "one", "start": 0.25, "end": 0.5 }]));
    assert_eq!(verbose["segments"][1]["text"], "three");
    assert_eq!((&verbose["segments"][1]["start"], &verbose["segments"][1]["id"]), (&json!(1.5), &json!(1)));
}

#[tokio::test]
async fn a_model_is_found_by_its_name() {
    let node = FakeNode::start().await;
    let ask = async |name: &str| request(node.http, &format!("GET /v1/models/{name}"), "", b"").await;
    for name in ["other", "whisper-1"] {
        let answer = ask(name).await;
        assert_eq!((answer.status, answer.json()["id"].as_str()), (200, Some(name)));
        assert_eq!(answer.json()["object"], "model");
    }
    let answer = ask("nosuch").await;
    let error = &answer.json()["error"];
    assert_eq!(
        (answer.status, &error["code"], &error["param"]),
        (404, &json!("model_not_found"), &json!("model"))
    );
}

#[tokio::test]
async fn a_stream_has_a_delta_for_each_segment_and_the_whole_at_its_end() {
    let mut node = FakeNode::start().await;
    let (_, answer) = played(&mut node, &[("file", &wav()), ("stream", b"true")]).await;
    assert!(answer.head.contains("text/event-stream"), "{}", answer.head);
    // The body comes in chunks with their lengths between them.
    let events: Vec<Value> = answer
        .body
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let expected = [
        json!({ "type": "transcript.text.delta", "delta": "one & two" }),
        json!({ "type": "transcript.text.delta", "delta": " three" }),
        json!({ "type": "transcript.text.done", "text": "one & two three" }),
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn what_is_wrong_is_said_in_this_interfaces_shape() {
    let settings = GatewaySettings { max_recording: 64 << 10, ..GatewaySettings::default() };
    let node = FakeNode::with(settings).await;
    let error = async |fields: &[(&str, &[u8])]| {
        let answer = send(&node, fields).await;
        let error = answer.json()["error"].clone();
        assert!(error["message"].is_string(), "{error}");
        (answer.status, error["type"].as_str().unwrap_or_default().to_owned(), error["param"].clone())
    };
    let invalid = |status, param: &str| (status, "invalid_request_error".to_owned(), json!(param));
    assert_eq!(error(&[("model", b"whisper-1")]).await, invalid(400, "file"));
    assert_eq!(error(&[("file", b"no recording, whatever it is")]).await, invalid(422, "body"));
    let recording = wav();
    let format = [("response_format", &b"pdf"[..]), ("file", &recording)];
    assert_eq!(error(&format).await, invalid(400, "response_format"));
    assert_eq!(error(&[("file", &recording), ("language", b"fr")]).await, invalid(400, "language"));
    assert_eq!(error(&[("file", &vec![0; 70_000])]).await, invalid(413, "body"));
    let no_form = request(node.http, "POST /v1/audio/transcriptions", "", b"").await;
    assert_eq!(
        (no_form.status, no_form.json()["error"]["type"].clone()),
        (400, json!("invalid_request_error"))
    );

    let mut busy = ErrorBody::new(ErrorCode::Busy, "no slot");
    busy.retry_after_ms = Some(2_500);
    node.refuse(busy);
    let refused = send(&node, &[("file", &recording)]).await;
    assert_eq!((refused.status, refused.json()["error"]["type"].clone()), (503, json!("rate_limit_error")));
    assert!(refused.head.contains("retry-after: 3"), "{}", refused.head);
    node.refuse(ErrorBody::new(ErrorCode::UnknownModel, "there is none"));
    let unknown = send(&node, &[("file", &recording), ("model", b"nosuch")]).await;
    assert_eq!((unknown.status, unknown.json()["error"]["code"].clone()), (404, json!("model_not_found")));
}

#[tokio::test]
async fn a_text_with_a_hole_is_no_success() {
    let mut node = FakeNode::start().await;
    let body = form(&[("file", &wav())]);
    let http = node.http;
    let asking = tokio::spawn(async move {
        let headers = format!("content-type: multipart/form-data; boundary={BOUNDARY}\r\n");
        request(http, "POST /v1/audio/transcriptions", &headers, &body).await
    });
    let mut session = node.session().await;
    session.wait_for(&Seen::End).await;
    let SessionEvent::Final(mut last) = a_final(0, 1_600, "", CutCause::GivenUp) else { panic!("a final") };
    last.error = Some("three decoders died of it".to_owned());
    session.say(SessionEvent::Final(last));
    session.say(done(1, 1_600));
    session.say_nothing_more();
    let answer = in_time(asking).await.expect("no panic");
    assert_eq!((answer.status, answer.json()["error"]["type"].clone()), (500, json!("server_error")));
}
