//! Copies of a session on other nodes: the owner's side, the keeper's side, and who goes on when an owner is gone.
//!
//! Owns: when an acknowledgement or a final may go to the client ([`ReplicationMachine`]), what a keeper of copies obeys and
//! whom ([`KeeperMachine`]), and which copy a session goes on from ([`choose`]). Samples and texts stand beside the
//! machines. Must never: let a client hear of what another node does not have, unless the session says that it is not
//! durable; let an epoch fall.

mod keeper;
mod messages;
mod owner;
mod takeover;
#[cfg(test)]
mod tests;

pub use keeper::{
    KeeperAction, KeeperConfig, KeeperEvent, KeeperMachine, Refusal, StreamId,
};
pub use messages::{CopyItem, OpenFailure, ReplicationAction, ReplicationConfig, ReplicationEvent, Standing, Tries};
pub use owner::ReplicationMachine;
pub use takeover::{Answer, Choice, Wanted, choose};
