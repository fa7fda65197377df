//! Sessions: one actor for each, and what gateways hold of them.
//!
//! Owns: a session's samples, its unconfirmed finals, the handles of its decoders, the searches for the next ones, the
//! streams to its copies. Must never: decide; its machines do.

mod actor;
mod api;
mod census;
mod decoding;
mod finals;
mod handover;
mod io;
mod outbox;
mod perform;
mod replication;
mod standby;

pub(crate) use actor::{
    AskedEpoch, AttachReply, Opener, RestoredSession, SessionActor, SessionArguments, SessionMessage,
};
pub use api::{Dialect, OpenRequest, Ready, ResumeRequest, SessionEvent};
pub(crate) use census::{LastSeen, Sighting};
pub use io::{Attachment, SessionClosed, SessionInput, SessionOutput};
