//! The native protocol over real sockets: what is passed on, what is refused, and how connections end.

mod common;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use common::events::{a_final, done, partial, progress};
use common::*;
use futures_util::{SinkExt, StreamExt};
use starling_actors::SessionEvent;
use starling_node::config::GatewaySettings;
use starling_protocol::native::{Endpointing, ErrorBody, ErrorCode};
use starling_protocol::{CutCause, Segment, SourceOffset};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

const SESSION: &str = "00000000-0000-4000-8000-000000000001";

#[tokio::test]
async fn a_whole_session_is_passed_on_in_both_directions() {
    let mut node = FakeNode::start().await;
    let mut socket = node.native().await;
    let hello = format!(
        r#"{{"type":"hello","session":"{SESSION}","format":{{"sample_rate":8000}},"options":{{"words":true}},"traceparent":"00-1-2-01"}}"#
    );
    send_text(&mut socket, &hello).await;
    let ready = json(&mut socket).await;
    assert_eq!((&ready["type"], &ready["session"]), (&"ready".into(), &SESSION.into()));
    let mut session = node.session().await;
    assert_eq!(session.request().sample_rate, 8_000);
    assert!(session.request().options.words && session.request().linger == Duration::from_secs(60));
    assert_eq!(session.request().trace.as_ref().expect("a trace").traceparent, "00-1-2-01");

    send_audio(&mut socket, 7).await;
    session.expect(Seen::Audio(7)).await;
    session.say(SessionEvent::Ack(SourceOffset(3)));
    session.say(partial("so far"));
    session.say(progress(3, false));
    session.say(a_final(0, 3, "all", CutCause::Finalize));
    assert_eq!(json(&mut socket).await["until"], 3);
    assert_eq!(json(&mut socket).await["text"], "so far");
    assert_eq!(json(&mut socket).await["text"], "all");
    send_text(&mut socket, r#"{"type":"finalize"}"#).await;
    session.expect(Seen::Finalize).await;
    send_text(&mut socket, r#"{"type":"end"}"#).await;
    session.expect(Seen::End).await;
    session.say(done(1, 3));
    assert_eq!(json(&mut socket).await["type"], "done");
    // The last confirmation comes after `done`, and still counts. The close frame waits for it: most libraries answer that one
    // by themselves, and write nothing after it.
    let early = tokio::time::timeout(Duration::from_millis(200), socket.next()).await;
    assert!(early.is_err(), "{early:?}");
    send_text(&mut socket, r#"{"type":"confirm","segment":0}"#).await;
    session.expect(Seen::Confirm(Segment(0))).await;
    assert_eq!(closed(&mut socket).await.0, 1000);
    session.expect(Seen::Dropped).await;
}

#[tokio::test]
async fn opus_comes_packet_by_packet_and_a_bad_one_costs_itself() {
    let mut node = FakeNode::start().await;
    let mut socket = node.native().await;
    send_text(&mut socket, r#"{"type":"hello","format":{"encoding":"opus","sample_rate":16000}}"#).await;
    assert_eq!(json(&mut socket).await["type"], "ready");
    let mut session = node.session().await;
    // 20 ms of silence in one packet: its mode, bandwidth and length are in the first byte (RFC 6716, section 3.1).
    send_binary(&mut socket, &[0xF8, 0xFF, 0xFE]).await;
    session.expect(Seen::Audio(640)).await;
    send_binary(&mut socket, &[0xFF, 0xFF, 0xFF]).await;
    let error = json(&mut socket).await;
    assert_eq!((&error["code"], &error["allowed"]), (&"bad_message".into(), &"one Opus packet".into()));
    send_binary(&mut socket, &[0xF8, 0xFF, 0xFE]).await;
    session.expect(Seen::Audio(640)).await;
    let mut other = node.native().await;
    send_text(&mut other, r#"{"type":"hello","format":{"encoding":"opus","sample_rate":44100}}"#).await;
    assert_eq!(json(&mut other).await["field"], "format.sample_rate");
}

#[tokio::test]
async fn a_language_chooses_the_model_and_an_endpoint_is_passed_on() {
    let mut node = FakeNode::start().await;
    let mut socket = node.native().await;
    let hello = r#"{"type":"hello","language":"ko-KR","options":{"endpointing":{"silence_ms":300}}}"#;
    send_text(&mut socket, hello).await;
    assert_eq!(json(&mut socket).await["type"], "ready");
    let asked = node.session().await;
    assert_eq!(asked.request().model.as_deref(), Some("other"));
    let wanted = Endpointing { silence_ms: Some(300), max_segment_ms: None };
    assert_eq!(asked.request().options.endpointing, wanted);
    let mut socket = node.native().await;
    send_text(&mut socket, r#"{"type":"hello","language":"auto"}"#).await;
    let error = json(&mut socket).await;
    assert_eq!((&error["code"], &error["field"]), (&"bad_request".into(), &"language".into()));
    assert!(
        error["allowed"].as_str().is_some_and(|text| text.contains("no engine here can tell")),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_hello_is_answered_and_closed() {
    let mut node = FakeNode::start().await;
    let mut answers = Vec::new();
    for text_message in [
        "nonsense",
        r#"{"type":"end"}"#,
        r#"{"type":"helo"}"#,
        r#"{"type":"hello","format":{"sample_rate":4000}}"#,
        r#"{"type":"hello","resume":{"token":"t","epoch":2}}"#,
    ] {
        let mut socket = node.native().await;
        send_text(&mut socket, text_message).await;
        answers.push((json(&mut socket).await, closed(&mut socket).await));
    }
    let mut socket = node.native().await;
    send_audio(&mut socket, 10).await;
    answers.push((json(&mut socket).await, closed(&mut socket).await));
    assert!(node.no_session());
    insta::assert_json_snapshot!(answers);
}

#[tokio::test]
async fn refusals_are_told_before_the_close() {
    let node = FakeNode::start().await;
    let mut busy = ErrorBody::new(ErrorCode::Busy, "all 8 slots are in use");
    busy.retry_after_ms = Some(1_500);
    let mut answers = Vec::new();
    for error in [
        busy,
        ErrorBody::new(ErrorCode::UnknownModel, "no model is called \"x\""),
        ErrorBody::new(ErrorCode::ShuttingDown, "the node is stopping"),
    ] {
        node.refuse(error);
        let mut socket = node.native().await;
        send_text(&mut socket, r#"{"type":"hello"}"#).await;
        answers.push((json(&mut socket).await, closed(&mut socket).await.0));
    }
    insta::assert_json_snapshot!(answers);
}

#[tokio::test]
async fn nonsense_after_hello_is_answered_and_the_session_goes_on() {
    let mut node = FakeNode::start().await;
    let (mut socket, mut session) = greet(&mut node).await;
    for nonsense in ["{", r#"{"type":"hello"}"#, r#"{"type":"confirm"}"#, r#"{"type":"hello","protocol":9}"#]
    {
        send_text(&mut socket, nonsense).await;
        assert_eq!(json(&mut socket).await["code"], "bad_message", "{nonsense}");
    }
    send_text(&mut socket, r#"{"type":"end"}"#).await;
    session.expect(Seen::End).await;
    send_audio(&mut socket, 10).await;
    assert_eq!(json(&mut socket).await["message"], "audio after end is not taken");
    session.say(done(0, 0));
    assert_eq!(json(&mut socket).await["type"], "done");
}

#[tokio::test]
async fn a_resume_reaches_the_node() {
    let mut node = FakeNode::start().await;
    let mut socket = node.native().await;
    let hello = format!(
        r#"{{"type":"hello","session":"{SESSION}","resume":{{"token":"t","epoch":7,"last_final":3,"have_from":80}}}}"#
    );
    send_text(&mut socket, &hello).await;
    let ready = json(&mut socket).await;
    assert_eq!((&ready["epoch"], &ready["resumed"]), (&7.into(), &true.into()));
    let Opened::Resumed(request) = node.session().await.opened else { panic!("not resumed") };
    assert_eq!((request.resume.last_final, request.resume.have_from), (Some(Segment(3)), SourceOffset(80)));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_told_so_and_closed() {
    let settings =
        GatewaySettings { handshake_timeout: Duration::from_millis(100), ..GatewaySettings::default() };
    let node = FakeNode::with(settings).await;
    let mut socket = node.native().await;
    assert_eq!(json(&mut socket).await["message"], "no hello came within 0.1 s");
    assert_eq!(closed(&mut socket).await.0, 1008);
}

#[tokio::test]
async fn a_connection_that_is_lost_only_detaches_the_session() {
    let mut node = FakeNode::start().await;
    let (socket, mut session) = greet(&mut node).await;
    drop(socket);
    session.expect(Seen::Dropped).await;

    let (mut socket, mut session) = greet(&mut node).await;
    in_time(socket.close(None)).await.expect("closed");
    session.expect(Seen::Dropped).await;
}

#[tokio::test]
async fn a_message_over_1_mib_closes_1009_and_the_client_gets_to_know() {
    let mut node = FakeNode::start().await;
    let (mut socket, mut session) = greet(&mut node).await;
    send_audio(&mut socket, 1 << 20).await;
    session.expect(Seen::Audio(1 << 20)).await;
    let _ = in_time(socket.send(Message::binary(vec![0; (1 << 20) + 1]))).await;
    assert_eq!(closed(&mut socket).await.0, 1009);
    session.expect(Seen::Dropped).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_loses_its_connection() {
    let settings =
        GatewaySettings { write_timeout: Duration::from_millis(200), ..GatewaySettings::default() };
    let mut node = FakeNode::with(settings).await;
    let (_socket, mut session) = greet(&mut node).await;
    let long = "word ".repeat(20_000);
    // Far more than the system's buffers hold for a connection.
    for _ in 0..400 {
        session.say(partial(&long));
    }
    session.expect(Seen::Dropped).await;
}

/// The other dialects of WebSocket are held to the same: a client costs what the system's buffers hold, and then nothing.
#[tokio::test]
async fn clients_of_other_dialects_that_do_not_read_lose_their_connections_too() {
    const SPEECH: &str = "client/ws/speech?content-type=audio/x-raw";
    let append = r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#;
    let named = format!("{SPEECH}&content-id=call-1");
    let settings =
        GatewaySettings { write_timeout: Duration::from_millis(200), ..GatewaySettings::default() };
    let mut node = FakeNode::with(settings).await;
    let long = "word ".repeat(20_000);
    let (http, vosk) = (node.http, node.vosk);
    for (address, path, first, over) in [
        (http, SPEECH, Message::binary("audio!"), Seen::Abandoned),
        (http, named.as_str(), Message::binary("audio!"), Seen::Dropped),
        (http, "v1/listen?encoding=linear16&sample_rate=8000", Message::binary("audio!"), Seen::Abandoned),
        (http, "v1/realtime?intent=transcription", Message::text(append), Seen::Abandoned),
        (vosk, "", Message::binary("audio!"), Seen::Abandoned),
    ] {
        let mut socket = connect(format!("ws://{address}/{path}")).await;
        in_time(socket.send(first)).await.expect("sent");
        let mut session = node.session().await;
        if address == vosk {
            // One that is answered in turn asks, and does not read the answers.
            session.say(partial(&long));
            for _ in 0..400 {
                if in_time(socket.send(Message::binary("audio!"))).await.is_err() {
                    break;
                }
            }
        }
        for segment in 0..if address == vosk { 0 } else { 400 } {
            session.say(a_final(segment, segment, &long, CutCause::Endpoint));
        }
        session.wait_for(&over).await;
    }
}

#[tokio::test]
async fn a_client_that_is_not_there_any_more_is_noticed() {
    let settings = GatewaySettings {
        ping_interval: Duration::from_millis(100),
        peer_timeout: SILENT_FOR,
        ..GatewaySettings::default()
    };
    let mut node = FakeNode::with(settings).await;
    let (socket, mut session) = greet(&mut node).await;
    let (mut writing, mut reading) = socket.split();
    let answering = tokio::spawn(async move { while let Some(Ok(_)) = reading.next().await {} });
    // Its pongs would be written while it reads; it doesn't.
    let (_socket, mut silent) = greet(&mut node).await;
    silent.expect(Seen::Dropped).await;
    let waited = tokio::time::timeout(Duration::from_secs(1), session.next()).await;
    assert!(waited.is_err(), "one that answers pings was dropped: {waited:?}");
    writing.close().await.expect("closed");
    session.expect(Seen::Dropped).await;
    answering.await.expect("ended");
}

#[tokio::test]
async fn a_session_that_fails_or_is_taken_over_is_told_and_closed() {
    let mut node = FakeNode::start().await;
    let (mut socket, session) = greet(&mut node).await;
    session.say(SessionEvent::Failed(ErrorBody::new(
        ErrorCode::Superseded,
        "a later connection has the session",
    )));
    assert_eq!(json(&mut socket).await["code"], "superseded");
    assert_eq!(closed(&mut socket).await.0, 1008);

    let (mut socket, mut session) = greet(&mut node).await;
    session.say_nothing_more();
    assert_eq!(closed(&mut socket).await.0, 1011);
}

#[tokio::test]
async fn clients_are_told_when_the_node_begins_to_stop() {
    let mut node = FakeNode::start().await;
    let (mut socket, mut session) = greet(&mut node).await;
    node.stopping.cancel();
    let message = json(&mut socket).await;
    assert_eq!((&message["type"], &message["deadline_ms"]), (&"go_away".into(), &25_000.into()));
    send_audio(&mut socket, 10).await;
    session.expect(Seen::Audio(10)).await;
}

#[tokio::test]
async fn one_byte_at_a_time_is_as_good_as_any() {
    let mut node = FakeNode::start().await;
    let stream = TcpStream::connect(node.http).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let url = format!("ws://{}/v1/stream", node.http);
    let (mut socket, _) =
        in_time(tokio_tungstenite::client_async(url, Trickle(stream))).await.expect("upgraded");
    in_time(socket.send(Message::text(r#"{"type":"hello"}"#))).await.expect("sent");
    let mut session = node.session().await;
    in_time(socket.send(Message::binary(vec![1; 300]))).await.expect("sent");
    session.expect(Seen::Audio(300)).await;
}

#[tokio::test]
async fn garbage_on_the_socket_harms_nobody_else() {
    let mut node = FakeNode::start().await;
    for garbage in [&b"\0\0\0\0\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0"] {
        let mut stream = TcpStream::connect(node.http).await.expect("connected");
        stream.write_all(garbage).await.expect("sent");
        stream.shutdown().await.expect("half closed");
        let mut answer = Vec::new();
        let read = in_time(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer)).await;
        read.expect("closed in order");
    }
    // A frame that no client may send: unmasked.
    let (mut socket, mut session) = greet(&mut node).await;
    in_time(socket.get_mut().write_all(&[0x82, 0x01, 0x00])).await.expect("sent");
    assert_eq!(closed(&mut socket).await.0, 1002);
    session.expect(Seen::Dropped).await;
    greet(&mut node).await;
}

/// Writes one byte at a time.
struct Trickle(TcpStream);

impl AsyncRead for Trickle {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Trickle {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
