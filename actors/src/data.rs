//! The data plane: streams between nodes, and the leases on them.
//!
//! Owns: what a stream to a peer is ([`PeerStream`]), who can open one ([`PeerLink`], with QUIC below it in
//! [`QuinnLink`]), both ends of a lease on one, and what is done with a stream that a peer opens. Must never: choose a
//! peer, or queue audio without a bound. On its way it lies in the session's credit window and in the streams' flow control
//! windows, nowhere else.

mod accept;
mod lease;
mod quic;
mod relay;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use starling_core::placement::Candidate;
use starling_protocol::NodeName;
use thiserror::Error;
use tokio::sync::mpsc;

pub(crate) use self::accept::{LeaseRequest, PeerRequest, refuse, serve};
pub(crate) use self::lease::{AskError, LeaseStream, ask};
pub use self::quic::{
    AddressOf, PeerName, QuinnLink, QuinnLinkArguments, QuinnLinkError, QuinnSocket, QuinnTrust,
};
pub(crate) use self::relay::{RelayActor, RelayArguments, RelayMessage};
use crate::frames::{Reader, Writer};
use crate::reservations::Reservations;

/// Both directions of one stream to a peer. Dropping it ends the stream.
pub struct PeerStream {
    /// What the peer says; ends when it has closed its side, fails when it is gone.
    pub reader: Reader,
    /// What the peer is told; waits while it does not read.
    pub writer: Writer,
}

/// A stream that a peer has opened.
pub struct IncomingStream {
    /// Who.
    pub from: NodeName,
    /// The stream; its header comes first.
    pub stream: PeerStream,
}

/// Streams that peers open, in the order they come. Bounded: peers wait while nobody takes them.
pub type IncomingStreams = mpsc::Receiver<IncomingStream>;

/// There is no stream.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The peer has no known address.
    #[error("{node} has no known address")]
    Unknown {
        /// Who was meant.
        node: NodeName,
    },
    /// The peer cannot be reached, or was lost a moment ago.
    #[error("{node} cannot be reached: {message}")]
    Unreachable {
        /// Who was meant.
        node: NodeName,
        /// Why.
        message: String,
    },
}

/// A way to peers.
pub trait PeerLink: Send + Sync + 'static {
    /// Opens a stream. Whoever calls gives up at a deadline of its own.
    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>>;

    /// The peer counts as lost: all streams to it and from it end now.
    fn peer_lost(&self, node: &NodeName);
}

/// Where decoders may be had but on the node itself.
pub trait Peers: Send + Sync + 'static {
    /// Peers that serve a model with this digest, or have streams of it that wait for a decoder, as last heard of.
    fn candidates(&self, model: &str, digest: &str) -> Vec<Candidate>;

    /// Opens a stream to one of them.
    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>>;

    /// Asks them to keep slots; `None` where they are asked on the streams alone.
    fn reservations(&self) -> Option<Arc<dyn Reservations>>;
}

/// Peers that somebody else knows of, reached over a link.
pub struct LinkedPeers<F> {
    /// The way there.
    pub link: Arc<dyn PeerLink>,
    /// Says who serves a model, by name and digest.
    pub directory: F,
    /// The way to their pools, beside the link.
    pub reservations: Option<Arc<dyn Reservations>>,
}

impl<F> Peers for LinkedPeers<F>
where
    F: Fn(&str, &str) -> Vec<Candidate> + Send + Sync + 'static,
{
    fn candidates(&self, model: &str, digest: &str) -> Vec<Candidate> {
        (self.directory)(model, digest)
    }

    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        self.link.open(node)
    }

    fn reservations(&self) -> Option<Arc<dyn Reservations>> {
        self.reservations.clone()
    }
}
