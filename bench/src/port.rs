//! Addresses on loopback that nobody listens on.
//!
//! Owns: which were given out by this process. Must never: give one out twice, or one that the system may give to somebody else
//! before it is used.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Below the ports that the system chooses by itself (from 32,768, see ip(7)): a node that is started again finds its own free.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// The next one, for TCP and UDP.
pub(crate) fn free_address() -> Result<SocketAddr> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Two processes at once begin at different places.
    let begin = std::process::id().wrapping_mul(97);
    let unused = (0..COUNT).find_map(|_| {
        let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + number % COUNT).ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        (TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()).then_some(address)
    });
    unused.context("no free port on loopback")
}
