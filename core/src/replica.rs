//! Copies of a session on other nodes: the owner's side, the keeper's side, and who goes on when an owner is gone.
//!
//! Owns: when an acknowledgement or a final may go to the client ([`ReplicationMachine`]), whom a keeper of copies obeys and
//! how long it keeps what ([`KeeperMachine`]), what a copy holds ([`SessionCopy`]), and which copy a session goes on from
//! ([`choose`]), and who tells of the end of one that nobody came back to ([`Orphans`]). Must never: let a client hear of what another node does not have, unless the session says that it is not
//! durable; let an epoch fall.

mod copy;
mod keeper;
mod line;
mod messages;
mod orphans;
mod owner;
mod takeover;
#[cfg(test)]
mod tests;

pub use copy::{RECENT_SEGMENTS, SessionCopy, Unfit};
pub use keeper::{
    CutReason, KeeperAction, KeeperConfig, KeeperEvent, KeeperMachine, PromoteAnswer, Refusal, Shape,
    StreamId,
};
pub use messages::{
    CopyItem, OpenFailure, ReplicationAction, ReplicationConfig, ReplicationEvent, Standing, Tries,
};
pub use orphans::{Orphans, RanOut};
pub use owner::ReplicationMachine;
pub use takeover::{Answer, AskedAgain, Choice, Wanted, choose, suffices};
