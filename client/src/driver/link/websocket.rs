//! One WebSocket, in clear or over TLS.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use starling_protocol::native::{ApiKey, ClientMessage, ErrorBody, ErrorCode, Hello, ServerMessage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{Failure, LinkEvent, MAX_MESSAGE_BYTES, Outgoing, heard};
use crate::target::Place;
use crate::tls::Trust;

/// A stream of bytes, encrypted or not.
trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytestream for S {}

pub(in crate::driver) struct Connection {
    socket: WebSocketStream<Box<dyn Bytestream>>,
    in_clear: bool,
    next: Option<Message>,
    ping_due: bool,
    unflushed: bool,
    /// Why nothing can be written any more. What the server said before that is still read.
    broken: Option<String>,
    closed: Option<String>,
}

/// Connects; over TLS where there is somebody to trust.
pub(super) async fn connect(
    url: String,
    place: Place,
    trust: Option<Trust>,
    api_key: Option<ApiKey>,
    hello: Hello,
) -> Result<Connection, Failure> {
    let in_clear = trust.is_none();
    let connected = async {
        let mut request = url.into_client_request()?;
        // It was looked at when the client was made.
        let key = api_key.and_then(|key| HeaderValue::try_from(format!("Bearer {}", key.expose())).ok());
        if let Some(mut key) = key {
            key.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, key);
        }
        let stream = byte_stream(&place, trust).await?;
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
        client_async_with_config(request, stream, Some(config)).await
    };
    match connected.await {
        Ok((socket, _)) => Ok(Connection {
            socket,
            in_clear,
            next: Some(message(Outgoing::Message(ClientMessage::Hello(Box::new(hello))))),
            ping_due: false,
            unflushed: false,
            broken: None,
            closed: None,
        }),
        Err(error) => Err(Failure { said: said_by(&error), cause: error.to_string() }),
    }
}

async fn byte_stream(place: &Place, trust: Option<Trust>) -> io::Result<Box<dyn Bytestream>> {
    let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    // Each tenth of a second of audio is to leave at once.
    stream.set_nodelay(true)?;
    let Some(trust) = trust else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(place.host.clone()).map_err(io::Error::other)?;
    let config = trust.for_http().map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// The error that a server sent in place of a WebSocket, as it would have sent it over one.
pub(crate) fn said_by(error: &Error) -> Option<Box<ServerMessage>> {
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
    Some(Box::new(ServerMessage::Error(error)))
}

fn message(outgoing: Outgoing) -> Message {
    match outgoing {
        // Serializing these types cannot fail: their maps have string keys and no writer is involved.
        Outgoing::Message(message) => Message::text(serde_json::to_string(&message).unwrap_or_default()),
        Outgoing::Audio(audio) => Message::binary(audio),
    }
}

impl Connection {
    pub(super) const fn wants_message(&self) -> bool {
        self.next.is_none() && self.broken.is_none()
    }

    pub(super) fn write(&mut self, outgoing: Outgoing) {
        self.next = Some(message(outgoing));
    }

    pub(super) const fn ping(&mut self) {
        self.ping_due = true;
    }

    pub(super) const fn works(&self) -> bool {
        self.broken.is_none() && self.closed.is_none()
    }

    pub(super) async fn close(mut self: Box<Self>, last: Option<Outgoing>) {
        if let Some(last) = last {
            let _ = self.socket.send(message(last)).await;
        }
        let _ = self.socket.close(None).await;
        // The server's own close frame, after which the socket can go without a reset.
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    pub(super) fn poll(&mut self, reading: bool, cx: &mut Context<'_>) -> Poll<LinkEvent> {
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
            Some(Ok(Message::Text(text))) => {
                heard(serde_json::from_str(&text).map_err(|error| error.to_string()), self.in_clear)
            }
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
