//! The protocol by which a session survives its node, checked in every state that it can reach.
//!
//! Owns: a client, three nodes and what lies between them, for an exhaustive search. The machines are the product's own: the SDK's
//! [`Machine`](starling_client::machine::Machine), and of `starling-core` the session's, its copies' and the keepers', with
//! the choice of a copy and of keepers. What actors do with what machines ask for is written here once more, with messages in
//! place of sockets.
//!
//! Must never: decide what a machine decides.

mod client;
mod copies;
mod faults;
mod keeper;
mod model;
mod owner;
mod parts;
mod search;
mod standing;
mod state;
mod steps;
mod takeover;
mod words;

pub use model::{Cluster, Mistake, Step};
pub use search::{Counterexample, Found};
pub use state::{Faults, Invariant, State};
