//! `starling transcribe` where servers lose what they had acknowledged: the loss is named, and the rest is printed.

mod program;

use futures_util::{SinkExt, StreamExt};
use program::*;
use starling_client::{CutCause, ErrorBody, ErrorCode, Final, Segment, SourceOffset};
use starling_protocol::Epoch;
use starling_protocol::native::{ClientMessage, Hello, ServerMessage, parse_client};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const RATE: u64 = 16_000;

/// Longer than the client can hold: its first part is what gets lost.
const SECONDS: u64 = 70;

type Socket = WebSocketStream<TcpStream>;

async fn say(socket: &mut Socket, message: &ServerMessage) {
    let text = serde_json::to_string(message).expect("serializes");
    socket.send(Message::text(text)).await.expect("is sent");
}

/// The next connection, and what it says first.
async fn accept(listener: &TcpListener) -> (Socket, Hello) {
    let (stream, _) = listener.accept().await.expect("accepts");
    let mut socket = tokio_tungstenite::accept_async(stream).await.expect("is a WebSocket");
    let Some(Ok(Message::Text(hello))) = socket.next().await else { panic!("no hello") };
    let ClientMessage::Hello(hello) = parse_client(&hello).expect("is a message") else { panic!("no hello") };
    (socket, *hello)
}

async fn ready(socket: &mut Socket, hello: &Hello) {
    let ready = ServerMessage::Ready {
        session: hello.session.expect("made by the client"),
        epoch: Epoch(1),
        token: "token".into(),
        model: "model".into(),
        have_until: SourceOffset(0),
        next_segment: Segment(0),
        resumed: false,
        durable: false,
        linger_ms: 60_000,
        node: String::new(),
    };
    say(socket, &ready).await;
}

/// Takes audio, and acknowledges it, until there are so many frames or until it is over.
async fn take(socket: &mut Socket, most: u64) -> u64 {
    let mut frames = 0;
    while frames < most {
        match socket.next().await {
            Some(Ok(Message::Binary(audio))) => frames += audio.len() as u64 / 2,
            Some(Ok(Message::Text(_))) => break,
            other => panic!("no audio: {other:?}"),
        }
        say(socket, &ServerMessage::Ack { until: SourceOffset(frames) }).await;
    }
    frames
}

/// Acknowledges almost everything, loses it, knows of no session, and takes the rest in a new one.
async fn forgetful(listener: TcpListener) -> u64 {
    let (mut socket, hello) = accept(&listener).await;
    ready(&mut socket, &hello).await;
    take(&mut socket, (SECONDS - 2) * RATE).await;
    drop(socket);
    let (mut socket, hello) = accept(&listener).await;
    assert!(hello.resume.is_some());
    say(&mut socket, &ServerMessage::Error(ErrorBody::new(ErrorCode::UnknownSession, "gone"))).await;
    let (mut socket, hello) = accept(&listener).await;
    assert_eq!(hello.resume, None);
    ready(&mut socket, &hello).await;
    let frames = take(&mut socket, u64::MAX).await;
    let last = Final {
        segment: Segment(0),
        from: SourceOffset(0),
        to: SourceOffset(frames),
        start: 0.0,
        end: frames as f64 / RATE as f64,
        cause: CutCause::End,
        text: "the rest".into(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    };
    say(&mut socket, &ServerMessage::Final(last)).await;
    say(&mut socket, &ServerMessage::Done { segments: 1, frames: SourceOffset(frames) }).await;
    while let Some(Ok(_)) = socket.next().await {}
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_lost_is_named_and_the_rest_is_printed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("ws://{}", listener.local_addr().expect("is bound"));
    let folder = TempDir::new().expect("a folder");
    let wav = scripted_wav(folder.path(), "long.wav", &vec![0; (SECONDS * RATE) as usize]);
    let serving = tokio::spawn(forgetful(listener));
    let wav = wav.to_str().expect("UTF-8");
    let output = run(&["transcribe", "--quiet", "--format", "json", "--server", &url, wav]).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("s were lost on the way") && said.contains("1 of 1 transcripts have gaps"),
        "{said}"
    );
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let rest = serving.await.expect("served");
    let lost = (SECONDS * RATE - rest) as f64 / RATE as f64;
    assert!(lost > 0.0 && lost <= 10.0, "{lost}");
    assert_eq!((&json["text"], &json["duration"]), (&"the rest".into(), &(SECONDS as f64).into()));
    assert_eq!(json["gaps"], serde_json::json!([{"start": 0.0, "end": lost}]));
    assert_eq!((&json["segments"][0]["from"]), &(SECONDS * RATE - rest));
}
