//! The native protocol over QUIC and WebTransport, over real sockets: the same session as over WebSocket, and how streams and
//! connections end.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::events::{a_final, done, partial};
use common::quic::{Authority, Caller, Stream};
use common::*;
use quinn::{ApplicationClose, ConnectionError};
use starling_actors::SessionEvent;
use starling_core::tenant::TenantLimits;
use starling_node::config::GatewaySettings;
use starling_node::tenants::{KeyHash, TenantFacts, Tenants};
use starling_protocol::native::{Close, ErrorBody, ErrorCode};
use starling_protocol::{CutCause, Segment, SourceOffset};

const HELLO: &str = r#"{"type":"hello"}"#;
const SESSION: &str = "00000000-0000-4000-8000-000000000001";

async fn node(authority: &Authority, settings: GatewaySettings) -> FakeNode {
    FakeNode::over_quic(settings, Tenants::new(Vec::new()), &authority.certificate).await
}

async fn started() -> (Authority, FakeNode, Caller) {
    started_with(GatewaySettings::default()).await
}

async fn started_with(settings: GatewaySettings) -> (Authority, FakeNode, Caller) {
    let authority = Authority::new();
    let node = node(&authority, settings).await;
    let caller = authority.call(node.quic.expect("listens")).await;
    (authority, node, caller)
}

async fn greeted(node: &mut FakeNode, caller: &Caller) -> (Stream, Played) {
    let mut stream = caller.stream().await;
    stream.say(HELLO).await;
    let ready = stream.hear().await;
    assert_eq!(ready["type"], "ready", "{ready}");
    (stream, node.session().await)
}

fn code(error: ErrorCode) -> u64 {
    Close::Error(error).stream().into()
}

#[tokio::test]
async fn a_whole_session_is_passed_on_in_both_directions() {
    let (_authority, mut node, caller) = started().await;
    let mut stream = caller.stream().await;
    let hello = format!(
        r#"{{"type":"hello","session":"{SESSION}","format":{{"sample_rate":8000}},"options":{{"words":true}},"traceparent":"00-1-2-01"}}"#
    );
    stream.say(&hello).await;
    let ready = stream.hear().await;
    assert_eq!((&ready["type"], &ready["session"]), (&"ready".into(), &SESSION.into()));
    let mut session = node.session().await;
    assert_eq!(session.request().sample_rate, 8_000);
    assert!(session.request().options.words);
    assert_eq!(session.request().trace.as_ref().expect("a trace").traceparent, "00-1-2-01");

    stream.audio(7).await;
    session.expect(Seen::Audio(7)).await;
    stream.audio(1 << 20).await;
    session.expect(Seen::Audio(1 << 20)).await;
    session.say(SessionEvent::Ack(SourceOffset(3)));
    session.say(partial("one"));
    session.say(a_final(0, 40, "one two", CutCause::Finalize));
    assert_eq!(stream.hear().await["until"], 3);
    assert_eq!(stream.hear().await["text"], "one");
    assert_eq!(stream.hear().await["text"], "one two");
    stream.say(r#"{"type":"confirm","segment":0}"#).await;
    stream.say(r#"{"type":"finalize"}"#).await;
    session.expect(Seen::Confirm(Segment(0))).await;
    session.expect(Seen::Finalize).await;
    stream.say(r#"{"type":"end"}"#).await;
    session.expect(Seen::End).await;
    session.say(done(1, 40));
    assert_eq!(stream.hear().await["frames"], 40);
    assert_eq!(stream.end().await, Ok(()));
    // The last confirmation is taken after the goodbye.
    stream.say(r#"{"type":"confirm","segment":0}"#).await;
    session.expect(Seen::Confirm(Segment(0))).await;
    stream.sending.finish().expect("open");
    session.expect(Seen::Dropped).await;
}

#[tokio::test]
async fn a_connection_carries_many_sessions_and_one_that_waits_holds_up_none() {
    let (_authority, mut node, caller) = started().await;
    let (mut first, stuck) = greeted(&mut node, &caller).await;
    stuck.room.forget_permits(usize::MAX >> 3);
    // Far more than the stream's window: it can't be sent, and nothing else waits for it.
    let flood = tokio::spawn(async move {
        first.sending.write_all(&vec![0; 1 << 20]).await.expect("the connection lives");
        first
    });
    let mut streams = Vec::new();
    for index in 1..=20 {
        let (stream, session) = greeted(&mut node, &caller).await;
        streams.push((index, stream, session));
    }
    for (index, stream, session) in &mut streams {
        stream.audio(*index).await;
        session.expect(Seen::Audio(*index)).await;
        session.say(partial(&index.to_string()));
    }
    for (index, stream, _) in &mut streams {
        assert_eq!(stream.hear().await["text"], index.to_string());
    }
    flood.abort();
}

#[tokio::test]
async fn a_client_whose_address_changes_goes_on_without_a_resume() {
    let (_authority, mut node, caller) = started().await;
    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    stream.audio(10).await;
    session.expect(Seen::Audio(10)).await;
    let before = caller.endpoint.local_addr().expect("an address");
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    caller.endpoint.rebind(socket).expect("rebound");
    assert_ne!(caller.endpoint.local_addr().expect("an address"), before);
    stream.audio(20).await;
    session.expect(Seen::Audio(20)).await;
    session.say(partial("still here"));
    assert_eq!(stream.hear().await["text"], "still here");
    stream.say(r#"{"type":"end"}"#).await;
    session.expect(Seen::End).await;
    session.say(done(0, 15));
    assert_eq!(stream.hear().await["type"], "done");
    assert!(node.no_session(), "it came back by itself");
}

#[tokio::test]
async fn a_stream_or_connection_that_ends_before_end_is_lost_and_the_session_resumed() {
    let (authority, mut node, caller) = started().await;
    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    stream.sending.finish().expect("open");
    session.expect(Seen::Dropped).await;

    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    // Half a frame.
    stream.raw(&[0, 0, 0, 9, 2, 1]).await;
    stream.sending.finish().expect("open");
    session.expect(Seen::Dropped).await;

    let (_stream, mut session) = greeted(&mut node, &caller).await;
    caller.connection.close(0u32.into(), b"");
    session.expect(Seen::Dropped).await;

    let caller = authority.call(node.quic.expect("listens")).await;
    let mut stream = caller.stream().await;
    let hello = format!(
        r#"{{"type":"hello","session":"{SESSION}","resume":{{"token":"t","epoch":7,"last_final":3,"have_from":80}}}}"#
    );
    stream.say(&hello).await;
    let ready = stream.hear().await;
    assert_eq!((&ready["epoch"], &ready["resumed"]), (&7.into(), &true.into()));
    let Opened::Resumed(request) = node.session().await.opened else { panic!("not resumed") };
    assert_eq!((request.resume.token.as_str(), request.resume.have_from), ("t", SourceOffset(80)));
}

#[tokio::test]
async fn a_client_may_close_its_side_after_end_and_is_told_the_rest() {
    let (_authority, mut node, caller) = started().await;
    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    stream.say(r#"{"type":"end"}"#).await;
    stream.sending.finish().expect("open");
    session.expect(Seen::End).await;
    let waited = tokio::time::timeout(Duration::from_millis(300), session.next()).await;
    assert!(waited.is_err(), "it was let go: {waited:?}");
    session.say(a_final(0, 40, "the rest", CutCause::End));
    session.say(done(1, 40));
    assert_eq!(stream.hear().await["text"], "the rest");
    assert_eq!(stream.hear().await["type"], "done");
    assert_eq!(stream.end().await, Ok(()));
    session.expect(Seen::Dropped).await;
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_their_stream_with_a_code_and_harm_no_other() {
    let (_authority, mut node, caller) = started().await;
    let (mut good, mut other) = greeted(&mut node, &caller).await;
    let too_long = ((1u32 << 20) + 2).to_be_bytes();
    for (bytes, close) in [
        (&[0, 0, 0, 0][..], Close::Framing),
        (&[0, 0, 0, 2, 3, 0], Close::Framing),
        (b"GET /v1/stream HTTP/1.1\r\n\r\n", Close::TooLong),
        (&too_long, Close::TooLong),
    ] {
        let (mut stream, mut session) = greeted(&mut node, &caller).await;
        stream.raw(bytes).await;
        assert_eq!(stream.end().await, Err(close.stream().into()), "{bytes:?}");
        assert_eq!(stream.stopped().await, Some(close.stream().into()), "{bytes:?}");
        session.expect(Seen::Dropped).await;
        // The same in place of hello.
        let mut stream = caller.stream().await;
        stream.raw(bytes).await;
        assert_eq!(stream.end().await, Err(close.stream().into()), "{bytes:?}");
    }
    good.audio(5).await;
    other.expect(Seen::Audio(5)).await;
}

#[tokio::test]
async fn nonsense_is_answered_as_over_websocket() {
    let (_authority, mut node, caller) = started().await;
    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    for nonsense in
        ["7", r#"{"type":"confirm"}"#, HELLO, r#"{"type":"hello","protocol":9}"#, r#"{"type":"helo"}"#]
    {
        stream.say(nonsense).await;
        assert_eq!(stream.hear().await["code"], "bad_message", "{nonsense}");
    }
    // A message's frame whose body is none.
    stream.raw(&[0, 0, 0, 2, 1, 0xc1]).await;
    let error = stream.hear().await;
    assert!(error["message"].as_str().is_some_and(|text| text.contains("MessagePack")), "{error}");
    stream.audio(10).await;
    session.expect(Seen::Audio(10)).await;
    for (bad, field) in [
        (r#"{"type":"hello","format":{"sample_rate":4000}}"#, "format.sample_rate".into()),
        (r#"{"type":"end"}"#, serde_json::Value::Null),
    ] {
        let mut stream = caller.stream().await;
        stream.say(bad).await;
        let error = stream.hear().await;
        assert_eq!((&error["code"], &error["field"]), (&"bad_request".into(), &field), "{error}");
        assert_eq!(stream.end().await, Ok(()), "what was said arrives, so the stream ends in order");
        assert_eq!(stream.stopped().await, Some(code(ErrorCode::BadRequest)));
    }
    assert!(node.no_session());
}

#[tokio::test]
async fn refusals_and_failures_are_told_with_a_code() {
    let (_authority, mut node, caller) = started().await;
    let (mut stream, session) = greeted(&mut node, &caller).await;
    session.say(SessionEvent::Failed(ErrorBody::new(ErrorCode::Superseded, "a later one has it")));
    assert_eq!(stream.hear().await["code"], "superseded");
    assert_eq!(stream.end().await, Ok(()));
    assert_eq!(stream.stopped().await, Some(code(ErrorCode::Superseded)));

    let mut busy = ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use");
    busy.retry_after_ms = Some(1_500);
    node.refuse(busy);
    let mut stream = caller.stream().await;
    stream.say(HELLO).await;
    let error = stream.hear().await;
    assert_eq!((&error["code"], &error["retry_after_ms"]), (&"busy".into(), &1_500.into()));
    assert_eq!(stream.stopped().await, Some(code(ErrorCode::Busy)));
}

#[tokio::test]
async fn a_client_that_says_nothing_or_reads_nothing_loses_its_stream() {
    let settings = GatewaySettings {
        // Those that do say something have to have said it by then.
        handshake_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_millis(200),
        ..GatewaySettings::default()
    };
    let (_authority, mut node, caller) = started_with(settings).await;
    let mut silent = caller.stream().await;
    silent.raw(&[0]).await;
    assert_eq!(silent.hear().await["message"], "no hello came within 2 s");
    assert_eq!(silent.stopped().await, Some(code(ErrorCode::IdleTimeout)));

    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    let long = "word ".repeat(20_000);
    // More than a client allows to be sent by itself.
    for _ in 0..400 {
        session.say(partial(&long));
    }
    session.expect(Seen::Dropped).await;
    assert_eq!(stream.stopped().await, Some(code(ErrorCode::SlowReader)));
}

#[tokio::test]
async fn connections_are_kept_alive_while_they_carry_a_session_and_no_longer() {
    let settings = GatewaySettings {
        ping_interval: Duration::from_millis(100),
        peer_timeout: SILENT_FOR,
        ..GatewaySettings::default()
    };
    let (_authority, mut node, caller) = started_with(settings).await;
    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    let waited = tokio::time::timeout(SILENT_FOR + Duration::from_secs(1), session.next()).await;
    assert!(waited.is_err(), "it was dropped: {waited:?}");
    stream.sending.finish().expect("open");
    session.expect(Seen::Dropped).await;
    let reason = in_time(caller.connection.closed()).await;
    let ConnectionError::ApplicationClosed(ApplicationClose { error_code, .. }) = reason else {
        panic!("not closed by the node: {reason}")
    };
    assert_eq!(error_code.into_inner(), code(ErrorCode::IdleTimeout));
}

#[tokio::test]
async fn who_names_another_protocol_or_trusts_another_certificate_does_not_get_in() {
    let (authority, mut node, caller) = started().await;
    let address = node.quic.expect("listens");
    let refused = authority.dial(address, b"starling/2").await.map(|_| ()).expect_err("another protocol");
    // RFC 9001, 8.1: the alert no_application_protocol (120) as a transport error.
    assert!(
        matches!(&refused, ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == 0x178),
        "{refused}"
    );
    Authority::new().dial(address, b"starling/1").await.map(|_| ()).expect_err("a stranger");
    greeted(&mut node, &caller).await;
}

#[tokio::test]
async fn clients_are_told_when_the_node_stops_and_are_dropped_at_the_end() {
    let (_authority, mut node, caller) = started().await;
    let (mut stream, mut session) = greeted(&mut node, &caller).await;
    node.stopping.cancel();
    let message = stream.hear().await;
    assert_eq!((&message["type"], &message["deadline_ms"]), (&"go_away".into(), &25_000.into()));
    stream.audio(10).await;
    session.expect(Seen::Audio(10)).await;
    node.closing.cancel();
    session.expect(Seen::Dropped).await;
    in_time(caller.connection.closed()).await;
}

const KEY: &str = "acme's key";

fn tenants() -> Arc<Tenants> {
    Tenants::new(vec![TenantFacts {
        name: "acme".to_owned(),
        keys: vec![KeyHash::of(KEY)],
        models: Vec::new(),
        operator: false,
        limits: TenantLimits { sessions: 1, ..TenantLimits::default() },
    }])
}

#[tokio::test]
async fn a_key_comes_with_hello_and_counts_as_anywhere() {
    let authority = Authority::new();
    let mut node = FakeNode::over_quic(GatewaySettings::default(), tenants(), &authority.certificate).await;
    let caller = authority.call(node.quic.expect("listens")).await;
    for (hello, message) in
        [(HELLO, "a key is needed"), (r#"{"type":"hello","api_key":"a guess"}"#, "the key is not known here")]
    {
        let mut stream = caller.stream().await;
        stream.say(hello).await;
        let error = stream.hear().await;
        assert_eq!(error["code"], "unauthorized");
        let text = error["message"].as_str().expect("text");
        assert!(text.starts_with(message) && !text.contains("a guess"), "{text}");
        assert_eq!(stream.stopped().await, Some(code(ErrorCode::Unauthorized)));
    }
    let hello = format!(r#"{{"type":"hello","api_key":"{KEY}"}}"#);
    let mut stream = caller.stream().await;
    stream.say(&hello).await;
    assert_eq!(stream.hear().await["type"], "ready");
    assert_eq!(node.session().await.request().tenant, "acme");
    let mut second = caller.stream().await;
    second.say(&hello).await;
    assert_eq!(second.hear().await["code"], "over_quota");
    assert_eq!(second.stopped().await, Some(code(ErrorCode::OverQuota)));
}

#[cfg(feature = "webtransport")]
mod webtransport {
    use starling_protocol::native::webtransport_code;
    use wtransport::error::{ConnectingError, StreamReadError};
    use wtransport::tls::Sha256Digest;
    use wtransport::{ClientConfig, Connection, Endpoint};

    use super::*;

    /// As a browser that was given the certificate's hash.
    async fn connected(
        authority: &Authority,
        node: &FakeNode,
        path: &str,
    ) -> Result<Connection, ConnectingError> {
        let config = ClientConfig::builder()
            .with_bind_address(([127, 0, 0, 1], 0).into())
            .with_server_certificate_hashes([Sha256Digest::new(authority.made.sha256)])
            .build();
        let endpoint = Endpoint::client(config).expect("a socket");
        let port = node.quic.expect("listens").port();
        in_time(endpoint.connect(format!("https://127.0.0.1:{port}{path}"))).await
    }

    #[tokio::test]
    async fn a_browser_speaks_the_same_frames_on_the_same_port() {
        let authority = Authority::new();
        let mut node = super::node(&authority, GatewaySettings::default()).await;
        let caller = authority.call(node.quic.expect("listens")).await;
        greeted(&mut node, &caller).await;
        let connection = connected(&authority, &node, "/v1/stream").await.expect("greeted");
        let mut sessions = Vec::new();
        for index in 1..=3 {
            let (mut sending, mut receiving) =
                in_time(in_time(connection.open_bi()).await.expect("a stream")).await.expect("opened");
            let mut bytes = Vec::new();
            let hello: serde_json::Value = serde_json::from_str(HELLO).expect("JSON");
            starling_protocol::native::stream::encode_message(&hello, &mut bytes).expect("encodes");
            starling_protocol::native::stream::encode_audio(&vec![0; index], &mut bytes);
            in_time(sending.write_all(&bytes)).await.expect("sent");
            let mut session = node.session().await;
            session.expect(Seen::Audio(index)).await;
            let mut head = [0; 5];
            in_time(receiving.read_exact(&mut head)).await.expect("a frame");
            assert_eq!(head[4], 1);
            let mut body = vec![0; u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize - 1];
            in_time(receiving.read_exact(&mut body)).await.expect("its body");
            let ready = starling_protocol::native::stream::read_server(&body).expect("a message");
            assert!(matches!(ready, starling_protocol::native::ServerMessage::Ready { .. }), "{ready:?}");
            sessions.push((sending, receiving, session));
        }
        let (mut sending, mut receiving, mut session) = sessions.remove(0);
        in_time(sending.write_all(&[0, 0, 0, 0])).await.expect("sent");
        session.expect(Seen::Dropped).await;
        let ended = in_time(receiving.read(&mut [0; 8])).await.expect_err("reset");
        let StreamReadError::Reset(code) = ended else { panic!("no reset: {ended}") };
        assert_eq!(code.into_inner(), webtransport_code(Close::Framing.stream()));
        let (_, _, mut session) = sessions.remove(0);
        connection.close(0u32.into(), b"");
        session.expect(Seen::Dropped).await;
    }

    #[tokio::test]
    async fn the_key_is_in_the_address_or_in_hello_and_other_paths_are_not_there() {
        let authority = Authority::new();
        let settings = GatewaySettings::default();
        let mut node = FakeNode::over_quic(settings, tenants(), &authority.certificate).await;
        for path in ["/", "/v1/listen", "/v1/stream?token=a%20guess"] {
            assert!(connected(&authority, &node, path).await.is_err(), "{path}");
        }
        for (path, hello) in [
            ("/v1/stream?token=acme's%20key", HELLO.to_owned()),
            ("/v1/stream", format!(r#"{{"type":"hello","api_key":"{KEY}"}}"#)),
        ] {
            let connection = connected(&authority, &node, path).await.expect("greeted");
            let (mut sending, _receiving) =
                in_time(in_time(connection.open_bi()).await.expect("a stream")).await.expect("opened");
            let mut bytes = Vec::new();
            let hello: serde_json::Value = serde_json::from_str(&hello).expect("JSON");
            starling_protocol::native::stream::encode_message(&hello, &mut bytes).expect("encodes");
            in_time(sending.write_all(&bytes)).await.expect("sent");
            let mut session = node.session().await;
            assert_eq!(session.request().tenant, "acme", "{path}");
            connection.close(0u32.into(), b"");
            session.expect(Seen::Dropped).await;
        }
    }
}
