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
use starling_protocol::Segment;
use starling_protocol::gstreamer::{
    END_OF_STREAM, Media, Status, TextMessage, adaptation_event, error_event, final_event, parse_text,
    partial_event,
};
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Call;
use crate::gateway::audio::{Came, Channels, LiveAudio, Opening};
use crate::gateway::link::{Reader, Received, SendError, Writer, close, close_code, split};
use crate::gateway::rounds::Pace;
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
    audio: LiveAudio,
    adaptation: Option<Value>,
}

/// What a client did that its connection can't go on after.
enum Broken {
    Closing(u16, &'static str),
    /// Its audio can't be decoded.
    Audio(ErrorBody),
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: WebSocket, state: GatewayState, call: Call) {
    let (mut reader, mut writer) = split(socket, &state.settings);
    let begun = async {
        let beginning = begin(&mut reader, &call, &state).await?;
        let sample_rate = beginning.audio.sample_rate;
        let attached = state.sessions.open(call.request(sample_rate, &state)?).await?;
        if attached.ready.resumed && attached.ready.sample_rate != sample_rate {
            // Positions are counted in the session's own frames.
            let allowed = format!("{} as this content-id's session began", attached.ready.sample_rate);
            drop(attached);
            return Err(ErrorBody::field("rate", sample_rate.to_string(), allowed).into());
        }
        Ok((attached, beginning))
    };
    match begun.await {
        Ok((attached, beginning)) => {
            call.log(&attached.ready);
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

/// Reads until it is known what the audio is: of raw audio, not at all.
async fn begin(reader: &mut Reader, call: &Call, state: &GatewayState) -> Result<Beginning, Over> {
    if let Media::Raw(format) = call.media.clone()? {
        let audio = LiveAudio::described(format, Channels::Mixed)?;
        return Ok(Beginning { audio, adaptation: None });
    }
    let (mut opening, mut adaptation) = (Opening::new(Channels::Mixed), None);
    let most = state.settings.handshake_timeout;
    let read = async {
        loop {
            let received = tokio::select! {
                begun = opening.begun() => match begun? {
                    Some(audio) => return Ok(Beginning { audio, adaptation: adaptation.take() }),
                    None => continue,
                },
                received = reader.next(), if opening.takes() => received,
            };
            match received {
                Received::Binary(piece) if piece == END_OF_STREAM => opening.close(),
                Received::Binary(piece) => opening.push(&piece),
                Received::Text(text) => match parse_text(&text) {
                    TextMessage::EndOfStream => opening.close(),
                    TextMessage::AdaptationState(given) => adaptation = Some(*given),
                    TextMessage::Other => {}
                },
                Received::Pong(_) => {}
                Received::Broken(code, reason) => return Err(Over::Close(code, reason)),
                Received::Closed | Received::Silent => return Err(Over::Gone),
            }
        }
    };
    timeout(most, read).await.unwrap_or_else(|_| {
        let message = format!("no audio came within {} s", most.as_secs_f64());
        Err(ErrorBody::new(ErrorCode::IdleTimeout, message).into())
    })
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
    let pace = state.rounds.enter();
    let mut hearing = Hearing { input, sent: Arc::clone(&sent), read: 0, pongs: false, pace };
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
    match broken {
        Some(Broken::Closing(code, reason)) => writer.close(code, reason).await,
        Some(Broken::Audio(error)) => refuse(writer, &id, &error).await,
        None => {}
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
    pace: Pace,
}

impl Hearing {
    /// Takes in messages until the connection is over.
    async fn run(
        &mut self,
        reader: &mut Reader,
        beginning: Beginning,
        adapted: oneshot::Sender<Option<Value>>,
    ) -> Option<Broken> {
        let Beginning { mut audio, mut adaptation } = beginning;
        let mut adapted = Some(adapted);
        let mut mono = [Vec::new()];
        loop {
            let received = tokio::select! {
                more = audio.more(&mut mono), if adapted.is_some() => {
                    let over = match more {
                        Ok(Came::More | Came::Mark) => self.audio(&mut mono[0]).await,
                        Ok(Came::End) => self.end(adapted.take(), adaptation.take()).await,
                        Err(error) => return Some(Broken::Audio(error)),
                    };
                    if over {
                        break;
                    }
                    continue;
                }
                received = reader.next(), if audio.takes() => received,
            };
            match received {
                Received::Binary(piece) if piece == END_OF_STREAM => audio.close(),
                Received::Binary(piece) => {
                    self.pace.wait().await;
                    audio.push(piece);
                }
                Received::Text(text) => match parse_text(&text) {
                    TextMessage::EndOfStream => audio.close(),
                    TextMessage::AdaptationState(given) => adaptation = Some(*given),
                    TextMessage::Other => {}
                },
                Received::Pong(payload) => self.pong(&payload).await,
                Received::Broken(code, reason) => return Some(Broken::Closing(code, reason)),
                Received::Closed | Received::Silent => return None,
            }
        }
        // The session is over and its last events say why; they are being written.
        while !matches!(reader.next().await, Received::Closed | Received::Silent | Received::Broken(..)) {}
        None
    }

    /// Returns whether the session takes no more.
    async fn audio(&mut self, mono: &mut Vec<u8>) -> bool {
        let behind = self.sent.load(Ordering::Acquire).saturating_sub(self.read);
        if behind > MOST_UNREAD {
            self.confirm(self.read + behind - MOST_UNREAD).await;
        }
        let over = !mono.is_empty() && self.input.audio(mono).await.is_err();
        mono.clear();
        over
    }

    async fn end(
        &mut self,
        adapted: Option<oneshot::Sender<Option<Value>>>,
        adaptation: Option<Value>,
    ) -> bool {
        let Some(adapted) = adapted else { return false };
        // Nobody waits for it if the session is over.
        let _ = adapted.send(adaptation);
        self.input.end().await.is_err()
    }

    async fn pong(&mut self, payload: &[u8]) {
        if let Ok(number) = payload.try_into().map(u64::from_be_bytes)
            && number <= self.sent.load(Ordering::Acquire)
        {
            self.pongs = true;
            self.confirm(number).await;
        }
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
