//! `OpenAI`'s Realtime interface for transcription: live speech over a WebSocket at `/v1/realtime`, audio as base64 in events.
//!
//! A connection is no session yet: that is opened when audio comes, so that a client which only waits holds no decoder, and may
//! say until then what its audio is. What is told and how is in [`starling_protocol::realtime`].

mod live;

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, Uri, header};
use axum::response::Response;
use axum::routing::get;
use starling_actors::{Dialect, OpenRequest};
use starling_protocol::native::{Endpointing, ErrorBody, ErrorCode, SessionOptions};
use starling_protocol::openai::is_theirs;
use starling_protocol::realtime::{
    ClientEvent, Config, MAX_MESSAGE_BYTES, Mark, Said, Teller, Update, parse_event,
};
use starling_protocol::{SessionId, SourceOffset};
use tokio::time::{Instant, sleep_until};

use super::access::Admitted;
use super::link::{Link, Received, SendError, Writer, close_code};
use super::reply::HttpError;
use super::transcriptions::model_for_tag;
use super::{GatewayState, bounded, openai, tracked};
use crate::sessions::Attached;

/// The subprotocol that their library for browsers speaks, beside one that has its key.
const SUBPROTOCOL: &str = "realtime";

/// What the older version of the interface is asked for with: in the header of this name, or as a subprotocol.
const BETA_HEADER: (&str, &str) = ("openai-beta", "realtime=v1");

/// See [`BETA_HEADER`].
const BETA_SUBPROTOCOL: &str = "openai-beta.realtime-v1";

/// What a client is told whose message is longer than [`MAX_MESSAGE_BYTES`].
const TOO_LONG: &str = "a message may have 15 MiB of audio, in base64, at most";

/// Longer messages are read by a thread that may block: reading one of a few megabytes takes milliseconds.
const LONG_MESSAGE_BYTES: usize = 256 << 10;

pub(super) fn router() -> Router<GatewayState> {
    Router::new().route("/v1/realtime", get(connect))
}

/// What a connection begins as.
pub(super) struct Call {
    pub(super) config: Config,
    pub(super) beta: bool,
}

impl Call {
    pub(super) fn new(uri: &Uri, headers: &HeaderMap) -> Result<Self, ErrorBody> {
        let (mut intent, mut config) = (None, Config::default());
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "intent" => intent = Some(value.into_owned()),
                "model" if !value.is_empty() => config.model = Some(value.into_owned()),
                _ => {}
            }
        }
        let transcribes = "transcription: nothing here answers a conversation";
        match intent.as_deref() {
            Some("transcription") => {}
            Some(other) => return Err(ErrorBody::field("intent", format!("{other:?}"), transcribes)),
            // Their library for JavaScript can't say what it intends, but has to name a model: one that transcribes says it too.
            None if config.model.is_some() => {}
            None => return Err(ErrorBody::field("intent", "absent", transcribes)),
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut protocols = text(header::SEC_WEBSOCKET_PROTOCOL.as_str()).split(',');
        let beta = text(BETA_HEADER.0) == BETA_HEADER.1
            || protocols.any(|protocol| protocol.trim() == BETA_SUBPROTOCOL);
        Ok(Self { config, beta })
    }
}

async fn connect(
    Admitted(state): Admitted,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let answer = || {
        let call = Call::new(&uri, &headers)?;
        model(&call.config, &state)?;
        let upgrade = upgrade.map_err(|rejection| {
            let message = format!("GET /v1/realtime is a WebSocket: {}", rejection.body_text());
            HttpError::new(rejection.status(), ErrorBody::new(ErrorCode::BadRequest, message))
        })?;
        let upgrade = bounded(upgrade).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
        let spoken = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        let spoken = spoken.is_some_and(|all| all.split(',').any(|protocol| protocol.trim() == SUBPROTOCOL));
        let upgrade = if spoken { upgrade.protocols([SUBPROTOCOL]) } else { upgrade };
        Ok(upgrade.on_upgrade(move |socket| tracked(state.clone(), serve(socket, state, call))))
    };
    answer().unwrap_or_else(|error: HttpError| openai::refusal(&error))
}

/// The model that a client means: the node's own choice for a name of `OpenAI`'s.
fn model(config: &Config, state: &GatewayState) -> Result<Option<String>, ErrorBody> {
    let named = config.model.as_deref().filter(|model| !is_theirs(model));
    if let Some(name) = named {
        let models: Vec<String> = state.sessions.models().into_iter().map(|info| info.name).collect();
        if !models.iter().any(|model| model == name) {
            let allowed =
                format!("one of {}, or a name of OpenAI's for the node's own choice", models.join(", "));
            let error = ErrorBody::field("model", format!("{name:?}"), allowed);
            return Err(ErrorBody { code: ErrorCode::UnknownModel, ..error });
        }
    }
    model_for_tag(named, config.language.as_deref(), state)
}

fn request(config: &Config, state: &GatewayState) -> Result<OpenRequest, ErrorBody> {
    Ok(OpenRequest {
        model: model(config, state)?,
        options: SessionOptions {
            endpointing: Endpointing { silence_ms: config.silence_ms, max_segment_ms: None },
            ..SessionOptions::default()
        },
        ..OpenRequest::new(SessionId::random(), Dialect::Realtime, config.format.sample_rate)
    })
}

/// Serves one connection to its end.
async fn serve(socket: WebSocket, state: GatewayState, call: Call) {
    let link = Link::new(socket, &state.settings).taking_more(TOO_LONG);
    let seed = SessionId::random().0.simple().to_string();
    let mut talk = Talk { teller: Teller::new(seed, call.config, call.beta), begun: false, out: Vec::new() };
    if let Some((link, attached, first)) = begin(link, &mut talk, &state).await {
        live::converse(link, attached, first, talk, &state).await;
    }
}

/// A connection as its client is told of it.
struct Talk {
    teller: Teller,
    /// Whether audio has come.
    begun: bool,
    /// What is to be told.
    out: Vec<String>,
}

impl Talk {
    fn complain(&mut self, error: &ErrorBody, event_id: Option<&str>) {
        self.teller.complain(error, event_id, &mut self.out);
    }

    fn update(&mut self, update: &Update, event_id: Option<&str>, state: &GatewayState) {
        let next = self.teller.config().with(update, self.begun).and_then(|next| {
            // Said now, and not only when audio comes. Of a session that is open nothing of the kind changes.
            if !self.begun {
                model(&next, state)?;
            }
            Ok(next)
        });
        match next {
            Ok(next) => self.teller.updated(next, update.beta, &mut self.out),
            Err(error) => self.complain(&error, event_id),
        }
    }

    /// Writes what is to be told.
    async fn tell(&mut self, writer: &mut Writer) -> Result<(), SendError> {
        for text in self.out.drain(..) {
            writer.text(text).await?;
        }
        Ok(())
    }

    /// Tells why it is over, and says goodbye.
    async fn end(&mut self, error: &ErrorBody, event_id: Option<&str>, writer: &mut Writer) {
        self.teller.over(error, event_id, &mut self.out);
        if self.tell(writer).await.is_ok() {
            writer.close(close_code(error.code), &error.message).await;
        }
    }
}

/// Talks up to the first audio, and opens a session for it; `None` when the client was told why not, or is gone.
async fn begin(mut link: Link, talk: &mut Talk, state: &GatewayState) -> Option<(Link, Attached, Vec<u8>)> {
    talk.teller.created(&mut talk.out);
    let begun = loop {
        talk.tell(link.writer()).await.ok()?;
        let silent_at = Instant::now() + state.idle;
        let received = tokio::select! {
            received = link.next() => received,
            () = sleep_until(silent_at), if !state.idle.is_zero() => {
                let message = format!("nothing came for {} s", state.idle.as_secs_f64());
                break Err((ErrorBody::new(ErrorCode::IdleTimeout, message), None));
            }
            () = state.stopping.cancelled() => {
                break Err((ErrorBody::new(ErrorCode::ShuttingDown, "the node is stopping"), None));
            }
        };
        let Said { event, event_id } = match received {
            Received::Text(text) => read(text).await,
            Received::Binary(_) => no_binary(),
            Received::Pong(_) => continue,
            Received::Broken(code, reason) => {
                link.writer().close(code, reason).await;
                return None;
            }
            Received::Closed | Received::Silent => return None,
        };
        let event_id = event_id.as_deref();
        let nothing = Mark { at: SourceOffset(0), cut: SourceOffset(0) };
        match event {
            Ok(ClientEvent::Append(audio)) if audio.is_empty() => {}
            Ok(ClientEvent::Append(audio)) => {
                let opened = async { state.sessions.open(request(talk.teller.config(), state)?).await };
                break match opened.await {
                    Ok(attached) => Ok((attached, audio)),
                    Err(error) => Err((error, event_id.map(str::to_owned))),
                };
            }
            Ok(ClientEvent::Update(update)) => talk.update(&update, event_id, state),
            // Nothing was appended, so that there is nothing to be asked of a session.
            Ok(ClientEvent::Commit) => drop(talk.teller.commit(nothing, event_id, &mut talk.out)),
            Ok(ClientEvent::Clear) => drop(talk.teller.clear(nothing, &mut talk.out)),
            Err(error) => talk.complain(&error, event_id),
        }
    };
    match begun {
        Ok((attached, first)) => {
            talk.begun = true;
            Some((link, attached, first))
        }
        Err((error, event_id)) => {
            talk.end(&error, event_id.as_deref(), link.writer()).await;
            None
        }
    }
}

/// Reads a message.
async fn read(text: Utf8Bytes) -> Said {
    if text.len() <= LONG_MESSAGE_BYTES {
        return parse_event(&text);
    }
    let reading = tokio::task::spawn_blocking(move || parse_event(&text));
    reading.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a message could not be read");
        let error = ErrorBody::new(ErrorCode::Internal, "the message could not be read");
        Said { event: Err(error), event_id: None }
    })
}

fn no_binary() -> Said {
    let error =
        ErrorBody::field("message", "binary", "a text, with audio as base64 in input_audio_buffer.append");
    Said { event: Err(ErrorBody { code: ErrorCode::BadMessage, ..error }), event_id: None }
}
