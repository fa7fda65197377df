//! Tasks that belong to somebody.

use ractor::{ActorRef, Message};
use starling_core::Timestamp;
use tokio::task::{AbortHandle, JoinHandle};

/// Ends a task when its owner goes.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A message that an actor sends itself at its time, unless this is dropped before. Without that it would outlive its actor: a
/// session may be idle for minutes, and many end while their timers run.
#[derive(Debug)]
pub(crate) struct Timer {
    at: Timestamp,
    sending: AbortHandle,
}

impl Timer {
    pub(crate) fn set<M: Message>(
        actor: &ActorRef<M>,
        now: Timestamp,
        at: Timestamp,
        message: impl FnOnce() -> M + Send + 'static,
    ) -> Self {
        Self { at, sending: actor.send_after(at.since(now), message).abort_handle() }
    }

    /// When the message is sent.
    pub(crate) fn at(&self) -> Timestamp {
        self.at
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.sending.abort();
    }
}
