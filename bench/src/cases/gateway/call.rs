//! A caller's connection in each dialect.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use starling_protocol::native::stream::{Frame, StreamReader, encode_audio, encode_message, read_server};
use starling_protocol::native::{ClientMessage, Hello};
use starling_protocol::{Segment, SessionId};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::dial::{Dial, PATIENCE, QuicStream};
use super::said::{self, Heard};

/// Longest message of the server's.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    WebSocket,
    Quic,
    Vosk,
    Gstreamer,
    Deepgram,
    Realtime,
}

impl Transport {
    pub(super) const ALL: [Self; 6] =
        [Self::WebSocket, Self::Quic, Self::Vosk, Self::Gstreamer, Self::Deepgram, Self::Realtime];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "native WebSocket",
            Self::Quic => "native QUIC",
            Self::Vosk => "vosk",
            Self::Gstreamer => "kaldi-gstreamer",
            Self::Deepgram => "Deepgram",
            Self::Realtime => "OpenAI Realtime",
        }
    }

    /// Whether each message of audio is answered by one, for which clients wait.
    pub(super) const fn in_turn(self) -> bool {
        matches!(self, Self::Vosk)
    }

    /// Whether a client can say that no more will come.
    pub(super) const fn has_end(self) -> bool {
        !matches!(self, Self::Realtime)
    }

    /// Whether a session is open only once audio has come.
    pub(super) const fn opens_with_audio(self) -> bool {
        matches!(self, Self::Vosk | Self::Realtime)
    }
}

enum Wire {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Quic { stream: QuicStream, frames: StreamReader },
}

pub(super) struct Call {
    pub(super) transport: Transport,
    wire: Wire,
    /// Whether this side has closed.
    left: bool,
}

impl Call {
    /// Connects and says what has to be said before audio.
    pub(super) async fn open(dial: &Dial, transport: Transport) -> Result<Self> {
        let wire = match transport {
            Transport::Quic => {
                Wire::Quic { stream: dial.quic().await?, frames: StreamReader::new(MAX_MESSAGE_BYTES) }
            }
            other => {
                let (to, path) = match other {
                    Transport::Vosk => (dial.vosk, "/"),
                    Transport::Gstreamer => (
                        dial.http,
                        "/client/ws/speech?content-type=audio/x-raw,+layout=(string)interleaved,+rate=(int)16000,\
                         +format=(string)S16LE,+channels=(int)1",
                    ),
                    Transport::Deepgram => {
                        (dial.http, "/v1/listen?encoding=linear16&sample_rate=16000&interim_results=true")
                    }
                    Transport::Realtime => (dial.http, "/v1/realtime?intent=transcription"),
                    Transport::WebSocket | Transport::Quic => (dial.http, "/v1/stream"),
                };
                Wire::WebSocket(Box::new(dial.websocket(to, path).await?))
            }
        };
        let mut call = Self { transport, wire, left: false };
        match transport {
            Transport::WebSocket | Transport::Quic => {
                let hello = Hello::new(SessionId::random());
                call.say(&ClientMessage::Hello(Box::new(hello))).await?;
                call.until_ready().await?;
            }
            Transport::Vosk => call.text(r#"{"config":{"sample_rate":16000}}"#.to_owned()).await?,
            Transport::Realtime => {
                call.until_ready().await?;
                let update = r#"{"type":"session.update","session":{"type":"transcription","audio":{"input":{"format":{"type":"audio/pcm","rate":16000}}}}}"#;
                call.text(update.to_owned()).await?;
            }
            Transport::Gstreamer | Transport::Deepgram => {}
        }
        Ok(call)
    }

    async fn until_ready(&mut self) -> Result<()> {
        let ready = async {
            while self.heard().await?.context("the server closed")? != Heard::Ready {}
            anyhow::Ok(())
        };
        timeout(PATIENCE, ready).await.context("not ready in time")?
    }

    /// Sends a piece of audio.
    pub(super) async fn audio(&mut self, pcm: &Bytes) -> Result<()> {
        match &mut self.wire {
            Wire::Quic { stream, .. } => {
                let mut frame = Vec::with_capacity(pcm.len() + 8);
                encode_audio(pcm, &mut frame);
                Ok(stream.sending.write_all(&frame).await?)
            }
            Wire::WebSocket(_) if self.transport == Transport::Realtime => {
                let audio = BASE64.encode(pcm);
                self.text(format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#)).await
            }
            Wire::WebSocket(socket) => Ok(socket.send(Message::Binary(pcm.clone())).await?),
        }
    }

    /// Says that no more will come, or where that can't be said, that this is to be heard now.
    pub(super) async fn end(&mut self) -> Result<()> {
        match self.transport {
            Transport::WebSocket | Transport::Quic => self.say(&ClientMessage::End {}).await,
            Transport::Vosk => self.text(r#"{"eof" : 1}"#.to_owned()).await,
            Transport::Gstreamer => self.text("EOS".to_owned()).await,
            Transport::Deepgram => self.text(r#"{"type":"CloseStream"}"#.to_owned()).await,
            Transport::Realtime => self.text(r#"{"type":"input_audio_buffer.commit"}"#.to_owned()).await,
        }
    }

    /// Says that this caller is still there, where that has to be said.
    pub(super) async fn keep_alive(&mut self) -> Result<()> {
        match self.transport {
            Transport::Deepgram => self.text(r#"{"type":"KeepAlive"}"#.to_owned()).await,
            _ => Ok(()),
        }
    }

    /// Begins the closing handshake.
    pub(super) async fn leave(&mut self) -> Result<()> {
        self.left = true;
        match &mut self.wire {
            Wire::WebSocket(socket) => Ok(socket.as_mut().close(None).await?),
            Wire::Quic { stream, .. } => Ok(stream.sending.finish()?),
        }
    }

    /// What the server says next; `None` when it has closed in order. Nothing is lost if this is given up.
    pub(super) async fn heard(&mut self) -> Result<Option<Heard>> {
        let transport = self.transport;
        match &mut self.wire {
            Wire::WebSocket(socket) => loop {
                let text = match socket.next().await {
                    None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Ok(None),
                    Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) if self.left => {
                        return Ok(None);
                    }
                    Some(Ok(Message::Text(text))) => text,
                    // What follows is the end of the stream.
                    Some(Ok(Message::Close(Some(frame)))) if frame.code != CloseCode::Normal => {
                        bail!("the server closed: {frame:?}")
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Err(error.into()),
                };
                return Ok(Some(match transport {
                    Transport::Vosk => said::vosk(&text)?,
                    Transport::Gstreamer => said::gstreamer(&text)?,
                    Transport::Deepgram => said::deepgram(&text)?,
                    Transport::Realtime => said::realtime(&text)?,
                    Transport::WebSocket | Transport::Quic => said::native_json(&text)?,
                }));
            },
            Wire::Quic { stream, frames } => loop {
                match frames.next()? {
                    Some(Frame::Message(body)) => {
                        let message = read_server(body).map_err(anyhow::Error::msg)?;
                        return said::native(&message).map(Some);
                    }
                    Some(Frame::Audio(_)) => bail!("the server sends audio"),
                    None => {}
                }
                let Some(chunk) = stream.receiving.read_chunk(MAX_MESSAGE_BYTES, true).await? else {
                    return Ok(None);
                };
                frames.push(&chunk.bytes);
            },
        }
    }

    /// Confirms what clients of the dialect confirm.
    pub(super) async fn confirm(&mut self, heard: &Heard) -> Result<()> {
        let Heard::Text { is_final: true, segment: Some(segment), .. } = *heard else { return Ok(()) };
        match self.transport {
            Transport::WebSocket | Transport::Quic => {
                self.say(&ClientMessage::Confirm { segment: Segment(segment) }).await
            }
            _ => Ok(()),
        }
    }

    /// Says all that a client of the dialect has to say to be let go, and listens until the server has closed; the last word
    /// that was heard.
    pub(super) async fn finish(mut self) -> Result<Option<u32>> {
        let mut word = None;
        let listening = async {
            while let Some(heard) = self.heard().await? {
                self.confirm(&heard).await?;
                if let Heard::Text { last, is_final: true, .. } = heard {
                    word = last.or(word);
                    if !self.transport.has_end() {
                        self.leave().await?;
                    }
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, listening).await.context("the server did not close in time")??;
        if let Wire::Quic { stream, .. } = &self.wire {
            stream.connection.close(0u32.into(), b"");
        }
        Ok(word)
    }

    async fn say(&mut self, message: &ClientMessage) -> Result<()> {
        match &mut self.wire {
            Wire::WebSocket(_) => self.text(serde_json::to_string(message)?).await,
            Wire::Quic { stream, .. } => {
                let mut frame = Vec::new();
                encode_message(message, &mut frame)?;
                Ok(stream.sending.write_all(&frame).await?)
            }
        }
    }

    async fn text(&mut self, text: String) -> Result<()> {
        match &mut self.wire {
            Wire::WebSocket(socket) => Ok(socket.send(Message::text(text)).await?),
            Wire::Quic { .. } => bail!("there are no texts on a stream"),
        }
    }
}
