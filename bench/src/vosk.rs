//! Clients of vosk-server's protocol, in lock-step as real ones are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::audio::{STEP, bytes, seconds};
use crate::live::{Outcome, Pace, STAGGER, turn};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// No reply is worth waiting for longer: the node's own deadline for a last final is below it.
const REPLY_TIMEOUT: Duration = Duration::from_secs(90);

/// Lets `clients` speak `rounds` clips each, a connection for each clip.
pub(crate) async fn run(
    address: SocketAddr,
    clips: &[Vec<i16>],
    clients: usize,
    rounds: usize,
    pace: Pace,
) -> Result<Outcome> {
    let clips: Arc<Vec<Vec<i16>>> = Arc::new(clips.to_vec());
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let clips = Arc::clone(&clips);
            tokio::spawn(async move {
                if pace == Pace::Live {
                    tokio::time::sleep(STAGGER * u32::try_from(client)?).await;
                }
                let mut outcome = Outcome::default();
                for round in 0..rounds {
                    call(address, &clips[turn(client, round, clips.len())], pace, &mut outcome).await?;
                }
                anyhow::Ok(outcome)
            })
        })
        .collect();
    let mut all = Outcome::default();
    for task in tasks {
        all = all.and(task.await.context("a client panicked")??);
    }
    all.wall_s = start.elapsed().as_secs_f64();
    Ok(all)
}

async fn call(address: SocketAddr, clip: &[i16], pace: Pace, outcome: &mut Outcome) -> Result<()> {
    let disable_nagle = true;
    let (mut socket, _) = connect_async_with_config(format!("ws://{address}"), None, disable_nagle).await?;
    socket.send(Message::text(r#"{"config":{"sample_rate":16000}}"#)).await?;
    let start = Instant::now();
    let (mut end, mut partials, mut shown) = (start, 0, String::new());
    for (index, step) in clip.chunks(STEP).enumerate() {
        end = start + Duration::from_millis(100) * u32::try_from(index + 1)?;
        if pace == Pace::Live {
            tokio::time::sleep_until(end).await;
        }
        socket.send(Message::binary(bytes(step))).await?;
        let reply = reply(&mut socket).await?;
        if let Some(text) = reply.get("partial").and_then(|text| text.as_str()).filter(|text| **text != shown)
        {
            partials += 1;
            shown = text.to_owned();
        }
        outcome.letters += letters(&reply);
    }
    if pace == Pace::Free {
        end = Instant::now();
    }
    socket.send(Message::text(r#"{"eof" : 1}"#)).await?;
    outcome.letters += letters(&reply(&mut socket).await?);
    outcome.after_end_ms.push(Instant::now().saturating_duration_since(end).as_secs_f64() * 1_000.0);
    outcome.audio_s += seconds(clip.len());
    outcome.partials_per_s.push(f64::from(partials) / seconds(clip.len()));
    // The server closes; what is left to read is only that.
    while let Ok(Some(Ok(_))) = tokio::time::timeout(REPLY_TIMEOUT, socket.next()).await {}
    Ok(())
}

fn letters(reply: &serde_json::Value) -> usize {
    reply.get("text").and_then(|text| text.as_str()).map_or(0, |text| text.chars().count())
}

async fn reply(socket: &mut Socket) -> Result<serde_json::Value> {
    loop {
        let message =
            tokio::time::timeout(REPLY_TIMEOUT, socket.next()).await.context("no reply came in time")?;
        match message.context("the server closed without a reply")?? {
            Message::Text(text) => return Ok(serde_json::from_str(&text)?),
            Message::Close(frame) => bail!("the server closed without a reply: {frame:?}"),
            _ => {}
        }
    }
}
