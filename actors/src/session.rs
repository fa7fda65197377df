//! Sessions: one actor for each, and what gateways hold of them.
//!
//! Owns: a session's samples, its unconfirmed finals, its decoder's handle, the search for the next one. Must never: decide; its machine does.

mod actor;
mod api;
mod finals;
mod io;
mod outbox;
mod perform;

pub(crate) use actor::{AttachReply, SessionActor, SessionArguments, SessionMessage};
pub use api::{Dialect, OpenRequest, Ready, ResumeRequest, SessionEvent};
pub use io::{Attachment, SessionClosed, SessionInput, SessionOutput};
