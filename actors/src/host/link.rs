//! The two tasks of a host's socket: frames in, frames out.

use std::io;

use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::{FromHost, ToHost};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes asked for in one read: several frames, as a loaded host sends them.
const READ_BYTES: usize = 64 * 1024;

/// Hands on what the host says until its socket closes. Returns why it ended; `Ok` for a clean end.
pub(super) async fn read_frames(
    mut reader: Box<dyn AsyncRead + Send + Unpin>,
    mut hand_on: impl FnMut(FromHost) + Send,
) -> io::Result<()> {
    let mut frames = FrameReader::new(MAX_LEASE_FRAME_BYTES);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        frames.push(&buffer[..count]);
        while let Some(frame) = frames.next().map_err(io::Error::other)? {
            hand_on(frame);
        }
    }
}

/// Writes what the host is told until nobody can tell it anything any more, or its socket breaks.
pub(super) async fn write_frames(
    mut writer: Box<dyn AsyncWrite + Send + Unpin>,
    mut frames: mpsc::Receiver<ToHost>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(frame) = frames.recv().await {
        encode(&frame, MAX_LEASE_FRAME_BYTES, &mut buffer).map_err(io::Error::other)?;
        // What has queued up meanwhile goes out in one write.
        while buffer.len() < READ_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            encode(&frame, MAX_LEASE_FRAME_BYTES, &mut buffer).map_err(io::Error::other)?;
        }
        writer.write_all(&buffer).await?;
        buffer.clear();
    }
    writer.shutdown().await
}
