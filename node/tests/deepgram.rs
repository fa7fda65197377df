//! Deepgram's interface over real sockets: what is passed on, what is told, and how streams end.

mod common;

use std::time::Duration;

use common::answer::request;
use common::events::{a_final, done, partial};
use common::*;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::{CutCause, Segment};
use tokio_tungstenite::tungstenite::{Error, Message};

const RAW: &str = "encoding=linear16&sample_rate=8000";

async fn listen(node: &FakeNode, query: &str) -> Socket {
    connect(format!("ws://{}/v1/listen?{query}", node.http)).await
}

async fn begin(node: &mut FakeNode, query: &str) -> (Socket, Played) {
    let socket = listen(node, query).await;
    let session = node.session().await;
    (socket, session)
}

/// How an upgrade is refused.
async fn refused(node: &FakeNode, query: &str) -> (u16, Value) {
    match in_time(tokio_tungstenite::connect_async(format!("ws://{}/v1/listen?{query}", node.http))).await {
        Err(Error::Http(response)) => {
            assert!(response.headers().contains_key("dg-request-id"));
            let body = response.body().as_deref().unwrap_or_default();
            (response.status().as_u16(), serde_json::from_slice(body).expect("JSON"))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_whole_stream_is_passed_on_and_told() {
    let mut node = FakeNode::start().await;
    let query = format!("{RAW}&interim_results=true&model=nova-3&keywords=starling:2&smart_format=true");
    let (mut socket, mut session) = begin(&mut node, &query).await;
    let asked = session.request();
    assert_eq!((asked.sample_rate, asked.model.as_deref(), asked.tenant.as_str()), (8_000, None, ""));
    assert!(asked.options.words && asked.options.partials && !asked.options.batch);
    assert!(asked.options.phrases.is_empty(), "a phrase list would leave the session no other words");
    send_audio(&mut socket, 1_600).await;
    session.expect(Seen::Audio(1_600)).await;
    session.say(partial("so far"));
    let interim = json(&mut socket).await;
    assert_eq!(
        (&interim["is_final"], &interim["channel"]["alternatives"][0]["transcript"]),
        (&false.into(), &"so far".into())
    );
    send_text(&mut socket, r#"{"type":"KeepAlive"}"#).await;
    send_text(&mut socket, r#"{"type":"Finalize"}"#).await;
    session.expect(Seen::Finalize).await;
    session.say(a_final(0, 800, "all of it", CutCause::Finalize));
    let last = json(&mut socket).await;
    assert_eq!((&last["is_final"], &last["from_finalize"]), (&true.into(), &true.into()));
    session.expect(Seen::Confirm(Segment(0))).await;
    send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
    session.expect(Seen::End).await;
    session.say(a_final(1, 800, "", CutCause::End));
    session.say(done(2, 800));
    assert_eq!(json(&mut socket).await["type"], "Results");
    let metadata = json(&mut socket).await;
    assert_eq!((&metadata["type"], &metadata["duration"]), (&"Metadata".into(), &0.1.into()));
    assert_eq!(metadata["sha256"].as_str().map(str::len), Some(64));
    assert_eq!(metadata["request_id"], last["metadata"]["request_id"]);
    assert_eq!(closed(&mut socket).await.0, 1000);
    session.wait_for(&Seen::Abandoned).await;
}

#[tokio::test]
async fn what_the_query_asks_for_and_cannot_be_is_refused_before_the_upgrade() {
    let mut node = FakeNode::start().await;
    let (status, body) = refused(&node, "encoding=speex&sample_rate=8000").await;
    assert_eq!((status, &body["err_code"]), (400, &"Bad Request".into()));
    assert!(body["err_msg"].as_str().is_some_and(|text| text.starts_with("encoding is \"speex\"")), "{body}");
    let (status, body) = refused(&node, &format!("{RAW}&language=xx")).await;
    assert_eq!(status, 400);
    assert!(body["err_msg"].as_str().is_some_and(|text| text.contains("en (fake), ko (other)")), "{body}");
    node.refuse(ErrorBody { retry_after_ms: Some(2_000), ..ErrorBody::new(ErrorCode::Busy, "full") });
    let (status, body) = refused(&node, RAW).await;
    assert_eq!((status, &body["err_code"]), (503, &"SERVICE_UNAVAILABLE".into()));
    assert!(node.no_session());
}

#[tokio::test]
async fn a_region_is_no_other_language() {
    let mut node = FakeNode::start().await;
    let (_socket, session) = begin(&mut node, &format!("{RAW}&language=ko-KR")).await;
    assert_eq!(session.request().model.as_deref(), Some("other"));
}

#[tokio::test]
async fn a_recording_with_a_head_says_its_own_rate_and_what_follows_its_samples_is_no_audio() {
    let mut node = FakeNode::start().await;
    let mut socket = listen(&node, "").await;
    let mut bytes = std::io::Cursor::new(Vec::new());
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 22_050,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::new(&mut bytes, spec).expect("begins");
    (0..100).for_each(|_| writer.write_sample(7i16).expect("writes"));
    writer.finalize().expect("ends");
    let mut bytes = bytes.into_inner();
    bytes.extend_from_slice(b"LIST\x04\0\0\0meta");
    send_binary(&mut socket, &bytes[..20]).await;
    send_binary(&mut socket, &bytes[20..]).await;
    let mut session = node.session().await;
    assert_eq!(session.request().sample_rate, 22_050);
    session.expect(Seen::Audio(200)).await;
    send_binary(&mut socket, b"").await;
    session.expect(Seen::End).await;
}

/// Two channels of the same length, as they are interleaved.
fn interleaved(left: &[i16], right: &[i16]) -> Vec<u8> {
    let frames = left.iter().zip(right);
    frames.flat_map(|(left, right)| [left.to_le_bytes(), right.to_le_bytes()]).flatten().collect()
}

#[tokio::test]
async fn each_channel_is_heard_and_told_for_itself() {
    let mut node = FakeNode::start().await;
    let mut socket = listen(&node, &format!("{RAW}&channels=2&multichannel=true")).await;
    let (mut agent, mut customer) = (node.session().await, node.session().await);
    send_binary(&mut socket, &interleaved(&[1; 800], &[2; 800])).await;
    agent.expect(Seen::Audio(1_600)).await;
    customer.expect(Seen::Audio(1_600)).await;
    customer.say(a_final(0, 800, "hello", CutCause::Endpoint));
    let heard = json(&mut socket).await;
    assert_eq!(heard["channel_index"], serde_json::json!([1, 2]));
    assert_eq!(heard["channel"]["alternatives"][0]["transcript"], "hello");
    customer.expect(Seen::Confirm(Segment(0))).await;
    send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
    agent.expect(Seen::End).await;
    customer.expect(Seen::End).await;
    customer.say(done(1, 800));
    agent.say(a_final(0, 800, "", CutCause::End));
    agent.say(done(1, 800));
    assert_eq!(json(&mut socket).await["channel_index"], serde_json::json!([0, 2]));
    let metadata = json(&mut socket).await;
    assert_eq!((&metadata["type"], &metadata["channels"]), (&"Metadata".into(), &2.into()));
    assert_eq!(closed(&mut socket).await.0, 1000);
}

#[tokio::test]
async fn when_one_channel_finds_no_place_none_is_opened() {
    let mut node = FakeNode::start().await;
    node.refuse_after(1, ErrorBody::new(ErrorCode::Busy, "full"));
    let (status, _) = refused(&node, &format!("{RAW}&channels=2&multichannel=true")).await;
    assert_eq!(status, 503);
    node.session().await.expect(Seen::Abandoned).await;
}

#[tokio::test]
async fn a_container_is_decoded_while_it_is_streamed() {
    let mut node = FakeNode::start().await;
    let mut socket = listen(&node, "encoding=ogg-opus").await;
    for piece in include_bytes!("recordings/sweep.opus").chunks(500) {
        send_binary(&mut socket, piece).await;
    }
    send_text(&mut socket, r#"{"type":"CloseStream"}"#).await;
    let mut session = node.session().await;
    assert_eq!(session.request().sample_rate, 48_000);
    let mut bytes = 0;
    loop {
        match session.next().await {
            Seen::Audio(more) => bytes += more,
            Seen::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert!((95_000..98_000).contains(&bytes), "a second: {bytes} bytes");
}

#[tokio::test]
async fn what_a_client_ends_comes_behind_the_audio_before_it_though_that_is_compressed() {
    let mut node = FakeNode::start().await;
    let mut socket = listen(&node, "encoding=flac").await;
    let recording = include_bytes!("recordings/sweep.flac");
    send_binary(&mut socket, recording).await;
    send_text(&mut socket, r#"{"type":"Finalize"}"#).await;
    let mut session = node.session().await;
    let mut bytes = 0;
    loop {
        match session.next().await {
            Seen::Audio(more) => bytes += more,
            Seen::Finalize => break,
            other => panic!("{other:?}"),
        }
    }
    // A second of 16 kHz, less what the decoder can't tell the end of.
    assert!(bytes > 16_000, "{bytes} bytes");
}

#[tokio::test]
async fn what_is_no_audio_is_closed_with_its_code() {
    let node = FakeNode::start().await;
    let mut socket = listen(&node, "").await;
    send_binary(&mut socket, b"whatever it is, no recording begins like it").await;
    let (code, reason) = closed(&mut socket).await;
    assert_eq!((code, &reason[..9]), (1008, "DATA-0000"));
}

#[tokio::test]
async fn a_stream_that_is_ended_before_any_audio_ends_well() {
    let mut node = FakeNode::start().await;
    for end in [Message::text(r#"{"type":"CloseStream"}"#), Message::binary("")] {
        let mut socket = listen(&node, "").await;
        send_text(&mut socket, r#"{"type":"KeepAlive"}"#).await;
        in_time(socket.send(end)).await.expect("sent");
        let metadata = json(&mut socket).await;
        assert_eq!(metadata["type"], "Metadata");
        assert_eq!((&metadata["duration"], &metadata["channels"]), (&0.0.into(), &0.into()));
        assert_eq!(metadata["sha256"], sha256_of_zeros(0));
        assert_eq!(closed(&mut socket).await, (1000, String::new()));
    }
    assert!(node.no_session());
}

/// Takes the ten seconds that this dialect's clients are given.
#[tokio::test]
async fn a_client_that_says_nothing_is_closed_and_one_that_keeps_alive_is_not() {
    let mut node = FakeNode::start().await;
    let (mut silent, mut abandoned) = begin(&mut node, RAW).await;
    let (mut alive, mut session) = begin(&mut node, RAW).await;
    let keeping = tokio::spawn(async move {
        loop {
            send_text(&mut alive, r#"{"type":"KeepAlive"}"#).await;
            if tokio::time::timeout(Duration::from_secs(3), abandoned.wait_for(&Seen::Abandoned))
                .await
                .is_ok()
            {
                return alive;
            }
        }
    });
    let closing = tokio::time::timeout(Duration::from_secs(30), silent.next()).await.expect("in time");
    let Some(Ok(Message::Close(Some(frame)))) = closing else { panic!("{closing:?}") };
    assert_eq!((u16::from(frame.code), &frame.reason.as_str()[..8]), (1011, "NET-0001"));
    drop(silent);
    let mut alive = keeping.await.expect("no panic");
    send_audio(&mut alive, 320).await;
    session.expect(Seen::Audio(320)).await;
}

#[tokio::test]
async fn a_bad_message_is_named_and_costs_nothing() {
    let mut node = FakeNode::start().await;
    let (mut socket, mut session) = begin(&mut node, RAW).await;
    send_text(&mut socket, r#"{"type":"Close"}"#).await;
    let error = json(&mut socket).await;
    assert_eq!(error["type"], "Error");
    assert!(
        error["description"].as_str().is_some_and(|text| text.contains("KeepAlive, Finalize or CloseStream"))
    );
    send_audio(&mut socket, 320).await;
    session.expect(Seen::Audio(320)).await;
}

#[tokio::test]
async fn a_failure_is_not_dressed_as_success() {
    let mut node = FakeNode::start().await;
    let (mut socket, session) = begin(&mut node, RAW).await;
    session.say(starling_actors::SessionEvent::Failed(ErrorBody::new(ErrorCode::Internal, "it broke")));
    assert_eq!(json(&mut socket).await["variant"], "INTERNAL_SERVER_ERROR");
    assert_eq!(closed(&mut socket).await, (1011, "it broke".to_owned()));
}

#[tokio::test]
async fn a_recording_is_answered_whole() {
    let mut node = FakeNode::start().await;
    let address = node.http;
    let posting = tokio::spawn(async move {
        let query = "/v1/listen?encoding=linear16&sample_rate=16000&punctuate=true";
        request(address, &format!("POST {query}"), "content-type: audio/raw\r\n", &[0; 3_200]).await
    });
    let mut session = node.session().await;
    assert!(session.request().options.batch);
    session.wait_for(&Seen::End).await;
    session.say(a_final(0, 1_600, "one two", CutCause::End));
    session.say(done(1, 1_600));
    session.say_nothing_more();
    let answer = posting.await.expect("answered");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let json = answer.json();
    assert_eq!(json["results"]["channels"][0]["alternatives"][0]["transcript"], "one two");
    assert_eq!((&json["metadata"]["duration"], &json["metadata"]["channels"]), (&0.1.into(), &1.into()));
    // SHA-256 of 3,200 zeros.
    let digest = sha256_of_zeros(3_200);
    assert_eq!(json["metadata"]["sha256"], digest);
    assert_eq!(answer.header("dg-request-id"), json["metadata"]["request_id"].as_str());
    let named =
        request(address, "POST /v1/listen", "content-type: application/json\r\n", b"{\"url\":\"http://x\"}")
            .await;
    assert_eq!((named.status, &named.json()["err_code"]), (400, &"Bad Request".into()));
}

fn sha256_of_zeros(bytes: usize) -> String {
    starling_node::tenants::KeyHash::of(&"\0".repeat(bytes))
        .to_string()
        .trim_start_matches("sha256:")
        .to_owned()
}
