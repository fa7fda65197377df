//! One WebSocket with the bounds that every gateway needs: a peer that says nothing, one that doesn't read, and messages
//! that are too long end it.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use starling_protocol::native::{Close, ErrorCode};
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite;

use crate::config::GatewaySettings;

/// Codes of RFC 6455, section 7.4.1, and of IANA's registry of them.
pub(super) mod close {
    pub(crate) const NORMAL: u16 = 1000;
    pub(crate) const PROTOCOL: u16 = 1002;
    pub(crate) const NOT_TEXT: u16 = 1007;
    pub(crate) const POLICY: u16 = 1008;
    pub(crate) const TOO_LONG: u16 = 1009;
    pub(crate) const INTERNAL: u16 = 1011;
    pub(crate) const RESTARTING: u16 = 1012;
}

/// A close frame carries 123 bytes of text at most (RFC 6455, section 5.5).
const MAX_REASON_BYTES: usize = 123;

/// How long the answer to a peer's close frame may take to be written: it is a few bytes, and only a peer that has long stopped
/// reading has no room for them.
const CLOSE_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Which code a connection is closed with after an error.
pub(super) const fn close_code(code: ErrorCode) -> u16 {
    Close::Error(code).websocket()
}

/// A message of a peer, or how its side ended.
#[derive(Debug, PartialEq)]
pub(super) enum Received {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// The answer to a ping that had something in it: what was sent before it has been read.
    Pong(Bytes),
    /// A close frame, or the end of the stream.
    Closed,
    /// What came was no WebSocket message that is taken; to be closed with this code and reason.
    Broken(u16, &'static str),
    /// Nothing at all for the peer timeout, not even an answer to a ping.
    Silent,
}

/// A message could not be written in time, or at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum SendError {
    #[error("the peer does not read")]
    Slow,
    #[error("the peer is gone")]
    Gone,
}

/// The reading half.
pub(super) struct Reader {
    stream: SplitStream<WebSocket>,
    peer_timeout: Duration,
    /// What a peer is told whose message is too long.
    too_long: &'static str,
}

/// The writing half.
pub(super) struct Writer {
    sink: SplitSink<WebSocket, Message>,
    write_timeout: Duration,
}

pub(super) fn split(socket: WebSocket, settings: &GatewaySettings) -> (Reader, Writer) {
    let (sink, stream) = socket.split();
    let reader =
        Reader { stream, peer_timeout: settings.peer_timeout, too_long: "a message may have 1 MiB at most" };
    let writer = Writer { sink, write_timeout: settings.write_timeout };
    (reader, writer)
}

impl Reader {
    /// The next message. Pings and pongs are signs of life and nothing else.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            let Ok(received) = timeout(self.peer_timeout, self.take()).await else {
                return Received::Silent;
            };
            if let Some(received) = received {
                return received;
            }
        }
    }

    async fn next_until(
        &mut self,
        deadline: Instant,
    ) -> Result<Option<Received>, tokio::time::error::Elapsed> {
        timeout_at(deadline, self.take()).await
    }

    async fn take(&mut self) -> Option<Received> {
        let next = self.stream.next().await;
        if matches!(next, Some(Ok(Message::Close(_)))) {
            // The answer stands ready and is written by reading on; after it the stream is over. Without it the peer would take
            // its own goodbye for a connection that broke (RFC 6455, section 5.5.1).
            let _ = timeout(CLOSE_ANSWER_TIMEOUT, self.stream.next()).await;
        }
        classify(next, self.too_long)
    }
}

fn classify(next: Option<Result<Message, axum::Error>>, too_long: &'static str) -> Option<Received> {
    match next {
        Some(Ok(Message::Text(text))) => Some(Received::Text(text)),
        Some(Ok(Message::Binary(bytes))) => Some(Received::Binary(bytes)),
        Some(Ok(Message::Pong(payload))) if !payload.is_empty() => Some(Received::Pong(payload)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => None,
        Some(Ok(Message::Close(_))) | None => Some(Received::Closed),
        Some(Err(error)) => Some(broken(error, too_long)),
    }
}

fn broken(error: axum::Error, too_long: &'static str) -> Received {
    use tungstenite::Error;
    use tungstenite::error::ProtocolError;
    match error.into_inner().downcast::<Error>().map(|error| *error) {
        Ok(Error::Capacity(_)) => Received::Broken(close::TOO_LONG, too_long),
        Ok(Error::Utf8(_)) => Received::Broken(close::NOT_TEXT, "a text message is not UTF-8"),
        Ok(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => Received::Closed,
        Ok(Error::Protocol(_)) => Received::Broken(close::PROTOCOL, "not the WebSocket protocol"),
        _ => Received::Closed,
    }
}

impl Writer {
    pub(super) async fn text(&mut self, text: impl Into<Utf8Bytes>) -> Result<(), SendError> {
        self.send(Message::Text(text.into())).await
    }

    pub(super) async fn ping(&mut self) -> Result<(), SendError> {
        self.ping_with(Bytes::new()).await
    }

    /// A ping whose answer is told apart from others.
    pub(super) async fn ping_with(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.send(Message::Ping(payload.into())).await
    }

    /// Says goodbye. A peer that can't be told is gone anyway.
    pub(super) async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code, reason: Utf8Bytes::from(shortened(reason)) };
        let _ = self.send(Message::Close(Some(frame))).await;
    }

    async fn send(&mut self, message: Message) -> Result<(), SendError> {
        match timeout(self.write_timeout, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::Gone),
            Err(_) => Err(SendError::Slow),
        }
    }
}

/// Both halves, for a gateway that reads and writes in turn.
pub(super) struct Link {
    reader: Reader,
    writer: Writer,
    ping_interval: Duration,
    heard: Instant,
    pinged: Instant,
}

impl Link {
    pub(super) fn new(socket: WebSocket, settings: &GatewaySettings) -> Self {
        let (reader, writer) = split(socket, settings);
        let now = Instant::now();
        Self { reader, writer, ping_interval: settings.ping_interval, heard: now, pinged: now }
    }

    /// The next message, with pings to a peer that is silent. May be cancelled without losing any.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            let gone = self.heard + self.reader.peer_timeout;
            let ping = self.heard.max(self.pinged) + self.ping_interval;
            match self.reader.next_until(ping.min(gone)).await {
                Ok(received) => {
                    self.heard = Instant::now();
                    if let Some(received) = received {
                        return received;
                    }
                }
                Err(_) if Instant::now() >= gone => return Received::Silent,
                Err(_) => {
                    self.pinged = Instant::now();
                    if self.writer.ping().await.is_err() {
                        return Received::Closed;
                    }
                }
            }
        }
    }

    /// For a route that takes longer messages than others: what a peer is told whose message is longer still.
    pub(super) fn taking_more(mut self, too_long: &'static str) -> Self {
        self.reader.too_long = too_long;
        self
    }

    /// For a gateway that goes on to read and write side by side.
    pub(super) fn into_halves(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// To be said after a long time without reading, in which nothing could be heard.
    pub(super) fn listening(&mut self) {
        self.heard = Instant::now();
    }

    pub(super) const fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }
}

fn shortened(reason: &str) -> &str {
    let end =
        (0..=reason.len().min(MAX_REASON_BYTES)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "모델".repeat(40);
        let cut = shortened(&reason);
        assert!(cut.len() <= MAX_REASON_BYTES && cut.len() > MAX_REASON_BYTES - 3);
        assert_eq!(shortened("short"), "short");
    }
}
