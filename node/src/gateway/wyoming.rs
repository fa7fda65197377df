//! Wyoming over bare TCP, for Home Assistant and its satellites: one utterance after another on a connection, each a session.
//!
//! What can't be served is an `error` event, after which the connection is closed: Home Assistant passes such events over and
//! would wait for its transcript for ever.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use starling_actors::{Dialect, OpenRequest, SessionEvent};
use starling_core::audio::PcmReader;
use starling_protocol::native::{AudioFormat, Encoding, ErrorBody, ErrorCode, Final, SessionOptions};
use starling_protocol::wyoming::{
    AsrModel, EventReader, Request, Teller, error_event, info_event, parse_request, pong_event,
};
use starling_protocol::{Segment, SessionId};
use tokio::time::{Instant, sleep_until, timeout};

use super::link::SendError;
use super::rounds::Pace;
use super::transcriptions::model_for_tag;
use super::wire::{Heard, Wire};
use super::{GatewayState, note_warnings};
use crate::net::{Duplex, Service, Wired};
use crate::sessions::{Attached, Input, ModelInfo, Output, feed};

/// The last final may have a whole segment to be decoded again before it.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// What the protocol is called where requests are told of.
const NAME: &str = "wyoming";

/// What is spoken on `listen.wyoming`.
#[must_use]
pub fn wyoming_service(state: GatewayState) -> Service {
    Service::Wired(Arc::new(Wyoming(state)))
}

struct Wyoming(GatewayState);

#[async_trait]
impl Wired for Wyoming {
    async fn serve(&self, stream: Box<dyn Duplex>, peer: SocketAddr) {
        let mut wire = Wire::new(stream, EventReader::default(), self.0.settings.write_timeout);
        let mut state = self.0.asking(NAME, "tcp");
        let over = match state.of_listener("wyoming.tenant", &self.0.wyoming.tenant) {
            Ok(admitted) => {
                let (asked, utterance) = (Asked::default(), None);
                let mut connection = Connection { wire, state: admitted, asks: true, asked, utterance };
                let over = connection.run().await;
                if let Some(utterance) = connection.utterance {
                    // A client of this protocol can't come back: nothing is kept for it.
                    utterance.input.abandon().await;
                }
                (wire, state) = (connection.wire, connection.state);
                over
            }
            Err(error) => Over::Error(error),
        };
        if let Over::Error(error) = over {
            // An utterance with a session is told of by that.
            state.request.refused(error.code, None);
            tracing::info!(%peer, code = ?error.code, reason = error.message, "a Wyoming client is not served on");
            let _ = wire.send(&error_event(&error)).await;
        }
        wire.close().await;
    }

    fn refusal(&self, error: &ErrorBody) -> Vec<u8> {
        error_event(error)
    }
}

/// Why a connection is over.
enum Over {
    /// The client has left, or doesn't read, or the node stops and owes it nothing.
    Gone,
    Error(ErrorBody),
}

impl From<SendError> for Over {
    fn from(_: SendError) -> Self {
        Self::Gone
    }
}

impl From<ErrorBody> for Over {
    fn from(error: ErrorBody) -> Self {
        Self::Error(error)
    }
}

/// How the next utterance is to be heard.
#[derive(Default)]
struct Asked {
    model: Option<String>,
    language: Option<String>,
    /// As what its audio is sent. `None` before it begins.
    format: Option<AudioFormat>,
}

/// An utterance whose audio has begun to come.
struct Utterance {
    input: Box<dyn Input>,
    output: Box<dyn Output>,
    samples: PcmReader,
    mono: Vec<u8>,
    teller: Teller,
    pace: Pace,
    heard: Said,
}

/// What came out of a session and was not yet told.
#[derive(Default)]
struct Said {
    finals: VecDeque<Final>,
    done: bool,
    failed: Option<ErrorBody>,
}

struct Connection {
    wire: Wire<EventReader>,
    state: GatewayState,
    /// Whether something was asked for that `state` is told of as.
    asks: bool,
    asked: Asked,
    utterance: Option<Utterance>,
}

impl Connection {
    async fn run(&mut self) -> Over {
        let mut most = self.state.settings.handshake_timeout;
        loop {
            let request = match self.receive(most).await {
                Ok(request) => request,
                Err(over) => return over,
            };
            if let Err(over) = self.take(request).await {
                return over;
            }
            most = self.state.settings.peer_timeout;
        }
    }

    /// The next request; what the session says meanwhile is told.
    async fn receive(&mut self, most: Duration) -> Result<Request, Over> {
        let deadline = Instant::now() + most;
        loop {
            let heard = tokio::select! {
                heard = self.wire.next() => heard,
                event = said(&mut self.utterance) => {
                    if let Some(utterance) = &mut self.utterance {
                        utterance.heard.take_in(event);
                        utterance.tell(&mut self.wire).await?;
                    }
                    continue;
                }
                () = sleep_until(deadline) => {
                    let message = format!("nothing came for {} s", most.as_secs_f64());
                    return Err(ErrorBody::new(ErrorCode::IdleTimeout, message).into());
                }
                () = self.state.stopping.cancelled(), if self.utterance.is_none() => return Err(Over::Gone),
            };
            return match heard {
                Heard::Frame(event) => Ok(parse_request(event)?),
                Heard::Closed => Err(Over::Gone),
                Heard::Broken(error) => Err(error.into()),
            };
        }
    }

    async fn take(&mut self, request: Request) -> Result<(), Over> {
        let asks = matches!(
            request,
            Request::Transcribe { .. } | Request::AudioStart(_) | Request::AudioChunk { .. }
        );
        if asks && !std::mem::replace(&mut self.asks, true) {
            // Each utterance is told of by itself.
            self.state = self.state.asking(NAME, "tcp");
        }
        match request {
            Request::Describe => {
                let models: Vec<AsrModel> = self.state.sessions.models().iter().map(described).collect();
                self.wire.send(&info_event(env!("CARGO_PKG_VERSION"), &models)).await?;
            }
            Request::Ping { text } => self.wire.send(&pong_event(text.as_deref())).await?,
            Request::Transcribe { .. } if self.utterance.is_some() => {
                tracing::debug!("a request to transcribe after the first audio comes too late for it");
            }
            Request::Transcribe { model, language } => {
                self.asked = Asked { model, language, ..std::mem::take(&mut self.asked) };
            }
            Request::AudioStart(format) if self.utterance.is_none() => self.asked.format = Some(format),
            Request::AudioStart(_) => {
                let allowed = "said once for an utterance, which audio-stop ends";
                return Err(ErrorBody::field("audio-start", "said again", allowed).into());
            }
            Request::AudioChunk { format, audio } => self.audio(format, &audio).await?,
            Request::AudioStop => self.stop().await?,
            Request::Other(kind) => tracing::debug!(kind, "an event that means nothing here"),
        }
        Ok(())
    }

    async fn audio(&mut self, format: AudioFormat, audio: &[u8]) -> Result<(), Over> {
        let begun = *self.asked.format.get_or_insert(format);
        if format != begun {
            return Err(changed(begun, format).into());
        }
        if audio.is_empty() {
            return Ok(());
        }
        let utterance = match &mut self.utterance {
            Some(utterance) => utterance,
            none => none.insert(open(&self.state, &self.asked, format).await?),
        };
        utterance.hear(audio).await;
        utterance.tell(&mut self.wire).await
    }

    async fn stop(&mut self) -> Result<(), Over> {
        let teller = match &mut self.utterance {
            Some(utterance) => {
                utterance.finish(&mut self.wire).await?;
                std::mem::take(&mut utterance.teller)
            }
            None => Teller::default(),
        };
        self.wire.send(&teller.end()).await?;
        (self.asked, self.asks) = (Asked::default(), false);
        if let Some(utterance) = self.utterance.take() {
            utterance.input.abandon().await;
        }
        Ok(())
    }
}

/// The session is opened at the first audio: only then is all said of it.
async fn open(state: &GatewayState, asked: &Asked, format: AudioFormat) -> Result<Utterance, ErrorBody> {
    let request = OpenRequest {
        model: model_for_tag(asked.model.as_deref(), asked.language.as_deref(), state)?,
        options: SessionOptions { partials: false, ..SessionOptions::default() },
        ..OpenRequest::new(SessionId::random(), Dialect::Wyoming, format.sample_rate)
    };
    let Attached { ready, input, output } = state.sessions.open(request).await?;
    note_warnings(&ready);
    tracing::debug!(parent: &ready.log, model = ready.model, source_hz = format.sample_rate, "Wyoming utterance opened");
    let models = state.sessions.models();
    let model = models.into_iter().find(|model| model.name == ready.model);
    Ok(Utterance {
        input,
        output,
        samples: PcmReader::new(format.encoding, format.channels),
        mono: Vec::new(),
        teller: Teller::new(model.map(|model| model.language)),
        pace: state.rounds.enter(),
        heard: Said::default(),
    })
}

impl Utterance {
    async fn hear(&mut self, audio: &[u8]) {
        self.mono.clear();
        self.samples.read(audio, &mut self.mono);
        self.pace.wait().await;
        let heard = &mut self.heard;
        // What is held here the client could get nowhere else: it need not be kept there.
        let take_in = |event| heard.take_in(Some(event));
        // A session that is over says why in its last events.
        let _ = feed(&mut *self.input, &mut *self.output, &self.mono, take_in).await;
    }

    /// Tells what was said so far.
    async fn tell(&mut self, wire: &mut Wire<EventReader>) -> Result<(), Over> {
        let mut out = Vec::new();
        while let Some(last) = self.heard.finals.pop_front() {
            if let Some(error) = last.error {
                // A command with a hole in it may be another command.
                return Err(ErrorBody::new(ErrorCode::Internal, error).into());
            }
            self.teller.last(&last, &mut out);
            // A session that is over needs no confirmation.
            let _ = self.input.confirm(last.segment).await;
        }
        if !out.is_empty() {
            wire.send(&out).await?;
        }
        match self.heard.failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Waits for the last finals and tells them.
    async fn finish(&mut self, wire: &mut Wire<EventReader>) -> Result<(), Over> {
        let _ = self.input.end().await;
        let deadline = Instant::now() + END_TIMEOUT;
        loop {
            self.tell(wire).await?;
            if self.heard.done {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = timeout(left, self.output.next()).await else {
                return Err(ErrorBody::new(ErrorCode::Internal, "the last final is late").into());
            };
            self.heard.take_in(event);
        }
    }
}

impl Said {
    /// Returns what need not be kept any more where it came from.
    fn take_in(&mut self, event: Option<SessionEvent>) -> Option<Segment> {
        match event {
            Some(SessionEvent::Final(last)) => {
                let segment = last.segment;
                self.finals.push_back(last);
                return Some(segment);
            }
            Some(SessionEvent::Done { .. }) => self.done = true,
            Some(SessionEvent::Failed(error)) => self.failed = Some(error),
            Some(_) => {}
            None => self.failed = Some(ErrorBody::new(ErrorCode::Internal, "the session is gone")),
        }
        None
    }
}

/// The next event of an utterance; never one where there is none.
async fn said(utterance: &mut Option<Utterance>) -> Option<SessionEvent> {
    match utterance {
        Some(utterance) => utterance.output.next().await,
        None => std::future::pending().await,
    }
}

/// Names what differs. The samples of an utterance are of one kind.
fn changed(begun: AudioFormat, now: AudioFormat) -> ErrorBody {
    let (field, value, was) = if now.sample_rate != begun.sample_rate {
        ("audio-chunk.rate", now.sample_rate.to_string(), begun.sample_rate.to_string())
    } else if now.channels != begun.channels {
        ("audio-chunk.channels", now.channels.to_string(), begun.channels.to_string())
    } else {
        ("audio-chunk.width", width(now.encoding), width(begun.encoding))
    };
    ErrorBody::field(field, value, format!("{was} up to audio-stop, as the utterance began"))
}

/// Bytes of a sample, as clients give it.
fn width(encoding: Encoding) -> String {
    PcmReader::new(encoding, 1).frame_bytes().to_string()
}

fn described(model: &ModelInfo) -> AsrModel {
    let made_by = match model.engine {
        "vosk" => ("Alpha Cephei (Vosk)", "https://alphacephei.com/vosk/"),
        "moonshine" => ("Moonshine AI", "https://github.com/moonshine-ai/moonshine"),
        _ => ("Starling", ""),
    };
    AsrModel { name: model.name.clone(), language: model.language.clone(), made_by }
}
