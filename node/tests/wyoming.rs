//! Wyoming over real sockets: what comes back, and when.

mod common;

use std::time::Duration;

use common::events::{a_final, done};
use common::*;
use serde_json::{Value, json};
use starling_actors::{Dialect, SessionEvent};
use starling_core::tenant::TenantLimits;
use starling_node::config::GatewaySettings;
use starling_node::tenants::{KeyHash, TenantFacts, Tenants};
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{CutCause, Segment};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

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

fn format(rate: u32, width: u8, channels: u8) -> Value {
    json!({ "rate": rate, "width": width, "channels": channels, "timestamp": null })
}

fn start() -> Vec<u8> {
    event("audio-start", &format(16_000, 2, 1), b"")
}

fn chunk(bytes: usize) -> Vec<u8> {
    event("audio-chunk", &format(16_000, 2, 1), &vec![0; bytes])
}

fn stop() -> Vec<u8> {
    event("audio-stop", &json!({ "timestamp": null }), b"")
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn connect(node: &FakeNode) -> Self {
        let stream = in_time(TcpStream::connect(node.wyoming)).await.expect("connected");
        stream.set_nodelay(true).expect("is set");
        Self(BufReader::new(stream))
    }

    async fn send(&mut self, events: &[Vec<u8>]) {
        in_time(self.0.write_all(&events.concat())).await.expect("sent");
    }

    /// The next event's type and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        let mut line = String::new();
        if in_time(self.0.read_line(&mut line)).await.expect("read") == 0 {
            return None;
        }
        let head: Value = serde_json::from_str(&line).expect("JSON");
        let length = head["data_length"].as_u64().and_then(|length| usize::try_from(length).ok());
        let mut data = vec![0; length.unwrap_or(0)];
        in_time(self.0.read_exact(&mut data)).await.expect("read");
        Some((
            head["type"].as_str().expect("a type").to_owned(),
            serde_json::from_slice(&data).expect("JSON"),
        ))
    }

    async fn expect(&mut self, kind: &str, data: Value) {
        assert_eq!(self.next().await, Some((kind.to_owned(), data)));
    }

    /// An error, and then the end.
    async fn refused(&mut self) -> (String, String) {
        let (kind, data) = self.next().await.expect("an event");
        assert_eq!((kind.as_str(), self.next().await), ("error", None), "{data}");
        let field = |name: &str| data[name].as_str().expect("text").to_owned();
        (field("code"), field("text"))
    }
}

#[tokio::test]
async fn one_utterance_after_another_is_told_in_parts_and_as_a_whole() {
    let mut node = FakeNode::start().await;
    let mut client = Client::connect(&node).await;
    client
        .send(&[
            event("select-program", &json!({ "name": "starling" }), b""),
            event("describe", &Value::Null, b""),
        ])
        .await;
    let (kind, info) = client.next().await.expect("an event");
    assert_eq!(kind, "info");
    let models: Vec<&str> = info["asr"][0]["models"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["name"].as_str())
        .collect();
    assert_eq!(
        (models, &info["asr"][0]["supports_transcript_streaming"]),
        (vec!["fake", "other"], &json!(true))
    );
    client.send(&[event("ping", &json!({ "text": "a" }), b"")]).await;
    client.expect("pong", json!({ "text": "a" })).await;

    client.send(&[event("transcribe", &json!({ "language": "ko-KR" }), b""), start(), chunk(3_200)]).await;
    let mut session = node.session().await;
    let asked = session.request();
    assert_eq!(
        (asked.dialect, asked.sample_rate, asked.model.as_deref()),
        (Dialect::Wyoming, 16_000, Some("other"))
    );
    session.expect(Seen::Audio(3_200)).await;
    session.say(a_final(0, 1_600, "turn on", CutCause::Pause));
    client.expect("transcript-start", json!({ "language": "en" })).await;
    client.expect("transcript-chunk", json!({ "text": "turn on" })).await;
    session.expect(Seen::Confirm(Segment(0))).await;
    client.send(&[chunk(640), stop()]).await;
    session.expect(Seen::Audio(640)).await;
    session.expect(Seen::End).await;
    session.say(a_final(1, 1_920, "the light", CutCause::End));
    session.say(done(2, 1_920));
    client.expect("transcript-chunk", json!({ "text": " the light" })).await;
    client.expect("transcript", json!({ "text": "turn on the light", "language": "en" })).await;
    client.expect("transcript-stop", json!({})).await;
    session.wait_for(&Seen::Abandoned).await;

    // What was asked for the first does not hold for the second.
    client.send(&[start(), chunk(320), stop()]).await;
    let mut session = node.session().await;
    assert_eq!(session.request().model, None);
    session.wait_for(&Seen::End).await;
    session.say(done(0, 160));
    client.expect("transcript-start", json!({ "language": "en" })).await;
    client.expect("transcript", json!({ "text": "", "language": "en" })).await;
    client.expect("transcript-stop", json!({})).await;
}

#[tokio::test]
async fn events_may_come_cut_anywhere_and_at_once() {
    let mut node = FakeNode::start().await;
    let mut client = Client::connect(&node).await;
    let utterance =
        [event("transcribe", &json!({ "name": "fake" }), b""), start(), chunk(320), chunk(320), stop()];
    let both = [utterance.concat(), utterance.concat()].concat();
    for piece in both.chunks(53) {
        client.send(&[piece.to_vec()]).await;
    }
    for text in ["one", "two"] {
        let mut session = node.session().await;
        assert_eq!(session.request().model.as_deref(), Some("fake"));
        for seen in [Seen::Audio(320), Seen::Audio(320), Seen::End] {
            session.expect(seen).await;
        }
        session.say(a_final(0, 320, text, CutCause::End));
        session.say(done(1, 320));
        while client.next().await.expect("an event").0 != "transcript-stop" {}
        session.wait_for(&Seen::Abandoned).await;
    }
}

#[tokio::test]
async fn samples_of_every_width_and_of_several_channels_are_taken() {
    let mut node = FakeNode::start().await;
    for width in 1..=4u8 {
        let mut client = Client::connect(&node).await;
        let format = format(8_000, width, 2);
        let bytes = vec![0; 160 * 2 * usize::from(width)];
        // A start may be left out: each chunk says it too.
        client.send(&[event("audio-chunk", &format, &bytes), event("audio-chunk", &format, b"")]).await;
        let mut session = node.session().await;
        assert_eq!(session.request().sample_rate, 8_000);
        session.expect(Seen::Audio(320)).await;
    }
}

#[tokio::test]
async fn no_audio_is_an_empty_transcript() {
    let mut node = FakeNode::start().await;
    let mut client = Client::connect(&node).await;
    client.send(&[start(), stop()]).await;
    client.expect("transcript-start", json!({})).await;
    client.expect("transcript", json!({ "text": "" })).await;
    client.expect("transcript-stop", json!({})).await;
    assert!(node.no_session());
}

#[tokio::test]
async fn what_cannot_be_served_is_an_error_that_names_it_and_the_end() {
    let mut node = FakeNode::start().await;
    let table = [
        (vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()], "the header is"),
        (vec![event("audio-start", &format(4_000, 2, 1), b"")], "audio-start.rate is 4000"),
        (vec![event("audio-start", &format(16_000, 9, 1), b"")], "audio-start.width is 9"),
        (
            vec![event("audio-chunk", &json!({ "rate": 16_000, "width": 2 }), b"12")],
            "audio-chunk.channels is missing",
        ),
        (
            vec![start(), event("audio-chunk", &format(8_000, 2, 1), b"12")],
            "audio-chunk.rate is 8000; it must be 16000",
        ),
        (
            vec![start(), event("audio-chunk", &format(16_000, 4, 1), b"12")],
            "audio-chunk.width is 4; it must be 2",
        ),
        (
            vec![b"{\"type\":\"audio-chunk\",\"payload_length\":9999999}\n".to_vec()],
            "payload_length is 9999999",
        ),
        (
            vec![event("transcribe", &json!({ "language": "fr" }), b""), start(), chunk(2)],
            "language is \"fr\"; it must be one of en (fake), ko (other)",
        ),
    ];
    for (events, why) in table {
        let mut client = Client::connect(&node).await;
        client.send(&events).await;
        let (code, text) = client.refused().await;
        assert_eq!(code, "bad_request", "{text}");
        assert!(text.starts_with(why), "{text}");
    }
    assert!(node.no_session());

    let mut client = Client::connect(&node).await;
    client.send(&[start(), chunk(320), start()]).await;
    let mut session = node.session().await;
    assert!(client.refused().await.1.starts_with("audio-start is said again"));
    session.wait_for(&Seen::Abandoned).await;

    node.refuse(ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use"));
    let mut client = Client::connect(&node).await;
    client.send(&[start(), chunk(320)]).await;
    assert_eq!(client.refused().await, ("busy".to_owned(), "all 8 slots are in use".to_owned()));
}

#[tokio::test]
async fn a_session_that_fails_and_a_text_with_a_hole_are_errors() {
    let mut node = FakeNode::start().await;
    let failed = SessionEvent::Failed(ErrorBody::new(ErrorCode::ShuttingDown, "the node is stopping"));
    let mut hole = a_final(0, 160, "", CutCause::Endpoint);
    if let SessionEvent::Final(last) = &mut hole {
        last.error = Some("it killed three decoders".to_owned());
    }
    for (event, code, stopped) in
        [(failed.clone(), "shutting_down", false), (failed, "shutting_down", true), (hole, "internal", false)]
    {
        let mut client = Client::connect(&node).await;
        client.send(&[start(), chunk(320)]).await;
        let mut session = node.session().await;
        if stopped {
            client.send(&[stop()]).await;
            session.wait_for(&Seen::End).await;
        }
        session.say(event);
        assert_eq!(client.refused().await.0, code);
        session.wait_for(&Seen::Abandoned).await;
    }
}

#[tokio::test]
async fn who_leaves_frees_its_session_and_who_only_stops_writing_is_answered() {
    let mut node = FakeNode::start().await;
    let mut client = Client::connect(&node).await;
    client.send(&[start(), chunk(320)]).await;
    let mut session = node.session().await;
    drop(client);
    session.wait_for(&Seen::Abandoned).await;

    let mut client = Client::connect(&node).await;
    client.send(&[start(), chunk(320), stop()]).await;
    client.0.shutdown().await.expect("half closed");
    let mut session = node.session().await;
    session.wait_for(&Seen::End).await;
    session.say(a_final(0, 160, "bye", CutCause::End));
    session.say(done(1, 160));
    session.wait_for(&Seen::Abandoned).await;
    client.expect("transcript-start", json!({ "language": "en" })).await;
    client.expect("transcript-chunk", json!({ "text": "bye" })).await;
    client.expect("transcript", json!({ "text": "bye", "language": "en" })).await;
    client.expect("transcript-stop", json!({})).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn who_says_nothing_does_not_stay() {
    let soon = Duration::from_millis(200);
    let settings =
        GatewaySettings { handshake_timeout: soon, peer_timeout: soon, ..GatewaySettings::default() };
    let mut node = FakeNode::with(settings).await;
    let mut silent = Client::connect(&node).await;
    assert_eq!(silent.refused().await, ("idle_timeout".to_owned(), "nothing came for 0.2 s".to_owned()));
    let mut halting = Client::connect(&node).await;
    halting.send(&[b"{\"type\":".to_vec()]).await;
    assert_eq!(halting.refused().await.0, "idle_timeout");
    let mut stuck = Client::connect(&node).await;
    stuck.send(&[start(), chunk(320)]).await;
    let mut session = node.session().await;
    assert_eq!(stuck.refused().await.0, "idle_timeout");
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn a_full_journal_does_not_stop_finals_from_being_taken() {
    let mut node = FakeNode::start().await;
    let mut client = Client::connect(&node).await;
    client.send(&[start(), chunk(320)]).await;
    let mut session = node.session().await;
    session.expect(Seen::Audio(320)).await;
    let all = session.room.available_permits();
    session.room.forget_permits(all);
    client.send(&[chunk(640)]).await;
    session.say(a_final(0, 160, "meanwhile", CutCause::Endpoint));
    session.expect(Seen::Confirm(Segment(0))).await;
    session.room.add_permits(640);
    session.expect(Seen::Audio(640)).await;
    client.expect("transcript-start", json!({ "language": "en" })).await;
    client.expect("transcript-chunk", json!({ "text": "meanwhile" })).await;
}

#[tokio::test]
async fn a_node_that_stops_goes_on_with_what_has_begun_and_nothing_else() {
    let mut node = FakeNode::start().await;
    let mut idle = Client::connect(&node).await;
    let mut client = Client::connect(&node).await;
    client.send(&[start(), chunk(320)]).await;
    let mut session = node.session().await;
    node.stopping.cancel();
    assert_eq!(idle.next().await, None);
    client.send(&[chunk(320), stop()]).await;
    session.wait_for(&Seen::End).await;
    session.say(done(0, 320));
    client.expect("transcript-start", json!({ "language": "en" })).await;
    client.expect("transcript", json!({ "text": "", "language": "en" })).await;
    client.expect("transcript-stop", json!({})).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn clients_are_the_tenants_of_the_listener() {
    let acme = TenantFacts {
        name: "acme".to_owned(),
        keys: vec![KeyHash::of("acme")],
        models: vec!["other".to_owned()],
        operator: false,
        limits: TenantLimits::default(),
    };
    let tenants = Tenants::new(vec![acme]);
    let mut node = FakeNode::with_tenants(tenants.clone()).await;
    let mut client = Client::connect(&node).await;
    client.send(&[event("describe", &Value::Null, b""), start(), chunk(320)]).await;
    let (_, info) = client.next().await.expect("an event");
    assert_eq!(info["asr"][0]["models"].as_array().map(Vec::len), Some(1), "{info}");
    let session = node.session().await;
    assert_eq!(
        (session.request().tenant.as_str(), session.request().model.as_deref()),
        ("acme", Some("other"))
    );
    tenants.replace(
        vec![TenantFacts {
            name: "other".to_owned(),
            keys: Vec::new(),
            models: Vec::new(),
            operator: false,
            limits: TenantLimits::default(),
        }],
        None,
    );
    let mut client = Client::connect(&node).await;
    assert_eq!(client.refused().await.0, "forbidden");
}
