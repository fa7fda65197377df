//! A node's end of a client's connection, as the native gateway and those of thin dialects are: messages to and from the
//! session's two halves.
//!
//! Confirms for a thin client what was written. Must never: answer for a session, or keep what a client was not told.

use std::io;
use std::time::Duration;

use starling_actors::{
    Attachment, Dialect, NodeHandle, OpenRequest, Ready, ResumeRequest, SessionEvent, SessionInput,
    SessionOutput,
};
use starling_protocol::native::stream::{Frame, StreamReader, encode_message, read_client};
use starling_protocol::native::{ClientMessage, ErrorBody, ErrorCode, Hello, ServerMessage};
use starling_protocol::{Epoch, Segment, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::lines::{LineReader, LineWriter};
use crate::plan::Speaks;

/// How long sessions wait for clients that have gone.
pub const LINGER: Duration = Duration::from_secs(20);

/// How long a client may take nothing.
const WRITE: Duration = Duration::from_secs(30);

/// How long a client may take to say hello, and goodbye.
const MANNERS: Duration = Duration::from_secs(5);

enum Heard {
    Message(ClientMessage),
    Audio(Vec<u8>),
    Gone,
}

struct Reader {
    reader: LineReader,
    frames: StreamReader,
    buffer: Vec<u8>,
}

impl Reader {
    async fn next(&mut self) -> Heard {
        loop {
            match self.frames.next() {
                Ok(Some(Frame::Audio(samples))) => return Heard::Audio(samples.to_vec()),
                Ok(Some(Frame::Message(body))) => {
                    return read_client(body).map_or(Heard::Gone, Heard::Message);
                }
                Ok(None) => {}
                Err(_) => return Heard::Gone,
            }
            match self.reader.read(&mut self.buffer).await {
                Ok(count) if count > 0 => self.frames.push(&self.buffer[..count]),
                _ => return Heard::Gone,
            }
        }
    }
}

/// Serves one connection to its end. `stopping` says when the node is about to stop, and how long it serves on.
pub async fn serve(
    (reader, mut writer): (LineReader, LineWriter),
    speaks: Speaks,
    node: NodeHandle,
    mut stopping: watch::Receiver<Option<Duration>>,
) {
    let mut reader = Reader { reader, frames: StreamReader::of_client(), buffer: vec![0; 16 * 1024] };
    let Ok(Heard::Message(ClientMessage::Hello(hello))) = timeout(MANNERS, reader.next()).await else {
        return;
    };
    match attach(*hello, speaks, &node).await {
        Ok(attached) => converse(&mut reader, &mut writer, attached, speaks, &mut stopping).await,
        Err(body) => drop(say(&mut writer, &ServerMessage::Error(body)).await),
    }
    let _ = writer.shutdown().await;
}

async fn attach(hello: Hello, speaks: Speaks, node: &NodeHandle) -> Result<Attachment, ErrorBody> {
    let tenant = String::new();
    if let (Some(session), Some(resume)) = (hello.session, hello.resume) {
        return node.resume(ResumeRequest { session, tenant, resume, trace: None }).await;
    }
    let (dialect, linger) = match speaks {
        Speaks::Native => (Dialect::Native, LINGER),
        Speaks::Thin => (Dialect::Vosk, Duration::ZERO),
    };
    let request = OpenRequest {
        epoch: hello.epoch.unwrap_or(Epoch(1)),
        tenant,
        options: hello.options,
        linger,
        ..OpenRequest::new(hello.session.unwrap_or_else(SessionId::random), dialect, hello.format.sample_rate)
    };
    node.open(request).await
}

async fn converse(
    reader: &mut Reader,
    writer: &mut LineWriter,
    attached: Attachment,
    speaks: Speaks,
    stopping: &mut watch::Receiver<Option<Duration>>,
) {
    let Attachment { ready, input, output } = attached;
    if say(writer, &ready_message(ready)).await.is_err() {
        return;
    }
    let (written, told) = watch::channel(None);
    let (heard, mut confirmed) = watch::channel(None);
    let told = (speaks == Speaks::Thin).then_some(told);
    let mut reading = std::pin::pin!(read(reader, input, told, heard));
    let last = tokio::select! {
        biased;
        last = write(writer, output, &written, stopping) => last,
        () = &mut reading => return,
    };
    if let Ok(last) = last {
        // The last confirmation has to come before the end.
        tokio::select! {
            biased;
            () = &mut reading => return,
            _ = timeout(MANNERS, confirmed.wait_for(|confirmed| *confirmed >= last)) => {}
        }
        let _ = writer.shutdown().await;
        let _ = timeout(MANNERS, &mut reading).await;
    }
}

async fn read(
    reader: &mut Reader,
    mut input: SessionInput,
    mut told: Option<watch::Receiver<Option<Segment>>>,
    heard: watch::Sender<Option<Segment>>,
) {
    loop {
        let written = async {
            match &mut told {
                Some(told) => match told.changed().await {
                    Ok(()) => *told.borrow_and_update(),
                    Err(_) => std::future::pending().await,
                },
                None => std::future::pending().await,
            }
        };
        let taken = tokio::select! {
            biased;
            segment = written => match segment {
                Some(segment) => {
                    let taken = input.confirm(segment).await;
                    heard.send_replace(Some(segment));
                    taken
                }
                None => Ok(()),
            },
            next = reader.next() => match next {
                Heard::Audio(pcm) => input.audio(&pcm).await,
                Heard::Message(ClientMessage::Confirm { segment }) => {
                    let taken = input.confirm(segment).await;
                    heard.send_replace(Some(segment));
                    taken
                }
                Heard::Message(ClientMessage::Finalize {}) => input.finalize().await,
                Heard::Message(ClientMessage::End {}) => input.end().await,
                Heard::Message(ClientMessage::Hello(_)) | Heard::Gone => return,
            },
        };
        if taken.is_err() {
            // The session is over and its last events say why; they are being written.
            drop(input);
            while !matches!(reader.next().await, Heard::Gone) {}
            return;
        }
    }
}

/// Tells the client what happens until the session is over; the last final that was told.
async fn write(
    writer: &mut LineWriter,
    mut output: SessionOutput,
    written: &watch::Sender<Option<Segment>>,
    stopping: &mut watch::Receiver<Option<Duration>>,
) -> io::Result<Option<Segment>> {
    let mut last = None;
    let mut told_to_leave = false;
    loop {
        tokio::select! {
            biased;
            remaining = leave(stopping), if !told_to_leave => {
                told_to_leave = true;
                let deadline_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
                say(writer, &ServerMessage::GoAway { deadline_ms }).await?;
            }
            event = output.next() => {
                let Some(event) = event else { return Err(io::ErrorKind::UnexpectedEof.into()) };
                let (message, over) = message_of(event);
                let Some(message) = message else { continue };
                say(writer, &message).await?;
                if let ServerMessage::Final(told) = &message {
                    last = Some(told.segment);
                    written.send_replace(last);
                }
                if over {
                    return Ok(last);
                }
            }
        }
    }
}

/// How long the node serves on, once it is about to stop.
async fn leave(stopping: &mut watch::Receiver<Option<Duration>>) -> Duration {
    stopping.wait_for(Option::is_some).await.ok().and_then(|leave| *leave).unwrap_or_default()
}

fn message_of(event: SessionEvent) -> (Option<ServerMessage>, bool) {
    match event {
        SessionEvent::Progress { .. } => (None, false),
        SessionEvent::View { view, token, durable, resume_at } => {
            (Some(ServerMessage::View { view, token, durable, resume_at }), false)
        }
        SessionEvent::Ack(until) => (Some(ServerMessage::Ack { until }), false),
        SessionEvent::Partial { segment, from, until, text } => {
            (Some(ServerMessage::Partial { segment, from, until, text }), false)
        }
        SessionEvent::Final(last) => (Some(ServerMessage::Final(last)), false),
        SessionEvent::Warning(code, message) => (Some(ServerMessage::Warning { code, message }), false),
        SessionEvent::Done { segments, frames } => (Some(ServerMessage::Done { segments, frames }), true),
        SessionEvent::Failed(error) => (Some(ServerMessage::Error(error)), true),
    }
}

fn ready_message(ready: Ready) -> ServerMessage {
    ServerMessage::Ready {
        node: String::new(),
        session: ready.session,
        epoch: ready.epoch,
        token: ready.token,
        model: ready.model,
        have_until: ready.have_until,
        next_segment: ready.next_segment,
        resumed: ready.resumed,
        durable: ready.durable,
        linger_ms: u64::try_from(ready.linger.as_millis()).unwrap_or(u64::MAX),
    }
}

async fn say(writer: &mut LineWriter, message: &ServerMessage) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes).map_err(io::Error::other)?;
    timeout(WRITE, writer.write_all(&bytes)).await.map_err(io::Error::from)?
}

/// Whether a refusal asks to come back.
#[must_use]
pub const fn asks_to_wait(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Busy | ErrorCode::ShuttingDown)
}
