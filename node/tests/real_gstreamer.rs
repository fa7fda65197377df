//! A client of kaldi-gstreamer-server on real nodes: its decoders are killed, and it comes back to another node with nothing but
//! its content id.

mod program;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use program::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use starling_engine::scripted::{encode_from, silence};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// 100 ms at 16 kHz.
const STEP_BYTES: usize = 3_200;

/// Of one utterance: ten words, and a pause that ends a segment.
const UTTERANCE_BYTES: usize = 16 * STEP_BYTES;

/// Six utterances.
fn pcm() -> Vec<u8> {
    let utterance = |number: u32| {
        let words: Vec<String> = (0..10).map(|word| format!("w{}", 10 * number + word)).collect();
        [encode_from(10 * number, &words), silence(6)].concat()
    };
    (0..6).flat_map(utterance).flat_map(i16::to_le_bytes).collect()
}

async fn call(program: &Program, content_id: &str) -> Socket {
    let caps =
        "audio/x-raw,+layout=(string)interleaved,+rate=(int)16000,+format=(string)S16LE,+channels=(int)1";
    let path = format!("/client/ws/speech?content-type={caps}&content-id={content_id}");
    let connected = tokio_tungstenite::connect_async(format!("ws://{}{path}", program.http)).await;
    connected.expect("upgraded").0
}

/// What was said, by segments: a segment that is told twice shows if its text differs.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    finals: BTreeMap<u64, String>,
    /// Up to which final the node has asked whether it was read; the answer goes out with what is sent next.
    asked: u64,
    ended: bool,
}

impl Heard {
    /// Returns the event, if it is one.
    fn take(&mut self, message: &Message) -> Option<Value> {
        if let Message::Ping(payload) = message {
            self.asked = payload[..].try_into().map_or(self.asked, u64::from_be_bytes);
        }
        let Message::Text(text) = message else { return None };
        let event: Value = serde_json::from_str(text).expect("is JSON");
        assert_eq!(event["status"], 0, "{event}");
        if event["result"]["final"] == true {
            let text = event["result"]["hypotheses"][0]["transcript"].as_str().expect("a text").to_owned();
            let earlier = self.finals.insert(event["segment"].as_u64().expect("a number"), text.clone());
            assert!(earlier.is_none_or(|earlier| earlier == text), "{event}");
        }
        self.ended |= event["adaptation_state"].is_object();
        Some(event)
    }

    /// Waits for the next message; returns the event, if it is one.
    async fn hear(&mut self, socket: &mut Socket) -> Option<Value> {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("in time");
        self.take(&message.expect("not over").expect("goes on"))
    }

    /// Sends at many times the pace of speech, and hears what comes meanwhile.
    async fn speak(&mut self, socket: &mut Socket, pcm: &[u8], mut after_each: impl FnMut(usize)) {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        for (index, step) in pcm.chunks(STEP_BYTES).enumerate() {
            ticks.tick().await;
            socket.send(Message::binary(step.to_vec())).await.expect("sent");
            while let Ok(Some(message)) = tokio::time::timeout(Duration::ZERO, socket.next()).await {
                self.take(&message.expect("goes on"));
            }
            after_each(index);
        }
    }

    /// What waits for a client that has not read for a while: these finals, in order, and nothing before them.
    async fn catch_up(&mut self, socket: &mut Socket, finals: Range<u64>) {
        for segment in finals {
            let event = loop {
                if let Some(event) = self.hear(socket).await {
                    break event;
                }
            };
            let told = (&event["result"]["final"], &event["segment"]);
            assert_eq!(told, (&json!(true), &json!(segment)), "{event}");
        }
    }

    async fn finish(&mut self, socket: &mut Socket) {
        socket.send(Message::text("EOS")).await.expect("sent");
        while !self.ended {
            self.hear(socket).await;
        }
    }

    fn text(&self) -> Vec<&str> {
        self.finals.values().flat_map(|text| text.split(' ')).collect()
    }
}

async fn calm(program: &Program, pcm: &[u8]) -> Heard {
    let mut heard = Heard::default();
    let mut socket = call(program, "none").await;
    heard.speak(&mut socket, pcm, |_| {}).await;
    heard.finish(&mut socket).await;
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decoders_that_are_killed_change_nothing() {
    let program = Program::serve(&["--model", "scripted"], 2).await;
    let pcm = pcm();
    let wanted = calm(&program, &pcm).await;
    assert_eq!(wanted.text().len(), 60, "{wanted:?}");
    let mut heard = Heard::default();
    let mut socket = call(&program, "").await;
    let kill = |index: usize| {
        if index % 20 == 10 {
            program.hosts().into_iter().for_each(|pid| signal(pid, Signal::KILL));
        }
    };
    heard.speak(&mut socket, &pcm, kill).await;
    heard.finish(&mut socket).await;
    assert_eq!(heard, wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_comes_back_to_another_node_by_its_content_id() {
    let node = async |name: &str, seeds: &str| {
        let cluster = ["--node-id", name, "--cluster-listen", "127.0.0.1:0", "--seeds", seeds];
        Program::serve(&[&["--model", "scripted"][..], &cluster].concat(), 2).await
    };
    let mut a = node("a", "").await;
    let b = node("b", &a.gossip().expect("gossips").to_string()).await;
    let pcm = pcm();
    let wanted = calm(&b, &pcm).await;

    let mut heard = Heard::default();
    let mut socket = call(&a, "call-42").await;
    // In the middle of the second utterance, and of the fourth.
    let [read, half] = [1, 3].map(|whole| whole * UTTERANCE_BYTES + 4 * STEP_BYTES);
    heard.speak(&mut socket, &pcm[..read], |_| {}).await;
    while heard.asked == 0 {
        heard.hear(&mut socket).await;
    }
    assert_eq!(heard.finals.len(), 1, "{heard:?}");
    // From here on it reads nothing: the next two finals wait for it.
    for step in pcm[read..half].chunks(STEP_BYTES) {
        socket.send(Message::binary(step.to_vec())).await.expect("sent");
    }
    // All has come, and a decoder is heard of after four steps at the latest.
    let near = |session: &Value| {
        let [audio, lag] = ["audio_ms", "lag_ms"].map(|name| session[name].as_u64());
        audio == Some(half as u64 / 32) && lag < Some(400)
    };
    // A client of this protocol has no acknowledgements: what it has sent is held by the other node, too, a moment later.
    poll("the session's copy", async || {
        let status = run(&["status", "--json", "--server", &b.url()]).await;
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        let sessions = status["sessions"].as_array()?;
        sessions.iter().any(|session| session["durable"] == true && near(session)).then_some(())
    })
    .await;
    // Its last step may still be on its way there, which nothing that can be asked tells of. It takes 300 ms of the nodes' time:
    // whoever answers after a second has not stood still for all of it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for node in [&a, &b] {
        get(node.http, "/metrics").await.expect("answers");
    }
    a.signal(Signal::KILL);
    a.end().await;
    drop(socket);

    let mut socket = call(&b, "call-42").await;
    heard.catch_up(&mut socket, 1..3).await;
    heard.speak(&mut socket, &pcm[half..], |_| {}).await;
    heard.finish(&mut socket).await;
    assert_eq!(heard.text(), wanted.text());
}
