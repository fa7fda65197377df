//! The sockets that nodes are given: turmoil's, with what happens to datagrams on their way.
//!
//! Owns: which datagrams are lost and which come twice, and what was sent lately, for a stranger to send again. Must never:
//! lose a part of a byte stream: there is nobody here who would send it again.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use starling_actors::{Datagrams, Streams};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream, UdpSocket};

use super::oracle::{Oracle, RunId};
use super::ways::HostId;
use crate::rng::Rng;

/// Datagrams that are kept for a stranger: those of some ten seconds.
const KEPT: usize = 2_000;

/// The air that all datagrams of a run go through.
#[derive(Clone)]
pub struct Air(Arc<Mutex<Inner>>);

struct Inner {
    rng: Rng,
    hosts: Vec<IpAddr>,
    /// Of a hundred, everywhere.
    loss: u64,
    /// Of a hundred, from and to a host; for each fault.
    lossy: Vec<(HostId, u64)>,
    /// So many of those that were sent last are kept, for a stranger.
    kept: usize,
    sent: VecDeque<Sent>,
}

/// A datagram that was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Whereto.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

impl Air {
    /// One in which so many of a hundred are lost. The last host is a stranger, who may send again what was sent lately.
    #[must_use]
    pub fn with_a_stranger(rng: Rng, hosts: Vec<IpAddr>, loss: u64) -> Self {
        Self::keeping(KEPT, rng, hosts, loss)
    }

    /// One among hosts that know each other.
    #[must_use]
    pub fn new(rng: Rng, hosts: Vec<IpAddr>, loss: u64) -> Self {
        Self::keeping(0, rng, hosts, loss)
    }

    fn keeping(kept: usize, rng: Rng, hosts: Vec<IpAddr>, loss: u64) -> Self {
        let (lossy, sent) = (Vec::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(Inner { rng, hosts, loss, lossy, kept, sent })))
    }

    /// From now on, or no longer, so many of a hundred that a host sends or is sent are lost.
    pub fn lossy(&self, host: HostId, loss: u64, begins: bool) {
        let mut air = self.lock();
        if begins {
            air.lossy.push((host, loss));
        } else if let Some(at) = air.lossy.iter().position(|lossy| *lossy == (host, loss)) {
            air.lossy.remove(at);
        }
    }

    /// What was sent lately.
    #[must_use]
    pub fn sent_lately(&self) -> Vec<Sent> {
        self.lock().sent.iter().cloned().collect()
    }

    /// Whether a node sent it: all others are strangers.
    fn is_nodes(&self, from: SocketAddr) -> bool {
        let air = self.lock();
        air.hosts[..air.hosts.len() - 1].contains(&from.ip())
    }

    /// How often a datagram arrives that is sent now.
    fn carry(&self, own: HostId, to: SocketAddr, bytes: &[u8]) -> u32 {
        let mut air = self.lock();
        if air.kept > 0 {
            if air.sent.len() >= air.kept {
                air.sent.pop_front();
            }
            air.sent.push_back(Sent { to, bytes: bytes.to_vec() });
        }
        let of_one = |(host, loss): &(HostId, u64)| {
            (*host == own || air.hosts.get(*host) == Some(&to.ip())).then_some(*loss)
        };
        let loss = air.lossy.iter().filter_map(of_one).fold(air.loss, u64::max);
        if air.rng.chance(loss) {
            return 0;
        }
        if air.rng.chance(loss) { 2 } else { 1 }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket for datagrams whose way is through the air.
pub struct AirSocket {
    /// Turmoil's.
    pub socket: UdpSocket,
    /// What it sends through.
    pub air: Air,
    /// Whose it is.
    pub own: HostId,
}

impl Datagrams for AirSocket {
    async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        for _ in 0..self.air.carry(self.own, to, bytes) {
            self.socket.try_send_to(bytes, to)?;
        }
        Ok(bytes.len())
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }
}

/// The gossip socket of a run of a node, of which the oracle is told what arrives.
pub struct Gossip {
    /// What it sends and hears by.
    pub socket: AirSocket,
    /// Which run's.
    pub run: RunId,
    /// Who is told what arrives.
    pub oracle: Oracle,
}

impl Datagrams for Gossip {
    async fn writable(&self) -> io::Result<()> {
        self.socket.writable().await
    }

    fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<usize> {
        self.socket.try_send_to(bytes, to)
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.socket.recv_from(buffer).await?;
        let is_nodes = self.socket.air.is_nodes(from);
        self.oracle.arrived(self.run, &buffer[..length], is_nodes);
        Ok((length, from))
    }
}

/// The control port of a run of a node, and the way to others'.
pub struct Control {
    /// Turmoil's.
    pub listener: TcpListener,
    /// Connections that there are.
    pub open: Open,
}

/// Counts connections.
#[derive(Debug, Clone, Default)]
pub struct Open(Arc<AtomicUsize>);

impl Open {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn one_more(&self, stream: TcpStream) -> Connection {
        self.0.fetch_add(1, Ordering::Relaxed);
        Connection { stream, open: self.clone() }
    }
}

/// A connection that is counted.
pub struct Connection {
    stream: TcpStream,
    open: Open,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams for Control {
    type Stream = Connection;

    async fn accept(&self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((self.open.one_more(stream), from))
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Connection> {
        Ok(self.open.one_more(TcpStream::connect(address).await?))
    }

    fn send_at_once(stream: &Connection) -> io::Result<()> {
        stream.stream.set_nodelay(true)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
