//! `POST /v1/transcriptions`: a WAV recording in, its text out. The recording is decoded as it arrives; at no time is more of
//! it held than a session's journal.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use starling_actors::{Dialect, OpenRequest, SessionEvent};
use starling_protocol::limits::MAX_ALTERNATIVES;
use starling_protocol::native::{ErrorBody, ErrorCode, Final, SessionOptions};
use starling_protocol::{Segment, SessionId};
use tokio::time::timeout;

use super::GatewayState;
use super::reply::HttpError;
use super::wav::{MAX_HEAD_BYTES, WavHead, parse_head};
use crate::sessions::{Attached, Input, ModelInfo, Output, feed};

/// How long the last finals may take once the whole recording was handed on: as for a caller's last final, some segments
/// decoded again included.
const END_TIMEOUT: Duration = Duration::from_secs(120);

const CONTENT_TYPES: &[&str] = &[
    "audio/wav",
    "audio/wave",
    "audio/x-wav",
    "audio/vnd.wave",
    "application/octet-stream",
    // What curl says when it is told nothing.
    "application/x-www-form-urlencoded",
];

/// What can be asked for in the query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    model: Option<String>,
    language: Option<String>,
    #[serde(default)]
    words: bool,
    #[serde(default)]
    alternatives: u8,
}

/// The answer.
#[derive(Debug, Serialize)]
struct Transcription {
    text: String,
    model: String,
    /// Seconds.
    duration: f64,
    segments: Vec<Final>,
}

pub(super) async fn transcribe(
    State(state): State<GatewayState>,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let Query(parameters) = parameters.map_err(|rejection| {
            HttpError::from(ErrorBody::new(ErrorCode::BadRequest, rejection.body_text()))
        })?;
        check_headers(&headers, state.settings.max_recording)?;
        let mut recording = Recording {
            body: body.into_data_stream(),
            left: state.settings.max_recording,
            limit: state.settings.max_recording,
            patience: state.settings.peer_timeout,
        };
        let (head, rest) = recording.head().await?;
        let request = open_request(&parameters, head.sample_rate, &state)?;
        let attached = state.sessions.open(request).await?;
        decode(attached, recording, &head, rest).await
    };
    match answer.await {
        Ok(transcription) => Json(transcription).into_response(),
        Err(error) => error.into_response(),
    }
}

fn check_headers(headers: &HeaderMap, limit: u64) -> Result<(), HttpError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(kind) = text(header::CONTENT_TYPE) {
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !CONTENT_TYPES.contains(&essence.as_str()) {
            let error = ErrorBody::field("content-type", format!("{essence:?}"), "audio/wav");
            return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
    }
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    match length {
        Some(length) if length > limit => Err(too_large(format!("{length} bytes"), limit)),
        _ => Ok(()),
    }
}

fn too_large(value: String, limit: u64) -> HttpError {
    let error = ErrorBody::field("body", value, format!("at most {limit} bytes"));
    HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, error)
}

fn open_request(
    parameters: &Parameters,
    sample_rate: u32,
    state: &GatewayState,
) -> Result<OpenRequest, ErrorBody> {
    if parameters.alternatives > MAX_ALTERNATIVES {
        let allowed = format!("0 to {MAX_ALTERNATIVES}");
        return Err(ErrorBody::field("alternatives", parameters.alternatives.to_string(), allowed));
    }
    Ok(OpenRequest {
        session: SessionId::random(),
        dialect: Dialect::Http,
        model: model_for(parameters, state)?,
        sample_rate,
        options: SessionOptions {
            words: parameters.words,
            alternatives: parameters.alternatives,
            partials: false,
            batch: true,
            ..SessionOptions::default()
        },
        linger: Duration::ZERO,
        by_id: false,
        trace: None,
    })
}

fn model_for(parameters: &Parameters, state: &GatewayState) -> Result<Option<String>, ErrorBody> {
    let Some(language) = &parameters.language else {
        return Ok(parameters.model.clone());
    };
    let fits = |info: &&ModelInfo| {
        info.language.eq_ignore_ascii_case(language)
            && parameters.model.as_ref().is_none_or(|model| *model == info.name)
    };
    let models = state.sessions.models();
    if let Some(info) = models.iter().find(fits) {
        return Ok(Some(info.name.clone()));
    }
    let spoken: Vec<String> =
        models.iter().map(|info| format!("{} ({})", info.language, info.name)).collect();
    Err(ErrorBody::field("language", format!("{language:?}"), format!("one of {}", spoken.join(", "))))
}

/// A body that is read with an eye on its length and on its pace.
struct Recording {
    body: axum::body::BodyDataStream,
    left: u64,
    limit: u64,
    patience: Duration,
}

impl Recording {
    async fn next(&mut self) -> Result<Option<Bytes>, HttpError> {
        let Ok(next) = timeout(self.patience, self.body.next()).await else {
            let message = format!("no part of the recording came for {} s", self.patience.as_secs_f64());
            return Err(ErrorBody::new(ErrorCode::IdleTimeout, message).into());
        };
        let Some(piece) = next else {
            return Ok(None);
        };
        let piece = piece.map_err(|error| {
            ErrorBody::new(ErrorCode::BadRequest, format!("the recording broke off: {error}"))
        })?;
        self.left = self
            .left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| too_large(format!("over {} bytes", self.limit), self.limit))?;
        Ok(Some(piece))
    }

    /// Reads up to the first samples; gives those that came with the head.
    async fn head(&mut self) -> Result<(WavHead, Bytes), HttpError> {
        let unprocessable = |error| HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, error);
        let mut bytes = Vec::new();
        loop {
            if let Some(head) = parse_head(&bytes).map_err(unprocessable)? {
                let rest = Bytes::from(bytes).slice(head.data_at..);
                return Ok((head, rest));
            }
            match self.next().await? {
                Some(piece) if bytes.len() <= MAX_HEAD_BYTES => bytes.extend_from_slice(&piece),
                _ => {
                    let value = format!("{} bytes without samples", bytes.len());
                    let error = ErrorBody::field("body", value, "a whole WAV recording");
                    return Err(unprocessable(error));
                }
            }
        }
    }
}

/// What came out so far.
#[derive(Default)]
struct Collected {
    finals: Vec<Final>,
    frames: u64,
    failed: Option<ErrorBody>,
    done: bool,
}

impl Collected {
    fn take_in(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Final(last) => self.finals.push(last),
            SessionEvent::Failed(error) => self.failed = Some(error),
            SessionEvent::Done { frames, .. } => {
                self.frames = frames.0;
                self.done = true;
            }
            _ => {}
        }
    }

    fn last(&self) -> Option<Segment> {
        self.finals.last().map(|last| last.segment)
    }
}

async fn decode(
    attached: Attached,
    mut recording: Recording,
    head: &WavHead,
    rest: Bytes,
) -> Result<Transcription, HttpError> {
    let Attached { ready, mut input, mut output } = attached;
    let mut collected = Collected::default();
    let mut left = head.data_bytes.unwrap_or(u64::MAX);
    let mut next = Some(rest);
    while let Some(piece) = next {
        // What follows the samples is metadata.
        let samples = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        left -= samples as u64;
        let take_in = |event| {
            collected.take_in(event);
            collected.last()
        };
        if feed(&mut *input, &mut *output, &piece[..samples], take_in).await.is_err() {
            break;
        }
        next = recording.next().await?;
    }
    // A session that is over says so in its events.
    let _ = input.end().await;
    finish(collected, &mut *input, &mut *output, ready.model, head).await
}

async fn finish(
    mut collected: Collected,
    input: &mut dyn Input,
    output: &mut dyn Output,
    model: String,
    head: &WavHead,
) -> Result<Transcription, HttpError> {
    let rest = async {
        while let Some(event) = output.next().await {
            collected.take_in(event);
            confirm(&collected, input).await;
        }
    };
    let in_time = timeout(END_TIMEOUT, rest).await.is_ok();
    if let Some(error) = collected.failed {
        return Err(error.into());
    }
    if !collected.done {
        let message = if in_time { "the session is gone" } else { "the last segments are late" };
        return Err(ErrorBody::new(ErrorCode::Internal, message).into());
    }
    let texts: Vec<&str> =
        collected.finals.iter().map(|last| last.text.as_str()).filter(|text| !text.is_empty()).collect();
    Ok(Transcription {
        text: texts.join(" "),
        model,
        duration: collected.frames as f64 / f64::from(head.sample_rate),
        segments: collected.finals,
    })
}

/// The answer is held here and can't be asked for again: the session need not keep it.
async fn confirm(collected: &Collected, input: &mut dyn Input) {
    if let Some(segment) = collected.last() {
        let _ = input.confirm(segment).await;
    }
}
