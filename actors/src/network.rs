//! What the shells that own sockets need of a network.
//!
//! Owns: the two traits, and what tokio's sockets make of them. Must never: hold anything up, or know what is sent.
//!
//! In a node they are tokio's own sockets, and the compiler sees through the traits; nothing is boxed for them. A simulated
//! network is the other one that there is.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// A bound socket for datagrams, as [`MembershipHandle`](crate::MembershipHandle) uses one.
pub trait Datagrams: Send + Sync + 'static {
    /// Waits until it can be sent by.
    fn writable(&self) -> impl Future<Output = io::Result<()>> + Send;

    /// Sends one, or loses it when there is no room.
    ///
    /// # Errors
    /// It was not sent.
    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize>;

    /// The next one: how long it is, and where it came from. What is longer than the buffer is cut off.
    fn recv_from(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<(usize, SocketAddr)>> + Send;
}

/// Byte streams to and from peers, as [`ControlHandle`](crate::control::ControlHandle) uses them: a bound listener, and
/// the way to dial.
pub trait Streams: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    /// The next one that came.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    /// Makes one. Dropping the future gives it up.
    fn connect(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Has a stream send at once what it is given, rather than wait for more.
    ///
    /// # Errors
    /// It is broken already.
    fn send_at_once(stream: &Self::Stream) -> io::Result<()>;
}

impl Datagrams for UdpSocket {
    async fn writable(&self) -> io::Result<()> {
        Self::writable(self).await
    }

    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        Self::try_send_to(self, bytes, to)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        Self::recv_from(self, buffer).await
    }
}

impl Streams for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }

    fn send_at_once(stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)
    }
}
