//! One connection: polled for reading and writing together, so that neither ever waits for the other.
//!
//! Owns: what all transports have in common. Must never: let the session know which one it has.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use starling_protocol::native::{ApiKey, ClientMessage, Hello, ServerMessage};

use crate::target::Target;
use crate::tls::Trust;

#[cfg(feature = "quic")]
mod quic;
mod websocket;

pub(crate) use websocket::said_by;

type Connecting = Pin<Box<dyn Future<Output = Result<Connection, Failure>> + Send>>;

/// Largest message taken from a server: a final of the longest segment with every alternative is far below it.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// How long a server is given to take the closing handshake. It is a courtesy; nothing waits for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Something to be written.
pub(super) enum Outgoing {
    Message(ClientMessage),
    Audio(Vec<u8>),
}

/// Something a connection did.
pub(super) enum LinkEvent {
    /// It takes the next message.
    Wrote,
    /// Something was heard that is no message.
    Heard,
    /// The server said this.
    Message(Box<ServerMessage>),
    /// It is gone.
    Lost(String),
}

/// No connection came of an attempt.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the server said, if it said why.
    said: Option<Box<ServerMessage>>,
    /// In a word.
    cause: String,
}

/// What every attempt needs beside its server.
pub(super) struct Dialer {
    pub(super) api_key: Option<ApiKey>,
    pub(super) trust: Option<Trust>,
    /// How long nothing may be heard on a connection.
    #[cfg_attr(not(feature = "quic"), expect(dead_code, reason = "a WebSocket is pinged"))]
    pub(super) liveness: Duration,
}

pub(super) enum Link {
    None,
    Connecting(Connecting),
    Open(Connection),
    /// The server took no connection.
    Refused(Failure),
}

/// An open connection.
pub(super) enum Connection {
    WebSocket(Box<websocket::Connection>),
    #[cfg(feature = "quic")]
    Quic(Box<quic::Connection>),
}

impl Link {
    /// Begins to connect; `hello` is written first.
    pub(super) fn connect(target: Target, hello: Hello, dialer: &Dialer) -> Self {
        Self::Connecting(match target {
            Target::WebSocket { url, place, tls } => {
                let trust = dialer.trust.clone().filter(|_| tls);
                let connecting = websocket::connect(url, place, trust, dialer.api_key.clone(), hello);
                Box::pin(async move { Ok(Connection::WebSocket(Box::new(connecting.await?))) })
            }
            #[cfg(feature = "quic")]
            Target::Quic(place) => {
                let hello = Hello { api_key: dialer.api_key.clone(), ..hello };
                let connecting = quic::connect(place, dialer.trust.clone(), hello, dialer.liveness);
                Box::pin(async move { Ok(Connection::Quic(Box::new(connecting.await?))) })
            }
        })
    }

    /// An attempt that can't be made.
    pub(super) const fn refused(cause: String) -> Self {
        Self::Refused(Failure { said: None, cause })
    }

    /// Whether the next message would be taken.
    pub(super) const fn wants_message(&self) -> bool {
        match self {
            Self::Open(Connection::WebSocket(connection)) => connection.wants_message(),
            #[cfg(feature = "quic")]
            Self::Open(Connection::Quic(connection)) => connection.wants_message(),
            _ => false,
        }
    }

    /// Takes a message, if one is wanted.
    pub(super) fn write(&mut self, outgoing: Outgoing) {
        match self {
            Self::Open(Connection::WebSocket(connection)) => connection.write(outgoing),
            #[cfg(feature = "quic")]
            Self::Open(Connection::Quic(connection)) => connection.write(&outgoing),
            _ => {}
        }
    }

    /// Has the server give a sign of life.
    pub(super) const fn ping(&mut self) {
        match self {
            Self::Open(Connection::WebSocket(connection)) => connection.ping(),
            #[cfg(feature = "quic")]
            Self::Open(Connection::Quic(connection)) => connection.ping(),
            _ => {}
        }
    }

    /// Drops the connection; one that still works is closed in order meanwhile.
    pub(super) fn close(&mut self) {
        self.close_after(None);
    }

    /// As [`Self::close`], with a last message before it.
    pub(super) fn farewell(&mut self, last: Outgoing) {
        self.close_after(Some(last));
    }

    fn close_after(&mut self, last: Option<Outgoing>) {
        let closing: Pin<Box<dyn Future<Output = ()> + Send>> = match std::mem::replace(self, Self::None) {
            Self::Open(Connection::WebSocket(connection)) if connection.works() => {
                Box::pin(connection.close(last))
            }
            #[cfg(feature = "quic")]
            Self::Open(Connection::Quic(connection)) if connection.works() => {
                Box::pin(connection.close(last))
            }
            _ => return,
        };
        tokio::spawn(tokio::time::timeout(CLOSE_TIMEOUT, closing));
    }

    /// The next thing the connection does; pends for ever when there is none. Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self, reading: bool) -> LinkEvent {
        poll_fn(|cx| self.poll(reading, cx)).await
    }

    fn poll(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self {
            Self::None => Poll::Pending,
            Self::Connecting(connecting) => match connecting.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(failure)) => {
                    *self = Self::Refused(failure);
                    self.poll(reading, cx)
                }
                Poll::Ready(Ok(connection)) => {
                    *self = Self::Open(connection);
                    self.poll(reading, cx)
                }
            },
            Self::Open(Connection::WebSocket(connection)) => connection.poll(reading, cx),
            #[cfg(feature = "quic")]
            Self::Open(Connection::Quic(connection)) => connection.poll(reading, cx),
            Self::Refused(failure) => match failure.said.take() {
                Some(said) => Poll::Ready(LinkEvent::Message(said)),
                None => Poll::Ready(LinkEvent::Lost(failure.cause.clone())),
            },
        }
    }
}

/// What was read, over a connection that others can read or not.
fn heard(message: Result<ServerMessage, String>, in_clear: bool) -> LinkEvent {
    match message {
        Ok(mut message) => {
            // The nodes named there speak in clear, which whoever asked for TLS does not want.
            if let (ServerMessage::View { resume_at, .. }, false) = (&mut message, in_clear) {
                resume_at.clear();
            }
            LinkEvent::Message(Box::new(message))
        }
        Err(error) => {
            tracing::warn!(error, "a message of the server is not understood and is passed over");
            LinkEvent::Heard
        }
    }
}
