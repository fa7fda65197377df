//! The native protocol: whole sessions by the client library, and single messages where the time between two is measured.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use starling_client::{Client, ClientConfig, Event, SessionConfig, SessionOptions};
use starling_protocol::SessionId;
use starling_protocol::native::{ClientMessage, Hello, ServerMessage};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::audio::{STEP, bytes, seconds};
use crate::live::{Outcome, Pace};

/// One session over a recording, through the client library.
pub(crate) async fn transcribe(
    address: SocketAddr,
    model: &str,
    recording: &[i16],
    options: SessionOptions,
    pace: Pace,
) -> Result<Outcome> {
    let client = Client::new(ClientConfig::new([format!("ws://{address}")]))?;
    let session = SessionConfig { model: Some(model.to_owned()), options, ..SessionConfig::default() };
    let (mut sender, mut events) = client.open(session).await?.split();
    let start = Instant::now();
    let steps: Vec<Vec<u8>> = recording.chunks(STEP).map(bytes).collect();
    let due = move |step: usize| start + Duration::from_millis(100) * u32::try_from(step).unwrap_or(u32::MAX);
    let end = due(steps.len());
    let sending = tokio::spawn(async move {
        for (index, step) in steps.iter().enumerate() {
            if pace == Pace::Live {
                tokio::time::sleep_until(due(index + 1)).await;
            }
            sender.send(step).await?;
        }
        sender.end().await?;
        anyhow::Ok(Instant::now())
    });
    let (mut shown, mut letters, mut last_final) = (Vec::new(), 0, start);
    while let Some(event) = events.next().await {
        match event? {
            Event::Partial { until, .. } => shown.push(until.0),
            Event::Final(last) => {
                letters += last.text.chars().count();
                last_final = Instant::now();
            }
            _ => {}
        }
    }
    let sent = sending.await.context("the sender panicked")??;
    let end = if pace == Pace::Live { end } else { sent };
    Ok(Outcome {
        audio_s: seconds(recording.len()),
        wall_s: start.elapsed().as_secs_f64(),
        cpu_s: 0.0,
        after_end_ms: vec![last_final.saturating_duration_since(end).as_secs_f64() * 1_000.0],
        partials_per_s: vec![shown.len() as f64 / seconds(recording.len())],
        shown: vec![shown],
        letters,
    })
}

/// A connection whose single messages are looked at.
pub(crate) struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Raw {
    /// Connects, opens a session and waits for `ready`.
    pub(crate) async fn open(address: SocketAddr, model: &str, options: SessionOptions) -> Result<Self> {
        let disable_nagle = true;
        let url = format!("ws://{address}/v1/stream");
        let (socket, _) = connect_async_with_config(url, None, disable_nagle).await?;
        let mut raw = Self(socket);
        let mut hello = Hello::new(SessionId::random());
        hello.model = Some(model.to_owned());
        hello.options = options;
        raw.say(&ClientMessage::Hello(Box::new(hello))).await?;
        raw.until(|message| matches!(message, ServerMessage::Ready { .. })).await?;
        Ok(raw)
    }

    pub(crate) async fn say(&mut self, message: &ClientMessage) -> Result<()> {
        Ok(self.0.send(Message::text(serde_json::to_string(message)?)).await?)
    }

    pub(crate) async fn audio(&mut self, samples: &[i16]) -> Result<()> {
        Ok(self.0.send(Message::binary(bytes(samples))).await?)
    }

    /// Reads on to a message that is wanted.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&ServerMessage) -> bool) -> Result<ServerMessage> {
        loop {
            let message = self.next().await?;
            if wanted(&message) {
                return Ok(message);
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Result<ServerMessage> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), self.0.next()).await;
            match next.context("nothing came for a minute")?.context("the server closed")?? {
                Message::Text(text) => match serde_json::from_str(&text)? {
                    ServerMessage::Error(body) => bail!("the server says: {}", body.message),
                    message => return Ok(message),
                },
                Message::Close(frame) => bail!("the server closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// Ends the session and reads to its end, so that its slot is free.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.say(&ClientMessage::End {}).await?;
        let mut last = None;
        loop {
            match self.next().await? {
                ServerMessage::Final(this) => last = Some(this.segment),
                ServerMessage::Done { .. } => break,
                _ => {}
            }
        }
        if let Some(segment) = last {
            self.say(&ClientMessage::Confirm { segment }).await?;
        }
        self.0.close(None).await?;
        while let Ok(Some(Ok(_))) = tokio::time::timeout(Duration::from_secs(5), self.0.next()).await {}
        Ok(())
    }
}
