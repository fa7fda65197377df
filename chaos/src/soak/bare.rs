//! Clients over bare TCP: Asterisk's `AudioSocket`, with a reader of the call's events, and Wyoming.
//!
//! Owns: what each of them sends and how it reads its text. Must never: take a text for whole that was not told to be.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use starling_protocol::SessionId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep_until, timeout};

use super::thin::{PATIENCE, Ports};
use crate::script::RATE;

/// One frame of Asterisk's.
const FRAME: Duration = Duration::from_millis(20);

/// What Home Assistant's satellites send at once, or nearly.
const CHUNK: Duration = Duration::from_millis(100);

const fn bytes(time: Duration) -> usize {
    time.as_millis() as usize * RATE as usize / 1_000 * 2
}

/// Types of `AudioSocket`'s frames: the call's end, its UUID, and audio at 16 kHz.
const HANGUP: u8 = 0x00;
const ID: u8 = 0x01;
const AUDIO: u8 = 0x12;

/// The protocol has no word for a text: that is told to whoever asks for the call's events at the same node.
pub(crate) async fn audiosocket(ports: &Ports, audio: &[u8], heard: &mut Vec<String>) -> Result<()> {
    let id = SessionId::random();
    let mut events = connect(&ports.http).await?;
    // In this version an answer without a length ends with its connection, and is in no chunks.
    let request = format!("GET /v1/audiosocket/{id}/events HTTP/1.0\r\nHost: soak\r\n\r\n");
    events.write_all(request.as_bytes()).await?;
    let (mut silence, mut call) = connect(&ports.audiosocket).await?.into_split();
    let speaking = async move {
        call.write_all(&frame(ID, id.0.as_bytes())).await?;
        let start = Instant::now();
        for (piece, number) in audio.chunks(bytes(FRAME)).zip(1..) {
            sleep_until(start + FRAME * number).await;
            timeout(PATIENCE, call.write_all(&frame(AUDIO, piece)))
                .await
                .context("does not take audio")??;
        }
        call.write_all(&frame(HANGUP, &[])).await?;
        anyhow::Ok(())
    };
    // What comes back says nothing, but is to be read.
    let draining = async { copy(&mut silence, &mut sink()).await };
    let listening = async {
        let mut lines = BufReader::new(events);
        let status = line(&mut lines).await?.context("no answer to who asks for the call's events")?;
        ensure!(status.contains(" 200"), "who asks for the call's events is told {status}");
        while let Some(said) = line(&mut lines).await? {
            let Some(event) = said.strip_prefix("data: ") else { continue };
            let event: Value = serde_json::from_str(event).context("an event that is no JSON")?;
            match event["type"].as_str() {
                Some("final") => heard.extend(event["text"].as_str().map(str::to_owned)),
                Some("done") => return Ok(()),
                Some("error" | "missed") => bail!("it said {event}"),
                _ => {}
            }
        }
        bail!("the call's events end without a last one")
    };
    let (spoken, _, listened) = tokio::join!(speaking, draining, listening);
    listened?;
    spoken
}

/// The type, the length of what follows (big endian), and that.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// One utterance.
pub(crate) async fn wyoming(ports: &Ports, audio: &[u8], heard: &mut Vec<String>) -> Result<()> {
    let (from, mut to) = connect(&ports.wyoming).await?.into_split();
    let format = || json!({ "rate": RATE, "width": 2, "channels": 1 });
    let speaking = async {
        to.write_all(&event("transcribe", &json!({}), &[])).await?;
        to.write_all(&event("audio-start", &format(), &[])).await?;
        let start = Instant::now();
        for (piece, number) in audio.chunks(bytes(CHUNK)).zip(1..) {
            sleep_until(start + CHUNK * number).await;
            let chunk = event("audio-chunk", &format(), piece);
            timeout(PATIENCE, to.write_all(&chunk)).await.context("does not take audio")??;
        }
        to.write_all(&event("audio-stop", &json!({}), &[])).await?;
        anyhow::Ok(())
    };
    let listening = async {
        let (mut lines, mut parts) = (BufReader::new(from), String::new());
        loop {
            let (kind, data) = next_event(&mut lines).await?;
            let text = data["text"].as_str().unwrap_or_default();
            match &*kind {
                "transcript-chunk" => {
                    parts.push_str(text);
                    heard.push(text.to_owned());
                }
                "transcript" => ensure!(text == parts, "the parts {parts:?} make the whole {text:?}"),
                "transcript-stop" => return Ok(()),
                "error" => bail!("it said {data}"),
                _ => {}
            }
        }
    };
    let (spoken, listened) = tokio::join!(speaking, listening);
    listened?;
    spoken
}

/// A line that says what it is, with what follows it.
fn event(kind: &str, data: &Value, payload: &[u8]) -> Vec<u8> {
    let head = json!({ "type": kind, "data": data, "payload_length": payload.len() });
    [head.to_string().as_bytes(), b"\n", payload].concat()
}

async fn next_event(lines: &mut BufReader<OwnedReadHalf>) -> Result<(String, Value)> {
    let head = line(lines).await?.context("closed before the last event")?;
    let head: Value = serde_json::from_str(&head).context("an event that is no JSON")?;
    let length = |name: &str| head[name].as_u64().unwrap_or(0) as usize;
    let mut data = vec![0; length("data_length")];
    timeout(PATIENCE, lines.read_exact(&mut data)).await.context("half an event")??;
    ensure!(length("payload_length") == 0, "an event with audio: {head}");
    let kind = head["type"].as_str().context("an event without a type")?.to_owned();
    let data = if data.is_empty() { head["data"].clone() } else { serde_json::from_slice(&data)? };
    Ok((kind, data))
}

async fn connect(address: &str) -> Result<TcpStream> {
    Ok(timeout(PATIENCE, TcpStream::connect(address)).await.context("does not answer")??)
}

/// The next line, if there is one before the end.
async fn line<R: AsyncBufReadExt + Unpin>(lines: &mut R) -> Result<Option<String>> {
    let mut line = String::new();
    let count = timeout(PATIENCE, lines.read_line(&mut line)).await.context("says nothing")??;
    Ok((count > 0).then(|| line.trim_end().to_owned()))
}
