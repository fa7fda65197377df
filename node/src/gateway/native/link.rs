//! What the native protocol is spoken over: a WebSocket's messages, or frames on a stream of QUIC's.
//!
//! Owns: the translation between the protocol's messages and a transport's. Must never: know of a session.

use bytes::Bytes;
use starling_protocol::native::stream::{Frame, FrameError, StreamReader, encode_message, read_client};
use starling_protocol::native::{ClientMessage, Close, ErrorBody, ServerMessage, parse_client};
use tokio::time::{Duration, timeout};

use crate::gateway::link::{self, Received, SendError, close};
use crate::gateway::quic::{ReceivingHalf, SendingHalf};

/// Read at once: two 100 ms messages at 16 kHz and their heads, as from a WebSocket.
const READ_BYTES: usize = 8 * 1024;

/// What a client said, or how its side ended.
#[derive(Debug)]
pub(super) enum Heard {
    Message(ClientMessage),
    Audio(Bytes),
    /// No message of this protocol, and what is wrong with it.
    Nonsense(ErrorBody),
    /// It says nothing more, and listens on. A WebSocket has no such thing.
    Finished,
    /// It is gone.
    Gone,
    /// What came is no message of the transport.
    Broken(Close, &'static str),
}

/// The reading half.
pub(super) enum Reader {
    WebSocket(link::Reader),
    Stream { half: ReceivingHalf, frames: StreamReader },
}

/// The writing half.
pub(super) struct Writer {
    transport: Outgoing,
    /// How it was closed.
    closed: Option<Close>,
}

enum Outgoing {
    WebSocket(link::Writer),
    Stream { half: SendingHalf, write_timeout: Duration, buffer: Vec<u8> },
}

impl Reader {
    pub(super) const fn of_stream(half: ReceivingHalf) -> Self {
        Self::Stream { half, frames: StreamReader::of_client() }
    }

    /// What is said next.
    pub(super) async fn next(&mut self) -> Heard {
        match self {
            Self::WebSocket(reader) => of_websocket(reader).await,
            Self::Stream { half, frames } => of_stream(half, frames).await,
        }
    }

    /// Takes no more. A WebSocket was told by its close frame.
    pub(super) fn stop(&mut self, why: Close) {
        if let Self::Stream { half, .. } = self {
            half.stop(why);
        }
    }
}

async fn of_websocket(reader: &mut link::Reader) -> Heard {
    loop {
        return match reader.next().await {
            Received::Text(text) => parsed(parse_client(&text)),
            Received::Binary(samples) => Heard::Audio(samples),
            // Of no meaning, and allowed at any time (RFC 6455, section 5.5.3).
            Received::Pong(_) => continue,
            Received::Broken(close::TOO_LONG, reason) => Heard::Broken(Close::TooLong, reason),
            Received::Broken(close::NOT_TEXT, reason) => Heard::Broken(Close::NotText, reason),
            Received::Broken(_, reason) => Heard::Broken(Close::Framing, reason),
            Received::Closed | Received::Silent => Heard::Gone,
        };
    }
}

async fn of_stream(half: &mut ReceivingHalf, frames: &mut StreamReader) -> Heard {
    loop {
        match frames.next() {
            Ok(Some(Frame::Message(body))) => return parsed(read_client(body)),
            Ok(Some(Frame::Audio(samples))) => return Heard::Audio(Bytes::copy_from_slice(samples)),
            Ok(None) => {}
            Err(error) => {
                let close = match error {
                    FrameError::TooLong { .. } => Close::TooLong,
                    FrameError::Empty | FrameError::Kind(_) => Close::Framing,
                };
                return Heard::Broken(close, close.reason());
            }
        }
        // That nothing comes is for the connection to notice, which has beats of its own.
        match half.quic().read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => frames.push(&chunk.bytes),
            Ok(None) if !frames.is_within_frame() => return Heard::Finished,
            Ok(None) | Err(_) => return Heard::Gone,
        }
    }
}

fn parsed(message: Result<ClientMessage, starling_protocol::native::ParseError>) -> Heard {
    match message {
        Ok(message) => Heard::Message(message),
        Err(error) => Heard::Nonsense(error.0),
    }
}

impl Writer {
    pub(super) const fn of_websocket(writer: link::Writer) -> Self {
        Self { transport: Outgoing::WebSocket(writer), closed: None }
    }

    pub(super) const fn of_stream(half: SendingHalf, write_timeout: Duration) -> Self {
        Self { transport: Outgoing::Stream { half, write_timeout, buffer: Vec::new() }, closed: None }
    }

    pub(super) async fn say(&mut self, message: &ServerMessage) -> Result<(), SendError> {
        match &mut self.transport {
            Outgoing::WebSocket(writer) => writer.text(json(message)).await,
            Outgoing::Stream { half, write_timeout, buffer } => {
                buffer.clear();
                if let Err(error) = encode_message(message, buffer) {
                    tracing::error!(%error, "message could not be encoded");
                    return Err(SendError::Gone);
                }
                match timeout(*write_timeout, half.quic().write_all(buffer)).await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(SendError::Gone),
                    Err(_) => Err(SendError::Slow),
                }
            }
        }
    }

    /// Asks a silent client for a sign of life, where the transport does not by itself.
    pub(super) async fn ping(&mut self) -> Result<(), SendError> {
        match &mut self.transport {
            Outgoing::WebSocket(writer) => writer.ping().await,
            Outgoing::Stream { .. } => Ok(()),
        }
    }

    /// Says goodbye, after a message that says why where there is one.
    pub(super) async fn close(&mut self, why: Close, reason: &str) {
        self.closed = Some(why);
        match &mut self.transport {
            Outgoing::WebSocket(writer) => writer.close(why.websocket(), reason).await,
            Outgoing::Stream { half, .. } => match why {
                // What was said is to arrive, and says why.
                Close::Done | Close::Error(_) => half.finish(),
                Close::TooLong | Close::NotText | Close::Framing => half.reset(why),
            },
        }
    }

    /// Gives up a connection that does not take what is written.
    pub(super) fn abandon(&mut self, why: Close) {
        self.closed = Some(why);
        if let Outgoing::Stream { half, .. } = &mut self.transport {
            half.reset(why);
        }
    }

    /// How it was closed, if it was.
    pub(super) const fn closed(&self) -> Option<Close> {
        self.closed
    }
}

fn json(message: &ServerMessage) -> String {
    // Only maps with other keys than texts fail to encode, and no message has one.
    serde_json::to_string(message).unwrap_or_else(|error| {
        tracing::error!(%error, "message could not be encoded");
        String::from(r#"{"type":"error","code":"internal","message":"a message could not be encoded"}"#)
    })
}
