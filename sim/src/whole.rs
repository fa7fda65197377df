//! Whole nodes on a simulated network: sessions with all their actors, behind the links that a node of the program has.
//!
//! Owns: hosts of turmoil on which nodes and clients run, what is done to them, and when their keepers are looked at. Must
//! never: stand in for membership, the control plane, the data plane or what joins them ([`starling_actors::cluster`]); those are a
//! node's own, with gossip sealed, links in TLS, and QUIC with whatever datagrams get lost.
//!
//! A seed has the same nodes, clients and faults as in [`crate::world`], and the same oracle judges it. There, nodes tell each
//! other of themselves by magic, a stream between two is there at once, and a node that stands still stands still wholly.
//! Here, turmoil runs every host as long as there is one: what stands still is the node's own tick ([`clock`]) and all that
//! passes to and from it. Clocks jump in both by that tick.

pub mod clock;
pub mod lines;
pub mod node;
pub mod socket;
pub mod world;
