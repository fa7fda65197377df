//! `AudioSocket` over real sockets: calls, and what is told of them to whoever asks over HTTP.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::answer::request;
use common::events::{a_final, done};
use common::*;
use serde_json::{Value, json};
use starling_actors::{Dialect, SessionEvent};
use starling_core::tenant::TenantLimits;
use starling_node::config::GatewaySettings;
use starling_node::tenants::{KeyHash, TenantFacts, Tenants};
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{CutCause, Segment, SessionId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const HANGUP: [u8; 3] = [0, 0, 0];

/// What Asterisk sends at 8 kHz: 20 ms.
const FRAME: usize = 320;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("fits");
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

fn id_frame(id: SessionId) -> Vec<u8> {
    frame(0x01, id.0.as_bytes())
}

fn audio(kind: u8) -> Vec<u8> {
    frame(kind, &[0; FRAME])
}

/// Asterisk's end of a call.
struct Asterisk(TcpStream);

impl Asterisk {
    async fn connect(node: &FakeNode) -> Self {
        Self(in_time(TcpStream::connect(node.audiosocket)).await.expect("connected"))
    }

    /// With the call's UUID and the first audio.
    async fn call(node: &FakeNode, id: SessionId) -> Self {
        let mut this = Self::connect(node).await;
        this.send(&[id_frame(id), audio(0x10)].concat()).await;
        this
    }

    async fn send(&mut self, bytes: &[u8]) {
        in_time(self.0.write_all(bytes)).await.expect("sent");
    }

    /// All that comes until the other side ends, without silence.
    async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        in_time(self.0.read_to_end(&mut bytes)).await.expect("ended");
        let silence = audio(0x10);
        let mut rest = &bytes[..];
        while let Some(behind) = rest.strip_prefix(&silence[..]) {
            rest = behind;
        }
        rest.to_vec()
    }
}

/// A reader of a call's events.
struct Reader {
    lines: BufReader<TcpStream>,
    id: String,
}

impl Reader {
    async fn open(address: SocketAddr, id: SessionId, head: &str) -> Self {
        let mut stream = in_time(TcpStream::connect(address)).await.expect("connected");
        let request = format!("GET /v1/audiosocket/{id}/events HTTP/1.1\r\nhost: test\r\n{head}\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut this = Self { lines: BufReader::new(stream), id: String::new() };
        assert_eq!(this.line().await.as_deref(), Some("HTTP/1.1 200 OK"));
        this
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = in_time(self.lines.read_line(&mut line)).await.expect("read");
        (count > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event; `None` at the end of the answer.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let line = self.line().await?;
            if let Some(id) = line.strip_prefix("id: ") {
                id.clone_into(&mut self.id);
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).expect("JSON"));
            }
            // The last of the chunks that HTTP/1.1 has the answer in.
            if line == "0" {
                return None;
            }
        }
    }

    async fn kind(&mut self) -> String {
        let event = self.next().await.expect("an event");
        event["type"].as_str().expect("a type").to_owned()
    }

    /// What is left, each as its type with what tells it from others.
    async fn rest(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(event) = self.next().await {
            let kind = event["type"].as_str().expect("a type");
            let detail =
                ["text", "digit", "code", "segments", "model"].iter().find_map(|name| event.get(name));
            told.push(format!("{kind} {}", detail.cloned().unwrap_or_default()));
        }
        told
    }
}

async fn told(node: &FakeNode, id: SessionId) -> Vec<String> {
    Reader::open(node.http, id, "").await.rest().await
}

#[tokio::test]
async fn a_call_is_heard_and_told_to_those_who_come_before_during_and_after() {
    let mut node = FakeNode::start().await;
    let id = SessionId::random();
    let mut before = Reader::open(node.http, id, "").await;
    let mut asterisk = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    let asked = session.request();
    assert_eq!((asked.session, asked.dialect, asked.sample_rate), (id, Dialect::AudioSocket, 8_000));
    assert!(asked.linger.is_zero() && asked.options.words && !asked.options.partials);
    session.expect(Seen::Audio(FRAME)).await;
    let begin = json!({ "type": "begin", "call": id, "model": "fake", "sample_rate": 8_000 });
    assert_eq!(before.next().await, Some(begin));

    session.say(a_final(0, 160, "one", CutCause::Endpoint));
    session.expect(Seen::Confirm(Segment(0))).await;
    let first = before.next().await.expect("an event");
    assert_eq!(
        (&first["type"], &first["segment"], &first["text"]),
        (&json!("final"), &json!(0), &json!("one"))
    );
    let after_first = before.id.clone();
    let mut during = Reader::open(node.http, id, "").await;
    asterisk.send(&frame(0x03, b"5")).await;
    assert_eq!(before.next().await, Some(json!({ "type": "dtmf", "digit": "5" })));
    asterisk.send(&audio(0x10)).await;
    session.expect(Seen::Audio(FRAME)).await;
    asterisk.send(&HANGUP).await;
    session.expect(Seen::End).await;
    session.say(a_final(1, 320, "two", CutCause::End));
    session.say(done(2, 320));
    session.expect(Seen::Confirm(Segment(1))).await;
    session.expect(Seen::Abandoned).await;

    let all = ["begin \"fake\"", "final \"one\"", "dtmf \"5\"", "final \"two\"", "done 2"];
    assert_eq!(before.rest().await, all[3..]);
    assert_eq!(during.rest().await, all);
    assert_eq!(asterisk.rest().await, [0; 0]);
    let mut after = Reader::open(node.http, id, "").await;
    assert_eq!(after.rest().await, all);
    let header = format!("last-event-id: {after_first}\r\n");
    assert_eq!(
        Reader::open(node.http, id, &header).await.rest().await,
        all[2..],
        "who comes back gets the rest"
    );
    let header = format!("last-event-id: {}\r\n", after.id);
    let path = format!("GET /v1/audiosocket/{id}/events");
    assert_eq!(
        request(node.http, &path, &header, b"").await.status,
        204,
        "there is no more to come back for"
    );
    assert_eq!(Reader::open(node.http, id, "last-event-id: other\r\n").await.rest().await, all);
}

#[tokio::test]
async fn frames_may_come_cut_anywhere_and_at_higher_rates() {
    let mut node = FakeNode::start().await;
    for (kind, rate) in (0x10..).zip([8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000]) {
        let id = SessionId::random();
        let bytes =
            [id_frame(id), audio(kind), frame(0x19, b"?"), frame(0x10, b""), audio(kind), HANGUP.to_vec()];
        let mut asterisk = Asterisk::connect(&node).await;
        asterisk.0.set_nodelay(true).expect("is set");
        for piece in bytes.concat().chunks(61) {
            asterisk.send(piece).await;
        }
        let mut session = node.session().await;
        assert_eq!(session.request().sample_rate, rate);
        session.expect(Seen::Audio(FRAME)).await;
        session.expect(Seen::Audio(FRAME)).await;
        session.expect(Seen::End).await;
        session.say(done(0, 320));
        session.expect(Seen::Abandoned).await;
    }
}

#[tokio::test]
async fn frames_that_cannot_be_served_end_the_call_and_say_why() {
    let mut node = FakeNode::start().await;
    let other = SessionId::random();
    let digest = SessionId::of_digest([7; 16]);
    for first in [audio(0x10), frame(0x03, b"1"), frame(0x01, &[0; 15]), id_frame(digest)] {
        let mut asterisk = Asterisk::connect(&node).await;
        asterisk.send(&first).await;
        assert_eq!(asterisk.rest().await, HANGUP, "{first:?}");
    }
    assert!(node.no_session());
    let table = [
        (audio(0x17), "the audio's rate is 96000 Hz; it must be 8000 to 48000 Hz (types 0x10 to 0x16)"),
        (frame(0x01, &[0; 17]), "the call's UUID (type 0x01) is 17 bytes long; it must be 16 bytes long"),
        (id_frame(other), "as it began"),
    ];
    for (second, why) in table {
        let id = SessionId::random();
        let mut asterisk = Asterisk::connect(&node).await;
        asterisk.send(&[id_frame(id), id_frame(id), second].concat()).await;
        assert_eq!(asterisk.rest().await, HANGUP, "{why}");
        let error = Reader::open(node.http, id, "").await.next().await.expect("an event");
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_request")));
        assert!(error["message"].as_str().expect("text").contains(why), "{error}");
    }
    assert!(node.no_session());
}

#[tokio::test]
async fn what_was_said_before_the_rate_changed_is_told() {
    let mut node = FakeNode::start().await;
    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    asterisk.send(&audio(0x12)).await;
    assert_eq!(asterisk.rest().await, HANGUP);
    session.wait_for(&Seen::End).await;
    session.say(a_final(0, 160, "so far", CutCause::End));
    session.say(done(1, 160));
    session.wait_for(&Seen::Abandoned).await;
    assert_eq!(told(&node, id).await, ["begin \"fake\"", "final \"so far\"", "error \"bad_request\""]);
}

#[tokio::test]
async fn a_call_without_audio_is_a_call() {
    let mut node = FakeNode::start().await;
    for end in [&HANGUP[..], &frame(0xFF, &[1]), &[]] {
        let id = SessionId::random();
        let mut asterisk = Asterisk::connect(&node).await;
        let mut reader = Reader::open(node.http, id, "").await;
        asterisk.send(&[&id_frame(id), end].concat()).await;
        asterisk.0.shutdown().await.expect("half closed");
        assert_eq!(reader.rest().await, ["done 0"]);
    }
    assert!(node.no_session());
}

#[tokio::test]
async fn of_two_calls_with_one_uuid_the_first_goes_on() {
    let mut node = FakeNode::start().await;
    let id = SessionId::random();
    let mut first = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    let mut second = Asterisk::call(&node, id).await;
    assert_eq!(second.rest().await, HANGUP);
    assert!(node.no_session());
    first.send(&audio(0x10)).await;
    session.expect(Seen::Audio(FRAME)).await;
    session.expect(Seen::Audio(FRAME)).await;
    first.send(&HANGUP).await;
    session.expect(Seen::End).await;
    session.say(done(0, 320));
    assert_eq!(told(&node, id).await, ["begin \"fake\"", "done 0"]);
    session.expect(Seen::Abandoned).await;
    assert_eq!(first.rest().await, [0; 0], "now it is over for the node, too");

    let _third = Asterisk::call(&node, id).await;
    let session = node.session().await;
    let mut reader = Reader::open(node.http, id, "").await;
    assert_eq!(reader.kind().await, "begin");
    session.say(a_final(0, 160, "third", CutCause::Endpoint));
    assert_eq!(reader.next().await.expect("an event")["text"], "third");
}

#[tokio::test]
async fn a_line_that_breaks_off_is_heard_to_its_end() {
    let mut node = FakeNode::start().await;
    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    asterisk.send(&audio(0x10)[..100]).await;
    let mut session = node.session().await;
    drop(asterisk);
    session.expect(Seen::Audio(FRAME)).await;
    session.expect(Seen::End).await;
    session.say(a_final(0, 160, "bye", CutCause::End));
    session.say(done(1, 160));
    session.wait_for(&Seen::Abandoned).await;
    assert_eq!(told(&node, id).await, ["begin \"fake\"", "final \"bye\"", "done 1"]);
}

#[tokio::test]
async fn who_never_says_anything_does_not_stay() {
    let soon = Duration::from_millis(100);
    let settings = GatewaySettings { handshake_timeout: soon, ..GatewaySettings::default() };
    let mut node = FakeNode::with_idle(settings, soon).await;
    let mut silent = Asterisk::connect(&node).await;
    assert_eq!(silent.rest().await, HANGUP);
    let mut halting = Asterisk::connect(&node).await;
    halting.send(&[1, 0, 16, 7]).await;
    assert_eq!(halting.rest().await, HANGUP);
    let id = SessionId::random();
    let mut nothing = Asterisk::connect(&node).await;
    nothing.send(&id_frame(id)).await;
    assert_eq!(nothing.rest().await, HANGUP);
    assert_eq!(told(&node, id).await, ["error \"idle_timeout\""]);
    assert!(node.no_session());
}

#[tokio::test]
async fn a_call_on_hold_gets_silence_in_its_own_rate() {
    let mut node = FakeNode::start().await;
    let mut asterisk = Asterisk::connect(&node).await;
    asterisk.send(&[id_frame(SessionId::random()), audio(0x12)].concat()).await;
    let _session = node.session().await;
    let mut silence = vec![1; 3 + 640];
    in_time(asterisk.0.read_exact(&mut silence)).await.expect("read");
    assert_eq!(silence, frame(0x12, &[0; 640]));
}

#[tokio::test]
async fn a_session_that_fails_or_is_refused_ends_the_call_and_says_why() {
    let mut node = FakeNode::start().await;
    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    session.say(SessionEvent::Failed(ErrorBody::new(ErrorCode::IdleTimeout, "no audio for 600 s")));
    assert_eq!(asterisk.rest().await, HANGUP);
    session.wait_for(&Seen::Abandoned).await;
    assert_eq!(told(&node, id).await, ["begin \"fake\"", "error \"idle_timeout\""]);

    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    session.say_nothing_more();
    assert_eq!(asterisk.rest().await, HANGUP);
    session.wait_for(&Seen::Abandoned).await;
    assert_eq!(told(&node, id).await, ["begin \"fake\"", "error \"internal\""]);

    node.refuse(ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use"));
    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    assert_eq!(asterisk.rest().await, HANGUP);
    assert_eq!(told(&node, id).await, ["error \"busy\""]);
}

#[tokio::test]
async fn a_full_journal_does_not_stop_finals_from_being_told() {
    let mut node = FakeNode::start().await;
    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    session.expect(Seen::Audio(FRAME)).await;
    let all = session.room.available_permits();
    session.room.forget_permits(all);
    asterisk.send(&audio(0x10)).await;
    let mut reader = Reader::open(node.http, id, "").await;
    assert_eq!(reader.kind().await, "begin");
    session.say(a_final(0, 160, "meanwhile", CutCause::Endpoint));
    assert_eq!(reader.kind().await, "final");
    session.expect(Seen::Confirm(Segment(0))).await;
    session.room.add_permits(FRAME);
    session.expect(Seen::Audio(FRAME)).await;
}

#[tokio::test]
async fn what_is_asked_for_in_vain_is_told() {
    let node = FakeNode::start().await;
    let answer = request(node.http, "GET /v1/audiosocket/call-1/events", "", b"").await;
    assert_eq!((answer.status, &answer.json()["error"]["field"]), (400, &json!("uuid")));
    let path = format!("/v1/audiosocket/{}/events", SessionId::random());
    assert_eq!(request(node.http, &format!("POST {path}"), "", b"").await.status, 405);
    // As long as a call is waited for.
    assert_eq!(told(&node, SessionId::random()).await, ["error \"unknown_session\""]);
}

#[tokio::test]
async fn a_node_that_stops_ends_what_has_not_begun_and_goes_on_with_what_has() {
    let mut node = FakeNode::start().await;
    let (open, empty) = (SessionId::random(), SessionId::random());
    let mut asterisk = Asterisk::call(&node, open).await;
    let mut session = node.session().await;
    let mut waiting = Asterisk::connect(&node).await;
    waiting.send(&id_frame(empty)).await;
    let mut readers =
        [Reader::open(node.http, SessionId::random(), "").await, Reader::open(node.http, empty, "").await];
    node.stopping.cancel();
    for reader in &mut readers {
        assert_eq!(reader.rest().await, ["error \"shutting_down\""]);
    }
    assert_eq!(waiting.rest().await, HANGUP);
    asterisk.send(&[audio(0x10), HANGUP.to_vec()].concat()).await;
    session.wait_for(&Seen::End).await;
    session.say(done(0, 320));
    assert_eq!(told(&node, open).await, ["begin \"fake\"", "done 0"]);
}

fn tenant(name: &str) -> TenantFacts {
    TenantFacts {
        name: name.to_owned(),
        keys: vec![KeyHash::of(name)],
        models: Vec::new(),
        operator: false,
        limits: TenantLimits { sessions: 1, ..TenantLimits::default() },
    }
}

#[tokio::test]
async fn calls_are_the_tenants_of_the_listener_and_no_others() {
    let tenants = Tenants::new(vec![tenant("other"), tenant("acme")]);
    let mut node = FakeNode::with_tenants(Arc::clone(&tenants)).await;
    let id = SessionId::random();
    let mut asterisk = Asterisk::call(&node, id).await;
    let mut session = node.session().await;
    assert_eq!(session.request().tenant, "acme");
    let path = format!("GET /v1/audiosocket/{id}/events");
    assert_eq!(request(node.http, &path, "", b"").await.status, 401);
    let mut own = Reader::open(node.http, id, "authorization: Bearer acme\r\n").await;
    assert_eq!(own.kind().await, "begin");
    let mut others = Reader::open(node.http, id, "authorization: Bearer other\r\n").await;
    assert_eq!(others.rest().await, ["error \"unknown_session\""]);

    let further = SessionId::random();
    let mut over = Asterisk::call(&node, further).await;
    assert_eq!(over.rest().await, HANGUP);
    let mut reader = Reader::open(node.http, further, "authorization: Bearer acme\r\n").await;
    assert_eq!(reader.rest().await, ["error \"over_quota\""]);
    asterisk.send(&HANGUP).await;
    session.wait_for(&Seen::End).await;
    session.say(done(0, 160));
    assert_eq!(own.rest().await, ["done 0"]);

    tenants.replace(vec![tenant("other")], None);
    let mut gone = Asterisk::call(&node, SessionId::random()).await;
    assert_eq!(gone.rest().await, HANGUP, "the tenant is none any more");
}
