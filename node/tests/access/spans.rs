//! Requests that come to no session, as spans of the node's own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SpanData, SpanProcessor};
use starling_node::traces::layer;
use tracing::Dispatch;
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::common::answer::request;
use super::common::{closed, json, send_text, text};
use super::{ACME, OPERATOR, asked, native, node, speak};

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

#[tokio::test]
async fn requests_that_come_to_no_session_are_told_of_as_spans() {
    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const HELLO: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let told = Told::default();
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    // Of one subscriber alone, whichever thread comes to a line first would say whether it is wanted: mostly one that has none.
    let _second = Dispatch::new(NoSubscriber::default());
    let _telling = tracing_subscriber::registry().with(layer(sampler, told.clone())).set_default();
    let mut node = node(|tenant| tenant.models = vec!["fake".to_owned()]).await;
    // What is asked for every few seconds, or by the dozen, is left out.
    for path in ["/healthz", "/livez", "/startupz", "/readyz", "/metrics", "/", "/page/app.mjs", "/v1/page"] {
        asked(&node, &format!("GET {path}"), Some(OPERATOR)).await;
    }
    assert_eq!(told.take(), []);
    let head = |key: &str| format!("traceparent: {CALLER}\r\nauthorization: Bearer {key}\r\n");
    let none = "0000000000000000".to_owned();
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
        [("", none), (&format!(r#","traceparent":"{HELLO}""#), "00f067aa0ba902b7".to_owned())]
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
