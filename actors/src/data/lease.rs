//! The session's end of a lease on a peer.

use std::io;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::session::LossCause;
use starling_protocol::LeaseId;
use starling_protocol::data::{
    HeaderReply, LeaseHeader, LeaseReply, MAX_HEADER_BYTES, StreamHeader, StreamRefusal,
};
use starling_protocol::lease::ToHost;
use thiserror::Error;
use tokio::sync::mpsc;

use super::PeerStream;
use crate::decoder::DecoderMessage;
use crate::frames::{FrameSource, Writer, write_frame, write_frames};
use crate::task::AbortOnDrop;

/// What a session can have on its way: a window of steps, the flushes among them, and a few words more.
const LINK_CAPACITY: usize = 64;

/// A peer that takes nothing for so long has lost its hosts' patience too.
pub(super) const TAKES_NOTHING: Duration = Duration::from_secs(10);

/// A peer gave no lease. It holds none for the asker.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// It said why.
    #[error(transparent)]
    Refused(#[from] StreamRefusal),
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broken(#[from] io::Error),
    /// It answered with something else.
    #[error("the stream ended without an answer")]
    Unanswered,
}

/// A lease that a peer has granted.
pub(crate) struct LeaseStream {
    frames: FrameSource,
    writer: Writer,
    /// How long the peer's pool let the request wait.
    pub(crate) waited: Duration,
    /// The determinism class of the peer's hosts; may be empty.
    pub(crate) class: String,
}

/// Asks for a lease on a new stream. Whoever calls sets the deadline; a call that is dropped withdraws the request.
pub(crate) async fn ask(stream: PeerStream, header: LeaseHeader) -> Result<LeaseStream, AskError> {
    let PeerStream { reader, mut writer } = stream;
    write_frame(&mut writer, &StreamHeader::Lease(header), MAX_HEADER_BYTES).await?;
    let mut frames = FrameSource::new(reader);
    match frames.next().await?.ok_or(AskError::Unanswered)? {
        HeaderReply::Accepted => {}
        HeaderReply::Refused { reason } => return Err(reason.into()),
        _ => return Err(AskError::Unanswered),
    }
    match frames.next().await?.ok_or(AskError::Unanswered)? {
        LeaseReply::Granted { waited_ms, determinism } => {
            let waited = Duration::from_millis(u64::from(waited_ms));
            Ok(LeaseStream { frames, writer, waited, class: determinism })
        }
        _ => Err(AskError::Unanswered),
    }
}

impl LeaseStream {
    /// Connects the stream to a decoder's actor: what goes into the sender goes to the peer, what the peer says goes to the
    /// actor. The stream ends when both results are dropped.
    pub(crate) fn start(
        self,
        lease: LeaseId,
        decoder: ActorRef<DecoderMessage>,
    ) -> (mpsc::Sender<ToHost>, AbortOnDrop) {
        let (link, commands) = mpsc::channel(LINK_CAPACITY);
        let (mut frames, writer, writing) = (self.frames, self.writer, decoder.clone());
        tokio::spawn(async move {
            if write_frames(writer, commands, TAKES_NOTHING).await.is_err() {
                let _ = writing.cast(DecoderMessage::Lost(LossCause::NodeLost));
            }
        });
        let listening = AbortOnDrop::spawn(async move {
            loop {
                let message = hear(&mut frames, lease).await;
                let over = matches!(message, DecoderMessage::Lost(_));
                if decoder.cast(message).is_err() || over {
                    return;
                }
            }
        });
        (link, listening)
    }
}

/// The next thing that the peer says. A stream that ends without a last word is the peer's own loss.
async fn hear(frames: &mut FrameSource, lease: LeaseId) -> DecoderMessage {
    let lost = |cause| DecoderMessage::Lost(cause);
    match frames.next().await {
        Ok(Some(LeaseReply::Host(frame))) if frame.lease() == Some(lease) => DecoderMessage::Frame(frame),
        Ok(Some(LeaseReply::Retiring)) => DecoderMessage::Move,
        Ok(Some(LeaseReply::Lost { cause })) => lost(cause.into()),
        Ok(Some(_)) => lost(LossCause::Protocol),
        Err(error)
            if error.get_ref().is_some_and(|inner| inner.is::<starling_protocol::frame::DecodeError>()) =>
        {
            lost(LossCause::Protocol)
        }
        Ok(None) | Err(_) => lost(LossCause::NodeLost),
    }
}
