//! One WebSocket connection: polled for reading and writing together, so that neither ever waits for the other.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use serde::Deserialize;
use starling_protocol::native::{ErrorBody, ErrorCode, ServerMessage};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::config::ApiKey;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Connecting = Pin<Box<dyn Future<Output = Result<Socket, Error>> + Send>>;

/// Largest message taken from a server: a final of the longest segment with every alternative is far below it.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// How long a server is given to take the closing handshake. It is a courtesy; nothing waits for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Something to be written.
pub(super) enum Outgoing {
    Text(String),
    Audio(Vec<u8>),
}

/// Something a connection did.
pub(super) enum LinkEvent {
    /// It takes the next message.
    Wrote,
    /// Something was heard that is no message.
    Heard,
    /// A text message.
    Text(String),
    /// It is gone.
    Lost(String),
}

pub(super) enum Link {
    None,
    Connecting {
        connecting: Connecting,
        hello: Option<Outgoing>,
    },
    Open(Box<Connection>),
    /// The server took no connection: what it said, if it said why, and how it is put in a word.
    Refused {
        said: Option<String>,
        cause: String,
    },
}

pub(super) struct Connection {
    socket: Socket,
    next: Option<Message>,
    ping_due: bool,
    unflushed: bool,
    /// Why nothing can be written any more. What the server said before that is still read.
    broken: Option<String>,
    closed: Option<String>,
}

impl Link {
    /// Begins to connect; `hello` is written first.
    pub(super) fn connect(url: String, api_key: Option<&ApiKey>, hello: Outgoing) -> Self {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
        // It was looked at when the client was made.
        let key = api_key.and_then(|key| HeaderValue::try_from(format!("Bearer {}", key.expose())).ok());
        let connecting = async move {
            let mut request = url.into_client_request()?;
            if let Some(mut key) = key {
                key.set_sensitive(true);
                request.headers_mut().insert(header::AUTHORIZATION, key);
            }
            // Small messages must not wait for each other's acknowledgement.
            let disable_nagle = true;
            let (socket, _) = connect_async_with_config(request, Some(config), disable_nagle).await?;
            Ok(socket)
        };
        Self::Connecting { connecting: Box::pin(connecting), hello: Some(hello) }
    }

    /// Whether [`Self::write`] may be called.
    pub(super) fn wants_message(&self) -> bool {
        matches!(self, Self::Open(connection) if connection.next.is_none() && connection.broken.is_none())
    }

    /// Hands in the next message.
    pub(super) fn write(&mut self, outgoing: Outgoing) {
        if let Self::Open(connection) = self {
            connection.next = Some(outgoing.into());
        }
    }

    /// Sends a ping with the next writes.
    pub(super) fn ping(&mut self) {
        if let Self::Open(connection) = self {
            connection.ping_due = true;
        }
    }

    /// Lets the connection go, with a closing handshake where it still works.
    pub(super) fn close(&mut self) {
        self.close_after(None);
    }

    /// As [`Self::close`], with a last message before it.
    pub(super) fn farewell(&mut self, last: Outgoing) {
        self.close_after(Some(last.into()));
    }

    fn close_after(&mut self, last: Option<Message>) {
        if let Self::Open(mut connection) = std::mem::replace(self, Self::None)
            && connection.broken.is_none()
            && connection.closed.is_none()
        {
            tokio::spawn(async move {
                let closing = async {
                    if let Some(last) = last {
                        let _ = connection.socket.send(last).await;
                    }
                    let _ = connection.socket.close(None).await;
                    // The server's own close frame, after which the socket can go without a reset.
                    while let Some(Ok(_)) = connection.socket.next().await {}
                };
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
            });
        }
    }

    /// The next thing the connection does; pends for ever when there is none. Nothing is lost when it is dropped.
    pub(super) async fn next(&mut self, reading: bool) -> LinkEvent {
        poll_fn(|cx| self.poll(reading, cx)).await
    }

    fn poll(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        match self {
            Self::None => Poll::Pending,
            Self::Connecting { connecting, hello } => match connecting.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => {
                    *self = Self::Refused { said: said_by(&error), cause: error.to_string() };
                    self.poll(reading, cx)
                }
                Poll::Ready(Ok(socket)) => {
                    let next = hello.take().map(Message::from);
                    *self = Self::Open(Box::new(Connection {
                        socket,
                        next,
                        ping_due: false,
                        unflushed: false,
                        broken: None,
                        closed: None,
                    }));
                    self.poll(reading, cx)
                }
            },
            Self::Open(connection) => connection.poll(reading, cx),
            Self::Refused { said, cause } => match said.take() {
                Some(text) => Poll::Ready(LinkEvent::Text(text)),
                None => Poll::Ready(LinkEvent::Lost(cause.clone())),
            },
        }
    }
}

/// The error that a server sent in place of a WebSocket, as it would have sent it over one.
fn said_by(error: &Error) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: ErrorBody,
    }
    let Error::Http(response) = error else { return None };
    let read = |bytes: &Vec<u8>| serde_json::from_slice::<Body>(bytes).ok();
    let error = match (response.body().as_ref().and_then(read), response.status().as_u16()) {
        (Some(Body { error }), _) => error,
        // A proxy's own answer, or one that came in two pieces.
        (None, 401) => ErrorBody::new(ErrorCode::Unauthorized, "the key is missing or not known there"),
        (None, 403) => ErrorBody::new(ErrorCode::Forbidden, "the key is not good for that"),
        (None, _) => return None,
    };
    serde_json::to_string(&ServerMessage::Error(error)).ok()
}

impl Connection {
    fn poll(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        if self.broken.is_none() {
            match self.poll_write(cx) {
                Ok(true) => return Poll::Ready(LinkEvent::Wrote),
                Ok(false) => {}
                Err(error) => self.broken = Some(error.to_string()),
            }
        }
        if reading && let Poll::Ready(event) = self.poll_read(cx) {
            return Poll::Ready(event);
        }
        match &self.broken {
            // Everything that had arrived was read.
            Some(cause) => Poll::Ready(LinkEvent::Lost(self.closed.take().unwrap_or_else(|| cause.clone()))),
            None => Poll::Pending,
        }
    }

    /// Writes what there is; true when the next message was taken.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, Error> {
        let mut socket = Pin::new(&mut self.socket);
        let mut wrote = false;
        if self.ping_due && socket.as_mut().poll_ready(cx)?.is_ready() {
            self.ping_due = false;
            self.unflushed = true;
            socket.as_mut().start_send(Message::Ping(Bytes::new()))?;
        }
        if self.next.is_some()
            && socket.as_mut().poll_ready(cx)?.is_ready()
            && let Some(message) = self.next.take()
        {
            self.unflushed = true;
            wrote = true;
            socket.as_mut().start_send(message)?;
        }
        if self.unflushed && socket.as_mut().poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(wrote)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<LinkEvent> {
        let Poll::Ready(message) = Pin::new(&mut self.socket).poll_next(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(match message {
            Some(Ok(Message::Text(text))) => LinkEvent::Text(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => {
                let said =
                    frame.map(|frame| format!("closed by the server: {} {}", frame.code, frame.reason));
                self.closed = Some(said.unwrap_or_else(|| "closed by the server".to_owned()));
                LinkEvent::Heard
            }
            Some(Ok(_)) => LinkEvent::Heard,
            Some(Err(error)) => LinkEvent::Lost(self.closed.take().unwrap_or_else(|| error.to_string())),
            None => {
                let cause = self.closed.take().or_else(|| self.broken.take());
                LinkEvent::Lost(cause.unwrap_or_else(|| "closed by the server".to_owned()))
            }
        })
    }
}

impl From<Outgoing> for Message {
    fn from(outgoing: Outgoing) -> Self {
        match outgoing {
            Outgoing::Text(text) => Self::text(text),
            Outgoing::Audio(audio) => Self::binary(audio),
        }
    }
}
