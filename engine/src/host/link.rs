//! The socket to the parent: whole messages in, whole messages out.
//!
//! Owns: framing, the bounded outbox and its writer thread. Must never: look into a message.
#![allow(unsafe_code)] // _exit, see `exit_now`.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::lease::{FromHost, ToHost};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;

use super::{EXIT_PARENT_GONE, ProtocolError};

/// Messages that wait for the writer at most: some seconds of every lease's answers.
const OUTBOX_MESSAGES: usize = 1_024;

/// A parent that takes nothing for so long is broken, and nobody would hear what is decoded.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Leaves at once, without destructors: decode threads may be inside a native library whose statics they would tear down.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Messages from the parent.
pub(super) struct Inbox {
    socket: UnixStream,
    frames: FrameReader,
    bytes: Vec<u8>,
}

impl Inbox {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, frames: FrameReader::new(MAX_LEASE_FRAME_BYTES), bytes: vec![0; 64 << 10] }
    }

    /// The next message; `None` at the link's end.
    pub(super) fn next(&mut self) -> Result<Option<ToHost>, ProtocolError> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(message));
            }
            match self.socket.read(&mut self.bytes) {
                Ok(0) => return Ok(None),
                Ok(length) => self.frames.push(&self.bytes[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

enum Outgoing {
    Message(FromHost),
    Close,
}

/// Messages to the parent, bounded.
#[derive(Clone)]
pub(super) struct Outbox {
    queue: SyncSender<Outgoing>,
    written: Arc<(Mutex<bool>, Condvar)>,
}

impl Outbox {
    /// Queues a message; waits while the queue is full, which the writer's deadline bounds.
    pub(super) fn send(&self, message: FromHost) {
        // The writer ends only with the process or after `close`, when nobody listens any more.
        let _ = self.queue.send(Outgoing::Message(message));
    }

    /// Queues a message if there is room.
    pub(super) fn try_send(&self, message: FromHost) -> bool {
        !matches!(self.queue.try_send(Outgoing::Message(message)), Err(TrySendError::Full(_)))
    }

    /// Lets the writer end after what is queued.
    pub(super) fn close(&self) {
        let _ = self.queue.send(Outgoing::Close);
    }

    /// Waits until the writer has ended.
    pub(super) fn wait_written(&self, deadline: Duration) {
        let (done, signal) = &*self.written;
        let guard = done.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = signal.wait_timeout_while(guard, deadline, |done| !*done);
    }
}

/// The writer's thread, to be waited for.
pub(super) struct Writer(std::thread::JoinHandle<()>);

impl Writer {
    pub(super) fn wait(self) {
        let _ = self.0.join();
    }
}

pub(super) fn start_writer(socket: UnixStream) -> std::io::Result<(Outbox, Writer)> {
    socket.set_write_timeout(Some(WRITE_DEADLINE))?;
    let (queue, messages) = sync_channel(OUTBOX_MESSAGES);
    let written = Arc::new((Mutex::new(false), Condvar::new()));
    let outbox = Outbox { queue, written: Arc::clone(&written) };
    let thread = std::thread::Builder::new().name("write".to_owned()).spawn(move || {
        if let Err(error) = write_all(&socket, &messages) {
            tracing::info!(%error, "the parent takes no messages");
            exit_now(EXIT_PARENT_GONE);
        }
        *written.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        written.1.notify_all();
    })?;
    Ok((outbox, Writer(thread)))
}

fn write_all(mut socket: &UnixStream, messages: &Receiver<Outgoing>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    while let Ok(first) = messages.recv() {
        bytes.clear();
        let mut next = Some(first);
        while let Some(message) = next {
            let Outgoing::Message(message) = message else {
                return socket.write_all(&bytes);
            };
            if let Err(error) = encode(&message, MAX_LEASE_FRAME_BYTES, &mut bytes) {
                // An utterance of 30 s can't reach 1 MiB; if it ever does, the lease would wait for ever.
                return Err(std::io::Error::other(error));
            }
            next = if bytes.len() < 64 << 10 { messages.try_recv().ok() } else { None };
        }
        socket.write_all(&bytes)?;
    }
    Ok(())
}
