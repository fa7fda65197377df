//! One connection of a protocol over bare TCP, with the bounds that each needs: what is not read in time ends it.

use std::time::Duration;

use starling_protocol::native::ErrorBody;
use starling_protocol::wire::WireReader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::link::SendError;
use crate::net::Duplex;

/// Read at once from a client: a quarter of a second at 8 kHz.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What a client sent, or how its side ended.
#[derive(Debug, PartialEq)]
pub(super) enum Heard<F> {
    Frame(F),
    /// The end of the stream, or of the connection.
    Closed,
    /// None of the protocol.
    Broken(ErrorBody),
}

/// A connection and the reader of its frames.
pub(super) struct Wire<R> {
    stream: Box<dyn Duplex>,
    reader: R,
    buffer: Vec<u8>,
    write_timeout: Duration,
}

impl<R: WireReader> Wire<R> {
    pub(super) fn new(stream: Box<dyn Duplex>, reader: R, write_timeout: Duration) -> Self {
        Self { stream, reader, buffer: vec![0; READ_BUFFER_BYTES], write_timeout }
    }

    /// The next frame. May be cancelled without losing any.
    pub(super) async fn next(&mut self) -> Heard<R::Frame> {
        loop {
            match self.reader.next_frame() {
                Ok(Some(frame)) => return Heard::Frame(frame),
                Ok(None) => {}
                Err(error) => return Heard::Broken(error),
            }
            match self.stream.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Heard::Closed,
                Ok(count) => self.reader.push(&self.buffer[..count]),
            }
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.write_timeout, sent).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::Gone),
            Err(_) => Err(SendError::Slow),
        }
    }

    /// Ends the server's side. A client that can't be told is gone anyway.
    pub(super) async fn close(mut self) {
        let _ = timeout(self.write_timeout, self.stream.shutdown()).await;
    }
}
