//! Listening: accepted connections are counted, bounded, served by hyper or as they are, and closed so that a last answer
//! arrives.
//!
//! Owns: sockets up to the request. Must never: know what is served on them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_layer::Layer;

mod places;

pub use places::{Free, Place, Places};

/// What the head of a request may have: far more than clients send, and what is held of each that sends without end.
const MAX_HEAD_BYTES: usize = 32 * 1024;

/// When a client of a crowded address may try again: connections come and go.
const CROWDED_RETRY_MS: u64 = 1_000;

/// How long a connection that was told its last answer is read on, so that the answer is not lost to a reset.
const LINGER: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted, and as many as Linux lets by default (`net.core.somaxconn`). When a node is lost all of its
/// callers come to another within a second; one that finds no room tries again a second later.
const BACKLOG: u32 = 4_096;

/// How long to wait when the system has no descriptors left: some are freed meanwhile.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// A connection, be it over TLS or not.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for S {}

/// Whether a request came over TLS; among its extensions.
#[derive(Debug, Clone, Copy)]
pub struct Encrypted(pub bool);

/// A protocol over bare TCP.
#[async_trait]
pub trait Wired: Send + Sync + 'static {
    /// Serves one connection to its end.
    async fn serve(&self, stream: Box<dyn Duplex>, peer: SocketAddr);

    /// What a connection is told that is not served: why, as far as the protocol has a word for it.
    fn refusal(&self, error: &ErrorBody) -> Vec<u8>;
}

/// How a request to a path is answered that is not served.
pub type Refusal = fn(&str, &ErrorBody) -> Response;

/// What is spoken on a listener.
#[derive(Clone)]
pub enum Service {
    /// HTTP, and what it is upgraded to; and how whoever is not served is told.
    Http(Router, Refusal),
    /// Something else.
    Wired(Arc<dyn Wired>),
}

impl From<Router> for Service {
    fn from(router: Router) -> Self {
        Self::Http(router, plainly)
    }
}

/// In no protocol's own shape.
fn plainly(_path: &str, error: &ErrorBody) -> Response {
    let retry_after = error.retry_after_ms.unwrap_or_default().div_ceil(1_000).to_string();
    let body = Json(serde_json::json!({ "error": error }));
    (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, retry_after)], body).into_response()
}

/// What a listener needs beside its service.
#[derive(Clone)]
pub struct Serving {
    /// Shared by all listeners: a place for each connection.
    pub places: Arc<Places>,
    /// How long a request's head may take.
    pub head_timeout: Duration,
    /// How long what was sent to a peer may go without any sign that it came. The system looks after that, for peers that are
    /// never asked for a sign of life; it ends connections whose peer takes nothing, too.
    pub peer_timeout: Duration,
    /// Cancelled when no further connection is to be accepted.
    pub accepting: CancellationToken,
    /// Cancelled when open connections are to be dropped.
    pub serving: CancellationToken,
    /// The connections.
    pub connections: TaskTracker,
}

/// Accepts connections until told to stop; with `tls` each begins with its handshake.
pub async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: impl Into<Service>,
    serving: Serving,
) {
    let service = service.into();
    loop {
        let accepted = tokio::select! {
            () = serving.accepting.cancelled() => return,
            accepted = next(&listener, &serving) => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = begin(stream, peer, tls.clone(), service.clone(), serving.clone());
                serving.connections.spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
            }
        }
    }
}

/// Listens on an address.
///
/// # Errors
///
/// It is another's, or none of this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A node that is started again may have its port at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn next(listener: &TcpListener, serving: &Serving) -> io::Result<(Lingering, SocketAddr)> {
    let free = serving.places.next().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Partials are small and each is to be seen at once.
    stream.set_nodelay(true)?;
    let patience = u32::try_from(serving.peer_timeout.as_millis()).unwrap_or(u32::MAX);
    // Without it a dead peer is noticed too, only later.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, patience);
    Ok((Lingering::new(stream, free.taken_by(peer)), peer))
}

async fn begin(
    stream: Lingering,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    service: Service,
    serving: Serving,
) {
    let service = match service {
        service if !stream.is_crowded() => service,
        service => refused(service, crowded(peer, serving.places.per_address())),
    };
    let Some(tls) = tls else { return serve(stream, (peer, Encrypted(false)), service, serving).await };
    let handshake = tokio::time::timeout(serving.head_timeout, tls.accept(stream));
    let greeted = tokio::select! {
        greeted = handshake => greeted,
        () = serving.serving.cancelled() => return,
    };
    match greeted {
        Ok(Ok(stream)) => serve(stream, (peer, Encrypted(true)), service, serving).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS came of a connection"),
        Err(_) => tracing::debug!(%peer, "a handshake took too long"),
    }
}

async fn serve(
    stream: impl Duplex,
    (peer, encrypted): (SocketAddr, Encrypted),
    service: Service,
    serving: Serving,
) {
    let router = match service {
        Service::Http(router, _) => router,
        Service::Wired(wired) => {
            tokio::select! {
                () = wired.serve(Box::new(stream), peer) => {}
                () = serving.serving.cancelled() => {}
            }
            return;
        }
    };
    // Around the router and not around each of its routes, of which a silent connection would hold copies.
    let router = Extension(encrypted).layer(Extension(ConnectInfo(peer)).layer(router));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(serving.head_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        // A client may have nothing more to say and still be waiting for its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    tokio::select! {
        result = connection => if let Err(error) = result {
            tracing::debug!(%peer, %error, "connection ended");
        },
        () = serving.serving.cancelled() => {}
    }
}

/// Why an address that has too many connections is not served.
fn crowded(peer: SocketAddr, most: u32) -> ErrorBody {
    let message = format!(
        "{} has {most} connections here, which is as many as one address may have (listen.max_connections_per_address)",
        peer.ip().to_canonical()
    );
    ErrorBody { retry_after_ms: Some(CROWDED_RETRY_MS), ..ErrorBody::new(ErrorCode::OverQuota, message) }
}

/// A service that serves nobody and tells everybody why, as its own clients read it.
fn refused(service: Service, error: ErrorBody) -> Service {
    match service {
        Service::Http(_, refusal) => {
            let answer = move |uri: Uri| {
                let mut response = refusal(uri.path(), &error);
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                std::future::ready(response)
            };
            Service::Http(Router::new().fallback(answer), refusal)
        }
        Service::Wired(wired) => Service::Wired(Arc::new(Told(wired.refusal(&error)))),
    }
}

/// A protocol of which a connection gets its last words alone.
struct Told(Vec<u8>);

#[async_trait]
impl Wired for Told {
    async fn serve(&self, mut stream: Box<dyn Duplex>, peer: SocketAddr) {
        tracing::debug!(%peer, "a connection is not served");
        let told = async {
            stream.write_all(&self.0).await?;
            stream.shutdown().await
        };
        // Whoever does not read has had its time.
        let _ = tokio::time::timeout(LINGER, told).await;
    }

    fn refusal(&self, _error: &ErrorBody) -> Vec<u8> {
        self.0.clone()
    }
}

/// A stream that is read on for a while after it was closed. The system answers data that nobody read with a reset, and a
/// reset takes the last answer with it: the very answer that says why the data was not read.
struct Lingering {
    stream: Option<TcpStream>,
    place: Option<Place>,
}

impl Lingering {
    const fn new(stream: TcpStream, place: Place) -> Self {
        Self { stream: Some(stream), place: Some(place) }
    }

    fn is_crowded(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_crowded)
    }

    fn inner(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let (Some(mut stream), Some(place)) = (self.stream.take(), self.place.take()) else {
            return;
        };
        // Outside the runtime there is nothing left to wait with.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let drained = async {
                stream.shutdown().await?;
                let mut scrap = [0; 8 * 1024];
                while stream.read(&mut scrap).await? > 0 {}
                io::Result::Ok(())
            };
            // Whether or not the peer closed: it has had its time.
            let _ = tokio::time::timeout(LINGER, drained).await;
            drop(place);
        });
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.inner()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_looks_after_peers_that_are_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = Serving {
            places: Places::new(1, 0),
            head_timeout: Duration::from_secs(10),
            peer_timeout: Duration::from_secs(60),
            accepting: CancellationToken::new(),
            serving: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        let (_peer, accepted) = tokio::join!(TcpStream::connect(address), next(&listener, &serving));
        let mut stream = accepted.expect("accepted").0;
        let stream = stream.inner().expect("is open");
        let patience = rustix::net::sockopt::tcp_user_timeout(&*stream).expect("can be asked");
        assert_eq!(patience, 60_000);
    }
}
