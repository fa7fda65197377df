//! Requests that come to no session, as spans of the node's own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SpanData, SpanProcessor};
use starling_node::traces::layer;
use tracing::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use starling_node::config::GatewaySettings;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::common::answer::request;
use super::common::quic::Authority;
use super::common::{FakeNode, Seen, closed, in_time, json, send_text, text};
use super::{ACME, OPERATOR, acme, asked, native, node, speak};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const HELLO: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
/// Of a span that has no parent.
const NONE: &str = "0000000000000000";

/// Spans of this process's own, as they are over.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Told {
    fn on_start(&self, _: &mut opentelemetry_sdk::trace::Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().expect("no panic").push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl Told {
    /// What came since the last look: name, parent, and the attributes in order; none of those that others tell of.
    fn take(&self) -> Vec<(String, String, Vec<String>)> {
        let taken = std::mem::take(&mut *self.0.lock().expect("no panic"));
        let told = taken.into_iter().map(|span| {
            assert_eq!(span.span_kind, SpanKind::Server);
            let mut said: Vec<String> =
                span.attributes.iter().map(|said| format!("{}={}", said.key, said.value)).collect();
            said.sort_unstable();
            assert_eq!(span.status != Status::Unset, said.iter().any(|said| said.contains("status_code=5")));
            (span.name.to_string(), span.parent_span_id.to_string(), said)
        });
        told.filter(|(_, _, said)| !said.contains(&"told_elsewhere=true".to_owned())).collect()
    }
}

/// What this thread tells, as long as the guards are held.
fn telling() -> (Told, (Dispatch, DefaultGuard)) {
    let told = Told::default();
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    // Of one subscriber alone, whichever thread comes to a line first would say whether it is wanted: mostly one that has none.
    let second = Dispatch::new(NoSubscriber::default());
    let telling = tracing_subscriber::registry().with(layer(sampler, told.clone())).set_default();
    (told, (second, telling))
}

#[tokio::test]
async fn requests_that_come_to_no_session_are_told_of_as_spans() {
    let (told, _telling) = telling();
    let mut node = node(|tenant| tenant.models = vec!["fake".to_owned()]).await;
    // What is asked for every few seconds, or by the dozen, is left out.
    for path in ["/healthz", "/livez", "/startupz", "/readyz", "/metrics", "/", "/page/app.mjs", "/v1/page"] {
        asked(&node, &format!("GET {path}"), Some(OPERATOR)).await;
    }
    assert_eq!(told.take(), []);
    let head = |key: &str| format!("traceparent: {CALLER}\r\nauthorization: Bearer {key}\r\n");
    let asks = [
        ("GET /v1/models", ACME, Some("/v1/models"), "GET", 200, None),
        ("GET /v1/cluster?token=secret", ACME, Some("/v1/cluster"), "GET", 403, Some("forbidden")),
        ("GET /v1/models/secret", ACME, Some("/v1/models/{model}"), "GET", 404, Some("unknown_model")),
        (
            "POST /v1/transcriptions?api_key=secret",
            "no",
            Some("/v1/transcriptions"),
            "POST",
            401,
            Some("unauthorized"),
        ),
        ("BREW /v1/transcriptions", ACME, Some("/v1/transcriptions"), "_OTHER", 405, Some("bad_request")),
        ("GET /secret", "secret", None, "GET", 401, Some("unauthorized")),
    ];
    for (what, key, route, method, status, error) in asks {
        assert_eq!(request(node.http, what, &head(key), b"").await.status, status, "{what}");
        let mut wanted: Vec<String> = error.into_iter().map(|error| format!("error.type={error}")).collect();
        wanted.push(format!("http.request.method={method}"));
        wanted.push(format!("http.response.status_code={status}"));
        wanted.extend(route.map(|route| format!("http.route={route}")));
        // A path is told of only where it fits nothing.
        wanted.extend(route.is_none().then(|| "url.path=/secret".to_owned()));
        wanted.push("url.scheme=http".to_owned());
        let called = if method == "_OTHER" { "HTTP" } else { method };
        let name = route.map_or_else(|| called.to_owned(), |route| format!("{called} {route}"));
        assert_eq!(told.take(), [(name, "b7ad6b7169203331".to_owned(), wanted)], "{what}");
    }
    // One that was let in and then refused; what hello says of a trace goes before what the request said.
    let url = format!("ws://{}/v1/stream", node.http);
    for (trace, parent) in
        [("", NONE.to_owned()), (&format!(r#","traceparent":"{HELLO}""#), "00f067aa0ba902b7".to_owned())]
    {
        let mut socket = native(&node, ACME).await;
        let hello = format!(
            r#"{{"type":"hello","format":{{"encoding":"pcm_s16le","sample_rate":16000}},"model":"other"{trace}}}"#
        );
        send_text(&mut socket, &hello).await;
        text(&mut socket).await;
        closed(&mut socket).await;
        let spans = told.take();
        let [(name, of, said)] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((name.as_str(), of), ("GET /v1/stream", &parent));
        assert!(said.contains(&"error.type=forbidden".to_owned()), "{said:?}");
        assert!(said.contains(&"http.response.status_code=101".to_owned()), "{said:?}");
    }
    // One with a session is told of by that.
    let (socket, _) = speak(&url, ("authorization", &format!("Bearer {ACME}"))).await.expect("is let in");
    let mut socket = socket;
    send_text(&mut socket, r#"{"type":"hello","format":{"encoding":"pcm_s16le","sample_rate":16000}}"#).await;
    let played = node.session().await;
    json(&mut socket).await;
    drop((socket, played));
    assert_eq!(told.take(), []);
}

/// The one refusal that is told of, over a protocol that has no requests.
fn refused(told: &Told, protocol: &str, transport: &str, parent: &str, error: &str) {
    let said = vec![
        format!("error.type={error}"),
        format!("network.protocol.name={protocol}"),
        format!("network.transport={transport}"),
    ];
    assert_eq!(told.take(), [(protocol.to_owned(), parent.to_owned(), said)]);
}

#[tokio::test]
async fn refusals_over_quic_are_told_of_as_spans() {
    let (told, _telling) = telling();
    let (authority, settings) = (Authority::new(), GatewaySettings::default());
    let tenants = acme(|tenant| tenant.models = vec!["fake".to_owned()]);
    let mut node = FakeNode::over_quic(settings, tenants, &authority.certificate).await;
    let caller = authority.call(node.quic.expect("listens")).await;
    let part = |rest: &str| format!(r#"{{"type":"hello","traceparent":"{HELLO}",{rest}}}"#);
    for (hello, parent, error) in [
        (r#"{"type":"hello"}"#.to_owned(), NONE, "unauthorized"),
        (part(r#""api_key":"no""#), "00f067aa0ba902b7", "unauthorized"),
        (part(&format!(r#""api_key":"{ACME}","model":"other""#)), "00f067aa0ba902b7", "forbidden"),
        (r#"{"type":"end"}"#.to_owned(), NONE, "bad_request"),
    ] {
        let mut stream = caller.stream().await;
        stream.say(&hello).await;
        assert_eq!(stream.hear().await["code"], error, "{hello}");
        refused(&told, "quic", "quic", parent, error);
    }
    let mut garbled = caller.stream().await;
    garbled.raw(&[0, 0, 0, 0]).await;
    garbled.end().await.expect_err("no frame begins so");
    refused(&told, "quic", "quic", NONE, "bad_message");
    // One with a session is told of by that, and one that says nothing by nobody.
    let mut stream = caller.stream().await;
    stream.say(&format!(r#"{{"type":"hello","api_key":"{ACME}"}}"#)).await;
    assert_eq!(stream.hear().await["type"], "ready");
    let mut played = node.session().await;
    let mut silent = caller.stream().await;
    silent.raw(&[0]).await;
    caller.connection.close(0u32.into(), b"");
    played.expect(Seen::Dropped).await;
    assert_eq!(told.take(), []);
}

#[cfg(feature = "webtransport")]
#[tokio::test]
async fn refusals_over_webtransport_are_told_of_as_spans() {
    use wtransport::endpoint::ConnectOptions;
    use wtransport::tls::Sha256Digest;
    use wtransport::{ClientConfig, Endpoint};

    let (told, _telling) = telling();
    let (authority, settings) = (Authority::new(), GatewaySettings::default());
    let node = FakeNode::over_quic(settings, acme(|_| {}), &authority.certificate).await;
    let port = node.quic.expect("listens").port();
    let config = ClientConfig::builder()
        .with_bind_address(([127, 0, 0, 1], 0).into())
        .with_server_certificate_hashes([Sha256Digest::new(authority.made.sha256)])
        .build();
    let endpoint = Endpoint::client(config).expect("a socket");
    for (path, error) in [("/v1/listen", "bad_request"), ("/v1/stream?token=no", "unauthorized")] {
        let url = format!("https://127.0.0.1:{port}{path}");
        let asks = ConnectOptions::builder(url).add_header("traceparent", CALLER).build();
        assert!(in_time(endpoint.connect(asks)).await.is_err(), "{path}");
        refused(&told, "webtransport", "quic", "b7ad6b7169203331", error);
    }
    // One that was let in, for streams that show their keys themselves.
    let asks = ConnectOptions::builder(format!("https://127.0.0.1:{port}/v1/stream"));
    let asks = asks.add_header("traceparent", CALLER).build();
    let connection = in_time(endpoint.connect(asks)).await.expect("is let in");
    let (mut sending, mut receiving) =
        in_time(in_time(connection.open_bi()).await.expect("a stream")).await.expect("opened");
    let (mut bytes, hello) = (Vec::new(), serde_json::json!({ "type": "hello" }));
    starling_protocol::native::stream::encode_message(&hello, &mut bytes).expect("encodes");
    in_time(sending.write_all(&bytes)).await.expect("sent");
    let mut answer = [0; 64];
    in_time(receiving.read(&mut answer)).await.expect("an answer");
    refused(&told, "webtransport", "quic", "b7ad6b7169203331", "unauthorized");
}

#[tokio::test]
async fn refusals_over_bare_tcp_are_told_of_as_spans() {
    let (told, _telling) = telling();
    let mut node = node(|_| {}).await;
    let ended = async |mut stream: TcpStream| {
        let mut rest = Vec::new();
        in_time(stream.read_to_end(&mut rest)).await.expect("ends");
        rest
    };
    let said = async |address, bytes: &[u8]| {
        let mut stream = in_time(TcpStream::connect(address)).await.expect("connected");
        in_time(stream.write_all(bytes)).await.expect("sent");
        stream
    };
    // What looks whether somebody listens is told of by nobody.
    for address in [node.audiosocket, node.wyoming] {
        let mut stream = said(address, b"").await;
        stream.shutdown().await.expect("half closed");
        ended(stream).await;
    }
    assert_eq!(told.take(), []);

    let audio = [&[0x10, 1, 64][..], &[0; 320]].concat();
    ended(said(node.audiosocket, &audio).await).await;
    refused(&told, "audiosocket", "tcp", NONE, "bad_request");
    let call = |id: u8| [&[1, 0, 16][..], &[id; 6], &[0x4f], &[id], &[0x8f], &[id; 7], &audio].concat();
    let heard = said(node.audiosocket, &call(1)).await;
    let mut played = node.session().await;
    drop(heard);
    played.wait_for(&Seen::End).await;
    assert_eq!(told.take(), []);

    let event = |kind: &str, data: &str, payload: usize| {
        let head = format!(r#"{{"type":"{kind}","data":{data},"payload_length":{payload}}}"#);
        [head.as_bytes(), b"\n", &vec![0; payload]].concat()
    };
    let format = r#"{"rate":16000,"width":2,"channels":1}"#;
    let utterance = [event("audio-start", format, 0), event("audio-chunk", format, 320)].concat();
    let mut client = said(node.wyoming, &utterance).await;
    let mut played = node.session().await;
    in_time(client.write_all(&event("audio-stop", "{}", 0))).await.expect("sent");
    played.wait_for(&Seen::End).await;
    played.say(super::common::events::done(0, 160));
    played.wait_for(&Seen::Abandoned).await;
    assert_eq!(told.take(), []);
    // The next one on the same connection, and another's call.
    node.refuse(ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use"));
    in_time(client.write_all(&utterance)).await.expect("sent");
    ended(client).await;
    refused(&told, "wyoming", "tcp", NONE, "busy");
    ended(said(node.audiosocket, &call(2)).await).await;
    refused(&told, "audiosocket", "tcp", NONE, "busy");
}
