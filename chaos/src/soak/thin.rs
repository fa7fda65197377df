//! Clients of protocols that others invented, with audio in a WebSocket's binary messages.
//!
//! Owns: what each of them sends and how it reads its text. Must never: take a text for whole that was not told to be.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::script::RATE;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Sent at once. vosk-server's own clients send so much.
const CHUNK: Duration = Duration::from_millis(250);

/// One exchange. A node that stands still does so for seconds, and a segment may have to be decoded again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Vosk,
    Gstreamer,
    Deepgram,
}

/// Where each is spoken on a node.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub(crate) http: String,
    pub(crate) vosk: String,
    pub(crate) quic: String,
    pub(crate) audiosocket: String,
    pub(crate) wyoming: String,
}

impl Dialect {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vosk => "vosk",
            Self::Gstreamer => "gstreamer",
            Self::Deepgram => "deepgram",
        }
    }

    fn address(self, ports: &Ports) -> String {
        match self {
            Self::Vosk => format!("ws://{}", ports.vosk),
            Self::Gstreamer => format!(
                "ws://{}/client/ws/speech?content-type=audio/x-raw,+layout=(string)interleaved,+rate=(int){RATE},\
                 +format=(string)S16LE,+channels=(int)1",
                ports.http
            ),
            Self::Deepgram => {
                format!("ws://{}/v1/listen?encoding=linear16&sample_rate={RATE}&channels=1", ports.http)
            }
        }
    }

    fn end(self) -> Message {
        match self {
            Self::Vosk => Message::text(r#"{"eof":1}"#),
            Self::Gstreamer => Message::text("EOS"),
            Self::Deepgram => Message::text(r#"{"type":"CloseStream"}"#),
        }
    }

    /// The text of a final; nothing of any other message.
    fn text(self, message: &Value) -> Option<String> {
        let text = match self {
            Self::Vosk => &message["text"],
            Self::Gstreamer if message["result"]["final"] == true => {
                &message["result"]["hypotheses"][0]["transcript"]
            }
            Self::Deepgram if message["is_final"] == true => {
                &message["channel"]["alternatives"][0]["transcript"]
            }
            Self::Gstreamer | Self::Deepgram => return None,
        };
        text.as_str().map(str::to_owned)
    }
}

/// Speaks, and appends the finals to `heard`. That it came to its end in order is `Ok`.
pub(crate) async fn call(
    dialect: Dialect,
    ports: &Ports,
    audio: &[u8],
    heard: &mut Vec<String>,
) -> Result<()> {
    let mut socket = connect(&dialect.address(ports)).await?;
    let start = Instant::now();
    let bytes = (CHUNK.as_secs_f64() * f64::from(RATE)) as usize * 2;
    if dialect == Dialect::Vosk {
        let config = format!(r#"{{"config":{{"sample_rate":{RATE}}}}}"#);
        send(&mut socket, Message::text(config)).await?;
        for (piece, number) in audio.chunks(bytes).zip(1..) {
            sleep_until(start + CHUNK * number).await;
            send(&mut socket, Message::binary(piece.to_vec())).await?;
            let reply = next(&mut socket).await?.context("closed in the middle")?;
            heard.extend(dialect.text(&reply));
        }
        send(&mut socket, dialect.end()).await?;
        let reply = next(&mut socket).await?.context("closed before the last reply")?;
        heard.extend(dialect.text(&reply));
        return Ok(());
    }
    let (mut sink, mut stream) = socket.split();
    let speaking = async {
        for (piece, number) in audio.chunks(bytes).zip(1..) {
            sleep_until(start + CHUNK * number).await;
            timeout(PATIENCE, sink.send(Message::binary(piece.to_vec())))
                .await
                .context("does not take audio")??;
        }
        timeout(PATIENCE, sink.send(dialect.end())).await.context("does not take the end")??;
        anyhow::Ok(())
    };
    let listening = async {
        loop {
            match timeout(PATIENCE, stream.next()).await.context("says nothing")? {
                Some(Ok(Message::Text(text))) => {
                    let message: Value = serde_json::from_str(&text).context("a reply that is no JSON")?;
                    if dialect == Dialect::Gstreamer
                        && message["status"].as_i64().is_some_and(|status| status != 0)
                    {
                        bail!("it said {text}");
                    }
                    heard.extend(dialect.text(&message));
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| u16::from(frame.code));
                    anyhow::ensure!(matches!(code, 1000 | 1005), "closed with {code}");
                    return Ok(());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => bail!("closed without a word"),
            }
        }
    };
    let (spoken, listened) = tokio::join!(speaking, listening);
    listened?;
    spoken
}

pub(crate) async fn connect(address: &str) -> Result<Socket> {
    let connecting = tokio_tungstenite::connect_async(address);
    Ok(timeout(PATIENCE, connecting).await.context("does not answer")??.0)
}

pub(crate) async fn send(socket: &mut Socket, message: Message) -> Result<()> {
    timeout(PATIENCE, socket.send(message)).await.context("does not take what is sent")??;
    Ok(())
}

/// The next text, if there is one before the end.
pub(crate) async fn next(socket: &mut Socket) -> Result<Option<Value>> {
    loop {
        match timeout(PATIENCE, socket.next()).await.context("says nothing")? {
            Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
}
