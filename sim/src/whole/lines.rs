//! Clients' connections: a stream of turmoil's to a node's port.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use turmoil::net::TcpStream;

use crate::lines::{LineReader, LineWriter, Lines};
use crate::net::{HostId, Port};

/// Where clients that come back are taken.
pub const NATIVE_PORT: u16 = 7_403;

/// Where those are that can't.
pub const THIN_PORT: u16 = 7_404;

/// The ways there are. The world says which are open.
#[derive(Clone)]
pub struct TurmoilLines {
    addresses: Arc<[IpAddr]>,
    runs: Arc<[AtomicU64]>,
    shut: Arc<Mutex<Vec<(HostId, HostId)>>>,
}

impl TurmoilLines {
    /// Open ways to nodes at these addresses, by number.
    #[must_use]
    pub fn new(addresses: &[IpAddr]) -> Self {
        let runs = addresses.iter().map(|_| AtomicU64::new(0)).collect();
        Self { addresses: addresses.into(), runs, shut: Arc::default() }
    }

    /// Another run of a node begins.
    pub fn begins(&self, node: HostId) {
        self.runs[node].fetch_add(1, Ordering::Relaxed);
    }

    /// From now on, or no longer, nothing passes between two; what was shut twice is opened twice.
    pub fn shut(&self, one: HostId, other: HostId, begins: bool) {
        let way = (one.min(other), one.max(other));
        let mut shut = self.lock();
        if begins {
            shut.push(way);
        } else if let Some(at) = shut.iter().position(|other| *other == way) {
            shut.swap_remove(at);
        }
    }

    /// As [`Self::shut`], for all ways of a node.
    pub fn shut_off(&self, node: HostId, begins: bool) {
        self.shut(node, node, begins);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(HostId, HostId)>> {
        self.shut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines for TurmoilLines {
    fn dial(
        &self,
        _: HostId,
        node: HostId,
        port: Port,
    ) -> BoxFuture<'static, Option<(LineReader, LineWriter)>> {
        let port = if port == Port::Thin { THIN_PORT } else { NATIVE_PORT };
        let address = SocketAddr::new(self.addresses[node], port);
        async move {
            let (reader, writer) = TcpStream::connect(address).await.ok()?.into_split();
            Some((Box::new(reader) as LineReader, Box::new(writer) as LineWriter))
        }
        .boxed()
    }

    fn run_of(&self, node: HostId) -> u64 {
        self.runs[node].load(Ordering::Relaxed)
    }

    fn answers(&self, client: HostId, node: HostId, run: u64) -> bool {
        let is_of = |way: &(HostId, HostId)| *way == (node, node) || *way == (node, client);
        run == self.run_of(node) && !self.lock().iter().any(is_of)
    }

    fn address_of(&self, node: HostId) -> String {
        SocketAddr::new(self.addresses[node], NATIVE_PORT).to_string()
    }
}
