//! kaldi-gstreamer-server's protocol over real sockets, on a node that the test plays.

mod common;

use common::answer::{Answer, request};
use common::events::{a_final, done, partial};
use common::*;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use starling_actors::{ModelStatus, NodeStatus, SessionEvent};
use starling_core::lineup::Stage;
use starling_node::config::GatewaySettings;
use starling_protocol::lease::EngineKind;
use starling_protocol::native::{ErrorBody, ErrorCode, Final, TimedAlternative};
use starling_protocol::{CutCause, Segment};
use tokio_tungstenite::tungstenite::Message;

const RAW: &str = "content-type=audio/x-raw,+layout=(string)interleaved,+rate=(int)16000,+format=(string)S16LE,+channels=(int)1";

async fn speech(node: &FakeNode, query: &str) -> Socket {
    connect(format!("ws://{}/client/ws/speech?{query}", node.http)).await
}

/// The next event without its id, and that.
async fn event(socket: &mut Socket) -> (Value, String) {
    let mut event = json(socket).await;
    let id = event.as_object_mut().expect("an object").remove("id");
    (event, id.and_then(|id| id.as_str().map(str::to_owned)).unwrap_or_default())
}

async fn say(socket: &mut Socket, message: Message) {
    in_time(socket.send(message)).await.expect("sent");
}

#[tokio::test]
async fn speech_becomes_events_until_the_end_of_the_stream() {
    let mut node = FakeNode::start().await;
    let mut socket = speech(&node, RAW).await;
    let mut session = node.session().await;
    let opened = session.request().clone();
    assert_eq!((opened.sample_rate, opened.by_id), (16_000, false));
    assert!(opened.options.words && opened.options.partials && opened.linger.is_zero());

    send_text(&mut socket, r#"{"adaptation_state":{"type":"string+gzip+base64","value":"abc"}}"#).await;
    send_audio(&mut socket, 4_000).await;
    session.expect(Seen::Audio(4_000)).await;
    session.say(partial("one"));
    let (first, id) = event(&mut socket).await;
    let partial = json!({ "status": 0, "segment": 0, "result": { "hypotheses": [{ "transcript": "one" }], "final": false } });
    assert_eq!((first, id), (partial, opened.session.to_string()));

    session.say(a_final(0, 2_000, "one two", CutCause::Endpoint));
    let (last, _) = event(&mut socket).await;
    assert_eq!(last["result"], json!({ "hypotheses": [{ "transcript": "one two" }], "final": true }));
    // The client's library answers pings once it reads on.
    say(&mut socket, Message::text("EOS")).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&Seen::End) {
        seen.push(session.next().await);
    }
    session.say(a_final(1, 2_000, "", CutCause::End));
    session.say(done(2, 2_000));
    let (adapted, _) = event(&mut socket).await;
    assert_eq!(adapted["adaptation_state"]["value"], "abc");
    assert_eq!(closed(&mut socket).await.0, 1000);
    drop(socket);
    loop {
        match session.next().await {
            Seen::Abandoned => break,
            other => seen.push(other),
        }
    }
    assert!(seen.contains(&Seen::Confirm(Segment(0))), "{seen:?}");
}

/// As kaldi-gstreamer-server's `client.py` has it, word for word: everything in the address is percent-encoded, a type that it was
/// not told is empty, and what it saved of an earlier call comes before the audio.
#[tokio::test]
async fn its_own_client_is_served_as_it_speaks() {
    let mut node = FakeNode::start().await;
    let caps = "content-type=audio%2Fx-raw%2C+layout%3D%28string%29interleaved%2C+rate%3D%28int%2916000%2C+format%3D%28string%29S16LE%2C+channels%3D%28int%291";
    let state = r#"{"adaptation_state": {"type": "string+gzip+base64", "id": "84a7", "value": "eJwLSS0u", "time": "2015-03-20T11:28:03"}}"#;
    for (query, head) in [(caps, vec![]), ("content-type=", stereo_wav(0)[..44].to_vec())] {
        let mut socket = speech(&node, query).await;
        send_text(&mut socket, state).await;
        let recorded = !head.is_empty();
        // What it sends is a file in pieces of a quarter of a second, whatever is in it.
        say(&mut socket, Message::binary([head, vec![0x55; 8_000]].concat())).await;
        let mut session = node.session().await;
        assert_eq!(session.request().sample_rate, if recorded { 8_000 } else { 16_000 }, "{query}");
        session.expect(Seen::Audio(8_000)).await;
        say(&mut socket, Message::text("EOS")).await;
        session.expect(Seen::End).await;
        session.say(a_final(0, 4_000, "one", CutCause::End));
        session.say(done(1, 4_000));
        assert_eq!(event(&mut socket).await.0["result"]["hypotheses"][0]["transcript"], "one");
        let adapted = event(&mut socket).await.0;
        assert_eq!(
            (&adapted["status"], &adapted["adaptation_state"]["value"]),
            (&json!(0), &json!("eJwLSS0u"))
        );
        assert_eq!(closed(&mut socket).await.0, 1000);
    }
}

#[tokio::test]
async fn a_language_chooses_the_model() {
    let mut node = FakeNode::start().await;
    let _socket = speech(&node, &format!("{RAW}&language=ko-KR")).await;
    assert_eq!(node.session().await.request().model.as_deref(), Some("other"));
    let mut socket = speech(&node, &format!("{RAW}&language=auto")).await;
    let (refused, _) = event(&mut socket).await;
    assert_eq!(refused["status"], 5);
    assert!(
        refused["message"].as_str().is_some_and(|text| text.contains("en (fake), ko (other)")),
        "{refused}"
    );
    assert_eq!(closed(&mut socket).await.0, 1008);
}

#[tokio::test]
async fn what_was_not_read_is_not_confirmed_and_waits_for_whoever_comes_back() {
    let mut node = FakeNode::start().await;
    let query = format!("{RAW}&content-id=call-7");
    let mut socket = speech(&node, &query).await;
    let mut session = node.session().await;
    let opened = session.request().clone();
    assert!(opened.by_id && !opened.linger.is_zero());
    send_audio(&mut socket, 3_200).await;
    session.expect(Seen::Audio(3_200)).await;
    session.say(a_final(0, 1_600, "one", CutCause::Endpoint));
    // Reading the text and the ping behind it is what confirms it.
    event(&mut socket).await;
    assert!(matches!(in_time(socket.next()).await, Some(Ok(Message::Ping(_)))));
    in_time(socket.flush()).await.expect("the pong");
    session.expect(Seen::Confirm(Segment(0))).await;
    session.say(a_final(1, 3_200, "two", CutCause::Endpoint));
    drop(socket);
    session.expect(Seen::Dropped).await;

    let mut socket = speech(&node, &query).await;
    let again = node.session().await;
    assert_eq!(again.request().session, opened.session);
    again.say(a_final(1, 3_200, "two", CutCause::Endpoint));
    assert_eq!(event(&mut socket).await.0["result"]["hypotheses"][0]["transcript"], "two");
    let other = speech(&node, &format!("{RAW}&content-id=call-8")).await;
    assert_ne!(node.session().await.request().session, opened.session);
    drop(other);
}

#[tokio::test]
async fn what_can_not_be_served_has_a_status_and_is_never_a_success() {
    let node = FakeNode::start().await;
    node.refuse(ErrorBody::new(ErrorCode::Busy, "no slot"));
    let mut socket = speech(&node, RAW).await;
    let (busy, _) = event(&mut socket).await;
    assert_eq!(busy, json!({ "status": 9, "message": "No decoder available, try again later" }));
    assert_eq!(closed(&mut socket).await.0, 1013);

    let mut socket = speech(&node, "content-type=audio/x-raw,+rate=(int)4000").await;
    let (wrong, _) = event(&mut socket).await;
    assert_eq!(wrong["status"], 5);
    assert!(
        wrong["message"].as_str().is_some_and(|text| text.contains("rate") && text.contains("4000")),
        "{wrong}"
    );
    assert_eq!(closed(&mut socket).await.0, 1008);

    // No head, no caps, no recording.
    let mut socket = speech(&node, "").await;
    send_audio(&mut socket, 4_000).await;
    assert_eq!(event(&mut socket).await.0["status"], 5);
    let mut socket = speech(&node, "").await;
    say(&mut socket, Message::binary("EOS")).await;
    assert_eq!(event(&mut socket).await.0["status"], 5);
}

#[tokio::test]
async fn a_session_that_fails_says_so_and_goes_on_where_only_a_segment_did() {
    let mut node = FakeNode::start().await;
    let mut socket = speech(&node, RAW).await;
    let session = node.session().await;
    let starling_actors::SessionEvent::Final(mut last) = a_final(0, 1_600, "", CutCause::GivenUp) else {
        panic!("a final");
    };
    last.error = Some("three decoders died of it".to_owned());
    session.say(starling_actors::SessionEvent::Final(last));
    let (failed, _) = event(&mut socket).await;
    assert_eq!((&failed["status"], &failed["segment"]), (&json!(5), &json!(0)));
    session.say(partial("three"));
    assert_eq!(event(&mut socket).await.0["status"], 0);
    session.say(starling_actors::SessionEvent::Failed(ErrorBody::new(ErrorCode::IdleTimeout, "no audio")));
    assert_eq!(event(&mut socket).await.0, json!({ "status": 1, "message": "no audio" }));
    assert_eq!(closed(&mut socket).await.0, 1008);
}

/// A WAV recording of `samples` frames of 8-bit stereo at 8 kHz, with something behind it.
fn stereo_wav(samples: u32) -> Vec<u8> {
    let bytes = samples * 2;
    let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x07\0\x02\0".to_vec();
    wav.extend(8_000u32.to_le_bytes());
    wav.extend(16_000u32.to_le_bytes());
    wav.extend([2, 0, 8, 0]);
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    wav.extend(vec![0x55; bytes as usize]);
    wav.extend(b"LIST\x04\0\0\0abcd");
    wav
}

#[tokio::test]
async fn a_recording_is_known_by_its_head_and_ends_where_it_says() {
    let mut node = FakeNode::start().await;
    let mut socket = speech(&node, "content-type=audio/x-wav").await;
    let wav = stereo_wav(1_000);
    let (head, rest) = wav.split_at(30);
    say(&mut socket, Message::binary(head.to_vec())).await;
    say(&mut socket, Message::binary(rest.to_vec())).await;
    let mut session = node.session().await;
    assert_eq!(session.request().sample_rate, 8_000);
    session.expect(Seen::Audio(2_000)).await;
    say(&mut socket, Message::binary("EOS")).await;
    session.expect(Seen::End).await;
}

async fn recognize(node: &FakeNode, headers: &str, body: &[u8]) -> Answer {
    request(node.http, "PUT /client/dynamic/recognize", headers, body).await
}

#[tokio::test]
async fn a_recording_over_http_is_answered_as_the_original_does() {
    let mut node = FakeNode::start().await;
    let answering = {
        let http = node.http;
        tokio::spawn(async move {
            let headers = "content-type: audio/x-raw-int; rate=8000\r\nmodel: other\r\n";
            request(http, "POST /client/dynamic/recognize", headers, &[0; 3_200]).await
        })
    };
    let mut session = node.session().await;
    assert_eq!(session.request().model.as_deref(), Some("other"));
    assert_eq!((session.request().sample_rate, session.request().by_id), (8_000, false));
    session.wait_for(&Seen::End).await;
    session.say(a_final(0, 800, "one", CutCause::Endpoint));
    session.say(a_final(1, 1_600, "two", CutCause::End));
    session.say(done(2, 1_600));
    session.say_nothing_more();
    let answer = in_time(answering).await.expect("no panic");
    assert_eq!(answer.status, 200, "{}", answer.shown());
    let mut body = answer.json();
    let id = body.as_object_mut().and_then(|body| body.remove("id"));
    assert_eq!(id, Some(json!(session.request().session.to_string())));
    assert_eq!(body, json!({ "status": 0, "hypotheses": [{ "utterance": "one two" }] }));

    let wrong = recognize(&node, "", b"OggS nothing that is known here").await;
    assert_eq!((wrong.status, wrong.json()["status"].clone()), (200, json!(5)), "{}", wrong.shown());
    let mut busy = ErrorBody::new(ErrorCode::Busy, "no slot");
    busy.retry_after_ms = Some(1_500);
    node.refuse(busy);
    let refused = recognize(&node, "content-type: audio/x-raw\r\n", &[0; 320]).await;
    assert_eq!(refused.status, 503);
    assert!(refused.head.contains("retry-after: 2"), "{}", refused.head);
    assert_eq!(refused.body, "No workers available\n");
}

fn status(idle: usize) -> NodeStatus {
    let model = ModelStatus {
        name: "fake".into(),
        pool: 0,
        stage: Stage::Current,
        digest: "00".into(),
        determinism: None,
        language: "en".into(),
        engine: EngineKind::Scripted,
        capabilities: starling_actors::Capabilities { words: true, alternatives: true, ..Default::default() },
        sample_rate: 16_000,
        hosts_ready: 1,
        hosts_total: 1,
        slots_total: 4,
        slots_busy: 4 - idle,
        slots_idle: idle,
        waiting: 0,
        continuing: 0,
        restarts: 0,
        slots_desired: 8,
        hosts_parked: 0,
        policy: starling_core::scaling::ScalingConfig::default(),
        scaling: None,
        real_time_factor: None,
        decoded: std::time::Duration::from_secs(40),
        decoding: std::time::Duration::from_secs(10),
        resident_bytes: 0,
        last_error: None,
    };
    NodeStatus { models: vec![model], ..NodeStatus::default() }
}

#[tokio::test]
async fn free_decoders_are_pushed_at_every_change() {
    let node = FakeNode::start().await;
    node.set_status(status(3));
    let watch = async || connect(format!("ws://{}/client/ws/status", node.http)).await;
    let (mut one, mut other) = (watch().await, watch().await);
    let now = json!({ "num_workers_available": 3, "num_requests_processed": 0 });
    assert_eq!(json(&mut one).await, now);
    assert_eq!(json(&mut other).await, now);
    node.set_status(status(1));
    assert_eq!(json(&mut one).await["num_workers_available"], 1);
    assert_eq!(json(&mut other).await["num_workers_available"], 1);
    recognize(&node, "", b"nothing").await;
    assert_eq!(json(&mut one).await, json!({ "num_workers_available": 1, "num_requests_processed": 1 }));
}

#[tokio::test]
async fn hypotheses_come_with_their_likelihoods_where_the_operator_wants_them() {
    let settings = GatewaySettings { gstreamer_hypotheses: 2, ..GatewaySettings::default() };
    let mut node = FakeNode::with(settings).await;
    let mut socket = speech(&node, RAW).await;
    let session = node.session().await;
    assert_eq!(session.request().options.alternatives, 2);
    let alternative =
        |text: &str, confidence| TimedAlternative { text: text.to_owned(), confidence, words: Vec::new() };
    let SessionEvent::Final(last) = a_final(0, 2_000, "one", CutCause::Endpoint) else { panic!("a final") };
    let alternatives = vec![alternative("one", 201.5), alternative("won", 190.25)];
    session.say(SessionEvent::Final(Final { alternatives, ..last }));
    let told = event(&mut socket).await.0["result"]["hypotheses"].take();
    assert_eq!(
        told,
        json!([{ "transcript": "one", "likelihood": 201.5 }, { "transcript": "won", "likelihood": 190.25 }])
    );
}

#[tokio::test]
async fn reference_texts_are_kept_where_the_operator_wants_them() {
    let send = async |node: &FakeNode, headers: &str, body: &str| {
        request(node.http, "POST /client/dynamic/reference", headers, body.as_bytes()).await
    };
    let nowhere = FakeNode::start().await;
    let refused = send(&nowhere, "content-id: a\r\n", "text").await;
    assert_eq!(refused.status, 501);
    assert!(refused.body.contains("gateway.reference_dir"), "{}", refused.body);

    let folder = tempfile::TempDir::new().expect("a folder");
    let reference_dir = folder.path().join("kept");
    let settings = GatewaySettings { reference_dir: reference_dir.clone(), ..GatewaySettings::default() };
    let node = FakeNode::with(settings).await;
    assert_eq!(send(&node, "", "text").await.shown(), "400 No Content-Id specified\n");
    let kept = send(&node, "content-id: call/1\r\nuser-id: me\r\n", "hallo, welt").await;
    assert_eq!(kept.status, 200);
    let text = std::fs::read_to_string(reference_dir.join("call%2F1.json")).expect("is there");
    let text: Value = serde_json::from_str(&text).expect("is JSON");
    assert_eq!((&text["content"], &text["user_id"]), (&json!("hallo, welt"), &json!("me")));
}
