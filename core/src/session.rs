//! One session's decisions: what is fed to which decoder, what is committed, what the client is told.
//!
//! Owns: the journal's offsets, the attempt and its credit, its standby's, the connection's epoch, the count of unconfirmed finals.
//! Must never: hold samples or texts (they stand beside it), or let an answer of an old attempt or a message of an old
//! connection count.

mod decoder;
mod link;
mod machine;
mod messages;
mod restore;
mod standby;
mod stream;

pub use machine::{SessionConfig, SessionMachine};
pub use messages::{AttachRefusal, FailReason, LeaseKind, LossCause, Outcome, SessionAction, SessionEvent};
pub use restore::Restored;

#[cfg(test)]
mod tests;
