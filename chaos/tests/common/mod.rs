//! What several of these tests do.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// For HTTP, and for gossip.
pub(crate) fn free_addresses() -> (SocketAddr, SocketAddr) {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    (tcp.local_addr().expect("bound"), udp.local_addr().expect("bound"))
}
