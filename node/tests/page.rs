//! The page and what it asks for, over real sockets: who gets what, and under which policy.

mod common;

use std::sync::Arc;

use common::answer::{Answer, request};
use common::*;
use starling_core::tenant::TenantLimits;
use starling_node::tenants::{KeyHash, TenantFacts, Tenants};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const CLIENT: &str = "a client's key";
const OPERATOR: &str = "the operator's key";

fn tenants() -> Arc<Tenants> {
    let tenant = |name: &str, key: &str, operator| TenantFacts {
        name: name.to_owned(),
        keys: vec![KeyHash::of(key)],
        models: Vec::new(),
        operator,
        limits: TenantLimits::default(),
    };
    Tenants::new(vec![tenant("acme", CLIENT, false), tenant("operator", OPERATOR, true)])
}

async fn asked(node: &FakeNode, what: &str, key: Option<&str>) -> Answer {
    let head = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    request(node.http, what, &head, b"").await
}

#[tokio::test]
async fn everybody_gets_the_page_and_nobody_else_may_frame_or_script_it() {
    let node = FakeNode::with_tenants(tenants()).await;
    let index = asked(&node, "GET /", None).await;
    assert_eq!(index.status, 200, "{}", index.body);
    let policy = index.header("content-security-policy").expect("has one").to_owned();
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert_eq!(index.header("x-content-type-options"), Some("nosniff"));
    for (path, kind) in [
        ("app.mjs", "text/javascript"),
        ("style.css", "text/css"),
        ("starling-client.mjs", "text/javascript"),
    ] {
        let file = asked(&node, &format!("GET /page/{path}"), None).await;
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("content-type").expect("has one").starts_with(kind), "{path}");
    }
    let missing = asked(&node, "GET /page/../Cargo.toml", None).await;
    assert_eq!(missing.status, 404, "{}", missing.body);
}

#[tokio::test]
async fn the_page_is_told_what_whoever_asks_may_know() {
    let node = FakeNode::with_tenants(tenants()).await;
    for (key, role) in [
        (None, "nobody"),
        (Some("a guess"), "nobody"),
        (Some(CLIENT), "client"),
        (Some(OPERATOR), "operator"),
    ] {
        let facts = asked(&node, "GET /v1/page", key).await.json();
        assert_eq!((&facts["role"], &facts["keys"]), (&role.into(), &true.into()), "{facts}");
        assert_eq!((&facts["node"], &facts["chaos"]), (&"fake-node".into(), &false.into()), "{facts}");
    }
    // Where no keys are asked for, being here is enough.
    let node = FakeNode::start().await;
    assert_eq!(asked(&node, "GET /v1/page", None).await.json()["role"], "operator");
}

#[tokio::test]
async fn who_speaks_and_what_happens_is_for_operators() {
    let node = FakeNode::with_tenants(tenants()).await;
    for what in [
        "GET /v1/sessions",
        "GET /v1/scaling",
        "GET /v1/cluster/events",
        "POST /v1/cluster/chaos/kill?node=fake-node",
        "POST /v1/cluster/chaos/drain?node=fake-node",
    ] {
        for (key, status) in [(None, 401), (Some(CLIENT), 403)] {
            assert_eq!(asked(&node, what, key).await.status, status, "{what}");
        }
    }
    let sessions = asked(&node, "GET /v1/sessions", Some(OPERATOR)).await;
    assert_eq!((sessions.status, &sessions.json()["sessions"]), (200, &serde_json::json!([])));
}

#[tokio::test]
async fn nothing_is_broken_on_purpose_unless_the_settings_allow_it() {
    let node = FakeNode::start().await;
    for what in ["kill?node=fake-node", "drain?node=fake-node", "kill"] {
        let refused = asked(&node, &format!("POST /v1/cluster/chaos/{what}"), None).await;
        assert_eq!(refused.status, 403, "{what}");
        assert!(refused.body.contains("chaos.enabled is false"), "{}", refused.body);
    }
    let wrong = asked(&node, "GET /v1/cluster/chaos/kill", None).await;
    assert_eq!(wrong.status, 405, "{}", wrong.body);
    assert!(!node.stopping.is_cancelled());
}

/// The next event of a stream, as its type and data.
async fn event(stream: &mut BufReader<TcpStream>) -> (String, String) {
    let (mut kind, mut data) = (String::new(), String::new());
    loop {
        let mut line = String::new();
        in_time(stream.read_line(&mut line)).await.expect("reads");
        if let Some(value) = line.strip_prefix("event: ") {
            kind = value.trim().to_owned();
        } else if let Some(value) = line.strip_prefix("data: ") {
            data = value.trim().to_owned();
        } else if line.trim().is_empty() && !data.is_empty() {
            return (kind, data);
        }
    }
}

#[tokio::test]
async fn whoever_looks_on_sees_the_cluster_and_the_stream_ends_with_the_node() {
    let node = FakeNode::start().await;
    let mut stream = TcpStream::connect(node.http).await.expect("connects");
    stream
        .write_all(b"GET /v1/cluster/events HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .await
        .expect("asks");
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        in_time(stream.read_line(&mut head)).await.expect("reads");
    }
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
    let (kind, data) = event(&mut stream).await;
    let report: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    assert_eq!((kind.as_str(), &report["node"]), ("cluster", &"fake-node".into()), "{report}");
    node.closing.cancel();
    let mut rest = Vec::new();
    in_time(stream.read_to_end(&mut rest)).await.expect("ends");
}
