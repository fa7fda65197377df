//! Clients that behave badly: they vanish, never read, send garbage, connect and say nothing.
//!
//! Owns: how badly. Must never: count on an answer.

use std::time::Duration;

use anyhow::Result;
use futures_util::SinkExt;
use rand::rngs::StdRng;
use rand::{Rng, RngExt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::thin::{Ports, connect, next, send};

/// Whatever is done ends within this.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Speaks, and is gone in the middle without a word.
    Vanishes,
    /// Sends ten times as fast as speech and reads nothing.
    NeverReads,
    Garbage,
    /// Connects, and says half of what it has to say first.
    HalfOpen,
    /// Opens a session, says nothing for a while, and ends it.
    Silent,
}

impl Manners {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vanishes => "vanishes",
            Self::NeverReads => "never reads",
            Self::Garbage => "garbage",
            Self::HalfOpen => "half open",
            Self::Silent => "silent",
        }
    }
}

/// What comes back does not matter; that nothing is left behind does.
pub(crate) async fn misbehave(manners: Manners, ports: &Ports, audio: &[u8], random: &mut StdRng) {
    // Its node may be gone at any time, which is no matter of this client.
    let _ = timeout(PATIENCE, attempt(manners, ports, audio, random)).await;
}

async fn attempt(manners: Manners, ports: &Ports, audio: &[u8], random: &mut StdRng) -> Result<()> {
    let stream = format!("ws://{}/v1/stream", ports.http);
    match manners {
        Manners::Vanishes => {
            let mut socket = connect(&stream).await?;
            send(&mut socket, Message::text(r#"{"type":"hello"}"#)).await?;
            next(&mut socket).await?;
            let pieces = random.random_range(5..60);
            for piece in audio.chunks(6_400).take(pieces) {
                send(&mut socket, Message::binary(piece.to_vec())).await?;
                sleep(Duration::from_millis(200)).await;
            }
            // Dropped: the connection breaks without a close frame.
        }
        Manners::NeverReads => {
            let mut socket = connect(&stream).await?;
            let hello = r#"{"type":"hello","options":{"partial_interval_ms":100}}"#;
            send(&mut socket, Message::text(hello)).await?;
            next(&mut socket).await?;
            for piece in audio.chunks(6_400).cycle().take(900) {
                timeout(Duration::from_secs(20), socket.feed(Message::binary(piece.to_vec()))).await??;
                timeout(Duration::from_secs(20), socket.flush()).await??;
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_secs(random.random_range(5..20))).await;
        }
        Manners::Garbage => garbage(ports, &stream, random).await?,
        Manners::HalfOpen => {
            let port = if random.random_bool(0.5) { &ports.http } else { &ports.vosk };
            let mut socket = TcpStream::connect(port).await?;
            socket.write_all(b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nUpg").await?;
            sleep(Duration::from_secs(random.random_range(1..20))).await;
        }
        Manners::Silent => {
            let mut socket = connect(&stream).await?;
            send(&mut socket, Message::text(r#"{"type":"hello"}"#)).await?;
            next(&mut socket).await?;
            sleep(Duration::from_secs(random.random_range(5..45))).await;
            send(&mut socket, Message::text(r#"{"type":"end"}"#)).await?;
            while next(&mut socket).await?.is_some() {}
        }
    }
    Ok(())
}

async fn garbage(ports: &Ports, stream: &str, random: &mut StdRng) -> Result<()> {
    let mut bytes = vec![0; random.random_range(1..20_000)];
    random.fill_bytes(&mut bytes);
    match random.random_range(0..8) {
        0 => {
            let mut socket = TcpStream::connect(&ports.http).await?;
            socket.write_all(&bytes).await?;
        }
        1 => {
            let mut socket = TcpStream::connect(&ports.http).await?;
            let head = "GET /v1/stream HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
            socket.write_all(head.as_bytes()).await?;
            sleep(Duration::from_millis(100)).await;
            socket.write_all(&bytes).await?;
            sleep(Duration::from_millis(500)).await;
        }
        2 => {
            let mut socket = connect(stream).await?;
            send(&mut socket, Message::text(String::from_utf8_lossy(&bytes).into_owned())).await?;
            while next(&mut socket).await?.is_some() {}
        }
        3 => {
            let mut socket = connect(stream).await?;
            send(&mut socket, Message::text(r#"{"type":"hello"}"#)).await?;
            next(&mut socket).await?;
            // No whole number of samples, then no message.
            send(&mut socket, Message::binary(vec![7; 12_345])).await?;
            send(&mut socket, Message::text(r#"{"type":"nonsense"}"#)).await?;
            while next(&mut socket).await?.is_some() {}
        }
        4 => {
            let mut socket = connect(&format!("ws://{}", ports.vosk)).await?;
            send(&mut socket, Message::text(r#"{"config":{"sample_rate":-1}}"#)).await?;
            while next(&mut socket).await?.is_some() {}
        }
        5 => {
            let mut socket = connect(&format!("ws://{}/v1/listen?encoding=opus", ports.http)).await?;
            send(&mut socket, Message::binary(bytes)).await?;
            send(&mut socket, Message::text(r#"{"type":"CloseStream"}"#)).await?;
            while next(&mut socket).await?.is_some() {}
        }
        // The first frame of a call is its UUID, and an event begins with a line of JSON: both go on with nonsense.
        6 => {
            let mut socket = TcpStream::connect(&ports.audiosocket).await?;
            socket.write_all(&[&[1, 0, 16][..], &bytes].concat()).await?;
            sleep(Duration::from_millis(500)).await;
        }
        7 => {
            let mut socket = TcpStream::connect(&ports.wyoming).await?;
            socket.write_all(&[b"{\"type\":\"transcribe\"}\n", &bytes[..]].concat()).await?;
            sleep(Duration::from_millis(500)).await;
        }
        _ => {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            for piece in bytes.chunks(1_200) {
                socket.send_to(piece, &ports.quic).await?;
            }
        }
    }
    Ok(())
}
