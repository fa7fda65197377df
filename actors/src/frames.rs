//! Frames over byte streams: a host's socket, a stream to a peer.
//!
//! Owns: partly read and partly written frames. Must never: hold more than one read's worth of them.

use std::io;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes asked for in one read: several frames, as a loaded host sends them.
const READ_BYTES: usize = 64 * 1024;

/// The reading end of a byte stream.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// The writing end of a byte stream.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Reads frames. What has been read and not asked for stays for the next call, whatever its type.
pub(crate) struct FrameSource {
    reader: Reader,
    frames: FrameReader,
    buffer: Vec<u8>,
}

impl FrameSource {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, frames: FrameReader::new(MAX_LEASE_FRAME_BYTES), buffer: vec![0; READ_BYTES] }
    }

    /// Refuses frames over `limit` bytes from now on.
    pub(crate) fn limit(mut self, limit: usize) -> Self {
        self.frames.set_limit(limit);
        self
    }

    /// The next frame; `None` when the stream has ended. A call that is dropped loses nothing.
    pub(crate) async fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        loop {
            if let Some(frame) = self.frames.next().map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            let count = self.reader.read(&mut self.buffer).await?;
            if count == 0 {
                return Ok(None);
            }
            self.frames.push(&self.buffer[..count]);
        }
    }
}

/// Writes one frame.
pub(crate) async fn write_frame<M: Serialize>(
    writer: &mut Writer,
    frame: &M,
    limit: usize,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    encode(frame, limit, &mut buffer).map_err(io::Error::other)?;
    writer.write_all(&buffer).await
}

/// Writes frames until nobody can send any more, or the stream breaks, or takes nothing for `patience`.
pub(crate) async fn write_frames<M: Serialize>(
    writer: Writer,
    frames: mpsc::Receiver<M>,
    patience: Duration,
) -> io::Result<()> {
    write_frames_within(writer, frames, patience, MAX_LEASE_FRAME_BYTES).await
}

/// As [`write_frames`], for frames of at most `limit` bytes.
pub(crate) async fn write_frames_within<M: Serialize>(
    mut writer: Writer,
    mut frames: mpsc::Receiver<M>,
    patience: Duration,
    limit: usize,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(frame) = frames.recv().await {
        encode(&frame, limit, &mut buffer).map_err(io::Error::other)?;
        // What has queued up meanwhile goes out in one write.
        while buffer.len() < READ_BYTES
            && let Ok(frame) = frames.try_recv()
        {
            encode(&frame, limit, &mut buffer).map_err(io::Error::other)?;
        }
        tokio::time::timeout(patience, writer.write_all(&buffer)).await.map_err(io::Error::from)??;
        buffer.clear();
    }
    writer.shutdown().await
}
