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
//! stands still, and one's clock can jump. It is the quickest level, and the one in which a node stands still wholly. The two
//! others run on a general simulator of networks, turmoil, which takes the place of the operating system's sockets: [`wire`] has what owns
//! sockets, membership and the control plane, with a stranger among them; [`whole`] puts all of a node together as the program
//! does, QUIC below the seams included, for the same clients and faults as here.
//!
//! A run is a process: tokio, ractor and the standard library count in statics of a process, so that a second run in
//! one would not be the first again. The program of this crate starts one for each seed, and draws what they take from the
//! system's randomness from the seed.

pub mod caller;
pub mod client;
pub mod connection;
pub mod gateway;
pub mod gossip;
pub mod host;
pub mod lines;
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
pub mod whole;
pub mod wire;
pub mod world;
