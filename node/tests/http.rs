//! Recordings over HTTP, and what operators ask, over real sockets.

mod common;

use std::net::SocketAddr;

use common::answer::{Answer, request};
use common::events::{a_final, done};
use common::*;
use serde_json::Value;
use starling_actors::{Capabilities, ModelStatus, NodeStatus};
use starling_core::lineup::Stage;
use starling_node::config::GatewaySettings;
use starling_node::net::{Places, Serving, accept};
use starling_protocol::CutCause;
use starling_protocol::lease::EngineKind;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

async fn get(node: &FakeNode, path: &str) -> Answer {
    request(node.http, &format!("GET {path}"), "", b"").await
}

async fn post(address: SocketAddr, query: &str, body: &[u8]) -> Answer {
    request(address, &format!("POST /v1/transcriptions{query}"), "", body).await
}

fn recording(channels: u16, sample_rate: u32, samples: usize) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels,
        sample_rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).expect("begins");
    for _ in 0..samples {
        writer.write_sample(7i16).expect("writes");
    }
    writer.finalize().expect("ends");
    file.into_inner()
}

#[tokio::test]
async fn a_recording_becomes_text() {
    let mut node = FakeNode::start().await;
    let mut body = recording(1, 8_000, 40_000);
    body.extend_from_slice(b"LIST\x04\0\0\0meta");
    let address = node.http;
    let posting =
        tokio::spawn(async move { post(address, "?words=true&alternatives=2&language=KO", &body).await });
    let mut session = node.session().await;
    let request = session.request();
    assert_eq!((request.sample_rate, request.model.as_deref()), (8_000, Some("other")));
    assert!(request.options.batch && request.options.words && !request.options.partials);
    let mut heard = 0;
    loop {
        match session.next().await {
            Seen::Audio(bytes) => heard += bytes,
            Seen::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, 80_000, "metadata behind the samples is no audio");
    session.say(a_final(0, 20_000, "one two", CutCause::Endpoint));
    session.say(a_final(1, 30_000, "", CutCause::NoSpeech));
    session.say(a_final(2, 40_000, "three", CutCause::End));
    session.say(done(3, 40_000));
    session.say_nothing_more();
    let answer = posting.await.expect("answered");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!(json["text"], "one two three");
    assert_eq!(json["duration"], 5.0);
    assert_eq!(json["segments"].as_array().expect("a list").len(), 3);
}

#[tokio::test]
async fn channels_are_heard_for_themselves_where_that_is_asked_for() {
    let mut node = FakeNode::start().await;
    let address = node.http;
    let posting =
        tokio::spawn(async move { post(address, "?channels=apart", &recording(2, 8_000, 1_600)).await });
    let mut sessions = [node.session().await, node.session().await];
    for (session, text) in sessions.iter_mut().zip(["agent", "customer"]) {
        session.expect(Seen::Audio(1_600)).await;
        session.say(a_final(0, 800, text, CutCause::End));
        session.say(done(1, 800));
        session.say_nothing_more();
    }
    let answer = posting.await.expect("answered");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!((&json["model"], &json["duration"]), (&"fake".into(), &0.1.into()));
    let texts: Vec<(u64, &str)> = json["channels"]
        .as_array()
        .expect("channels")
        .iter()
        .map(|one| (one["channel"].as_u64().expect("a number"), one["text"].as_str().expect("a text")))
        .collect();
    assert_eq!(texts, [(0, "agent"), (1, "customer")]);
    assert_eq!(json["channels"][1]["segments"][0]["text"], "customer");
}

#[tokio::test]
async fn what_is_no_recording_is_refused_with_its_reason() {
    let settings = GatewaySettings { max_recording: 100_000, ..GatewaySettings::default() };
    let mut node = FakeNode::with(settings).await;
    let fine = recording(1, 8_000, 100);
    let mut answers = Vec::new();
    for (query, body) in [
        ("", b"this is no recording".to_vec()),
        ("", b"RIFF".to_vec()),
        ("", Vec::new()),
        ("", recording(9, 16_000, 99)),
        ("", recording(1, 96_000, 100)),
        ("?model=", recording(1, 8_000, 60_000)),
        ("?alternatives=many", fine.clone()),
        ("?alternatives=11", fine.clone()),
        ("?colour=blue", fine.clone()),
        ("?language=xx", fine.clone()),
    ] {
        answers.push(format!("{query}: {}", post(node.http, query, &body).await.shown()));
    }
    let page = "content-type: text/html; charset=utf-8\r\n";
    answers.push(request(node.http, "POST /v1/transcriptions", page, &fine).await.shown());
    assert!(node.no_session());
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn a_busy_node_says_when_to_come_back() {
    let node = FakeNode::start().await;
    let mut busy = ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use");
    busy.retry_after_ms = Some(1_500);
    node.refuse(busy);
    let answer = post(node.http, "", &recording(1, 8_000, 100)).await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 2\r\n"), "{}", answer.head);
    assert_eq!(answer.json()["error"]["retry_after_ms"], 1_500);
}

#[tokio::test]
async fn a_session_that_fails_is_an_error_and_a_client_that_leaves_frees_it() {
    let mut node = FakeNode::start().await;
    let address = node.http;
    let posting = tokio::spawn(async move { post(address, "", &recording(1, 8_000, 100)).await });
    let session = node.session().await;
    session.say(starling_actors::SessionEvent::Failed(ErrorBody::new(ErrorCode::Internal, "broken")));
    drop(session);
    let answer = posting.await.expect("answered");
    assert_eq!((answer.status, &answer.json()["error"]["message"]), (500, &"broken".into()));

    let mut stream = TcpStream::connect(address).await.expect("connected");
    let body = recording(1, 8_000, 100);
    let head = "POST /v1/transcriptions HTTP/1.1\r\nhost: t\r\ncontent-length: 9999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&body).await.expect("sent");
    let mut session = node.session().await;
    session.expect(Seen::Audio(200)).await;
    drop(stream);
    session.expect(Seen::Dropped).await;
}

fn status(hosts_ready: usize) -> NodeStatus {
    NodeStatus {
        models: vec![ModelStatus {
            name: "fake".to_owned(),
            pool: 0,
            stage: Stage::Current,
            digest: "ab12".to_owned(),
            determinism: None,
            language: "en".to_owned(),
            engine: EngineKind::Scripted,
            capabilities: Capabilities {
                words: true,
                alternatives: true,
                phrases: false,
                ..Capabilities::default()
            },
            sample_rate: 16_000,
            hosts_ready,
            hosts_total: 2,
            slots_total: 8,
            slots_busy: 3,
            slots_idle: 5,
            waiting: 1,
            continuing: 0,
            restarts: 4,
            slots_desired: 8,
            hosts_parked: 0,
            policy: starling_core::scaling::ScalingConfig::default(),
            scaling: None,
            real_time_factor: Some(0.25),
            decoded: std::time::Duration::from_secs(40),
            decoding: std::time::Duration::from_secs(10),
            resident_bytes: 1 << 29,
            last_error: (hosts_ready == 0).then(|| "libvosk.so is not there".to_owned()),
        }],
        sessions: 3,
        ..NodeStatus::default()
    }
}

#[tokio::test]
async fn readiness_says_which_part_is_not_ready() {
    let node = FakeNode::start().await;
    node.set_status(status(0));
    assert_eq!(get(&node, "/healthz").await.shown(), "200 ok\n");
    let mut answers = vec![get(&node, "/readyz").await.shown()];
    node.set_status(status(1));
    answers.push(get(&node, "/readyz").await.shown());
    node.stopping.cancel();
    answers.push(get(&node, "/readyz").await.shown());
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn a_node_has_started_once_it_was_ready_and_lives_while_its_actors_answer() {
    let node = FakeNode::start().await;
    let status_of = async |path| get(&node, path).await.status;
    node.set_status(NodeStatus::default());
    assert_eq!((status_of("/healthz").await, status_of("/livez").await), (200, 503), "no actor answers");
    node.set_status(status(0));
    assert_eq!((status_of("/livez").await, status_of("/startupz").await), (200, 503));
    let waiting = get(&node, "/startupz").await.json();
    assert_eq!(waiting["not_ready"][0]["part"], "model fake");
    node.set_status(status(1));
    assert_eq!((status_of("/startupz").await, status_of("/readyz").await), (200, 200));
    node.set_status(status(0));
    assert_eq!((status_of("/startupz").await, status_of("/readyz").await), (200, 503), "it was started");
}

#[tokio::test]
async fn a_model_that_is_being_replaced_keeps_nobody_away() {
    let node = FakeNode::start().await;
    let at = |stage, hosts_ready| {
        let mut model = status(hosts_ready).models.remove(0);
        model.stage = stage;
        model
    };
    let models = vec![at(Stage::Current, 2), at(Stage::Loading, 0), at(Stage::Leaving, 0)];
    node.set_status(NodeStatus { models, ..NodeStatus::default() });
    assert_eq!(get(&node, "/readyz").await.status, 200);
}

#[tokio::test]
async fn models_and_wrong_paths_are_told() {
    let node = FakeNode::start().await;
    node.set_status(status(1));
    let answers = [
        get(&node, "/v1/models").await.shown(),
        get(&node, "/v1/stream").await.shown(),
        get(&node, "/nothing").await.shown(),
        get(&node, "/v1/transcriptions").await.shown(),
        request(node.http, "POST /healthz", "", b"").await.shown(),
    ];
    insta::assert_snapshot!(answers.join("\n"));
}

#[tokio::test]
async fn what_the_cluster_needs_is_where_autoscalers_look_for_it() {
    let node = FakeNode::start().await;
    node.set_status(status(1));
    let needed = get(&node, "/v1/scaling").await.json();
    let own = serde_json::json!({
        "busy": 3, "idle": 5, "desired": 8, "reason": "fixed", "hosts": 1, "parked": 0,
    });
    let model = serde_json::json!({
        "name": "fake", "total": 8, "busy": 3, "idle": 5, "waiting": 1, "reserve": 0, "desired": 9, "reason": "demand",
        "expected": null, "own": own,
    });
    assert_eq!(needed, serde_json::json!({ "node": "fake-node", "nodes": 1, "models": [model] }));
    let metrics = get(&node, "/metrics").await.body;
    assert!(metrics.contains("starling_desired_decoders{model=\"fake\"} 9"), "{metrics}");
}

#[tokio::test]
async fn metrics_are_openmetrics_with_the_nodes_state() {
    let node = FakeNode::start().await;
    node.set_status(status(2));
    let answer = get(&node, "/metrics").await;
    assert!(answer.head.contains("application/openmetrics-text"), "{}", answer.head);
    for line in [
        "starling_sessions{state=\"connected\",dialect=\"native\"} 0",
        "starling_slots_busy{model=\"fake\"} 3",
        "starling_hosts_ready{model=\"fake\"} 2",
        "starling_real_time_factor{model=\"fake\"} 0.25",
        "# TYPE starling_final_latency_seconds histogram",
        "# EOF",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "no {line} in\n{}", answer.body);
    }
    let tasks = answer.body.lines().find_map(|line| line.strip_prefix("starling_tasks ")?.parse().ok());
    assert!(tasks.is_some_and(|tasks: u64| tasks > 0), "this answer was a task\n{}", answer.body);
}

#[tokio::test]
async fn a_node_on_its_own_is_a_cluster_of_one() {
    let node = FakeNode::start().await;
    node.set_status(status(2));
    let cluster = get(&node, "/v1/cluster").await.json();
    assert_eq!(cluster["node"], "fake-node");
    assert_eq!(cluster["nodes"].as_array().map(Vec::len), Some(1));
    let me = &cluster["nodes"][0];
    assert_eq!(
        (&me["name"], &me["state"], &me["gossip"]),
        (&"fake-node".into(), &"alive".into(), &Value::Null)
    );
    assert!(me["generation"].as_u64() > Some(1_700_000_000_000), "{me}");
    let model = serde_json::json!({
        "name": "fake", "nodes": 1, "slots": { "total": 8, "busy": 3, "idle": 5 }, "real_time_factor": 0.25,
        "hosts": { "ready": 2, "total": 2 },
    });
    assert_eq!(cluster["models"], serde_json::json!([model]));
    assert_eq!(me["models"], cluster["models"]);
    let metrics = get(&node, "/metrics").await.body;
    assert!(metrics.contains("starling_cluster_members{state=\"alive\"} 1"), "{metrics}");
    assert!(metrics.contains("starling_cluster_members{state=\"down\"} 0"), "{metrics}");
}

#[tokio::test]
async fn an_address_that_has_too_many_connections_is_told_so_in_each_dialects_shape() {
    let node = FakeNode::with_places(1).await;
    let _first = TcpStream::connect(node.http).await.expect("connected");
    let ask = async |what: &str| {
        let answer = request(node.http, what, "", b"").await;
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")), "{what}");
        answer.json()
    };
    assert_eq!(ask("GET /v1/models").await["error"]["code"], "over_quota");
    assert_eq!(ask("GET /v1/listen").await["err_code"], "TOO_MANY_REQUESTS");
    assert_eq!(ask("POST /v1/audio/transcriptions").await["error"]["type"], "rate_limit_error");
    assert_eq!(ask("PUT /client/dynamic/recognize").await["status"], 9);
    let last_words = async |address| {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        let mut bytes = Vec::new();
        in_time(stream.read_to_end(&mut bytes)).await.expect("is closed in order");
        bytes
    };
    let told = String::from_utf8(last_words(node.wyoming).await).expect("text");
    assert!(told.contains(r#""type":"error""#) && told.contains("max_connections_per_address"), "{told}");
    assert_eq!(last_words(node.audiosocket).await, [0, 0, 0], "a hang-up");
}

#[tokio::test]
async fn an_address_that_has_too_many_connections_is_told_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let patience = std::time::Duration::from_secs(10);
    let serving = Serving {
        places: Places::new(100, 1),
        head_timeout: patience,
        peer_timeout: patience,
        accepting: CancellationToken::new(),
        serving: CancellationToken::new(),
        connections: TaskTracker::new(),
    };
    let router = axum::Router::new().fallback(|| async { "served" });
    tokio::spawn(accept(listener, None, router, serving));
    let first = TcpStream::connect(address).await.expect("connected");
    let answer = request(address, "GET /", "", b"").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(answer.json()["error"]["code"], "over_quota");
    assert!(answer.body.contains("max_connections_per_address"), "{}", answer.body);
    drop(first);
    // The node notices a moment later.
    in_time(async { while request(address, "GET /", "", b"").await.status != 200 {} }).await;
    let long = format!("x-long: {}\r\n", "x".repeat(64 * 1024));
    in_time(async { while request(address, "GET /", &long, b"").await.status != 431 {} }).await;
}
