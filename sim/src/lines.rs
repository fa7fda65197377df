//! How clients reach nodes, on whatever network a run has.

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::net::{HostId, Port};

/// What the other end says.
pub type LineReader = Box<dyn AsyncRead + Send + Unpin>;

/// What the other end is told. Dropping it says that no more will come.
pub type LineWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// The way from clients to nodes.
pub trait Lines: Send + Sync {
    /// Opens a stream to a node; `None` when it refuses.
    fn dial(
        &self,
        client: HostId,
        node: HostId,
        port: Port,
    ) -> BoxFuture<'static, Option<(LineReader, LineWriter)>>;

    /// Which run of a node a stream leads to that is opened now; later ones know nothing of it.
    fn run_of(&self, node: HostId) -> u64;

    /// Whether that run of a node can hear and answer now: what a ping on such a stream would find.
    fn answers(&self, client: HostId, node: HostId, run: u64) -> bool;

    /// Where clients reach a node, as nodes tell them.
    fn address_of(&self, node: HostId) -> String;
}
