//! Streams that peers open: their headers are read here and handed to whom they concern.

use std::sync::Arc;
use std::time::Duration;

use starling_protocol::NodeName;
use starling_protocol::data::{HeaderReply, LeaseHeader, MAX_HEADER_BYTES, StreamHeader, StreamRefusal};
use starling_protocol::frame::DecodeError;
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use tokio::sync::Semaphore;
use tracing::debug;

use super::{IncomingStream, IncomingStreams, PeerStream};
use crate::frames::{FrameSource, Writer, write_frame};
use crate::replica::{CopyRequest, FetchRequest};

/// A header is written together with the stream's opening: one that takes longer is no header.
const HEADER_DEADLINE: Duration = Duration::from_secs(2);

/// A refusal is one small frame. Who does not take it learns from the stream's end.
const REFUSAL_DEADLINE: Duration = Duration::from_secs(2);

/// Headers that are read at once. A peer that sends streams without headers must not keep others waiting for long.
const HEADERS_AT_ONCE: usize = 256;

/// A lease that a peer asks for.
pub(crate) struct LeaseRequest {
    pub(crate) from: NodeName,
    pub(crate) header: LeaseHeader,
    pub(crate) frames: FrameSource,
    pub(crate) writer: Writer,
}

/// What a peer's stream asks for.
pub(crate) enum PeerRequest {
    Lease(Box<LeaseRequest>),
    Copy(Box<CopyRequest>),
    Fetch(Box<FetchRequest>),
}

/// Takes streams until there are no more, or whoever is handed them has gone.
pub(crate) async fn serve(
    mut streams: IncomingStreams,
    take: impl Fn(PeerRequest) -> bool + Clone + Send + 'static,
) {
    let room = Arc::new(Semaphore::new(HEADERS_AT_ONCE));
    while let Some(IncomingStream { from, stream }) = streams.recv().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let take = take.clone();
        tokio::spawn(async move {
            read_header(from, stream, take).await;
            drop(permit);
        });
    }
}

async fn read_header(from: NodeName, stream: PeerStream, take: impl Fn(PeerRequest) -> bool) {
    let PeerStream { reader, writer } = stream;
    let mut frames = FrameSource::new(reader).limit(MAX_HEADER_BYTES);
    let header = tokio::time::timeout(HEADER_DEADLINE, frames.next::<StreamHeader>()).await;
    let request = match header {
        Ok(Ok(Some(StreamHeader::Lease(header)))) => {
            let frames = frames.limit(MAX_LEASE_FRAME_BYTES);
            Ok(PeerRequest::Lease(Box::new(LeaseRequest { from, header, frames, writer })))
        }
        Ok(Ok(Some(StreamHeader::Copy(header)))) => {
            Ok(PeerRequest::Copy(Box::new(CopyRequest { from, header, frames, writer })))
        }
        Ok(Ok(Some(StreamHeader::Fetch(header)))) => {
            Ok(PeerRequest::Fetch(Box::new(FetchRequest { header, writer })))
        }
        Ok(Ok(Some(_))) => Err((from, writer, "nothing here serves streams of this kind".to_owned())),
        Ok(Err(error)) if error.get_ref().is_some_and(|inner| inner.is::<DecodeError>()) => {
            Err((from, writer, error.to_string()))
        }
        // Nobody is there to be told, or nobody who says anything.
        Ok(Ok(None) | Err(_)) | Err(_) => return,
    };
    match request {
        Ok(request) => {
            if !take(request) {
                debug!("a peer asked for something while the node ended");
            }
        }
        Err((from, writer, unreadable)) => {
            debug!(%from, unreadable, "a peer's stream is refused");
            refuse(writer, StreamRefusal::Unreadable { message: unreadable }).await;
        }
    }
}

/// Refuses a stream and closes it.
pub(crate) async fn refuse(mut writer: Writer, reason: StreamRefusal) {
    let refused = HeaderReply::Refused { reason };
    let telling = async {
        write_frame(&mut writer, &refused, MAX_HEADER_BYTES).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut writer).await
    };
    // The peer sees the stream's end, whether it was told or not.
    let _ = tokio::time::timeout(REFUSAL_DEADLINE, telling).await;
}
