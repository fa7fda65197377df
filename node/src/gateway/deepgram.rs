//! Deepgram's interface: live speech over a WebSocket and recordings by POST, both at `/v1/listen`.
//!
//! All that a client wants is in its query, so that whatever can't be served is refused before the upgrade. What is told and how
//! is in [`starling_protocol::deepgram`].

mod live;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt;
use sha2::{Digest, Sha256};
use starling_actors::{Dialect, OpenRequest};
use starling_protocol::SessionId;
use starling_protocol::deepgram::{Answerer, Heard, Listen, error_body, parse_query, transcript};
use starling_protocol::gstreamer::Media;
use starling_protocol::native::{Endpointing, ErrorBody, ErrorCode, Final, SessionOptions};

use super::access::Admitted;
use super::audio::{Channels, LiveAudio};
use super::reply::HttpError;
use super::samples::{Recording, Samples, check_length};
use super::transcriptions::{decode_streams, model_for_tag};
use super::{GatewayState, bounded, tracked};
use crate::sessions::Attached;

/// The header that their libraries read the request's id off.
const REQUEST_ID: HeaderName = HeaderName::from_static("dg-request-id");

pub(super) fn router() -> Router<GatewayState> {
    Router::new().route("/v1/listen", get(listen).post(recording))
}

/// One request.
struct Call {
    id: String,
    /// When it came, as RFC 3339 has it.
    created: String,
    listen: Listen,
}

impl Call {
    fn new(id: &str, uri: &Uri) -> Result<Self, ErrorBody> {
        let listen = parse_query(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()))?;
        if !listen.ignored.is_empty() {
            tracing::info!(
                request = id,
                ignored = listen.ignored.join(", "),
                "options of a Deepgram client have no effect"
            );
        }
        let created = humantime::format_rfc3339_millis(UNIX_EPOCH + starling_actors::unix_now()).to_string();
        Ok(Self { id: id.to_owned(), created, listen })
    }

    fn request(&self, sample_rate: u32, live: bool, state: &GatewayState) -> Result<OpenRequest, ErrorBody> {
        let Listen { model, language, interim, vad_events, utterance_end_ms, .. } = &self.listen;
        // That somebody speaks is known of partials alone.
        let partials = *interim || *vad_events || utterance_end_ms.is_some();
        let model = model_for_tag(model.as_deref(), language.as_deref(), state)?;
        let options = SessionOptions {
            words: state.has_words(model.as_deref()),
            partials: live && partials,
            batch: !live,
            endpointing: Endpointing { silence_ms: self.listen.endpointing_ms, max_segment_ms: None },
            ..SessionOptions::default()
        };
        Ok(OpenRequest {
            model,
            options,
            ..OpenRequest::new(SessionId::random(), Dialect::Deepgram, sample_rate)
        })
    }

    /// The model that is meant, or the node's own choice.
    fn model(&self, state: &GatewayState) -> Option<String> {
        let Listen { model, language, .. } = &self.listen;
        let meant = model_for_tag(model.as_deref(), language.as_deref(), state).ok()?;
        meant.or_else(|| state.sessions.models().into_iter().next().map(|info| info.name))
    }

    /// What becomes of several channels.
    const fn kept(&self) -> Channels {
        if self.listen.multichannel { Channels::Apart } else { Channels::Mixed }
    }

    /// Opens a session for each stream, or none.
    async fn open(
        &self,
        sample_rate: u32,
        streams: usize,
        live: bool,
        state: &GatewayState,
    ) -> Result<Vec<Attached>, ErrorBody> {
        let mut opened = Vec::with_capacity(streams);
        for _ in 0..streams {
            match state.sessions.open(self.request(sample_rate, live, state)?).await {
                Ok(attached) => opened.push(attached),
                Err(error) => {
                    for Attached { input, .. } in opened {
                        input.abandon().await;
                    }
                    return Err(error);
                }
            }
        }
        Ok(opened)
    }

    fn answerer(&self, model: &str) -> Answerer {
        let digest = Sha256::digest(model.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Answerer {
            request_id: self.id.clone(),
            model: model.to_owned(),
            model_uuid: SessionId::of_digest(bytes).to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

async fn listen(
    Admitted(state): Admitted,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let id = SessionId::random().to_string();
    let answer = async {
        let call = Call::new(&id, &uri)?;
        let upgrade = upgrade.map_err(|rejection| {
            let message = format!("GET /v1/listen is a WebSocket: {}", rejection.body_text());
            HttpError::new(rejection.status(), ErrorBody::new(ErrorCode::BadRequest, message))
        })?;
        // A head that is still to come says the rate first.
        let attached = match &call.listen.format {
            Some(format) => {
                let audio = LiveAudio::described(*format, call.kept())?;
                let opened = call.open(audio.sample_rate, audio.streams(), true, &state).await?;
                Some((opened, audio))
            }
            None => None,
        };
        Ok(bounded(upgrade)
            .on_upgrade(move |socket| tracked(state.clone(), live::serve(socket, state, call, attached))))
    };
    shown(&id, answer.await)
}

async fn recording(Admitted(state): Admitted, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let id = SessionId::random().to_string();
    let answer = async {
        let call = Call::new(&id, &uri)?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if kind.to_ascii_lowercase().starts_with("application/json") {
            let allowed = "the recording itself: nothing is fetched from elsewhere";
            return Err(ErrorBody::field("body", "an address", allowed).into());
        }
        check_length(&headers, state.settings.max_recording)?;
        let hash = Arc::new(Mutex::new(Sha256::new()));
        let hashing = Arc::clone(&hash);
        let hashed = body.into_data_stream().inspect_ok(move |piece| {
            hashing.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
        });
        let patience = state.settings.peer_timeout;
        let recording = Recording::new(Body::from_stream(hashed), state.settings.max_recording, patience);
        let media = call.listen.format.map_or(Media::Container, Media::Raw);
        let samples = Samples::open(recording, media).await?;
        let channels = samples.channels;
        let streams = if call.listen.multichannel { usize::from(channels) } else { 1 };
        let opened = call.open(samples.sample_rate, streams, false, &state).await?;
        let mut heard = Vec::with_capacity(streams);
        for transcription in decode_streams(opened, samples).await? {
            heard.push(transcription.whole()?);
        }
        let digest = hash.lock().unwrap_or_else(PoisonError::into_inner).clone().finalize();
        let answerer = call.answerer(heard.first().map_or("", |transcription| &transcription.model));
        let about = Heard {
            sha256: HEXLOWER.encode(&digest),
            created: call.created.clone(),
            duration: heard.iter().map(|transcription| transcription.duration).fold(0.0, f64::max),
            channels: if call.listen.multichannel { channels } else { 1 },
        };
        let finals: Vec<&[Final]> =
            heard.iter().map(|transcription| transcription.segments.as_slice()).collect();
        Ok(Json(transcript(&answerer, &about, &finals)).into_response())
    };
    shown(&id, answer.await)
}

/// The answer with the request's id, whatever it is.
fn shown(id: &str, answer: Result<Response, HttpError>) -> Response {
    let mut response = answer.unwrap_or_else(|error| refusal(id, &error));
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// An error in this dialect's shape.
pub(super) fn refusal(id: &str, error: &HttpError) -> Response {
    error.with_time((error.status, Json(error_body(&error.error, id))).into_response())
}
