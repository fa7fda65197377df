//! One direction of a stream: what was written, what is on its way, what has come.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Flight, HostId, Net};

/// Bytes that a stream holds between its ends: as a socket's buffers and a QUIC stream's window do.
const WINDOW_BYTES: usize = 64 * 1024;

pub(crate) struct Pipe {
    from: HostId,
    to: HostId,
    written: VecDeque<u8>,
    flight: Flight,
    in_flight: usize,
    arrived: VecDeque<u8>,
    /// The writer has said its last; the reader has heard so.
    finished: bool,
    end_at: Option<Duration>,
    ended: bool,
    /// When both ends hear that the stream is no more.
    reset_at: Option<Duration>,
    broken: bool,
    /// The writer's host is gone: nothing more departs, not even an end.
    dead: bool,
    reader_gone: bool,
    writer_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(crate) const fn new(from: HostId, to: HostId) -> Self {
        Self {
            from,
            to,
            written: VecDeque::new(),
            flight: VecDeque::new(),
            in_flight: 0,
            arrived: VecDeque::new(),
            finished: false,
            end_at: None,
            ended: false,
            reset_at: None,
            broken: false,
            dead: false,
            reader_gone: false,
            writer_gone: false,
            reader: None,
            writer: None,
        }
    }

    pub(crate) const fn ends(&self) -> (HostId, HostId) {
        (self.from, self.to)
    }

    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Nobody holds an end, or will hear of anything more.
    pub(crate) const fn is_over(&self) -> bool {
        self.reader_gone && self.writer_gone
    }

    pub(crate) fn die(&mut self) {
        self.dead = true;
        self.written.clear();
    }

    pub(crate) fn reset_at(&mut self, at: Duration) {
        self.reset_at = Some(self.reset_at.unwrap_or(at));
    }

    pub(crate) fn break_now(&mut self, wakers: &mut Vec<Waker>) {
        self.broken = true;
        wakers.extend(self.reader.take());
        wakers.extend(self.writer.take());
    }

    pub(crate) fn has_to_send(&self) -> bool {
        !self.broken && !self.dead && (!self.written.is_empty() || (self.finished && self.end_at.is_none()))
    }

    /// What was written goes on its way, behind what is on it.
    pub(crate) fn depart(&mut self, at: Duration) {
        let at = self.flight.back().map_or(at, |(last, _)| at.max(*last));
        if !self.written.is_empty() {
            let bytes: Vec<u8> = self.written.drain(..).collect();
            self.in_flight += bytes.len();
            self.flight.push_back((at, bytes));
        }
        if self.finished && self.end_at.is_none() {
            self.end_at = Some(at);
        }
    }

    pub(crate) fn arrive(&mut self, now: Duration, wakers: &mut Vec<Waker>) {
        let mut news = false;
        while let Some((at, _)) = self.flight.front()
            && *at <= now
            && let Some((_, bytes)) = self.flight.pop_front()
        {
            self.in_flight -= bytes.len();
            self.arrived.extend(bytes);
            news = true;
        }
        if !self.ended && self.flight.is_empty() && self.end_at.is_some_and(|at| at <= now) {
            self.ended = true;
            news = true;
        }
        if !self.broken && (self.reader_gone || self.reset_at.is_some_and(|at| at <= now)) {
            self.break_now(wakers);
        }
        if news {
            wakers.extend(self.reader.take());
        }
    }

    fn held(&self) -> usize {
        self.written.len() + self.in_flight + self.arrived.len()
    }
}

/// What the other end says.
pub struct PipeReader {
    net: Net,
    name: u64,
}

/// What the other end is told. Dropping it says that no more will come.
pub struct PipeWriter {
    net: Net,
    name: u64,
}

impl PipeReader {
    pub(crate) fn new(net: &Net, name: u64) -> Self {
        Self { net: net.clone(), name }
    }
}

impl PipeWriter {
    pub(crate) fn new(net: &Net, name: u64) -> Self {
        Self { net: net.clone(), name }
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl AsyncRead for PipeReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.net.lock();
        let Some(pipe) = state.pipes.get_mut(&self.name) else { return Poll::Ready(Err(reset())) };
        if !pipe.arrived.is_empty() {
            let count = pipe.arrived.len().min(buffer.remaining());
            let bytes: Vec<u8> = pipe.arrived.drain(..count).collect();
            buffer.put_slice(&bytes);
            let waker = pipe.writer.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Poll::Ready(Ok(()));
        }
        if pipe.ended {
            return Poll::Ready(Ok(()));
        }
        if pipe.broken {
            return Poll::Ready(Err(reset()));
        }
        let before = pipe.reader.replace(context.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.net.lock();
        let Some(pipe) = state.pipes.get_mut(&self.name) else { return Poll::Ready(Err(reset())) };
        if pipe.broken || pipe.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(pipe.held());
        if room == 0 {
            let before = pipe.writer.replace(context.waker().clone());
            drop(state);
            drop(before);
            return Poll::Pending;
        }
        let count = room.min(bytes.len());
        pipe.written.extend(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(pipe) = self.net.lock().pipes.get_mut(&self.name) {
            pipe.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        let waker = state.pipes.get_mut(&self.name).and_then(|pipe| {
            pipe.reader_gone = true;
            pipe.reader.take()
        });
        drop(state);
        drop(waker);
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        let mut state = self.net.lock();
        let waker = state.pipes.get_mut(&self.name).and_then(|pipe| {
            pipe.finished = true;
            pipe.writer_gone = true;
            pipe.writer.take()
        });
        drop(state);
        drop(waker);
    }
}
