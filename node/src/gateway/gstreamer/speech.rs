//! Live speech: audio in, partial and final events out, until `EOS`.
//!
//! A client of this dialect confirms nothing. What it has read is known by its answers to pings, which WebSocket libraries give
//! by themselves and in order (RFC 6455, section 5.5.3): one is sent behind each final. So a client that comes back gets the
//! finals that were still on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::WebSocket;
use serde_json::Value;
use starling_actors::SessionEvent;
use starling_core::audio::PcmReader;
use starling_protocol::Segment;
use starling_protocol::gstreamer::{
    END_OF_STREAM, Media, Status, TextMessage, adaptation_event, error_event, final_event, parse_text,
    partial_event,
};
use starling_protocol::native::{AudioFormat, ErrorBody, ErrorCode};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Call;
use crate::gateway::link::{Reader, Received, SendError, Writer, close, close_code, split};
use crate::gateway::wav::{MAX_HEAD_BYTES, parse_head};
use crate::gateway::{GatewayState, note_warnings};
use crate::sessions::{Attached, Input, Output};

/// Finals that a client may have unanswered pings for. One that answers none would keep its session from going on.
const MOST_UNREAD: u64 = 16;

/// How long a client may take for its last pong and its side of the closing handshake.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a stream did not begin, or ended before its time.
enum Over {
    /// The client has left: nobody is there to be told.
    Gone,
    Close(u16, &'static str),
    Error(ErrorBody),
}

impl From<ErrorBody> for Over {
    fn from(error: ErrorBody) -> Self {
        Self::Error(error)
    }
}

/// What came before the first sample.
struct Beginning {
    format: AudioFormat,
    /// Bytes of samples that came with a head.
    first: Vec<u8>,
    /// Bytes of samples there are, if the head says so.
    left: u64,
    adaptation: Option<Value>,
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: WebSocket, state: GatewayState, call: Call) {
    let (mut reader, mut writer) = split(socket, &state.settings);
    let begun = async {
        let beginning = begin(&mut reader, &call, &state).await?;
        let request = call.request(beginning.format.sample_rate, &state);
        Ok((state.sessions.open(request).await?, beginning))
    };
    match begun.await {
        Ok((attached, beginning)) => {
            converse(&mut reader, &mut writer, attached, beginning, &call, &state).await;
        }
        Err(Over::Gone) => {}
        Err(Over::Close(code, reason)) => writer.close(code, reason).await,
        Err(Over::Error(error)) => refuse(&mut writer, &call.session.to_string(), &error).await,
    }
    state.workers.count_request();
}

/// Tells a client why it isn't served, or not any more.
async fn refuse(writer: &mut Writer, id: &str, error: &ErrorBody) {
    let status = Status::of(error.code);
    // What the original says, for clients that look for it.
    let message = match status {
        Status::NotAvailable => "No decoder available, try again later",
        _ => &error.message,
    };
    if writer.text(error_event(id, status, message)).await.is_ok() {
        writer.close(close_code(error.code), message).await;
    }
}

/// Reads up to the first samples: of raw audio, not at all.
async fn begin(reader: &mut Reader, call: &Call, state: &GatewayState) -> Result<Beginning, Over> {
    if let Media::Raw(format) = call.media.clone()? {
        return Ok(Beginning { format, first: Vec::new(), left: u64::MAX, adaptation: None });
    }
    let (mut bytes, mut adaptation) = (Vec::new(), None);
    let most = state.settings.handshake_timeout;
    let read = async {
        loop {
            match reader.next().await {
                Received::Binary(piece) if piece == END_OF_STREAM => return Err(no_recording(&bytes)),
                Received::Binary(piece) => bytes.extend_from_slice(&piece),
                Received::Text(text) => match parse_text(&text) {
                    TextMessage::EndOfStream => return Err(no_recording(&bytes)),
                    TextMessage::AdaptationState(given) => adaptation = Some(*given),
                    TextMessage::Other => {}
                },
                Received::Pong(_) => {}
                Received::Broken(code, reason) => return Err(Over::Close(code, reason)),
                Received::Closed | Received::Silent => return Err(Over::Gone),
            }
            if let Some(head) = parse_head(&bytes)? {
                let first = bytes.split_off(head.data_at);
                let left = head.data_bytes.unwrap_or(u64::MAX);
                return Ok(Beginning { format: head.format, first, left, adaptation });
            }
            if bytes.len() > MAX_HEAD_BYTES {
                return Err(no_recording(&bytes));
            }
        }
    };
    timeout(most, read).await.unwrap_or_else(|_| {
        let message = format!("no audio came within {} s", most.as_secs_f64());
        Err(ErrorBody::new(ErrorCode::IdleTimeout, message).into())
    })
}

fn no_recording(bytes: &[u8]) -> Over {
    let value = format!("{} bytes without samples", bytes.len());
    ErrorBody::field("audio", value, "a WAV recording, or raw audio that content-type describes").into()
}

async fn converse(
    reader: &mut Reader,
    writer: &mut Writer,
    attached: Attached,
    beginning: Beginning,
    call: &Call,
    state: &GatewayState,
) {
    let Attached { ready, input, output } = attached;
    note_warnings(&ready);
    let id = call.session.to_string();
    let sent = Arc::new(AtomicU64::new(0));
    let mut hearing = Hearing { input, sent: Arc::clone(&sent), read: 0, pongs: false };
    let (tell, adapted) = oneshot::channel();
    let (told, broken) = {
        let mut reading = std::pin::pin!(hearing.run(reader, beginning, tell));
        let (told, broken) = tokio::select! {
            broken = &mut reading => (false, broken),
            told = answer(writer, output, &id, &sent, adapted, state) => (told.is_ok(), None),
        };
        if told {
            // Its last pongs, and its side of the goodbye.
            let _ = timeout(GOODBYE, &mut reading).await;
        }
        (told, broken)
    };
    if let Some((code, reason)) = broken {
        writer.close(code, reason).await;
    }
    hearing.leave(call.named, told).await;
}

/// The client's side of a session.
struct Hearing {
    input: Box<dyn Input>,
    /// Finals that were sent, by the last one's number plus one.
    sent: Arc<AtomicU64>,
    /// Of those, how many are known to be read.
    read: u64,
    /// Whether the client has ever answered a ping.
    pongs: bool,
}

impl Hearing {
    /// Takes in messages until the connection is over.
    async fn run(
        &mut self,
        reader: &mut Reader,
        beginning: Beginning,
        adapted: oneshot::Sender<Option<Value>>,
    ) -> Option<(u16, &'static str)> {
        let Beginning { format, first, mut left, mut adaptation } = beginning;
        let mut samples = PcmReader::new(format.encoding, format.channels);
        let mut adapted = Some(adapted);
        let mut waiting = Some(first).filter(|first| !first.is_empty());
        let mut mono = Vec::new();
        loop {
            let ended = match waiting.take() {
                Some(first) => self.audio(&first, &mut left, &mut samples, &mut mono).await,
                None => match reader.next().await {
                    Received::Binary(piece) if piece == END_OF_STREAM => {
                        self.end(adapted.take(), adaptation.take()).await
                    }
                    // After its end there is none.
                    Received::Binary(_) if adapted.is_none() => false,
                    Received::Binary(piece) => self.audio(&piece, &mut left, &mut samples, &mut mono).await,
                    Received::Text(text) => match parse_text(&text) {
                        TextMessage::EndOfStream => self.end(adapted.take(), adaptation.take()).await,
                        TextMessage::AdaptationState(given) => {
                            adaptation = Some(*given);
                            false
                        }
                        TextMessage::Other => false,
                    },
                    Received::Pong(payload) => self.pong(&payload).await,
                    Received::Broken(code, reason) => return Some((code, reason)),
                    Received::Closed | Received::Silent => return None,
                },
            };
            if ended {
                // The session is over and its last events say why; they are being written.
                while !matches!(
                    reader.next().await,
                    Received::Closed | Received::Silent | Received::Broken(..)
                ) {}
                return None;
            }
        }
    }

    /// Returns whether the session takes no more.
    async fn audio(
        &mut self,
        bytes: &[u8],
        left: &mut u64,
        samples: &mut PcmReader,
        mono: &mut Vec<u8>,
    ) -> bool {
        // What follows the samples of a recording is metadata.
        let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left = left.saturating_sub(taken as u64);
        mono.clear();
        samples.read(&bytes[..taken], mono);
        if mono.is_empty() {
            return false;
        }
        let behind = self.sent.load(Ordering::Acquire).saturating_sub(self.read);
        if behind > MOST_UNREAD {
            self.confirm(self.read + behind - MOST_UNREAD).await;
        }
        self.input.audio(mono).await.is_err()
    }

    async fn end(
        &mut self,
        adapted: Option<oneshot::Sender<Option<Value>>>,
        adaptation: Option<Value>,
    ) -> bool {
        // The end may be said twice.
        let Some(adapted) = adapted else { return false };
        // Nobody waits for it if the session is over.
        let _ = adapted.send(adaptation);
        self.input.end().await.is_err()
    }

    async fn pong(&mut self, payload: &[u8]) -> bool {
        if let Ok(number) = payload.try_into().map(u64::from_be_bytes)
            && number <= self.sent.load(Ordering::Acquire)
        {
            self.pongs = true;
            self.confirm(number).await;
        }
        false
    }

    /// The client has all finals before this number.
    async fn confirm(&mut self, number: u64) {
        if number > self.read {
            self.read = number;
            // A session that is over needs no confirmation.
            let _ = self.input.confirm(Segment(number - 1)).await;
        }
    }

    /// The connection is over. What a client that can come back has not read is kept for it.
    async fn leave(mut self, stays: bool, told: bool) {
        if told && !self.pongs {
            // It does not say what it reads; having been sent is as good as it gets.
            self.confirm(self.sent.load(Ordering::Acquire)).await;
        }
        if !stays {
            self.input.abandon().await;
        }
    }
}

/// Tells the client what comes until the session is over, and says goodbye.
async fn answer(
    writer: &mut Writer,
    mut output: Box<dyn Output>,
    id: &str,
    sent: &AtomicU64,
    mut adapted: oneshot::Receiver<Option<Value>>,
    state: &GatewayState,
) -> Result<(), SendError> {
    let mut pings = interval(state.settings.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    loop {
        let event = tokio::select! {
            event = output.next() => event,
            _ = pings.tick() => {
                writer.ping().await?;
                continue;
            }
        };
        match event {
            Some(SessionEvent::Partial { segment, text, .. }) => {
                writer.text(partial_event(id, segment.0, &text)).await?;
            }
            Some(SessionEvent::Final(last)) => {
                // An end of silence is nothing that the original would tell of.
                if !last.text.is_empty() || last.error.is_some() {
                    writer.text(final_event(id, &last)).await?;
                }
                let number = last.segment.0 + 1;
                sent.store(number, Ordering::Release);
                writer.ping_with(number.to_be_bytes().to_vec()).await?;
            }
            Some(SessionEvent::Done { .. }) => {
                let given = adapted.try_recv().ok().flatten();
                let time =
                    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + starling_actors::unix_now());
                let time = time.to_string();
                writer.text(adaptation_event(id, given.as_ref(), time.trim_end_matches('Z'))).await?;
                writer.close(close::NORMAL, "").await;
                return Ok(());
            }
            Some(SessionEvent::Failed(error)) => {
                refuse(writer, id, &error).await;
                return Ok(());
            }
            Some(_) => {}
            None => {
                let error =
                    ErrorBody::new(ErrorCode::Superseded, "another connection goes on with this content-id");
                refuse(writer, id, &error).await;
                return Ok(());
            }
        }
    }
}
