//! The control plane: small questions between nodes, and whether nodes live.
//!
//! ```text
//! ControlActor ─┬─ GatewayActor<NodeAgent>   ─┐
//!               ├─ GatewayActor<ModelPool>    ├ what peers may ask; the only remotable actors of a node
//!               ├─ GatewayActor<Replica>     ─┘
//!               └─ SessionServerActor (one per link) ── ractor_cluster's NodeSession ── its view of the peer's gateways
//! ```
//!
//! Owns: the control port, the TLS links to peers, their heartbeats. Must never: decide who is dialled or lost (that is
//! `core`'s `peer_links` and `peer_watch`), carry audio, or let a request wait without a deadline.
//!
//! ractor_cluster carries messages and nothing else. It accepts no connections of its own: each link hands it one stream
//! that TLS has authenticated, so none of its listeners, elections between links or reconnects are at work. It would never
//! notice a silent peer; the heartbeats here do. Its queues are unbounded; what enters them is bounded here, and a peer
//! that doesn't read is lost, and its queues with it, in less than a second. Its references to remote actors can stop a
//! whole link by mistake; they are wrapped in a type that can only ask.

mod acceptor;
mod actor;
mod dialer;
mod gateway;
mod handle;
mod link;
mod remote;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use actor::{ControlArguments, Member};
pub use gateway::ControlServices;
pub use handle::{ControlHandle, ControlStartError, RequestError};
pub(crate) use session::parse_id;
pub use starling_core::peer_links::{PeerChange, PeerLoss};

use std::time::Duration;

/// The protocol's name in TLS: whoever else finds the port is turned away in the handshake.
pub const ALPN: &[u8] = b"starling-control/1";

/// How long a TLS handshake may take. Between living nodes it takes milliseconds; two seconds leave room for a loaded
/// machine, and bound how long a socket that says nothing takes up one of [`MAX_UNAUTHENTICATED`] places.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);

/// How long a link may take from its TLS handshake until requests pass over it.
pub const AUTHENTICATION_DEADLINE: Duration = Duration::from_secs(2);

/// Most sockets that have not proved who they are. A whole cluster that restarts fits; what comes on top is closed at
/// once, and a peer dials again.
pub const MAX_UNAUTHENTICATED: usize = 64;

/// Largest frame on a link: a message at its limit, and room for what ractor_cluster wraps around it.
const MAX_FRAME_BYTES: u64 = starling_protocol::control::MAX_CONTROL_MESSAGE_BYTES as u64 + 16 * 1024;
