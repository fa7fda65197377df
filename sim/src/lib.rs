//! The simulated cluster: the real actors of several nodes in one process, on time that the simulation moves, with a seed that
//! fixes everything.
//!
//! Owns: the world around the nodes (network, gossip, decoder hosts, clients, faults) and the judgement of what came of it.
//! Must never: read a clock or the system's randomness, or stand in for a decision of the product.
//!
//! What is real: sessions, pools, decoders, relays, keepers, takeovers and all machines below them, the codecs between nodes and
//! clients, the SDK's machine. What is simulated are the seams that the actors have anyway: `PeerLink` and `CopyPeers`
//! (QUIC and the control plane in a node), `HostLauncher` (processes), gossip, and the two ends of the gateways.
//!
//! Each node has a runtime of its own, driven in ticks by [`world`]: one that is dropped has crashed, one that is not driven
//! stands still, and one's clock can jump. A general simulator of networks (turmoil) does neither of the last two; it takes the
//! place of tokio's sockets, of which the actors have none at these seams. It is the network of the other level, [`wire`]: what
//! owns sockets, membership and the control plane, runs there as it is, with gossip sealed and links in TLS.
//!
//! A run is a process: tokio, ractor and the standard library count in statics of a process, so that a second run in
//! one would not be the first again. The program of this crate starts one for each seed, and draws what they take from the
//! system's randomness from the seed.

pub mod client;
pub mod connection;
pub mod gateway;
pub mod gossip;
pub mod host;
pub mod native_client;
pub mod net;
pub mod node;
pub mod oracle;
pub mod peers;
pub mod pipe;
pub mod plan;
pub mod rng;
pub mod speech;
pub mod thin_client;
pub mod wire;
pub mod world;
