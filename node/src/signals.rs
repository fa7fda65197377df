//! The signals that stop a node, and the one that has it read its settings again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM and SIGINT from its making on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes the two signals over from their default action.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them, by name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Listens for SIGHUP from its making on.
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Takes the signal over from its default action, which is to end the process.
    ///
    /// # Errors
    /// The system refused.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// The next one. Several that came before it was asked for are one.
    pub(crate) async fn next(&mut self) {
        let _ = self.0.recv().await;
    }
}
