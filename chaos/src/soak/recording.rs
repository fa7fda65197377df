//! Recordings that are sent over HTTP.
//!
//! Owns: the requests, and how fast their bodies come. Must never: send the next before the last is answered.

use std::io::Cursor;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hound::{SampleFormat, WavSpec, WavWriter};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::thin::{PATIENCE, Ports};
use crate::script::RATE;

/// Two seconds of speech every half second: a client's network is no faster, and what goes wrong meets requests in the middle.
const PIECE_BYTES: usize = 2 * 2 * RATE as usize;
const EVERY: Duration = Duration::from_millis(500);

/// Stands nowhere in a WAV but by chance.
const BOUNDARY: &str = "c2dd5f7a8e0b4f7d";

/// `POST /v1/transcriptions`.
pub(crate) async fn send(ports: &Ports, audio: &[u8], heard: &mut Vec<String>) -> Result<()> {
    let answer = post(ports, "/v1/transcriptions", "audio/wav", &wav(audio)?).await?;
    let segments = answer["segments"].as_array().context("an answer without segments")?;
    heard.extend(segments.iter().filter_map(|segment| segment["text"].as_str()).map(str::to_owned));
    Ok(())
}

/// `POST /v1/audio/transcriptions`.
pub(crate) async fn send_form(ports: &Ports, audio: &[u8], heard: &mut Vec<String>) -> Result<()> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
         Content-Type: audio/wav\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let body = [head.as_bytes(), &wav(audio)?, tail.as_bytes()].concat();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let answer = post(ports, "/v1/audio/transcriptions", &kind, &body).await?;
    heard.push(answer["text"].as_str().context("an answer without a text")?.to_owned());
    Ok(())
}

fn wav(audio: &[u8]) -> Result<Vec<u8>> {
    let spec =
        WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format: SampleFormat::Int };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec)?;
    for sample in audio.chunks_exact(2) {
        writer.write_sample(i16::from_le_bytes([sample[0], sample[1]]))?;
    }
    writer.finalize()?;
    Ok(file.into_inner())
}

async fn post(ports: &Ports, path: &str, kind: &str, body: &[u8]) -> Result<Value> {
    let connecting = timeout(PATIENCE, TcpStream::connect(&ports.http)).await;
    let (mut from, mut to) = connecting.context("does not answer")??.into_split();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: soak\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let start = Instant::now();
    let sending = async {
        to.write_all(head.as_bytes()).await?;
        for (piece, number) in body.chunks(PIECE_BYTES).zip(1..) {
            sleep_until(start + EVERY * number).await;
            timeout(PATIENCE, to.write_all(piece)).await.context("does not take the recording")??;
        }
        anyhow::Ok(())
    };
    let until = start + EVERY * (body.len() / PIECE_BYTES) as u32 + PATIENCE;
    let hearing = async {
        let mut answer = Vec::new();
        let left = until - Instant::now();
        timeout(left, from.read_to_end(&mut answer)).await.context("no answer")??;
        anyhow::Ok(answer)
    };
    let (sent, answer) = tokio::join!(sending, hearing);
    let answer = answer?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("closed without an answer")?;
    let status = head.split(' ').nth(1).context("no HTTP status")?;
    ensure!(status == "200", "answered {status}: {body}");
    sent?;
    serde_json::from_str(body).context("an answer that is no JSON")
}
