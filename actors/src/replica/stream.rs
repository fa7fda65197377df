//! The owner's end of a copy's stream.

use std::io;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::replica::{OpenFailure, ReplicationEvent, Tries};
use starling_protocol::data::{HeaderReply, MAX_HEADER_BYTES, StreamHeader, StreamRefusal};
use starling_protocol::replica::{CopyHeader, FromReplica, MAX_COPY_FRAME_BYTES, ToReplica};
use thiserror::Error;
use tokio::sync::mpsc;

use crate::data::{LinkError, PeerStream};
use crate::frames::{FrameSource, Writer, write_frame, write_frames_within};
use crate::session::SessionMessage;
use crate::task::AbortOnDrop;

/// Most messages to a keeper that are not confirmed: at a tenth of a second of audio each, two seconds' worth.
pub(crate) const WINDOW: u16 = 32;

/// A keeper answers within a round trip. One that takes so much longer is passed over: a client waits.
const OPEN: Duration = Duration::from_millis(500);

/// A keeper that takes nothing for so long has been given up by the machine before.
const TAKES_NOTHING: Duration = Duration::from_secs(5);

/// Why there is no stream. The keeper keeps nothing of it.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// It said why.
    #[error(transparent)]
    Refused(#[from] StreamRefusal),
    /// It can't be reached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broken(#[from] io::Error),
    /// It answered with something else, or not at all.
    #[error("no answer")]
    Unanswered,
}

impl OpenError {
    pub(crate) const fn failure(&self) -> OpenFailure {
        match self {
            Self::Refused(StreamRefusal::Fenced { epoch }) => OpenFailure::Fenced { epoch: *epoch },
            Self::Refused(_) => OpenFailure::Refused,
            Self::Link(_) | Self::Broken(_) | Self::Unanswered => OpenFailure::Unreachable,
        }
    }
}

/// A stream that a keeper has taken. Dropping it ends the stream, after what was sent.
pub(crate) struct CopyStream {
    messages: mpsc::Sender<ToReplica>,
    _listening: AbortOnDrop,
}

impl CopyStream {
    /// Sends the next message. There is always room for it: no more are unanswered than the window.
    pub(crate) fn send(&self, message: ToReplica) {
        // One that is broken has told, or is about to.
        let _ = self.messages.try_send(message);
    }
}

/// A stream before anything was said on it.
pub(crate) struct OpenedStream {
    frames: FrameSource,
    writer: Writer,
}

/// Asks a peer to keep a copy.
pub(crate) async fn open_copy(
    stream: impl Future<Output = Result<PeerStream, LinkError>>,
    header: CopyHeader,
) -> Result<OpenedStream, OpenError> {
    let asking = async {
        let PeerStream { reader, mut writer } = stream.await?;
        write_frame(&mut writer, &StreamHeader::Copy(header), MAX_HEADER_BYTES).await?;
        let mut frames = FrameSource::new(reader);
        match frames.next().await?.ok_or(OpenError::Unanswered)? {
            HeaderReply::Accepted => Ok(OpenedStream { frames, writer }),
            HeaderReply::Refused { reason } => Err(reason.into()),
            _ => Err(OpenError::Unanswered),
        }
    };
    tokio::time::timeout(OPEN, asking).await.unwrap_or(Err(OpenError::Unanswered))
}

impl OpenedStream {
    /// Connects the stream to its session.
    pub(crate) fn start(self, tries: Tries, session: ActorRef<SessionMessage>) -> CopyStream {
        // The window, and the last word.
        let (messages, queue) = mpsc::channel(WINDOW as usize + 2);
        let Self { mut frames, writer } = self;
        let writing = session.clone();
        tokio::spawn(async move {
            if write_frames_within(writer, queue, TAKES_NOTHING, MAX_COPY_FRAME_BYTES).await.is_err() {
                let failure = OpenFailure::Unreachable;
                let _ = writing.cast(SessionMessage::Copy(ReplicationEvent::Lost { tries, failure }));
            }
        });
        let listening = AbortOnDrop::spawn(async move {
            loop {
                let event = hear(&mut frames, tries).await;
                let over = matches!(event, ReplicationEvent::Lost { .. });
                if session.cast(SessionMessage::Copy(event)).is_err() || over {
                    return;
                }
            }
        });
        CopyStream { messages, _listening: listening }
    }
}

async fn hear(frames: &mut FrameSource, tries: Tries) -> ReplicationEvent {
    let lost = |failure| ReplicationEvent::Lost { tries, failure };
    match frames.next().await {
        Ok(Some(FromReplica::Applied { count })) => ReplicationEvent::Applied { tries, count },
        Ok(Some(FromReplica::Fenced { epoch })) => lost(OpenFailure::Fenced { epoch }),
        Ok(Some(_)) => lost(OpenFailure::Refused),
        Ok(None) | Err(_) => lost(OpenFailure::Unreachable),
    }
}
