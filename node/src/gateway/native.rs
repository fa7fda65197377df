//! The native protocol, over WebSocket, QUIC and WebTransport.
//!
//! Reading and writing go on side by side: a client whose audio waits for room still gets its finals, and one that doesn't
//! read still has its audio taken. A connection that ends without `end` is only lost; the session waits for the next.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use starling_actors::{Dialect, OpenRequest, Ready, ResumeRequest, SessionEvent};
use starling_protocol::lease::TraceContext;
use starling_protocol::native::{
    ApiKey, ClientMessage, Close, Encoding, ErrorBody, ErrorCode, Hello, ServerMessage,
};
use starling_protocol::{Epoch, Segment, SessionId};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::link::{Heard, Reader, Writer};
use super::audio::{Channels, LiveAudio};
use super::link::{SendError, split};
use super::quic::{ReceivingHalf, SendingHalf};
use super::rounds::Pace;
use super::transcriptions::model_for_tag;
use super::{GatewayState, access};
use crate::sessions::{Attached, Input, Output};

mod link;

/// Errors about single messages that wait to be written. A client that sends nonsense faster than it reads loses time, not
/// the server memory.
const WAITING_ERRORS: usize = 8;

/// How long a client may take for its side of the closing handshake: several round trips on a bad line.
const GOODBYE: Duration = Duration::from_secs(2);

/// How a connection is to be closed.
type Closing = (Close, String);

/// Serves one WebSocket to its end.
pub(super) async fn serve(socket: WebSocket, state: GatewayState) {
    let (reader, writer) = split(socket, &state.settings);
    serve_link(Reader::WebSocket(reader), Writer::of_websocket(writer), &state).await;
}

/// Serves one stream to its end.
pub(super) async fn serve_stream(sending: SendingHalf, receiving: ReceivingHalf, state: GatewayState) {
    let state = state.asking(receiving.protocol(), "quic");
    let writer = Writer::of_stream(sending, state.settings.write_timeout);
    serve_link(Reader::of_stream(receiving), writer, &state).await;
}

async fn serve_link(mut reader: Reader, mut writer: Writer, state: &GatewayState) {
    let closing = match open(&mut reader, state).await {
        Ok((attached, speech)) => converse(&mut reader, &mut writer, attached, speech, state).await,
        Err(Refusal::Gone) => None,
        Err(Refusal::Close(close, reason)) => {
            state.request.refused(ErrorCode::BadMessage, None);
            Some((close, reason.to_owned()))
        }
        Err(Refusal::Error(error)) => {
            state.request.refused(error.code, None);
            let sent = writer.say(&ServerMessage::Error(error.clone())).await;
            sent.ok().map(|()| (Close::Error(error.code), error.message))
        }
    };
    if let Some((close, reason)) = closing {
        writer.close(close, &reason).await;
    }
    if let Some(close) = writer.closed() {
        reader.stop(close);
    }
}

/// Why no session was opened.
enum Refusal {
    Gone,
    Close(Close, &'static str),
    Error(ErrorBody),
}

impl From<ErrorBody> for Refusal {
    fn from(error: ErrorBody) -> Self {
        Self::Error(error)
    }
}

/// How a client speaks.
struct Speech {
    audio: LiveAudio,
    /// Whether its messages are mono PCM16 as they come.
    plain: bool,
    /// `None` for a recording, which comes faster.
    pace: Option<Pace>,
}

async fn open(reader: &mut Reader, state: &GatewayState) -> Result<(Attached, Speech), Refusal> {
    let most = state.settings.handshake_timeout;
    let Ok(heard) = timeout(most, reader.next()).await else {
        let message = format!("no hello came within {} s", most.as_secs_f64());
        return Err(ErrorBody::new(ErrorCode::IdleTimeout, message).into());
    };
    let hello = match heard {
        Heard::Message(ClientMessage::Hello(hello)) => *hello,
        Heard::Message(_) => {
            return Err(ErrorBody::new(ErrorCode::BadRequest, "the first message must be hello").into());
        }
        Heard::Audio(_) => {
            return Err(ErrorBody::new(ErrorCode::BadRequest, "audio came before hello").into());
        }
        // A bad message is one that a session survives; there is none yet.
        Heard::Nonsense(error) => return Err(ErrorBody { code: ErrorCode::BadRequest, ..error }.into()),
        Heard::Broken(close, reason) => return Err(Refusal::Close(close, reason)),
        Heard::Finished | Heard::Gone => return Err(Refusal::Gone),
    };
    let trace = trace_of(&hello);
    let attached = admit(hello, state).await;
    if let Err(Refusal::Error(error)) = &attached {
        state.request.refused(error.code, trace.as_ref());
    }
    attached
}

async fn admit(hello: Hello, state: &GatewayState) -> Result<(Attached, Speech), Refusal> {
    if state.tenant.is_none() {
        // Nothing before this message had room for a key.
        let state = access::admit_key(state, hello.api_key.as_ref().map(ApiKey::expose))?;
        return attach(hello, &state).await;
    }
    attach(hello, state).await
}

async fn attach(hello: Hello, state: &GatewayState) -> Result<(Attached, Speech), Refusal> {
    let audio = LiveAudio::described(hello.format, Channels::Mixed)?;
    let plain = hello.format.encoding == Encoding::PcmS16le && hello.format.channels == 1;
    let pace = (!hello.options.batch).then(|| state.rounds.enter());
    let attached = match (hello.session, hello.resume.clone()) {
        (Some(session), Some(resume)) => {
            let trace = trace_of(&hello);
            let tenant = String::new();
            state.sessions.resume(ResumeRequest { session, tenant, resume, trace }).await?
        }
        (None, Some(_)) => {
            return Err(ErrorBody::field("session", "absent", "the id of the session that is resumed").into());
        }
        (Some(session), None) if session.is_of_digest() => {
            return Err(
                ErrorBody::field("session", session.to_string(), "a random UUID (version 4 or 7)").into()
            );
        }
        (_, None) => state.sessions.open(open_request(hello, state)?).await?,
    };
    Ok((attached, Speech { audio, plain, pace }))
}

fn open_request(hello: Hello, state: &GatewayState) -> Result<OpenRequest, ErrorBody> {
    let trace = trace_of(&hello);
    Ok(OpenRequest {
        epoch: hello.epoch.unwrap_or(Epoch(1)),
        model: model_for_tag(hello.model.as_deref(), hello.language.as_deref(), state)?,
        options: hello.options,
        linger: state.linger,
        trace,
        ..OpenRequest::new(
            hello.session.unwrap_or_else(SessionId::random),
            Dialect::Native,
            hello.format.sample_rate,
        )
    })
}

fn trace_of(hello: &Hello) -> Option<TraceContext> {
    access::trace_context(hello.traceparent.as_deref(), hello.tracestate.as_deref())
}

/// `None` when nobody is there to be told.
async fn converse(
    reader: &mut Reader,
    writer: &mut Writer,
    attached: Attached,
    speech: Speech,
    state: &GatewayState,
) -> Option<Closing> {
    let Attached { ready, input, output } = attached;
    let session = ready.session;
    let warnings = ready.warnings.clone();
    writer.say(&ready_message(ready, state.cluster.node().name.as_str())).await.ok()?;
    for (code, message) in warnings {
        writer.say(&ServerMessage::Warning { code, message }).await.ok()?;
    }
    let (errors, waiting) = mpsc::channel(WAITING_ERRORS);
    let over = CancellationToken::new();
    // The input goes with the reading: when that ends, the session knows that its connection is lost.
    let (confirmed, mut confirmations) = watch::channel(None);
    let mut reading = std::pin::pin!(read(reader, input, speech, errors, confirmed, over.clone()));
    let told = tokio::select! {
        closing = &mut reading => return closing,
        told = write(writer, output, waiting, state) => told,
    };
    match told {
        Ok(((close, reason), last)) => {
            // WebSocket libraries answer a close frame by themselves and write nothing after it: the last confirmation has to
            // come before.
            let last = last.filter(|_| close == Close::Done);
            let gone = tokio::select! {
                _ = timeout(GOODBYE, confirmations.wait_for(|confirmed| *confirmed >= last)) => false,
                _ = &mut reading => true,
            };
            writer.close(close, &reason).await;
            over.cancel();
            if !gone {
                // The client's side of the goodbye, and what it says before.
                let _ = timeout(GOODBYE, &mut reading).await;
            }
        }
        Err(error) => {
            tracing::debug!(%session, %error, "connection lost while writing");
            if error == SendError::Slow {
                writer.abandon(Close::Error(ErrorCode::SlowReader));
            }
        }
    }
    None
}

/// Takes in messages until the connection is over. A client that has said `end` may close its side; it is waited for what it
/// is told then.
async fn read(
    reader: &mut Reader,
    mut input: Box<dyn Input>,
    mut speech: Speech,
    errors: mpsc::Sender<ErrorBody>,
    confirmed: watch::Sender<Option<Segment>>,
    over: CancellationToken,
) -> Option<Closing> {
    let mut mono = [Vec::new()];
    let mut ended = false;
    loop {
        let heard = reader.next().await;
        if let (Heard::Audio(_), Some(pace)) = (&heard, &mut speech.pace) {
            pace.wait().await;
        }
        let taken = match heard {
            Heard::Audio(_) if ended => {
                let error = ErrorBody::new(ErrorCode::BadMessage, "audio after end is not taken");
                let _ = errors.send(error).await;
                Ok(())
            }
            Heard::Audio(pcm) if speech.plain => input.audio(&pcm).await,
            Heard::Audio(message) => {
                mono[0].clear();
                speech.audio.push(message);
                // Of audio that was described it comes at once.
                match speech.audio.more(&mut mono).await {
                    Ok(_) => input.audio(&mono[0]).await,
                    Err(error) => {
                        let _ = errors.send(error).await;
                        Ok(())
                    }
                }
            }
            Heard::Message(ClientMessage::Confirm { segment }) => {
                let taken = input.confirm(segment).await;
                confirmed.send_replace(Some(segment));
                taken
            }
            Heard::Message(ClientMessage::Finalize {}) if !ended => input.finalize().await,
            Heard::Message(ClientMessage::End {}) if !ended => {
                ended = true;
                input.end().await
            }
            Heard::Message(message) => {
                let _ = errors.send(out_of_place(&message)).await;
                Ok(())
            }
            Heard::Nonsense(error) => {
                let _ = errors.send(ErrorBody { code: ErrorCode::BadMessage, ..error }).await;
                Ok(())
            }
            Heard::Finished if ended => {
                over.cancelled().await;
                return None;
            }
            Heard::Finished | Heard::Gone => return None,
            Heard::Broken(close, reason) => return Some((close, reason.to_owned())),
        };
        if taken.is_err() {
            // The session is over and its last events say why; they are being written.
            drop(input);
            return discard(reader).await;
        }
    }
}

async fn discard(reader: &mut Reader) -> Option<Closing> {
    while let Heard::Audio(_) | Heard::Message(_) | Heard::Nonsense(_) = reader.next().await {}
    None
}

fn out_of_place(message: &ClientMessage) -> ErrorBody {
    let message = match message {
        ClientMessage::Hello(_) => "hello was said already; a connection serves one session",
        ClientMessage::Finalize {} => "finalize after end is not taken",
        _ => "end was said already",
    };
    ErrorBody::new(ErrorCode::BadMessage, message)
}

/// Tells the client what happens until the session is over; how to close then, and the last final that was told.
async fn write(
    writer: &mut Writer,
    mut output: Box<dyn Output>,
    mut errors: mpsc::Receiver<ErrorBody>,
    state: &GatewayState,
) -> Result<(Closing, Option<Segment>), SendError> {
    let mut last = None;
    let mut pings = interval(state.settings.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pings.reset();
    let mut told_to_leave = false;
    loop {
        tokio::select! {
            event = output.next() => {
                let Some(event) = event else {
                    return Ok(((Close::Error(ErrorCode::Internal), "the session is gone".to_owned()), last));
                };
                if let SessionEvent::Final(told) = &event {
                    last = Some(told.segment);
                }
                if let Some(closing) = tell(writer, event).await? {
                    return Ok((closing, last));
                }
            }
            Some(error) = errors.recv() => writer.say(&ServerMessage::Error(error)).await?,
            _ = pings.tick() => writer.ping().await?,
            () = state.stopping.cancelled(), if !told_to_leave => {
                told_to_leave = true;
                let deadline_ms = u64::try_from(state.drain_deadline.as_millis()).unwrap_or(u64::MAX);
                writer.say(&ServerMessage::GoAway { deadline_ms }).await?;
            }
        }
    }
}

async fn tell(writer: &mut Writer, event: SessionEvent) -> Result<Option<Closing>, SendError> {
    let (message, closing) = match event {
        SessionEvent::Progress { .. } => return Ok(None),
        SessionEvent::View { view, token, durable, resume_at } => {
            (ServerMessage::View { view, token, durable, resume_at }, None)
        }
        SessionEvent::Ack(until) => (ServerMessage::Ack { until }, None),
        SessionEvent::Partial { segment, from, until, text } => {
            (ServerMessage::Partial { segment, from, until, text }, None)
        }
        SessionEvent::Final(last) => (ServerMessage::Final(last), None),
        SessionEvent::Warning(code, message) => (ServerMessage::Warning { code, message }, None),
        SessionEvent::Done { segments, frames } => {
            let closing = (Close::Done, String::new());
            (ServerMessage::Done { segments, frames }, Some(closing))
        }
        SessionEvent::Failed(error) => {
            let closing = (Close::Error(error.code), error.message.clone());
            (ServerMessage::Error(error), Some(closing))
        }
    };
    writer.say(&message).await?;
    Ok(closing)
}

fn ready_message(ready: Ready, node: &str) -> ServerMessage {
    ServerMessage::Ready {
        session: ready.session,
        epoch: ready.epoch,
        token: ready.token,
        model: ready.model,
        have_until: ready.have_until,
        next_segment: ready.next_segment,
        resumed: ready.resumed,
        durable: ready.durable,
        linger_ms: u64::try_from(ready.linger.as_millis()).unwrap_or(u64::MAX),
        node: node.to_owned(),
    }
}
