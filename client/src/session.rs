//! What a consumer holds of a session: one end for audio, one for events.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use starling_protocol::Segment;
use tokio::sync::{mpsc, watch};

use crate::error::{SendError, SessionError};
use crate::machine::{Event, Opened};
use crate::ring::FRAME_BYTES;

/// Bytes of one piece of audio on its way to the connection: half a second at 16 kHz, so that a caller who sends a file
/// at once waits for the ring, not for memory.
const PIECE_BYTES: usize = 16 * 1024;

/// What a consumer asks of its connection.
#[derive(Debug)]
pub(crate) enum Command {
    /// Whole frames.
    Audio(Vec<u8>),
    Finalize,
    End,
}

/// An open session. Split it to send and receive at the same time.
#[derive(Debug)]
pub struct Session {
    pub(crate) opened: Opened,
    pub(crate) sender: AudioSender,
    pub(crate) events: Events,
}

impl Session {
    /// What the server said when it opened.
    #[must_use]
    pub const fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The two ends. They may go to different tasks.
    #[must_use]
    pub fn split(self) -> (AudioSender, Events) {
        (self.sender, self.events)
    }
}

/// The end that takes audio. Dropping it ends the audio, as [`AudioSender::end`] does.
#[derive(Debug)]
pub struct AudioSender {
    commands: mpsc::Sender<Command>,
    /// Half a frame, when the last piece had an odd length.
    odd: Option<u8>,
}

impl AudioSender {
    pub(crate) const fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands, odd: None }
    }

    /// Takes audio in the session's format. Pieces may have any length; half a frame is kept until its other half comes.
    ///
    /// Returns when the audio is in the ring or on its way there, which it survives any loss of the connection from. Waits
    /// while the ring is full, that is, while the server is a ring's length behind.
    ///
    /// # Errors
    /// The session is over; [`Events::next`] says why.
    ///
    /// # Cancel safety
    /// When the future is dropped, a part of the audio may have been taken.
    pub async fn send(&mut self, audio: &[u8]) -> Result<(), SendError> {
        let mut rest = audio;
        while !rest.is_empty() {
            let mut piece = Vec::with_capacity(PIECE_BYTES.min(rest.len() + 1));
            piece.extend(self.odd);
            let taken = rest.len().min(PIECE_BYTES - piece.len());
            piece.extend_from_slice(&rest[..taken]);
            let permit = self.commands.reserve().await.map_err(|_| SendError)?;
            self.odd = (piece.len() % FRAME_BYTES != 0).then(|| piece.pop()).flatten();
            rest = &rest[taken..];
            permit.send(Command::Audio(piece));
        }
        Ok(())
    }

    /// Asks for the open segment to end here and its final to come now; it has the cause `Finalize` and may be empty. Asked
    /// again at the same place before that final came, it is one request. A connection that is lost at this very moment can
    /// make it two, and the second final then is empty.
    ///
    /// # Errors
    /// The session is over; [`Events::next`] says why.
    pub async fn finalize(&mut self) -> Result<(), SendError> {
        self.commands.send(Command::Finalize).await.map_err(|_| SendError)
    }

    /// Says that no more audio will come. The last finals and [`Event::Done`] follow. Half a frame that is left over is
    /// dropped: it is no sample.
    ///
    /// # Errors
    /// The session is over; [`Events::next`] says why.
    pub async fn end(self) -> Result<(), SendError> {
        self.commands.send(Command::End).await.map_err(|_| SendError)
    }
}

/// The end that gives events, also as a [`Stream`]. Dropping it abandons the session: the connection is closed and the server keeps the session
/// for its linger time only.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Result<Event, SessionError>>,
    taken: watch::Sender<Option<Segment>>,
}

impl Events {
    pub(crate) const fn new(
        events: mpsc::Receiver<Result<Event, SessionError>>,
        taken: watch::Sender<Option<Segment>>,
    ) -> Self {
        Self { events, taken }
    }

    /// The next event; `None` after [`Event::Done`] or an error. A final that is returned here is confirmed to the server,
    /// which may then forget it. One that waits to be asked for is not, so a consumer that stops asking is, in time, told
    /// that it reads too slowly.
    ///
    /// # Errors
    /// The session is over before its end.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<Event, SessionError>> {
        let event = self.events.recv().await?;
        self.note_taken(&event);
        Some(event)
    }

    fn note_taken(&self, event: &Result<Event, SessionError>) {
        if let Ok(Event::Final(last)) = event {
            self.taken.send_replace(Some(last.segment));
        }
    }
}

impl Stream for Events {
    type Item = Result<Event, SessionError>;

    /// As [`Events::next`].
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let event = std::task::ready!(self.events.poll_recv(cx));
        if let Some(event) = &event {
            self.note_taken(event);
        }
        Poll::Ready(event)
    }
}
