//! `OpenAI`'s Realtime interface in the real program, whose decoders are killed while somebody speaks: real processes, the
//! scripted engine.

mod program;

use std::time::Duration;

use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use program::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use starling_engine::scripted::{encode, encode_from, silence};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const TRANSCRIPTION: &str = "conversation.item.input_audio_transcription.";

/// Two utterances, by the words of which anything lost or repeated shows, with a pause that ends the first and one that ends the
/// second.
fn audio() -> Vec<u8> {
    let words: Vec<String> = (0..40).map(|number| format!("w{number}")).collect();
    let mut samples = encode(&words[..20]);
    samples.extend(silence(20));
    samples.extend(encode_from(20, &words[20..]));
    samples.extend(silence(20));
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

fn transcript(numbers: std::ops::Range<usize>) -> String {
    let words: Vec<String> = numbers.map(|number| format!("{number}:w{number}")).collect();
    words.join(" ")
}

async fn send(socket: &mut Socket, event: Value) {
    let sent = socket.send(Message::text(event.to_string()));
    tokio::time::timeout(PATIENCE, sent).await.expect("in time").expect("sent");
}

/// The next event.
async fn told(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
        match message.expect("not closed").expect("no error") {
            Message::Text(text) => return serde_json::from_str(&text).expect("JSON"),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A connection whose audio is the scripted engine's own, so that no sample is changed on its way.
async fn connect(program: &Program, detection: Value) -> Socket {
    let url = format!("{}/v1/realtime?intent=transcription", program.url());
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("upgraded");
    assert_eq!(told(&mut socket).await["type"], "session.created");
    let input = json!({ "format": { "type": "audio/pcm", "rate": 16000 }, "turn_detection": detection });
    let session = json!({ "type": "transcription", "audio": { "input": input } });
    send(&mut socket, json!({ "type": "session.update", "session": session })).await;
    assert_eq!(told(&mut socket).await["type"], "session.updated");
    socket
}

/// Speaks, at ten times the pace of speech, and has every decoder killed in the middle of each half.
async fn speak(socket: &mut Socket, program: &Program) {
    let audio = audio();
    let pieces: Vec<&[u8]> = audio.chunks(3_200).collect();
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for (index, piece) in pieces.iter().enumerate() {
        ticks.tick().await;
        send(socket, json!({ "type": "input_audio_buffer.append", "audio": BASE64.encode(piece) })).await;
        if index == pieces.len() / 4 || index == pieces.len() * 3 / 4 {
            program.hosts().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
    }
}

/// Every item's deltas and its transcript, up to so many of them.
async fn items(socket: &mut Socket, count: usize) -> Vec<(String, String)> {
    let (mut items, mut deltas) = (Vec::new(), String::new());
    while items.len() < count {
        let event = told(socket).await;
        match event["type"].as_str().expect("a type").strip_prefix(TRANSCRIPTION) {
            Some("delta") => deltas.push_str(event["delta"].as_str().expect("text")),
            Some("completed") => {
                let transcript = event["transcript"].as_str().expect("text").to_owned();
                items.push((std::mem::take(&mut deltas), transcript));
            }
            Some(_) => panic!("{event}"),
            None => assert_ne!(event["type"], "error", "{event}"),
        }
    }
    items
}

async fn lost(program: &Program) -> bool {
    let metrics = get(program.http, "/metrics").await.expect("answered");
    let mut lines = metrics.lines();
    lines.any(|line| line.starts_with("starling_decoders_lost_total{") && !line.ends_with(" 0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_what_they_would_have_been_when_their_decoders_are_killed() {
    let program = Program::serve(&["--model", "scripted"], 2).await;
    let mut socket = connect(&program, json!({ "type": "server_vad" })).await;
    speak(&mut socket, &program).await;
    let [first, second] = [transcript(0..20), transcript(20..40)];
    assert_eq!(items(&mut socket, 2).await, [(first.clone(), first), (second.clone(), second)]);
    assert!(lost(&program).await, "nothing was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_its_client_ends_is_whole_when_its_decoders_are_killed() {
    let program = Program::serve(&["--model", "scripted"], 2).await;
    let mut socket = connect(&program, Value::Null).await;
    // What was cleared is not in it.
    let words = ["not".to_owned(), "wanted".to_owned()];
    let unwanted: Vec<u8> = encode(&words).iter().flat_map(|sample| sample.to_le_bytes()).collect();
    send(&mut socket, json!({ "type": "input_audio_buffer.append", "audio": BASE64.encode(&unwanted) }))
        .await;
    send(&mut socket, json!({ "type": "input_audio_buffer.clear" })).await;
    speak(&mut socket, &program).await;
    send(&mut socket, json!({ "type": "input_audio_buffer.commit" })).await;
    let whole = transcript(0..40);
    let told = items(&mut socket, 1).await;
    assert_eq!(told[0].1, whole);
    assert!(told[0].0.ends_with(&whole), "{}", told[0].0);
    assert!(lost(&program).await, "nothing was killed");
}
