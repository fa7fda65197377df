//! Those who speak: callers on the SDK, and clients that are stuck.
//!
//! Owns: their sessions, and when they were told what. Must never: know what is broken meanwhile.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use starling_client::{
    ApiKey, AudioSender, Client, ClientConfig, Event, Events, Final, SessionConfig, SessionOptions,
};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::tungstenite::Message;

use crate::script::{RATE, Script};

/// Beyond the speech itself: whatever is done to nodes, sessions go on within a minute or are given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes that are being started again, and thousands who come at once, are waited for.
const OPEN_DEADLINE: Duration = Duration::from_secs(30);

/// What a caller was told, and when: in seconds since the load began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) opened_s: Option<f64>,
    /// The session that was opened; one that was begun anew in its place has another name.
    pub(crate) session: Option<String>,
    /// Each time that new text came.
    pub(crate) texts_s: Vec<f64>,
    pub(crate) finals: Vec<Final>,
    /// Connections that took the place of lost ones.
    pub(crate) reconnects: Vec<Reconnect>,
    /// Whether it was ever said that what is acknowledged is in two copies.
    pub(crate) durable: bool,
    pub(crate) gap_frames: u64,
    /// Segments and frames, as the last message has them.
    pub(crate) done: Option<(u64, u64)>,
    pub(crate) ended_s: f64,
    pub(crate) error: Option<String>,
}

/// A connection that took the place of a lost one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reconnect {
    /// When, in seconds since the load began.
    pub(crate) at_s: f64,
    pub(crate) took_s: f64,
    /// No node went on with the session: it was begun anew with what the client holds.
    pub(crate) anew: bool,
    /// When the connection was lost, the session was said to be in two copies.
    pub(crate) was_durable: bool,
}

/// How a caller speaks.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    /// `HOST:PORT`, or whole addresses.
    pub(crate) servers: Vec<String>,
    /// Whose certificates are trusted, where the transport has them.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) api_key: Option<String>,
    pub(crate) model: Option<String>,
    /// Sent at once; `None` for all of it.
    pub(crate) chunk: Option<Duration>,
    /// Says nothing for so long when half is said, and sends nothing either.
    pub(crate) hold: Duration,
    pub(crate) liveness: Option<Duration>,
    pub(crate) partial_interval_ms: u32,
    /// When the load began, and when this caller does.
    pub(crate) origin: Instant,
    pub(crate) start: Instant,
}

/// Speaks, and listens to the end.
pub(crate) async fn call(manner: &Manner, script: &Script) -> Told {
    let mut told = Told::default();
    let deadline = manner.start + Duration::from_secs_f64(script.seconds()) + manner.hold + PATIENCE;
    let called = timeout_at(deadline, speak_and_listen(manner, script, &mut told)).await;
    told.ended_s = (Instant::now() - manner.origin).as_secs_f64();
    told.error = match called {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(_) => Some("it did not come to its end".to_owned()),
    };
    told
}

async fn speak_and_listen(manner: &Manner, script: &Script, told: &mut Told) -> Result<()> {
    sleep_until(manner.start).await;
    let address = |server: &String| {
        if server.contains("://") { server.clone() } else { format!("ws://{server}") }
    };
    let mut config = ClientConfig::new(manner.servers.iter().map(address));
    config.ca_file.clone_from(&manner.ca_file);
    config.api_key = manner.api_key.clone().map(ApiKey::from);
    config.open_deadline = OPEN_DEADLINE;
    config.wait_when_busy = true;
    config.liveness = manner.liveness.unwrap_or(config.liveness);
    let client = Client::new(config)?;
    let options = SessionOptions {
        partial_interval_ms: manner.partial_interval_ms,
        batch: manner.chunk.is_none(),
        ..SessionOptions::default()
    };
    let config = SessionConfig { model: manner.model.clone(), options, ..SessionConfig::default() };
    let session = client.open(config).await.context("opening a session")?;
    told.session = Some(session.opened().session.to_string());
    told.durable = session.opened().durable;
    let opened = Instant::now();
    told.opened_s = Some((opened - manner.origin).as_secs_f64());
    let (sender, events) = session.split();
    let (spoken, heard) =
        tokio::join!(speak(sender, &script.audio, manner, opened), listen(events, manner.origin, told));
    heard?;
    spoken
}

async fn speak(mut sender: AudioSender, audio: &[u8], manner: &Manner, mut start: Instant) -> Result<()> {
    let chunk = manner.chunk;
    let bytes = chunk.map_or(audio.len(), |chunk| (chunk.as_secs_f64() * f64::from(RATE)) as usize * 2);
    let pieces = audio.len().div_ceil(bytes.max(2)) as u32;
    for (piece, number) in audio.chunks(bytes.max(2)).zip(1..) {
        if number == pieces / 2 {
            start += manner.hold;
        }
        if let Some(chunk) = chunk {
            // A piece can be sent when its last sample has been spoken.
            sleep_until(start + chunk * number).await;
        }
        sender.send(piece).await?;
    }
    sender.end().await?;
    Ok(())
}

async fn listen(mut events: Events, origin: Instant, told: &mut Told) -> Result<()> {
    let (mut durable, mut changed_s) = (told.durable, 0.0);
    while let Some(event) = events.next().await {
        let now = (Instant::now() - origin).as_secs_f64();
        match event? {
            Event::Partial { .. } => told.texts_s.push(now),
            Event::Final(last) => {
                told.texts_s.push(now);
                told.finals.push(last);
            }
            Event::Gap { from, to } => told.gap_frames += to.0.saturating_sub(from.0),
            Event::Durable(is_durable) => {
                told.durable |= is_durable;
                (durable, changed_s) = (is_durable, now);
            }
            Event::Reconnected { gap, restarted } => {
                let took_s = gap.as_secs_f64();
                // What changed since the loss, the new connection has said.
                let was_durable = durable != (changed_s > now - took_s);
                told.reconnects.push(Reconnect { at_s: now, took_s, anew: restarted, was_durable });
            }
            Event::Done { segments, frames } => {
                told.done = Some((segments, frames.0));
                return Ok(());
            }
            _ => {}
        }
    }
    anyhow::bail!("the events ended without a last one")
}

/// Opens a session and does nothing more with it, until it is dropped.
pub(crate) async fn stuck(server: String) -> Result<impl Sized> {
    let connecting = tokio_tungstenite::connect_async(format!("ws://{server}/v1/stream"));
    let (mut socket, _) = timeout(OPEN_DEADLINE, connecting).await??;
    socket.send(Message::text(r#"{"type":"hello"}"#)).await?;
    let answer = timeout(OPEN_DEADLINE, socket.next()).await?.context("the connection was closed")??;
    let text = answer.to_text()?;
    anyhow::ensure!(text.contains("\"ready\""), "a client that was to be stuck got {text}");
    Ok(socket)
}
