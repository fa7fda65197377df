//! Connections that never say anything: what memory they take in the node, and what others notice of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::Place;
use super::call::{Call, Transport};
use super::caller::{OPENING, speak};
use super::dial::Dial;
use super::said::Heard;
use super::script::Script;
use crate::cases::Bench;
use crate::live::percentile;
use crate::process;
use crate::report::Report;

const CASE: &str = "silent";

/// Callers meanwhile.
const SPEAKING: usize = 10;

/// What was only needed to accept connections is given back within this.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Not a byte.
    Tcp,
    /// The upgrade to a WebSocket, and nothing on it.
    WebSocket,
}

pub(super) async fn run(
    bench: &Bench,
    place: &Place,
    count: usize,
    engine_ms: f64,
    report: &mut Report,
) -> Result<()> {
    let script = Arc::new(Script::new(if bench.quick { 3 } else { 5 }, 1));
    report.note("a silent connection's time is raised to 10 min (gateway.handshake_timeout), so that all are there at once");
    for (silence, name) in [(Silence::Tcp, "TCP alone"), (Silence::WebSocket, "WebSocket upgrade alone")] {
        let (node, dial) = place.node(2 * SPEAKING, count).await?;
        others(&dial, &script, &format!("before any is silent ({name})"), engine_ms, report).await?;
        let before = process::own_bytes(node.pid())?;
        let opening = stream::iter((0..count).map(|_| connect(&dial, silence)));
        let start = Instant::now();
        let silent: Vec<TcpStream> =
            opening.buffer_unordered(OPENING).try_collect().await.context("connecting")?;
        let took = start.elapsed();
        // Served after them: they are accepted by then.
        let mut last = Call::open(&dial, Transport::WebSocket).await?;
        last.end().await?;
        last.finish().await?;
        sleep(SETTLE).await;
        let bytes = process::own_bytes(node.pid())?.saturating_sub(before) as f64;
        let before = format!("{} silent, {name}", silent.len());
        let mib = bytes / f64::from(1 << 20);
        report.figure(CASE, format!("{before}, node's memory for all"), "MiB", mib, Some("< 400"));
        let kib = bytes / silent.len() as f64 / 1_024.0;
        report.figure(CASE, format!("{before}, node's memory for each"), "KiB", kib, None);
        let rate = silent.len() as f64 / took.as_secs_f64();
        report.figure(CASE, format!("{before}, connected"), "1/s", rate, None);
        others(&dial, &script, &before, engine_ms, report).await?;
        ensure!(silent.iter().all(is_open), "the node has closed a silent connection");
    }
    Ok(())
}

async fn connect(dial: &Dial, silence: Silence) -> Result<TcpStream> {
    match silence {
        Silence::Tcp => dial.tcp(dial.http).await,
        Silence::WebSocket => Ok(dial.websocket(dial.http, "/v1/stream").await?.into_inner()),
    }
}

/// Whether the other side has neither closed nor said anything.
fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// How others are served.
async fn others(
    dial: &Dial,
    script: &Arc<Script>,
    beside: &str,
    engine_ms: f64,
    report: &mut Report,
) -> Result<()> {
    for transport in [Transport::WebSocket, Transport::Vosk] {
        let name = transport.name();
        let mut opening = Vec::new();
        for _ in 0..SPEAKING {
            let start = Instant::now();
            let mut call = Call::open(dial, transport).await?;
            // As much as there has to be between two texts.
            for piece in &script.pieces[..2] {
                call.audio(piece).await?;
            }
            while !matches!(call.heard().await?.context("the server closed")?, Heard::Text { .. }) {}
            opening.push(start.elapsed().as_secs_f64() * 1_000.0);
            call.end().await?;
            call.finish().await?;
        }
        let what = format!("{beside}: {name}, connecting to first text p99");
        report.figure(CASE, what, "ms", percentile(&opening, 0.99), None);
        let (tally, lost) = speak(dial, transport, script, SPEAKING, engine_ms).await?;
        ensure!(lost == 0, "{lost} of {SPEAKING} sessions failed");
        let what = format!("{beside}: {name}, {SPEAKING} live, added to texts p99");
        report.figure(CASE, what, "ms", percentile(&tally.texts, 0.99), Some("< 20"));
    }
    Ok(())
}
