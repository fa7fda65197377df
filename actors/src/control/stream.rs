//! The byte stream under a link, which can be broken from outside.
//!
//! Owns: the signal that the stream has ended, or is to end. A writer that waits for a peer which doesn't read would else
//! wait for as long as TCP does, a quarter of an hour.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ractor_cluster::NetworkStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A connection whose other end TLS has authenticated, in the two halves that ractor_cluster takes.
pub(super) struct LinkStream {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    ended: CancellationToken,
}

impl LinkStream {
    pub(super) fn new<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(inner: TlsStream<S>) -> Self {
        let ended = CancellationToken::new();
        let (reader, writer) = tokio::io::split(inner);
        Self {
            reader: Box::new(Half::new(reader, &ended)),
            writer: Box::new(Half::new(writer, &ended)),
            ended,
        }
    }

    /// Set when the other side has closed the stream or it broke. Whoever sets it breaks the stream.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// In the form that ractor_cluster takes.
    pub(super) fn into_network_stream(self, label: String) -> NetworkStream {
        NetworkStream::External {
            peer_label: Some(label),
            local_label: None,
            reader: self.reader,
            writer: self.writer,
        }
    }
}

struct Half<T> {
    inner: T,
    ended: CancellationToken,
    wakes: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<T> Half<T> {
    fn new(inner: T, ended: &CancellationToken) -> Self {
        Self { inner, ended: ended.clone(), wakes: Box::pin(ended.clone().cancelled_owned()) }
    }

    /// Fails when the stream has ended, and else sees to it that the task is woken when it does.
    fn alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.ended.is_cancelled() || self.wakes.as_mut().poll(context).is_ready() {
            // The kind by which ractor_cluster knows an ordinary end.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn note<V>(&self, result: io::Result<V>) -> Poll<io::Result<V>> {
        if result.is_err() {
            self.ended.cancel();
        }
        Poll::Ready(result)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Half<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive(context)?;
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut this.inner).poll_read(context, buffer));
        if buffer.filled().len() == before && buffer.remaining() > 0 {
            this.ended.cancel();
        }
        this.note(result)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Half<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive(context)?;
        let result = ready!(Pin::new(&mut this.inner).poll_write(context, bytes));
        this.note(result)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive(context)?;
        let result = ready!(Pin::new(&mut this.inner).poll_flush(context));
        this.note(result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
