//! `OpenAI`'s Realtime interface for transcription over real sockets, on a node that the test plays.

mod common;

use std::time::Duration;

use common::answer::request;
use common::events::{a_final, partial};
use common::*;
use data_encoding::BASE64;
use serde_json::{Value, json};
use starling_actors::SessionEvent;
use starling_core::tenant::TenantLimits;
use starling_node::config::GatewaySettings;
use starling_node::tenants::{KeyHash, TenantFacts, Tenants};
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{CutCause, Segment};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// A tenth of a second in the format that clients begin with: the least that can be committed.
const LEAST: usize = 4_800;

async fn open(node: &FakeNode, query: &str) -> (Socket, Value) {
    let mut socket = connect(format!("ws://{}/v1/realtime?{query}", node.http)).await;
    let created = json(&mut socket).await;
    (socket, created)
}

async fn transcribe(node: &FakeNode) -> Socket {
    let (socket, created) = open(node, "intent=transcription").await;
    assert_eq!(created["type"], "session.created");
    socket
}

async fn send(socket: &mut Socket, event: Value) {
    send_text(socket, &event.to_string()).await;
}

async fn append(socket: &mut Socket, bytes: usize) {
    let audio = BASE64.encode(&vec![0; bytes]);
    send(socket, json!({ "type": "input_audio_buffer.append", "audio": audio })).await;
}

async fn update(socket: &mut Socket, input: Value) -> Value {
    let session = json!({ "type": "transcription", "audio": { "input": input } });
    send(socket, json!({ "type": "session.update", "event_id": "mine", "session": session })).await;
    json(socket).await
}

/// The next events, which have to be of these kinds.
async fn expect<const N: usize>(socket: &mut Socket, kinds: [&str; N]) -> [Value; N] {
    let mut events = [const { Value::Null }; N];
    for (event, kind) in events.iter_mut().zip(kinds) {
        *event = json(socket).await;
        let given = event["type"].as_str().expect("a type");
        assert_eq!(given.rsplit('.').next(), Some(kind), "{event}");
        assert!(event["event_id"].as_str().is_some_and(|id| id.starts_with("event_")), "{event}");
    }
    events
}

/// An error that leaves the connection open: its code, what it is about, and whose event it was.
async fn complaint(socket: &mut Socket) -> (String, Value, Value) {
    let [event] = expect(socket, ["error"]).await;
    let error = &event["error"];
    assert_eq!(error["type"], "invalid_request_error", "{error}");
    (error["code"].as_str().unwrap_or_default().to_owned(), error["param"].clone(), error["event_id"].clone())
}

/// How an upgrade is refused.
async fn refused(node: &FakeNode, query: &str, header: Option<(&'static str, &str)>) -> (u16, Value) {
    let url = format!("ws://{}/v1/realtime?{query}", node.http);
    let mut request = url.into_client_request().expect("an address");
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header"));
    }
    match in_time(tokio_tungstenite::connect_async(request)).await {
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            let body: Value = serde_json::from_slice(body).expect("JSON");
            (response.status().as_u16(), body["error"].clone())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn with_turn_detection_each_segment_is_an_item() {
    let mut node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    let transcription = json!({ "model": "gpt-4o-transcribe", "language": "en", "prompt": "birds" });
    let detection = json!({ "type": "server_vad", "threshold": 0.5, "silence_duration_ms": 500 });
    let format = json!({ "type": "audio/pcm", "rate": 24000 });
    let input = json!({ "format": format, "transcription": transcription, "turn_detection": detection });
    let updated = update(&mut socket, input).await;
    assert_eq!(updated["type"], "session.updated");
    assert_eq!(updated["session"]["audio"]["input"]["transcription"]["model"], "gpt-4o-transcribe");
    assert!(node.no_session(), "who only waits holds none");
    append(&mut socket, LEAST).await;
    let mut session = node.session().await;
    let asked = session.request();
    assert_eq!((asked.sample_rate, asked.model.as_deref()), (24_000, Some("fake")));
    assert!(asked.options.partials && !asked.options.batch);
    session.expect(Seen::Audio(LEAST)).await;
    session.say(partial("so"));
    session.say(partial("so far"));
    let [started, delta] = expect(&mut socket, ["speech_started", "delta"]).await;
    assert_eq!((&started["audio_start_ms"], &delta["delta"]), (&0.into(), &"so".into()));
    session.say(a_final(0, 2_400, "so far so good", CutCause::Endpoint));
    let kinds = ["speech_stopped", "committed", "added", "done", "delta", "completed"];
    let [stopped, committed, .., completed] = expect(&mut socket, kinds).await;
    assert_eq!((&stopped["audio_end_ms"], &committed["previous_item_id"]), (&100.into(), &Value::Null));
    assert_eq!(completed["transcript"], "so far so good");
    assert_eq!(completed["usage"], json!({ "type": "duration", "seconds": 0.1 }));
    assert_eq!(completed["item_id"], started["item_id"]);
    session.expect(Seen::Confirm(Segment(0))).await;
    // A silence is none, and confirmed all the same.
    session.say(a_final(1, 4_800, "", CutCause::NoSpeech));
    session.expect(Seen::Confirm(Segment(1))).await;
    drop(socket);
    session.expect(Seen::Abandoned).await;
}

#[tokio::test]
async fn without_it_a_commit_asks_for_a_final_and_gathers_what_came_before() {
    let mut node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    let updated = update(&mut socket, json!({ "turn_detection": null })).await;
    assert_eq!(updated["session"]["audio"]["input"]["turn_detection"], Value::Null);
    append(&mut socket, 2 * LEAST).await;
    let mut session = node.session().await;
    session.expect(Seen::Audio(2 * LEAST)).await;
    session.say(a_final(0, 2_400, "one two", CutCause::Pause));
    let [delta] = expect(&mut socket, ["delta"]).await;
    session.expect(Seen::Confirm(Segment(0))).await;
    send(&mut socket, json!({ "type": "input_audio_buffer.commit" })).await;
    let [committed, ..] = expect(&mut socket, ["committed", "added", "done"]).await;
    assert_eq!(committed["item_id"], delta["item_id"]);
    session.expect(Seen::Finalize).await;
    // Samples are made of frames on both sides of them: a final that is asked for ends a little before what came.
    session.say(a_final(1, 4_776, "three", CutCause::Finalize));
    let [delta, completed] = expect(&mut socket, ["delta", "completed"]).await;
    assert_eq!((&delta["delta"], &completed["transcript"]), (&" three".into(), &"one two three".into()));
    assert_eq!(completed["usage"]["seconds"], 0.2);
    // Now there is nothing.
    send(&mut socket, json!({ "type": "input_audio_buffer.commit", "event_id": "again" })).await;
    let code = "input_audio_buffer_commit_empty".to_owned();
    assert_eq!(complaint(&mut socket).await, (code, Value::Null, "again".into()));
}

#[tokio::test]
async fn what_is_cleared_is_not_told() {
    let mut node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    update(&mut socket, json!({ "turn_detection": null })).await;
    send(&mut socket, json!({ "type": "input_audio_buffer.clear" })).await;
    expect(&mut socket, ["cleared"]).await;
    append(&mut socket, LEAST).await;
    let mut session = node.session().await;
    session.expect(Seen::Audio(LEAST)).await;
    send(&mut socket, json!({ "type": "input_audio_buffer.clear" })).await;
    expect(&mut socket, ["cleared"]).await;
    session.expect(Seen::Finalize).await;
    append(&mut socket, LEAST).await;
    session.expect(Seen::Audio(LEAST)).await;
    send(&mut socket, json!({ "type": "input_audio_buffer.commit" })).await;
    expect(&mut socket, ["committed", "added", "done"]).await;
    session.expect(Seen::Finalize).await;
    session.say(a_final(0, 2_376, "not wanted", CutCause::Finalize));
    session.say(a_final(1, 4_776, "wanted", CutCause::Finalize));
    let [_, completed] = expect(&mut socket, ["delta", "completed"]).await;
    assert_eq!(completed["transcript"], "wanted");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_costs_nothing() {
    let mut node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    let invalid = || "invalid_value".to_owned();
    // Before there is a session, and while there is one.
    for audio in [false, true] {
        if audio {
            append(&mut socket, LEAST).await;
        }
        send(&mut socket, json!({ "type": "response.create", "event_id": "e1" })).await;
        assert_eq!(complaint(&mut socket).await, (invalid(), "type".into(), "e1".into()));
        send(&mut socket, json!({ "type": "input_audio_buffer.append", "audio": "no!", "event_id": "e2" }))
            .await;
        assert_eq!(complaint(&mut socket).await, (invalid(), "audio".into(), "e2".into()));
        send_text(&mut socket, "no JSON").await;
        assert_eq!(complaint(&mut socket).await, (invalid(), "event".into(), Value::Null));
        send_binary(&mut socket, b"audio").await;
        assert_eq!(complaint(&mut socket).await, (invalid(), "message".into(), Value::Null));
        let error = update(&mut socket, json!({ "format": { "type": "audio/opus" } })).await;
        let path = "session.audio.input.format.type";
        assert_eq!((&error["error"]["param"], &error["error"]["event_id"]), (&path.into(), &"mine".into()));
    }
    let mut session = node.session().await;
    session.expect(Seen::Audio(LEAST)).await;
    append(&mut socket, 2).await;
    session.expect(Seen::Audio(2)).await;
    let late = update(&mut socket, json!({ "format": { "type": "audio/pcmu" } })).await;
    assert_eq!(late["error"]["param"], "session.audio.input.format");
    let fine =
        update(&mut socket, json!({ "turn_detection": null, "format": { "type": "audio/pcm" } })).await;
    assert_eq!(fine["type"], "session.updated");
}

#[tokio::test]
async fn telephone_audio_is_taken_in_the_older_shape_too() {
    let mut node = FakeNode::start().await;
    let mut request =
        format!("ws://{}/v1/realtime?intent=transcription", node.http).into_client_request().expect("fine");
    request.headers_mut().insert("openai-beta", HeaderValue::from_static("realtime=v1"));
    let (mut socket, _) = in_time(tokio_tungstenite::connect_async(request)).await.expect("upgraded");
    assert_eq!(json(&mut socket).await["type"], "transcription_session.created");
    let session =
        json!({ "input_audio_format": "g711_ulaw", "input_audio_transcription": { "model": "other" } });
    send(&mut socket, json!({ "type": "transcription_session.update", "session": session })).await;
    let updated = json(&mut socket).await;
    assert_eq!(updated["type"], "transcription_session.updated");
    assert_eq!(updated["session"]["input_audio_format"], "g711_ulaw");
    append(&mut socket, 800).await;
    let mut session = node.session().await;
    assert_eq!((session.request().sample_rate, session.request().model.as_deref()), (8_000, Some("other")));
    session.expect(Seen::Audio(1_600)).await;
    session.say(a_final(0, 800, "one", CutCause::Endpoint));
    expect(&mut socket, ["speech_started", "speech_stopped", "committed", "created", "delta", "completed"])
        .await;
}

#[tokio::test]
async fn a_model_is_theirs_or_the_nodes_and_another_is_refused_with_what_there_is() {
    let mut node = FakeNode::start().await;
    let names = "it must be one of fake, other, or a name of OpenAI's for the node's own choice";
    let (status, error) = refused(&node, "intent=transcription&model=gpt-realtime", None).await;
    assert_eq!((status, &error["code"], &error["param"]), (404, &"model_not_found".into(), &"model".into()));
    assert_eq!(error["message"], format!("model is \"gpt-realtime\"; {names}"));
    // A library that can't say what it intends has to name a model.
    for (query, message) in [
        ("", "intent is absent; it must be transcription: nothing here answers a conversation"),
        (
            "intent=conversation",
            "intent is \"conversation\"; it must be transcription: nothing here answers a conversation",
        ),
    ] {
        let (status, error) = refused(&node, query, None).await;
        assert_eq!(
            (status, &error["type"], &error["message"]),
            (400, &"invalid_request_error".into(), &message.into())
        );
    }
    let (mut socket, _) = open(&node, "model=gpt-4o-mini-transcribe").await;
    let error = update(&mut socket, json!({ "transcription": { "model": "nosuch" } })).await;
    assert_eq!(error["error"]["code"], "model_not_found");
    let error = update(&mut socket, json!({ "transcription": { "language": "xx" } })).await;
    assert!(
        error["error"]["message"].as_str().is_some_and(|text| text.contains("en (fake), ko (other)")),
        "{error}"
    );
    let updated = update(&mut socket, json!({ "transcription": { "language": "ko-KR" } })).await;
    assert_eq!(updated["type"], "session.updated");
    append(&mut socket, LEAST).await;
    assert_eq!(node.session().await.request().model.as_deref(), Some("other"));
}

#[tokio::test]
async fn a_long_event_is_taken_and_a_longer_one_closes() {
    let mut node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    let bytes = 15 << 20;
    append(&mut socket, bytes).await;
    let mut session = node.session().await;
    let mut taken = 0;
    while taken < bytes {
        let Seen::Audio(piece) = session.next().await else { panic!("no audio") };
        taken += piece;
    }
    // By its head alone: what follows would find nobody who reads, and what was said might be lost to the reset.
    let MaybeTlsStream::Plain(stream) = socket.get_mut() else { panic!("no TLS") };
    let length: u64 = 21 << 20;
    let head = [&[0x81, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat();
    in_time(stream.write_all(&head)).await.expect("sent");
    let reason = "a message may have 15 MiB of audio, in base64, at most";
    assert_eq!(closed(&mut socket).await, (1009, reason.to_owned()));
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_failure_is_told_to_whoever_waits_for_an_item() {
    let mut node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    update(&mut socket, json!({ "turn_detection": null })).await;
    append(&mut socket, LEAST).await;
    let session = node.session().await;
    send(&mut socket, json!({ "type": "input_audio_buffer.commit" })).await;
    expect(&mut socket, ["committed", "added", "done"]).await;
    session.say(SessionEvent::Failed(ErrorBody::new(ErrorCode::Internal, "it broke")));
    let [failed, error] = expect(&mut socket, ["failed", "error"]).await;
    assert_eq!(
        (&failed["error"]["message"], &error["error"]["type"]),
        (&"it broke".into(), &"server_error".into())
    );
    assert_eq!(closed(&mut socket).await, (1011, "it broke".to_owned()));
}

#[tokio::test]
async fn who_can_be_given_no_decoder_is_told_at_the_first_audio() {
    let node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    node.refuse(ErrorBody { retry_after_ms: Some(2_000), ..ErrorBody::new(ErrorCode::Busy, "no slot") });
    append(&mut socket, LEAST).await;
    let [error] = expect(&mut socket, ["error"]).await;
    assert_eq!(
        (&error["error"]["type"], &error["error"]["message"]),
        (&"rate_limit_error".into(), &"no slot".into())
    );
    assert_eq!(closed(&mut socket).await.0, 1013);
}

#[tokio::test]
async fn who_says_nothing_is_closed_and_so_is_who_waits_when_the_node_stops() {
    let node = FakeNode::with_idle(GatewaySettings::default(), Duration::from_millis(300)).await;
    let mut socket = transcribe(&node).await;
    let [error] = expect(&mut socket, ["error"]).await;
    assert_eq!(error["error"]["code"], "session_expired");
    assert_eq!(closed(&mut socket).await, (1008, "nothing came for 0.3 s".to_owned()));
    let node = FakeNode::start().await;
    let mut socket = transcribe(&node).await;
    node.stopping.cancel();
    expect(&mut socket, ["error"]).await;
    assert_eq!(closed(&mut socket).await.0, 1012);
}

#[tokio::test]
async fn a_key_is_wanted_before_the_upgrade_in_each_of_their_ways() {
    let limits = TenantLimits { sessions: 1, ..TenantLimits::default() };
    let tenant = TenantFacts {
        name: "acme".to_owned(),
        keys: vec![KeyHash::of("k1")],
        models: vec!["other".to_owned()],
        operator: false,
        limits,
    };
    let mut node = FakeNode::with_tenants(Tenants::new(vec![tenant])).await;
    let transcription = "intent=transcription";
    for header in [None, Some(("authorization", "Bearer no")), Some(("sec-websocket-protocol", "realtime"))] {
        let (status, error) = refused(&node, transcription, header).await;
        assert_eq!((status, &error["code"]), (401, &"invalid_api_key".into()), "{header:?}");
    }
    let url = format!("ws://{}/v1/realtime?{transcription}", node.http);
    let mut request = url.into_client_request().expect("an address");
    let protocols = HeaderValue::from_static("realtime, openai-insecure-api-key.k1");
    request.headers_mut().insert("sec-websocket-protocol", protocols);
    let (mut socket, response) = in_time(tokio_tungstenite::connect_async(request)).await.expect("is let in");
    let chosen = response.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    assert_eq!(chosen, Some("realtime"), "the key is never echoed");
    assert_eq!(json(&mut socket).await["type"], "session.created");
    append(&mut socket, LEAST).await;
    let session = node.session().await;
    let asked = session.request();
    assert_eq!((asked.tenant.as_str(), asked.model.as_deref()), ("acme", Some("other")));
    // There may be one.
    let key = Some(("authorization", "Bearer k1"));
    let (status, error) = refused(&node, transcription, key).await;
    assert_eq!((status, &error["code"]), (429, &"rate_limit_exceeded".into()));
    drop(socket);
}

#[tokio::test]
async fn what_asks_without_an_upgrade_is_told_so() {
    let node = FakeNode::start().await;
    let answer = request(node.http, "GET /v1/realtime?intent=transcription", "", b"").await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (400, &"invalid_request_error".into()));
    let answer = request(node.http, "POST /v1/realtime", "", b"").await;
    assert_eq!(answer.status, 405);
}
