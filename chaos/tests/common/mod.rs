//! What several of these tests do.

use std::net::SocketAddr;

#[path = "../../../bench/src/port.rs"]
mod port;

/// For HTTP, and for gossip.
pub(crate) fn free_addresses() -> (SocketAddr, SocketAddr) {
    let free = || port::free_address().expect("a free port");
    (free(), free())
}
