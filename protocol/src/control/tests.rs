use proptest::prelude::*;

use super::*;
use crate::{Generation, NodeName};

fn node(name: &str) -> NodeId {
    NodeId { name: NodeName::parse(name).expect("name"), generation: Generation(3) }
}

fn session() -> SessionId {
    SessionId::parse("6f1c4a52-9f0e-4c1c-8a34-0c1a5d1b2e3f").expect("id")
}

fn node_messages() -> (Vec<NodeRequest>, Vec<NodeReply>) {
    let report = NodeReport {
        version: "0.1.0".into(),
        draining: false,
        uptime_ms: 12_345,
        models: vec![ModelReport {
            model: "small-en".into(),
            digest: "sha256:00".into(),
            total_slots: 4,
            idle_slots: 1,
            real_time_factor: 0.25,
            hosts_ready: 1,
            hosts_total: 2,
        }],
        sessions: vec![SessionReport {
            session: session(),
            dialect: "native".into(),
            model: "m".into(),
            replicas: vec![node("b").name],
            durable: true,
            connected: true,
            decoder: Some(node("c").name),
            standby: Some(node("b").name),
            attempt: 2,
            epoch: Epoch(3),
            lag_ms: 300,
            tenant: "acme".into(),
            audio_ms: 12_000,
            age_ms: 12_345,
            trace_id: None,
        }],
        sessions_total: 1,
    };
    let requests = vec![
        NodeRequest::Heartbeat { sequence: 7 },
        NodeRequest::Status,
        NodeRequest::Drain { deadline_ms: 25_000 },
        NodeRequest::AddModel(ModelOffer {
            name: "small-en".into(),
            hosts: None,
            slots: Some(8),
            threads: None,
            prewarm: None,
        }),
        NodeRequest::Recent { after: 17 },
        NodeRequest::KillDecoder { model: Some("small-en".into()) },
        NodeRequest::Retire { deadline_ms: 600_000, stay_ms: 300_000 },
        NodeRequest::Retirement,
    ];
    let replies = vec![
        NodeReply::Heartbeat { sequence: 7 },
        NodeReply::Status(Box::new(report)),
        NodeReply::Draining,
        NodeReply::ModelTaken { change: "added".into(), digest: "sha256:00".into() },
        NodeReply::ModelRefused { reason: "there is none".into() },
        NodeReply::Recent(Box::new(NodeRecent {
            events: vec![NodeEvent {
                sequence: 18,
                at_ms: 1_790_000_000_123,
                kind: "caught_up".into(),
                model: "small-en".into(),
                session: Some(session()),
                decoder: Some(node("c").name),
                took_ms: Some(210),
                audio_ms: Some(1_300),
                ..NodeEvent::default()
            }],
            ended: Vec::new(),
        })),
        NodeReply::DecoderKilled(KilledDecoder { model: "small-en".into(), pid: 4_711, leases: 2 }),
        NodeReply::KillRefused { reason: "chaos is not enabled".into() },
        NodeReply::Retirement(Retirement { phase: RetirementPhase::Draining, sessions: 3, streams: 1 }),
        NodeReply::Busy,
        NodeReply::Unknown { version: 1 },
    ];
    (requests, replies)
}

fn pool_messages() -> (Vec<PoolRequest>, Vec<PoolReply>) {
    let reserve = |trace| PoolRequest::Reserve {
        model: "small-en".into(),
        digest: "sha256:00".into(),
        session: session(),
        ttl_ms: 2_000,
        failover: true,
        trace,
    };
    let trace = TraceContext { traceparent: "00-01-02-01".into(), tracestate: String::new() };
    let requests =
        vec![reserve(None), reserve(Some(trace)), PoolRequest::Release { reservation: ReservationId(9) }];
    let replies = vec![
        PoolReply::Reserved { reservation: ReservationId(9), ttl_ms: 2_000 },
        PoolReply::Refused { retry_after_ms: 500 },
        PoolReply::NoSuchModel,
        PoolReply::Released,
        PoolReply::Busy,
        PoolReply::Unknown { version: 1 },
    ];
    (requests, replies)
}

fn replica_messages() -> (Vec<ReplicaRequest>, Vec<ReplicaReply>) {
    let copy =
        CopySummary { epoch: Epoch(4), view: 2, next_segment: Segment(5), audio_end: SourceOffset(16_000) };
    let requests = vec![
        ReplicaRequest::Promote { session: session(), epoch: Epoch(5), trace: None },
        ReplicaRequest::Status { session: session() },
        ReplicaRequest::RanOut { session: session(), copy },
    ];
    let replies = vec![
        ReplicaReply::Promoted(copy),
        ReplicaReply::Fenced { epoch: Epoch(6) },
        ReplicaReply::Held(copy),
        ReplicaReply::NotHeld,
        ReplicaReply::Busy,
        ReplicaReply::Unknown { version: 1 },
    ];
    (requests, replies)
}

fn round_trip<S: Service>((requests, replies): (Vec<S::Request>, Vec<S::Reply>)) {
    for request in requests {
        let bytes = encode_call::<S>(&node("a"), &request).expect("encodes");
        let call = decode_call::<S>(&bytes).expect("decodes");
        assert_eq!(call, Call { version: CONTROL_PROTOCOL, from: node("a"), request });
    }
    for reply in replies {
        assert_eq!(decode_reply::<S>(&encode_reply::<S>(&reply)), reply);
    }
}

#[test]
fn every_message_comes_back_as_it_was() {
    round_trip::<NodeAgent>(node_messages());
    round_trip::<ModelPool>(pool_messages());
    round_trip::<Replica>(replica_messages());
}

/// Nodes of two versions work side by side during an upgrade: what is written here must stay as it is.
#[test]
fn the_wire_form_stays_as_it_is() {
    insta::assert_json_snapshot!("node_agent", node_messages());
    insta::assert_json_snapshot!("model_pool", pool_messages());
    insta::assert_json_snapshot!("replica", replica_messages());
    let call =
        encode_call::<NodeAgent>(&node("a"), &NodeRequest::Heartbeat { sequence: 7 }).expect("encodes");
    insta::assert_snapshot!(call.escape_ascii(), @r"\x83\xa7version\x04\xa4from\x82\xa4name\xa1a\xaageneration\x03\xa7request\x81\xa9Heartbeat\x81\xa8sequence\x07");
    let reply = encode_reply::<NodeAgent>(&NodeReply::Heartbeat { sequence: 7 });
    insta::assert_snapshot!(reply.escape_ascii(), @r"\x82\xa7version\x04\xa5reply\x81\xa9Heartbeat\x81\xa8sequence\x07");
}

/// As the next version may have them.
mod newer {
    use super::*;

    #[derive(Serialize)]
    pub(super) enum Request {
        Heartbeat { sequence: u64, sent_ns: u64 },
        Dance { partner: String },
        Hum,
    }

    #[derive(Serialize)]
    pub(super) enum Reply {
        Heartbeat { sequence: u64, load: f32 },
        Danced { steps: u32 },
    }
}

fn newer_call(request: newer::Request) -> Vec<u8> {
    rmp_serde::to_vec_named(&Call { version: 2, from: node("z"), request }).expect("encodes")
}

#[test]
fn a_newer_nodes_fields_are_passed_over_and_its_questions_are_not_understood() {
    let heartbeat = newer_call(newer::Request::Heartbeat { sequence: 1, sent_ns: 5 });
    let call = decode_call::<NodeAgent>(&heartbeat).expect("understood");
    assert_eq!((call.version, call.request), (2, NodeRequest::Heartbeat { sequence: 1 }));

    for unheard_of in [newer::Request::Dance { partner: "b".into() }, newer::Request::Hum] {
        decode_call::<NodeAgent>(&newer_call(unheard_of)).expect_err("not understood");
    }
}

#[test]
fn a_newer_nodes_answer_that_is_not_understood_reads_as_unknown() {
    let answer = |reply| rmp_serde::to_vec_named(&Answer { version: 2, reply }).expect("encodes");
    let known = answer(newer::Reply::Heartbeat { sequence: 1, load: 0.5 });
    assert_eq!(decode_reply::<NodeAgent>(&known), NodeReply::Heartbeat { sequence: 1 });
    let unknown = answer(newer::Reply::Danced { steps: 3 });
    assert_eq!(decode_reply::<NodeAgent>(&unknown), NodeReply::Unknown { version: CONTROL_PROTOCOL });
    assert_eq!(decode_reply::<ModelPool>(&[]), PoolReply::Unknown { version: CONTROL_PROTOCOL });
}

#[test]
fn what_is_too_long_is_not_sent() {
    let reserve = PoolRequest::Reserve {
        model: "m".repeat(MAX_CONTROL_MESSAGE_BYTES),
        digest: String::new(),
        session: session(),
        ttl_ms: 1,
        failover: false,
        trace: None,
    };
    let refused = encode_call::<ModelPool>(&node("a"), &reserve).expect_err("too long");
    assert!(matches!(refused, EncodeError::TooLong { bytes } if bytes > MAX_CONTROL_MESSAGE_BYTES));

    let report = NodeReport { version: "v".repeat(MAX_CONTROL_MESSAGE_BYTES), ..NodeReport::default() };
    let bytes = encode_reply::<NodeAgent>(&NodeReply::Status(Box::new(report)));
    assert_eq!(decode_reply::<NodeAgent>(&bytes), NodeAgent::unknown());
}

#[test]
fn the_longest_status_fits() {
    let busy = SessionReport {
        session: session(),
        dialect: "kaldi-gstreamer".into(),
        model: "m".repeat(64),
        replicas: vec![node(&"r".repeat(NodeName::MAX_BYTES)).name; 2],
        durable: true,
        connected: true,
        decoder: Some(node(&"d".repeat(NodeName::MAX_BYTES)).name),
        standby: Some(node(&"s".repeat(NodeName::MAX_BYTES)).name),
        attempt: u32::MAX,
        epoch: Epoch(u64::MAX),
        lag_ms: u64::MAX,
        tenant: "t".repeat(63),
        audio_ms: u64::MAX,
        age_ms: u64::MAX,
        trace_id: Some("f".repeat(32)),
    };
    let report = NodeReport {
        sessions: vec![busy; MAX_STATUS_SESSIONS],
        sessions_total: u32::MAX,
        ..NodeReport::default()
    };
    let reply = NodeReply::Status(Box::new(report));
    assert_eq!(decode_reply::<NodeAgent>(&encode_reply::<NodeAgent>(&reply)), reply);
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_call::<NodeAgent>(&bytes);
        let _ = decode_reply::<Replica>(&bytes);
        let _ = decode_call::<ModelPool>(&bytes);
    }

    #[test]
    fn a_damaged_message_is_never_a_panic(at in 0usize..100, with in any::<u8>()) {
        let mut bytes = encode_call::<Replica>(&node("a"), &replica_messages().0[0]).expect("encodes");
        let at = at % bytes.len();
        bytes[at] = with;
        let _ = decode_call::<Replica>(&bytes);
    }
}
