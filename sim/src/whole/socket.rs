//! A socket of turmoil's as quinn uses one.
//!
//! Owns: datagrams that arrived and were not read yet. Must never: lose one, but for want of room.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use starling_actors::{Datagrams, QuinnSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::wire::air::AirSocket;

/// Datagrams that wait to be read, as in a socket's buffer.
const WAITING: usize = 256;

/// Longer than any that is sent: quinn finds out how long they may be, up to this.
const LONGEST_BYTES: usize = 2_048;

struct Quic {
    socket: Arc<AirSocket>,
    arrived: Mutex<mpsc::Receiver<(SocketAddr, Vec<u8>)>>,
    reading: JoinHandle<()>,
}

/// A socket for a node's data plane. Must be made in the host's runtime.
#[must_use]
pub fn quic(socket: AirSocket) -> QuinnSocket {
    let socket = Arc::new(socket);
    let (arrive, arrived) = mpsc::channel(WAITING);
    let reads = Arc::clone(&socket);
    let reading = tokio::spawn(async move {
        let mut buffer = [0; LONGEST_BYTES];
        while let Ok((length, from)) = reads.recv_from(&mut buffer).await {
            // What there is no room for is lost, as in a socket of the system's.
            let _ = arrive.try_send((from, buffer[..length].to_vec()));
        }
    });
    QuinnSocket(Arc::new(Quic { socket, arrived: Mutex::new(arrived), reading }))
}

impl Drop for Quic {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

impl fmt::Debug for Quic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Quic").field(&self.socket.own).finish()
    }
}

impl AsyncUdpSocket for Quic {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send_to(transmit.contents, transmit.destination).map(drop)
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        about: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((from, bytes)) = ready!(arrived.poll_recv(context)) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let (Some(buffer), Some(about)) = (buffers.first_mut(), about.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        *about = RecvMeta::default();
        (about.addr, about.len, about.stride) = (from, length, length);
        Poll::Ready(Ok(1))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.socket.local_addr()
    }
}

/// There is always room to send here.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
