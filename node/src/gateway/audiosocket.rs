//! Asterisk's `AudioSocket`: calls over bare TCP, each one session under the call's UUID.
//!
//! What is said in a call is told to whoever asks for its [`events`]; the protocol itself has no word for it. Asterisk gets no
//! audio back, except where it would give the call up for want of any: its application `AudioSocket()` does so when for 2 s
//! nothing came from either side, as while a call is on hold. So after each second without audio it gets 20 ms of silence,
//! which also tells whether it is still there.
//!
//! A call that can't be heard, or not any more, is ended with the frame that says so and not with an error: to Asterisk's
//! application an error is a reason to hang up on the caller, while after an end the dialplan goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use starling_actors::{Dialect, OpenRequest, SessionEvent};
use starling_protocol::audiosocket::{CallEvent, Frame, FrameReader, hangup, silence};
use starling_protocol::limits::{MAX_SAMPLE_RATE, MIN_SAMPLE_RATE};
use starling_protocol::native::{ErrorBody, ErrorCode, SessionOptions};
use starling_protocol::{Segment, SessionId, SourceOffset};
use tokio::time::{Instant, sleep_until, timeout};

pub use self::calls::Calls;
use self::calls::Line;
pub(super) use self::events::events;
use super::rounds::Pace;
use super::transcriptions::model_for_tag;
use super::wire::{Heard, Wire};
use super::{GatewayState, note_warnings};
use crate::net::{Duplex, Service, Wired};
use crate::sessions::{Attached, Input, Output, feed};

mod calls;
mod events;
pub(super) mod fuzzing;

/// Half of what Asterisk's application puts up with.
const QUIET: Duration = Duration::from_secs(1);

/// The last final may have a whole segment to be decoded again before it.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// What is spoken on `listen.audiosocket`.
#[must_use]
pub fn audiosocket_service(state: GatewayState) -> Service {
    Service::Wired(Arc::new(AudioSocket(state)))
}

struct AudioSocket(GatewayState);

#[async_trait]
impl Wired for AudioSocket {
    async fn serve(&self, stream: Box<dyn Duplex>, peer: SocketAddr) {
        let mut wire = Wire::new(stream, FrameReader::default(), self.0.settings.write_timeout);
        let state = self.0.asking("audiosocket", "tcp");
        match begin(&mut wire, &state).await {
            Ok(Some((id, state, line))) => {
                Call { wire, state, id, line, session: None, heard: Instant::now() }.run().await;
            }
            Ok(None) => {}
            Err(error) => {
                state.request.refused(error.code, None);
                tracing::warn!(%peer, code = ?error.code, reason = error.message, "an AudioSocket call is refused");
                end(wire).await;
            }
        }
    }

    fn refusal(&self, _error: &ErrorBody) -> Vec<u8> {
        hangup().to_vec()
    }
}

/// Reads which call it is; `None` when nobody is there.
async fn begin(
    wire: &mut Wire<FrameReader>,
    state: &GatewayState,
) -> Result<Option<(SessionId, GatewayState, Line)>, ErrorBody> {
    let most = state.settings.handshake_timeout;
    let first = timeout(most, wire.next()).await.map_err(|_| {
        let message = format!("no UUID came within {} s", most.as_secs_f64());
        ErrorBody::new(ErrorCode::IdleTimeout, message)
    })?;
    let id = match first {
        Heard::Frame(Frame::Call(id)) => id,
        Heard::Frame(Frame::Hangup) | Heard::Closed => return Ok(None),
        Heard::Broken(error) => return Err(error),
        Heard::Frame(frame) => return Err(not_first(&frame)),
    };
    // Others may know such an id: it follows from something that they know.
    if id.is_of_digest() {
        return Err(ErrorBody::field("the call's UUID", id.to_string(), "of another version than 8"));
    }
    let state = state.of_listener("audiosocket.tenant", &state.audiosocket.tenant)?;
    let line = state.calls.begin(state.tenant_name(), id).ok_or_else(|| {
        ErrorBody::field("the call's UUID", id.to_string(), "one that no other call has at the time")
    })?;
    Ok(Some((id, state, line)))
}

fn not_first(frame: &Frame) -> ErrorBody {
    let value = if matches!(frame, Frame::Audio { .. }) { "audio" } else { "of another type" };
    ErrorBody::field("the first frame", value, "the call's UUID (type 0x01)")
}

/// Tells the other end that the call is over here.
async fn end(mut wire: Wire<FrameReader>) {
    let _ = wire.send(&hangup()).await;
    wire.close().await;
}

/// Why a call is over.
enum Over {
    /// The other end says so, or is gone.
    HungUp,
    /// The session is, and its last event was told.
    Ended,
    /// It can't be heard, or not any more.
    Failed(ErrorBody),
}

impl From<ErrorBody> for Over {
    fn from(error: ErrorBody) -> Self {
        Self::Failed(error)
    }
}

struct Session {
    input: Box<dyn Input>,
    output: Box<dyn Output>,
    pace: Pace,
    sample_rate: u32,
}

struct Call {
    wire: Wire<FrameReader>,
    state: GatewayState,
    id: SessionId,
    line: Line,
    session: Option<Session>,
    /// When the other end was last heard, or sent silence.
    heard: Instant,
}

impl Call {
    async fn run(mut self) {
        let over = self.listen().await;
        let Self { wire, state, id, mut line, session, .. } = self;
        let failed = match over {
            Over::HungUp => {
                drop(wire);
                None
            }
            Over::Ended => {
                end(wire).await;
                return abandon(session).await;
            }
            Over::Failed(error) => {
                // One with a session is told of by that.
                state.request.refused(error.code, None);
                tracing::warn!(call = %id, code = ?error.code, reason = error.message, "an AudioSocket call is not heard on");
                // Nobody is kept waiting for what is still to be told.
                end(wire).await;
                Some(error)
            }
        };
        match session {
            Some(mut session) => {
                session.finish(&mut line, failed).await;
                session.input.abandon().await;
            }
            None => line.tell(
                &failed
                    .as_ref()
                    .map_or(CallEvent::Done { segments: 0, frames: SourceOffset(0) }, CallEvent::Error),
            ),
        }
        // Until now no other call could have the UUID.
        drop(line);
    }

    /// Takes in frames until the call is over.
    async fn listen(&mut self) -> Over {
        let begun = Instant::now();
        loop {
            let idle = self.state.idle;
            let heard = tokio::select! {
                heard = self.wire.next() => heard,
                event = said(&mut self.session) => {
                    if let Some(over) = self.take_in(event).await {
                        return over;
                    }
                    continue;
                }
                () = sleep_until(self.heard + QUIET) => {
                    self.heard = Instant::now();
                    let rate = self.session.as_ref().map_or(MIN_SAMPLE_RATE, |session| session.sample_rate);
                    if self.wire.send(&silence(rate)).await.is_err() {
                        return Over::HungUp;
                    }
                    continue;
                }
                // A session counts by itself how long no audio comes.
                () = sleep_until(begun + idle), if self.session.is_none() && !idle.is_zero() => {
                    let message = format!("no audio came for {} s", idle.as_secs_f64());
                    return Over::Failed(ErrorBody::new(ErrorCode::IdleTimeout, message));
                }
                () = self.state.stopping.cancelled(), if self.session.is_none() => {
                    return Over::Failed(ErrorBody::new(ErrorCode::ShuttingDown, "the node is stopping"));
                }
            };
            let frame = match heard {
                Heard::Frame(frame) => frame,
                Heard::Closed => return Over::HungUp,
                Heard::Broken(error) => return Over::Failed(error),
            };
            if let Err(over) = self.take(frame).await {
                return over;
            }
            self.heard = Instant::now();
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), Over> {
        match frame {
            Frame::Hangup => Err(Over::HungUp),
            Frame::Error(code) => {
                tracing::info!(call = %self.id, ?code, "the other end of an AudioSocket call says that something is wrong");
                Err(Over::HungUp)
            }
            Frame::Audio { rate, pcm } => self.audio(rate, &pcm).await,
            Frame::Dtmf(digit) => {
                self.line.tell(&CallEvent::Dtmf { digit });
                Ok(())
            }
            Frame::Call(id) if id == self.id => Ok(()),
            Frame::Call(id) => {
                let allowed = format!("{}, as it began", self.id);
                Err(ErrorBody::field("the call's UUID", id.to_string(), allowed).into())
            }
            Frame::Other(kind) => {
                tracing::debug!(call = %self.id, kind, "a frame of a type that is not known");
                Ok(())
            }
        }
    }

    async fn audio(&mut self, rate: u32, pcm: &[u8]) -> Result<(), Over> {
        if pcm.is_empty() {
            return Ok(());
        }
        let session = match &mut self.session {
            Some(session) => session,
            empty => empty.insert(open(&self.state, self.id, rate, &mut self.line).await?),
        };
        if rate != session.sample_rate {
            let allowed = format!("{} Hz to the end, as it began", session.sample_rate);
            return Err(ErrorBody::field("the audio's rate", format!("{rate} Hz"), allowed).into());
        }
        session.pace.wait().await;
        let line = &mut self.line;
        let take_in = |event| tell(line, event);
        // A session that is over says why in its last events.
        let _ = feed(&mut *session.input, &mut *session.output, pcm, take_in).await;
        if self.line.is_over() { Err(Over::Ended) } else { Ok(()) }
    }

    async fn take_in(&mut self, event: Option<SessionEvent>) -> Option<Over> {
        let Some(event) = event else {
            return Some(Over::Failed(ErrorBody::new(ErrorCode::Internal, "the session is gone")));
        };
        let confirm = tell(&mut self.line, event);
        if let (Some(segment), Some(session)) = (confirm, &mut self.session) {
            let _ = session.input.confirm(segment).await;
        }
        self.line.is_over().then_some(Over::Ended)
    }
}

/// The session is opened at the first audio, which alone tells the rate.
async fn open(state: &GatewayState, id: SessionId, rate: u32, line: &mut Line) -> Result<Session, ErrorBody> {
    if !(MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&rate) {
        let allowed = format!("{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz (types 0x10 to 0x16)");
        return Err(ErrorBody::field("the audio's rate", format!("{rate} Hz"), allowed));
    }
    let given = |text: &'_ str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (model, language) = (given(&state.audiosocket.model), given(&state.audiosocket.language));
    let attached = state.sessions.open(OpenRequest {
        model: model_for_tag(model.as_deref(), language.as_deref(), state)?,
        options: SessionOptions { words: true, partials: false, ..SessionOptions::default() },
        ..OpenRequest::new(id, Dialect::AudioSocket, rate)
    });
    let Attached { ready, input, output } = attached.await?;
    if ready.resumed {
        // A client of another dialect made the same id. It can go on when this hold is let go of.
        let allowed = "one that no other session has";
        return Err(ErrorBody::field("the call's UUID", id.to_string(), allowed));
    }
    note_warnings(&ready);
    tracing::debug!(parent: &ready.log, model = ready.model, source_hz = rate, "AudioSocket call opened");
    line.tell(&CallEvent::Begin { call: id, model: &ready.model, sample_rate: rate });
    Ok(Session { input, output, pace: state.rounds.enter(), sample_rate: rate })
}

impl Session {
    /// Has what was said so far told, and then that it is all, or what went wrong.
    async fn finish(&mut self, line: &mut Line, failed: Option<ErrorBody>) {
        let _ = self.input.end().await;
        let rest = async {
            while let Some(event) = self.output.next().await {
                let done = matches!(event, SessionEvent::Done { .. });
                if done && let Some(error) = &failed {
                    line.tell(&CallEvent::Error(error));
                } else if let Some(segment) = tell(line, event) {
                    let _ = self.input.confirm(segment).await;
                }
                if line.is_over() {
                    return;
                }
            }
        };
        let in_time = timeout(END_TIMEOUT, rest).await.is_ok();
        if !line.is_over() {
            let message = if in_time { "the session is gone" } else { "the last final is late" };
            line.tell(&CallEvent::Error(
                &failed.unwrap_or_else(|| ErrorBody::new(ErrorCode::Internal, message)),
            ));
        }
    }
}

/// The next event of a session; never one where there is none.
async fn said(session: &mut Option<Session>) -> Option<SessionEvent> {
    match session {
        Some(session) => session.output.next().await,
        None => std::future::pending().await,
    }
}

/// Tells what a session says. A final that was told is to be confirmed: it is kept here for whoever asks.
fn tell(line: &mut Line, event: SessionEvent) -> Option<Segment> {
    match event {
        SessionEvent::Final(last) => {
            line.tell(&CallEvent::Final(&last));
            return Some(last.segment);
        }
        SessionEvent::Done { segments, frames } => line.tell(&CallEvent::Done { segments, frames }),
        SessionEvent::Failed(error) => line.tell(&CallEvent::Error(&error)),
        _ => {}
    }
    None
}

async fn abandon(session: Option<Session>) {
    if let Some(session) = session {
        session.input.abandon().await;
    }
}
