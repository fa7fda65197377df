//! A copy's streams: what owners say, what they are told, and a copy for who goes on with it.
//!
//! Must never: look into what is said.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::replica::{SessionCopy, StreamId};
use starling_protocol::data::{HeaderReply, MAX_HEADER_BYTES};
use starling_protocol::replica::{FromReplica, MAX_COPY_FRAME_BYTES, ToReplica};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Semaphore, mpsc};

use super::KeeperMessage;
use crate::frames::{FrameSource, Writer, write_frame};

/// Messages of one stream that wait to be applied. Past it the stream is not read.
const WAITING: usize = 16;

/// An owner that does not read its confirmations for so long has lost interest.
const TAKES_NOTHING: Duration = Duration::from_secs(10);

pub(super) async fn read(frames: FrameSource, stream: StreamId, keeper: ActorRef<KeeperMessage>) {
    let room = Arc::new(Semaphore::new(WAITING));
    let mut frames = frames.limit(MAX_COPY_FRAME_BYTES);
    while let Ok(Some(message)) = frames.next::<ToReplica>().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        if keeper.cast(KeeperMessage::Said(stream, Box::new(message), permit)).is_err() {
            return;
        }
    }
    let _ = keeper.cast(KeeperMessage::Ended(stream));
}

pub(super) async fn confirm(mut writer: Writer, replies: mpsc::Receiver<FromReplica>) -> std::io::Result<()> {
    let accepting = write_frame(&mut writer, &HeaderReply::Accepted, MAX_HEADER_BYTES);
    tokio::time::timeout(TAKES_NOTHING, accepting).await??;
    crate::frames::write_frames(writer, replies, TAKES_NOTHING).await
}

pub(super) async fn hand_over(mut writer: Writer, copy: &SessionCopy) -> std::io::Result<()> {
    write_frame(&mut writer, &HeaderReply::Accepted, MAX_HEADER_BYTES).await?;
    for message in copy.messages() {
        write_frame(&mut writer, &message, MAX_COPY_FRAME_BYTES).await?;
    }
    writer.shutdown().await
}
