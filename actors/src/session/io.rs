//! The two halves of a connection to a session, as a gateway holds them.

use std::sync::Arc;

use ractor::ActorRef;
use starling_protocol::{Epoch, Segment};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::actor::{Input, SessionMessage};
use super::api::{Ready, SessionEvent};
use super::outbox::Outbox;

/// Most audio bytes that go to a session at once; larger pieces are split, so that they wait in parts.
const PIECE_BYTES: usize = 32 * 1024;

/// Room in the journal that a finalize takes until it is answered: what bounds how many can wait.
pub(super) const FINALIZE_BYTES: u32 = 1_024;

/// A connection to a session.
pub struct Attachment {
    /// What the client is told first.
    pub ready: Ready,
    /// What the client sends.
    pub input: SessionInput,
    /// What the client is told.
    pub output: SessionOutput,
}

/// Messages without audio that may wait for the session. Apart from the journal's room: a client must be able to confirm
/// when the journal is full, since that is what empties it.
pub(super) const NOTES: usize = 64;

/// The session takes nothing more from this connection: it is over, or another connection speaks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the session takes nothing more from this connection")]
pub struct SessionClosed;

/// What a client sends to its session. Dropping it says that the connection is lost.
pub struct SessionInput {
    session: ActorRef<SessionMessage>,
    epoch: Epoch,
    /// Bytes that the journal can still take.
    room: Arc<Semaphore>,
    notes: Arc<Semaphore>,
    gone: bool,
}

impl SessionInput {
    pub(super) const fn new(
        session: ActorRef<SessionMessage>,
        epoch: Epoch,
        room: Arc<Semaphore>,
        notes: Arc<Semaphore>,
    ) -> Self {
        Self { session, epoch, room, notes, gone: false }
    }

    /// Sends audio as it came, in pieces of any size. Waits while the journal is full: that is the back pressure that
    /// ends at the client.
    ///
    /// # Errors
    /// The session takes nothing more; how much of `pcm` it took can't be told and doesn't matter.
    pub async fn audio(&mut self, pcm: &[u8]) -> Result<(), SessionClosed> {
        for piece in pcm.chunks(PIECE_BYTES) {
            self.reserve(piece.len() as u32).await?;
            self.send(Input::Audio(piece.to_vec()))?;
        }
        Ok(())
    }

    /// Asks for a final now. Answered by one with cause `Finalize`, maybe empty.
    ///
    /// # Errors
    /// The session takes nothing more.
    pub async fn finalize(&mut self) -> Result<(), SessionClosed> {
        self.reserve(FINALIZE_BYTES).await?;
        self.send(Input::Finalize)
    }

    /// Says that no more audio will come. Answered by the last finals and `Done`.
    ///
    /// # Errors
    /// The session takes nothing more.
    pub async fn end(&mut self) -> Result<(), SessionClosed> {
        self.note().await?;
        self.send(Input::End)
    }

    /// Says that the client has all finals up to `segment`.
    ///
    /// # Errors
    /// The session takes nothing more.
    pub async fn confirm(&mut self, segment: Segment) -> Result<(), SessionClosed> {
        self.note().await?;
        self.send(Input::Confirm(segment))
    }

    /// Says that the client is gone for good.
    pub async fn abandon(mut self) {
        let _ = self.send(Input::Abandon);
        self.gone = true;
    }

    async fn note(&self) -> Result<(), SessionClosed> {
        self.notes.acquire().await.map_err(|_| SessionClosed)?.forget();
        Ok(())
    }

    async fn reserve(&self, bytes: u32) -> Result<(), SessionClosed> {
        // The session gives the room back when it no longer holds the audio, and closes the semaphore when it ends.
        self.room.acquire_many(bytes).await.map_err(|_| SessionClosed)?.forget();
        Ok(())
    }

    fn send(&self, input: Input) -> Result<(), SessionClosed> {
        let message = SessionMessage::Input { epoch: self.epoch, input };
        self.session.cast(message).map_err(|_| SessionClosed)
    }
}

impl Drop for SessionInput {
    fn drop(&mut self) {
        if !self.gone {
            let _ = self.session.cast(SessionMessage::Detached { epoch: self.epoch });
        }
    }
}

/// What a client is told by its session.
pub struct SessionOutput {
    outbox: Arc<Outbox>,
}

impl SessionOutput {
    pub(super) const fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    /// The next event, or `None` after the last. Safe to be cancelled.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        self.outbox.next().await
    }
}
