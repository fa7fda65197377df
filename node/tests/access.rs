//! Keys and what they are good for, over real sockets and in each dialect's shape.

mod common;
#[path = "access/spans.rs"]
mod spans;

use std::sync::Arc;

use common::answer::{Answer, request};
use common::*;
use serde_json::{Value, json};
use starling_actors::OpenRequest;
use starling_client::{ApiKey, Client, ClientConfig, OpenError, SessionConfig};
use starling_core::tenant::TenantLimits;
use starling_node::config::{GatewaySettings, JwtSettings};
use starling_node::tenants::{Identified, KeyHash, TenantFacts, Tenants, TokenVerifier};
use starling_protocol::native::ErrorCode;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, http};

const ACME: &str = "acme's key";
const OPERATOR: &str = "the operator's key";

fn facts(name: &str, key: &str) -> TenantFacts {
    TenantFacts {
        name: name.to_owned(),
        keys: vec![KeyHash::of(key)],
        models: Vec::new(),
        operator: false,
        limits: TenantLimits::default(),
    }
}

fn acme(change: impl FnOnce(&mut TenantFacts)) -> Arc<Tenants> {
    let mut tenant = facts("acme", ACME);
    change(&mut tenant);
    let operator = TenantFacts { operator: true, ..facts("operator", OPERATOR) };
    Tenants::new(vec![tenant, operator])
}

async fn node(change: impl FnOnce(&mut TenantFacts)) -> FakeNode {
    FakeNode::with_tenants(acme(change)).await
}

async fn asked(node: &FakeNode, what: &str, key: Option<&str>) -> Answer {
    let head = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    request(node.http, what, &head, b"").await
}

/// A WebSocket with a header, or how it was refused.
async fn speak(
    url: &str,
    header: (&'static str, &str),
) -> Result<(Socket, http::Response<()>), (u16, String)> {
    let mut request = url.into_client_request().expect("an address");
    request.headers_mut().insert(header.0, HeaderValue::from_str(header.1).expect("a header"));
    match in_time(tokio_tungstenite::connect_async(request)).await {
        Ok((socket, response)) => Ok((socket, response.map(|_| ()))),
        Err(Error::Http(response)) => {
            let limited = response.status().as_u16() == 429;
            assert_eq!(response.headers().contains_key("retry-after"), limited, "{response:?}");
            let body = response.body().clone().unwrap_or_default();
            Err((response.status().as_u16(), String::from_utf8(body).expect("text")))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn native(node: &FakeNode, key: &str) -> Socket {
    let url = format!("ws://{}/v1/stream", node.http);
    speak(&url, ("authorization", &format!("Bearer {key}"))).await.expect("is let in").0
}

#[tokio::test]
async fn without_a_key_there_is_health_and_nothing_else() {
    let node = node(|_| {}).await;
    for path in ["/healthz", "/livez", "/startupz", "/readyz"] {
        assert_ne!(asked(&node, &format!("GET {path}"), None).await.status, 401, "{path}");
    }
    for what in
        ["GET /v1/models", "GET /metrics", "GET /v1/cluster", "POST /v1/transcriptions", "GET /nowhere"]
    {
        for key in [None, Some("a guess")] {
            let answer = asked(&node, what, key).await;
            assert_eq!(answer.status, 401, "{what}");
            assert_eq!(answer.header("www-authenticate"), Some("bearer"), "{what}");
            assert_eq!(answer.json()["error"]["code"], "unauthorized", "{what}");
            assert!(!answer.body.contains("a guess"), "{}", answer.body);
        }
    }
    let (status, body) = speak(&format!("ws://{}/v1/stream", node.http), ("authorization", "Bearer no"))
        .await
        .expect_err("refused");
    assert_eq!(status, 401);
    assert!(body.contains("the key is not known here"), "{body}");
    let refused = speak(&format!("ws://{}/", node.vosk), ("x-nothing", "no")).await.expect_err("refused");
    assert_eq!(refused.0, 401);
}

#[tokio::test]
async fn a_key_in_the_address_is_no_setting() {
    let node = node(|_| {}).await;
    let (acme, operator) = (ACME.replace(' ', "%20"), OPERATOR.replace(' ', "%20"));
    let answer = asked(&node, &format!("POST /v1/transcriptions?words=true&token={acme}"), None).await;
    assert_eq!((answer.status, &answer.json()["error"]["field"]), (422, &"body".into()), "{}", answer.body);
    let answer = asked(&node, &format!("POST /v1/cluster/drain?api_key={operator}&node=other"), None).await;
    assert_eq!(answer.status, 404, "{}", answer.body);
}

#[tokio::test]
async fn a_request_s_trace_is_its_session_s_unless_hello_names_another() {
    const REQUEST: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const HELLO: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    let mut node = FakeNode::start().await;
    let trace = |request: &OpenRequest| request.trace.as_ref().expect("a trace").traceparent.clone();
    let mut socket =
        speak(&format!("ws://{}/", node.vosk), ("traceparent", REQUEST)).await.expect("is let in").0;
    send_audio(&mut socket, 3_200).await;
    assert_eq!(trace(node.session().await.request()), REQUEST);
    for (hello, wanted) in [(String::new(), REQUEST), (format!(r#","traceparent":"{HELLO}""#), HELLO)] {
        let url = format!("ws://{}/v1/stream", node.http);
        let mut socket = speak(&url, ("traceparent", REQUEST)).await.expect("is let in").0;
        send_text(&mut socket, &format!(r#"{{"type":"hello"{hello}}}"#)).await;
        assert_eq!(trace(node.session().await.request()), wanted);
    }
    let mut socket =
        speak(&format!("ws://{}/", node.vosk), ("traceparent", &"0".repeat(600))).await.expect("is let in").0;
    send_audio(&mut socket, 3_200).await;
    assert!(node.session().await.request().trace.is_none(), "it is longer than any");
}

#[tokio::test]
async fn each_dialect_is_refused_in_its_own_shape() {
    let node = node(|_| {}).await;
    let answer = asked(&node, "POST /v1/audio/transcriptions", None).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (401, &"authentication_error".into()));
    assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
    let answer = asked(&node, "PUT /client/dynamic/recognize", None).await;
    assert_eq!((answer.status, &answer.json()["status"]), (401, &5.into()));
    let answer = asked(&node, "POST /v1/listen", None).await;
    assert_eq!((answer.status, &answer.json()["err_code"]), (401, &"INVALID_AUTH".into()), "{}", answer.body);
    for (path, field, told) in [
        ("v1/listen?encoding=linear16&sample_rate=8000", "/err_code", json!("INVALID_AUTH")),
        ("v1/realtime?intent=transcription", "/error/code", json!("invalid_api_key")),
        ("client/ws/speech", "/status", json!(5)),
    ] {
        let url = format!("ws://{}/{path}", node.http);
        let (status, body) = speak(&url, ("authorization", "Token no")).await.expect_err("refused");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, body.pointer(field)), (401, Some(&told)), "{body}");
    }
}

#[tokio::test]
async fn a_key_is_taken_wherever_a_client_can_put_it() {
    let mut node = node(|_| {}).await;
    let url = format!("ws://{}/v1/stream", node.http);
    let named = format!("ws://{}/v1/stream?token={}", node.http, ACME.replace(' ', "%20"));
    let ways = [
        (&url, ("authorization", format!("Bearer {ACME}")), None),
        (&url, ("authorization", format!("Token {ACME}")), None),
        (&url, ("sec-websocket-protocol", format!("token, {ACME}")), Some("token")),
        (&named, ("x-nothing", String::new()), None),
    ];
    for (url, (name, value), protocol) in ways {
        let (mut socket, response) = speak(url, (name, &value)).await.expect("is let in");
        let chosen =
            response.headers().get("sec-websocket-protocol").map(|value| value.to_str().expect("text"));
        assert_eq!(chosen, protocol, "the key is never echoed");
        send_text(&mut socket, r#"{"type":"hello"}"#).await;
        assert_eq!(json(&mut socket).await["type"], "ready");
        assert_eq!(node.session().await.request().tenant, "acme");
    }
    // As Deepgram's libraries have it in a browser.
    let listen = format!("ws://{}/v1/listen?encoding=linear16&sample_rate=8000", node.http);
    for (name, value) in
        [("sec-websocket-protocol", format!("token, {ACME}")), ("authorization", format!("Token {ACME}"))]
    {
        let (_socket, response) = speak(&listen, (name, &value)).await.expect("is let in");
        let chosen = response.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes);
        assert_eq!(chosen, (name == "sec-websocket-protocol").then_some(&b"token"[..]));
        assert_eq!(node.session().await.request().tenant, "acme");
    }
    let vosk = format!("ws://{}/?api_key={}", node.vosk, ACME.replace(' ', "+"));
    let (mut socket, _) = speak(&vosk, ("x-nothing", "")).await.expect("is let in");
    send_audio(&mut socket, 1_600).await;
    assert_eq!(node.session().await.request().tenant, "acme");
}

#[tokio::test]
async fn an_operators_key_is_needed_to_look_after_the_cluster() {
    let node = node(|_| {}).await;
    for what in ["GET /metrics", "GET /v1/cluster", "POST /v1/models?name=m", "POST /v1/cluster/drain?node=n"]
    {
        let answer = asked(&node, what, Some(ACME)).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &"forbidden".into()), "{what}");
        assert_ne!(asked(&node, what, Some(OPERATOR)).await.status, 403, "{what}");
    }
    assert_eq!(asked(&node, "GET /v1/models", Some(ACME)).await.status, 200);
}

#[tokio::test]
async fn a_tenant_has_its_models_and_no_others() {
    let mut node = node(|acme| acme.models = vec!["other".to_owned()]).await;
    let listed = asked(&node, "GET /v1/models", Some(ACME)).await.json();
    assert_eq!(listed["models"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["models"][0]["name"], "other");
    let mut socket = native(&node, ACME).await;
    send_text(&mut socket, r#"{"type":"hello","model":"fake"}"#).await;
    let error = json(&mut socket).await;
    assert_eq!(
        (&error["code"], &error["field"], &error["value"]),
        (&"forbidden".into(), &"model".into(), &"fake".into())
    );
    assert_eq!(closed(&mut socket).await.0, 1008);
    assert!(node.no_session());
    let mut socket = native(&node, ACME).await;
    send_text(&mut socket, r#"{"type":"hello"}"#).await;
    assert_eq!(json(&mut socket).await["type"], "ready");
    assert_eq!(node.session().await.request().model.as_deref(), Some("other"), "its default");
    // What an address names is looked at before the upgrade.
    let speech = format!("ws://{}/client/ws/speech?model=fake", node.http);
    let refused = speak(&speech, ("authorization", &format!("Bearer {ACME}"))).await.expect_err("is refused");
    assert_eq!((refused.0, refused.1.contains("\"status\":5")), (403, true), "{refused:?}");
}

/// Waits until another session may be begun: what comes out of one is let go a moment after what goes in.
async fn room(tenants: &Tenants) {
    let Identified::Tenant(tenant) = tenants.identify(Some(ACME)) else { panic!("it is known") };
    in_time(async {
        while tenant.check().is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn no_more_sessions_than_allowed_and_one_that_leaves_makes_room() {
    let tenants = acme(|acme| acme.limits.sessions = 1);
    let mut node = FakeNode::with_tenants(Arc::clone(&tenants)).await;
    let mut first = native(&node, ACME).await;
    send_text(&mut first, r#"{"type":"hello"}"#).await;
    assert_eq!(json(&mut first).await["type"], "ready");
    let mut session = node.session().await;
    let mut second = native(&node, ACME).await;
    send_text(&mut second, r#"{"type":"hello"}"#).await;
    let error = json(&mut second).await;
    assert_eq!(
        (&error["code"], error["retry_after_ms"].as_u64().is_some()),
        (&"over_quota".into(), true),
        "{error}"
    );
    assert_eq!(closed(&mut second).await.0, 1013);
    // Recordings are refused before their first byte is read.
    let answer = asked(&node, "POST /v1/transcriptions", Some(ACME)).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
    let answer = asked(&node, "POST /v1/audio/transcriptions", Some(ACME)).await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (429, &"rate_limit_error".into()));
    let answer = asked(&node, "POST /client/dynamic/recognize", Some(ACME)).await;
    assert_eq!((answer.status, &answer.json()["status"]), (429, &9.into()));
    // So are streams that can't be going on, before their upgrade.
    let speech = format!("ws://{}/client/ws/speech", node.http);
    let head = ("authorization", format!("Bearer {ACME}"));
    let refused = speak(&speech, (head.0, &head.1)).await.expect_err("is refused");
    assert_eq!((refused.0, refused.1.contains("\"status\":9")), (429, true), "{refused:?}");
    let refused = speak(&format!("ws://{}/", node.vosk), (head.0, &head.1)).await.expect_err("is refused");
    assert_eq!((refused.0, refused.1.contains("over_quota")), (429, true), "{refused:?}");
    // One that has a name may.
    let (mut named, _) = speak(&format!("{speech}?content-id=a&content-type=audio/x-raw"), (head.0, &head.1))
        .await
        .expect("is let in");
    assert_eq!(json(&mut named).await["status"], 9);
    drop(first);
    session.wait_for(&Seen::Dropped).await;
    room(&tenants).await;
    let mut third = native(&node, ACME).await;
    send_text(&mut third, r#"{"type":"hello"}"#).await;
    let answer = json(&mut third).await;
    assert_eq!(answer["type"], "ready", "{answer}");
}

#[tokio::test]
async fn who_comes_back_is_one_session_still_and_never_refused() {
    let mut node = node(|acme| acme.limits.sessions = 1).await;
    let hello = r#"{"type":"hello","session":"6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11"}"#;
    let mut first = native(&node, ACME).await;
    send_text(&mut first, hello).await;
    assert_eq!(json(&mut first).await["type"], "ready");
    node.session().await;
    // The answer was lost on its way; the connection is not known to be gone.
    let mut again = native(&node, ACME).await;
    send_text(&mut again, hello).await;
    assert_eq!(json(&mut again).await["type"], "ready");
    let resume = r#""resume":{"token":"t","epoch":2,"last_final":0,"have_from":0}}"#;
    let mut resumed = native(&node, ACME).await;
    send_text(&mut resumed, &format!("{},{resume}", &hello[..hello.len() - 1])).await;
    assert_eq!(json(&mut resumed).await["type"], "ready");
}

#[tokio::test]
async fn who_comes_back_by_a_content_id_is_never_refused_and_a_stranger_takes_no_decoder() {
    let tenants = acme(|acme| acme.limits.sessions = 1);
    let mut node = FakeNode::with_tenants(Arc::clone(&tenants)).await;
    let speech =
        |id: &str| format!("ws://{}/client/ws/speech?content-type=audio/x-raw&content-id={id}", node.http);
    let (one, other) = (speech("call-1"), speech("call-2"));
    let head = ("authorization", format!("Bearer {ACME}"));
    let (call, _) = speak(&one, (head.0, &head.1)).await.expect("is let in");
    let mut session = node.session().await;
    drop(call);
    session.wait_for(&Seen::Dropped).await;
    room(&tenants).await;
    let mut socket = native(&node, ACME).await;
    send_text(&mut socket, r#"{"type":"hello"}"#).await;
    let answer = json(&mut socket).await;
    assert_eq!(answer["type"], "ready", "{answer}");
    let _taken = node.session().await;

    let (mut stranger, _) = speak(&other, (head.0, &head.1)).await.expect("may be going on");
    let refused = json(&mut stranger).await;
    assert_eq!(refused["status"], 9, "{refused}");
    assert!(node.no_session(), "nothing is begun to see whether it goes on");
    let refusals = r#"starling_sessions_refused_total{dialect="gstreamer",reason="over_quota"} 1"#;
    let metrics = asked(&node, "GET /metrics", Some(OPERATOR)).await.body;
    assert!(metrics.contains(refusals), "{metrics}");

    let (_back, _) = speak(&one, (head.0, &head.1)).await.expect("is let in");
    assert_eq!(node.session().await.request().session, session.request().session);
}

#[tokio::test]
async fn a_content_id_is_its_tenants_own() {
    let mut node = node(|_| {}).await;
    let mut session = async |key: &str| {
        let url = format!("ws://{}/client/ws/speech?content-type=audio/x-raw&content-id=call-1", node.http);
        let socket = speak(&url, ("authorization", &format!("Bearer {key}"))).await.expect("is let in").0;
        let session = node.session().await.request().session;
        drop(socket);
        session
    };
    let acmes = session(ACME).await;
    assert_ne!(session(OPERATOR).await, acmes);
    assert_eq!(session(ACME).await, acmes);
}

#[tokio::test]
async fn an_id_that_others_may_know_is_no_clients_to_choose() {
    let mut node = node(|_| {}).await;
    let mut socket = native(&node, ACME).await;
    send_text(&mut socket, r#"{"type":"hello","session":"6f2c1f5e-08a3-8b0e-9f0d-3f6f0f5f7a11"}"#).await;
    let error = json(&mut socket).await;
    assert_eq!((&error["code"], &error["field"]), (&"bad_request".into(), &"session".into()), "{error}");
    assert!(node.no_session());
}

#[tokio::test]
async fn keys_change_under_a_running_node() {
    let tenants = acme(|_| {});
    let node = FakeNode::with_tenants(Arc::clone(&tenants)).await;
    assert_eq!(asked(&node, "GET /v1/models", Some(ACME)).await.status, 200);
    tenants.replace(vec![facts("acme", "another key")], None);
    assert_eq!(asked(&node, "GET /v1/models", Some(ACME)).await.status, 401);
    assert_eq!(asked(&node, "GET /v1/models", Some("another key")).await.status, 200);
}

#[tokio::test]
async fn the_client_shows_its_key_and_says_at_once_that_it_is_refused() {
    let mut node = node(|_| {}).await;
    let mut config = ClientConfig::new([format!("ws://{}", node.http)]);
    let refused = Client::new(config.clone()).expect("fine").open(SessionConfig::default()).await;
    let Err(OpenError::Refused(body)) = refused.map(|_| ()) else { panic!("it was let in, or tries on") };
    assert_eq!(body.code, ErrorCode::Unauthorized);
    config.api_key = Some(ApiKey::from(ACME.to_owned()));
    assert!(!format!("{config:?}").contains(ACME));
    let session = Client::new(config).expect("fine").open(SessionConfig::default()).await;
    assert!(session.is_ok(), "{:?}", session.err());
    assert_eq!(node.session().await.request().tenant, "acme");
}

#[tokio::test]
async fn a_token_is_as_good_as_a_key_of_the_tenant_that_it_names() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key pair");
    let public = data_encoding::BASE64URL_NOPAD.encode(pair.public_key_raw());
    let set = serde_json::json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": public }] });
    let tokens = TokenVerifier::new(&JwtSettings::default(), &set.to_string()).expect("a key set");
    let tenants = Tenants::with_tokens(vec![facts("acme", ACME)], Some(Arc::new(tokens)));
    let mut node = FakeNode::with_tenants(tenants).await;
    let token = |tenant: &str, seconds: i64| {
        let expires = i64::try_from(starling_actors::unix_now().as_secs()).expect("fits") + seconds;
        let claims = serde_json::json!({ "tenant": tenant, "exp": expires });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        let signing = jsonwebtoken::EncodingKey::from_ed_der(&pair.serialize_der());
        jsonwebtoken::encode(&header, &claims, &signing).expect("signs")
    };
    let mut socket = native(&node, &token("acme", 60)).await;
    send_text(&mut socket, r#"{"type":"hello"}"#).await;
    assert_eq!(json(&mut socket).await["type"], "ready");
    assert_eq!(node.session().await.request().tenant, "acme");
    for (token, status, said) in [
        (token("acme", -3_600), 401, "the token has expired"),
        (token("nobody", 60), 403, "names a tenant"),
        (format!("{}x", token("acme", 60)), 401, "not signed by a key"),
    ] {
        let answer = asked(&node, "GET /v1/models", Some(&token)).await;
        assert_eq!(answer.status, status, "{said}");
        assert!(answer.body.contains(said), "{}", answer.body);
    }
}

/// A page's origin, and how its WebSocket fares.
async fn from_page(node: &FakeNode, origin: &str) -> Result<(), u16> {
    let url = format!("ws://{}/v1/stream", node.http);
    speak(&url, ("origin", origin)).await.map(|_| ()).map_err(|(status, body)| {
        assert!(body.contains(origin) && body.contains("allowed_origins"), "{body}");
        status
    })
}

#[tokio::test]
async fn pages_of_others_can_not_use_a_node_that_asks_for_no_key() {
    let settings =
        GatewaySettings { allowed_origins: vec!["https://app.example".into()], ..GatewaySettings::default() };
    let node = FakeNode::with(settings).await;
    let own = format!("http://{}", node.http);
    for origin in [own.as_str(), "http://localhost:3000", "https://app.example"] {
        assert_eq!(from_page(&node, origin).await, Ok(()), "{origin}");
    }
    assert_eq!(from_page(&node, "https://evil.example").await, Err(403));
    let vosk = format!("ws://{}", node.vosk);
    assert_eq!(speak(&vosk, ("origin", "https://evil.example")).await.expect_err("is refused").0, 403);
    let head = "origin: https://evil.example\r\n";
    assert_eq!(request(node.http, "POST /v1/transcriptions", head, b"").await.status, 403);
    let answer = request(node.http, "POST /v1/listen", head, b"").await;
    assert_eq!((answer.status, &answer.json()["err_code"]), (403, &"INSUFFICIENT_PERMISSIONS".into()));
    let with_key = FakeNode::with_tenants(acme(|_| {})).await;
    assert_eq!(request(with_key.http, "GET /healthz", head, b"").await.status, 200);
}

#[tokio::test]
async fn a_browser_is_told_which_pages_may_read_an_answer() {
    let settings =
        GatewaySettings { allowed_origins: vec!["https://app.example".into()], ..GatewaySettings::default() };
    let node = FakeNode::with(settings).await;
    let asks = |origin: &str| {
        format!(
            "origin: {origin}\r\naccess-control-request-method: POST\r\naccess-control-request-headers: authorization, user-id\r\n"
        )
    };
    let listed = request(node.http, "OPTIONS /v1/transcriptions", &asks("https://app.example"), b"").await;
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(listed.header("access-control-allow-headers"), Some("authorization, user-id"));
    let other = request(node.http, "OPTIONS /v1/transcriptions", &asks("https://evil.example"), b"").await;
    assert_eq!(other.header("access-control-allow-origin"), None);
    let read = request(node.http, "GET /v1/models", "origin: https://app.example\r\n", b"").await;
    assert_eq!(read.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(read.header("x-content-type-options"), Some("nosniff"));
}
