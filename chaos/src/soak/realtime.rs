//! A client of `OpenAI`'s Realtime interface that says itself where an item ends.
//!
//! Owns: what it sends and how it reads its text. Must never: go by fewer items than it has committed.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::thin::{PATIENCE, Ports, connect};
use crate::script::RATE;

/// Whole words of the scripted engine, which are of 100 ms each: a commit may come after any of them.
const CHUNK: Duration = Duration::from_millis(200);

/// An item has 4 s: some end in a phrase and some in a pause.
const CHUNKS_OF_AN_ITEM: usize = 20;

pub(crate) async fn call(ports: &Ports, audio: &[u8], heard: &mut Vec<String>) -> Result<()> {
    let address = format!("ws://{}/v1/realtime?intent=transcription", ports.http);
    let (mut sink, mut stream) = connect(&address).await?.split();
    let bytes = CHUNK.as_millis() as usize * RATE as usize / 1_000 * 2;
    let chunks: Vec<&[u8]> = audio.chunks(bytes).collect();
    let items = chunks.len().div_ceil(CHUNKS_OF_AN_ITEM);
    let speaking = async {
        let input = json!({ "format": { "type": "audio/pcm", "rate": RATE }, "turn_detection": null });
        let session = json!({ "type": "transcription", "audio": { "input": input } });
        let mut said = vec![json!({ "type": "session.update", "session": session })];
        let start = Instant::now();
        for (number, chunk) in chunks.iter().enumerate() {
            sleep_until(start + CHUNK * (number as u32 + 1)).await;
            said.push(json!({ "type": "input_audio_buffer.append", "audio": BASE64.encode(chunk) }));
            if (number + 1) % CHUNKS_OF_AN_ITEM == 0 || number + 1 == chunks.len() {
                said.push(json!({ "type": "input_audio_buffer.commit" }));
            }
            for event in said.drain(..) {
                let sent = timeout(PATIENCE, sink.send(Message::text(event.to_string()))).await;
                sent.context("does not take audio")??;
            }
        }
        anyhow::Ok(())
    };
    let listening = async {
        let mut told = 0;
        while told < items {
            match timeout(PATIENCE, stream.next()).await.context("says nothing")? {
                Some(Ok(Message::Text(text))) => {
                    let event: Value = serde_json::from_str(&text).context("an event that is no JSON")?;
                    match event["type"].as_str().context("an event without a type")? {
                        "conversation.item.input_audio_transcription.completed" => {
                            heard.extend(event["transcript"].as_str().map(str::to_owned));
                            told += 1;
                        }
                        "error" | "conversation.item.input_audio_transcription.failed" => {
                            bail!("it said {text}");
                        }
                        _ => {}
                    }
                }
                Some(Ok(Message::Close(frame))) => {
                    bail!("closed after {told} of {items} items: {frame:?}");
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("closed without a word"),
            }
        }
        Ok(())
    };
    let (spoken, listened) = tokio::join!(speaking, listening);
    listened?;
    spoken?;
    // The goodbye need not be answered.
    let _ = sink.send(Message::Close(None)).await;
    Ok(())
}
