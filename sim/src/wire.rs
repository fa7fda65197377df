//! The shells that own a node's sockets, on a simulated network: real membership and real control planes of three to five
//! nodes, with everything below them that is the product's own, TLS, ractor_cluster and the seals of gossip too.
//!
//! Owns: the network's faults, what is told of a run, and the judgement of it. Must never: look into a node. What counts is
//! what nodes tell the rest of themselves (changes, views, losses, answers, refusals) and what was done to them.
//!
//! The network is turmoil's: hosts, datagrams, byte streams and time. Two things about it are said here because they decide
//! how faults are made of it. Its streams don't send again what is lost, so that datagrams are lost by us, above it ([`air`]), and
//! a way that is cut for a while *holds* what is on it (`cut`), as a stream's repetitions come to in the end; only where connections
//! are to be lost without a word is it let drop it (`sever`, `oneway`). And it can't have a host stand still, so there are no pauses.

pub mod air;
pub mod node;
pub mod oracle;
pub mod plan;
pub mod stranger;
pub mod truth;
pub mod ways;
pub mod world;
