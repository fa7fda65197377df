//! `POST /v1/audio/transcriptions` as `OpenAI` has it: a form with a recording in, its text out, in the format that was asked for.
//!
//! Owns: the form, the formats, and errors in that interface's shape. Must never: decode before the whole form is read, since what
//! a field means may come after the file.

use std::fs::File;
use std::time::Duration;

use axum::Json;
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{Multipart, Path};
use axum::http::{HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use starling_actors::{Dialect, OpenRequest};
use starling_protocol::SessionId;
use starling_protocol::native::{ErrorBody, ErrorCode, Final, SessionOptions};
use starling_protocol::openai::{error_object, is_theirs, language_name};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::GatewayState;
use super::access::Admitted;
use super::reply::HttpError;
use super::samples::{Samples, Stored, too_large};
use super::transcriptions::{Transcription, decode, decode_aloud, model_for_tag};
use crate::config::GatewaySettings;
use crate::transcribe::subtitles;

/// Longest field beside the file: a prompt.
const MOST_FIELD_BYTES: usize = 64 * 1024;

/// Fields without effect that are named in the log: more than the interface has.
const MOST_IGNORED: usize = 16;

/// Deltas that wait for a client that doesn't read; then decoding waits.
const WAITING_DELTAS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Format {
    #[default]
    Json,
    Text,
    Srt,
    Vtt,
    VerboseJson,
}

impl Format {
    const NAMES: [(&str, Self); 5] = [
        ("json", Self::Json),
        ("text", Self::Text),
        ("srt", Self::Srt),
        ("vtt", Self::Vtt),
        ("verbose_json", Self::VerboseJson),
    ];
}

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) file: Option<File>,
    pub(super) model: Option<String>,
    pub(super) language: Option<String>,
    format: Format,
    words: bool,
    stream: bool,
    /// Fields that change nothing here, by name.
    ignored: Vec<String>,
}

impl Form {
    /// Prompts and temperatures have no meaning for the engines here, and unknown fields none at all.
    fn ignore(&mut self, name: String) {
        if self.ignored.len() < MOST_IGNORED && !self.ignored.contains(&name) {
            self.ignored.push(name);
        }
    }
}

pub(super) async fn transcribe(
    Admitted(state): Admitted,
    form: Result<Multipart, MultipartRejection>,
) -> Response {
    match answer(&state, form).await {
        Ok(response) => response,
        Err(error) => refusal(&error),
    }
}

async fn answer(
    state: &GatewayState,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, HttpError> {
    let form = form.map_err(|rejection| {
        HttpError::new(rejection.status(), ErrorBody::new(ErrorCode::BadRequest, rejection.body_text()))
    })?;
    let GatewaySettings { peer_timeout, max_recording, .. } = state.settings;
    let Form { file, model, language, format, words, stream, ignored } =
        read(form, peer_timeout, max_recording).await?;
    if !ignored.is_empty() {
        tracing::info!(ignored = ignored.join(", "), "fields of an OpenAI client's request have no effect");
    }
    let file = file.ok_or_else(|| ErrorBody::field("file", "absent", "a recording"))?;
    let samples = Samples::stored(file).await?;
    let named = model.as_deref().filter(|model| !is_theirs(model));
    let request = OpenRequest {
        model: model_for_tag(named, language.as_deref(), state)?,
        options: SessionOptions { words, partials: false, batch: true, ..SessionOptions::default() },
        ..OpenRequest::new(SessionId::random(), Dialect::OpenAi, samples.sample_rate)
    };
    let attached = state.sessions.open(request).await?;
    if stream {
        let (listener, finals) = mpsc::channel(WAITING_DELTAS);
        // A client that has gone takes the decoding with it.
        let decoding = AbortOnDropHandle::new(tokio::spawn(decode_aloud(attached, samples, Some(listener))));
        return Ok(Sse::new(events(finals, decoding)).into_response());
    }
    let transcription = decode(attached, samples).await?.whole()?;
    let language = state.sessions.models().into_iter().find(|info| info.name == transcription.model);
    let language = language.map(|info| info.language).unwrap_or_default();
    Ok(shown(&transcription, language_name(&language), format, words))
}

/// Reads a form whose file has `limit` bytes at most.
pub(super) async fn read(
    mut multipart: Multipart,
    patience: Duration,
    limit: u64,
) -> Result<Form, HttpError> {
    let mut form = Form::default();
    while let Some(mut field) = in_time(patience, multipart.next_field()).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            let (mut left, mut stored) = (limit, Stored::new()?);
            while let Some(piece) = in_time(patience, field.chunk()).await? {
                left = left
                    .checked_sub(piece.len() as u64)
                    .ok_or_else(|| too_large(format!("over {limit} bytes"), limit))?;
                stored.add(&piece).await?;
            }
            form.file = Some(stored.finish().await?);
            continue;
        }
        let value = text(field, patience).await?;
        match name.as_str() {
            "model" if !value.is_empty() => form.model = Some(value),
            "language" if !value.is_empty() => form.language = Some(value),
            "response_format" => {
                let known = Format::NAMES.iter().find(|(name, _)| *name == value);
                let (_, format) = known.ok_or_else(|| {
                    let names: Vec<&str> = Format::NAMES.iter().map(|(name, _)| *name).collect();
                    ErrorBody::field(
                        "response_format",
                        format!("{value:?}"),
                        format!("one of {}", names.join(", ")),
                    )
                })?;
                form.format = *format;
            }
            "timestamp_granularities[]" | "timestamp_granularities" => form.words |= value == "word",
            "stream" => form.stream = matches!(value.as_str(), "true" | "True" | "1"),
            _ => form.ignore(name),
        }
    }
    Ok(form)
}

async fn text(mut field: Field<'_>, patience: Duration) -> Result<String, HttpError> {
    let name = field.name().unwrap_or_default().to_owned();
    let mut bytes = Vec::new();
    while let Some(piece) = in_time(patience, field.chunk()).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MOST_FIELD_BYTES {
            let allowed = format!("at most {MOST_FIELD_BYTES} bytes");
            return Err(ErrorBody::field(&name, "longer", allowed).into());
        }
    }
    String::from_utf8(bytes).map_err(|_| ErrorBody::field(&name, "no text", "UTF-8").into())
}

async fn in_time<T>(
    patience: Duration,
    read: impl Future<Output = Result<T, MultipartError>>,
) -> Result<T, HttpError> {
    let read = timeout(patience, read).await.map_err(|_| {
        let message = format!("no part of the form came for {} s", patience.as_secs_f64());
        ErrorBody::new(ErrorCode::IdleTimeout, message)
    })?;
    read.map_err(broken)
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: MultipartError) -> HttpError {
    HttpError::new(error.status(), ErrorBody::new(ErrorCode::BadRequest, error.body_text()))
}

fn shown(transcription: &Transcription, language: &str, format: Format, words: bool) -> Response {
    let plain = |text: String, kind: &'static str| {
        ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
    };
    let Transcription { text, segments, duration, .. } = transcription;
    match format {
        Format::Json => Json(json!({ "text": text, "usage": usage(*duration) })).into_response(),
        Format::Text => plain(format!("{text}\n"), "text/plain; charset=utf-8"),
        Format::Srt => plain(subtitles::srt(segments), "application/x-subrip; charset=utf-8"),
        Format::Vtt => plain(subtitles::vtt(segments), "text/vtt; charset=utf-8"),
        Format::VerboseJson => Json(verbose(transcription, language, words)).into_response(),
    }
}

/// What the recording would be charged for where it is.
fn usage(duration: f64) -> Value {
    json!({ "type": "duration", "seconds": duration.ceil() })
}

/// With what no engine here knows at the value that says nothing.
fn verbose(transcription: &Transcription, language: &str, words: bool) -> Value {
    let spoken = transcription.segments.iter().filter(|segment| !segment.text.is_empty());
    let segments: Vec<Value> = spoken
        .clone()
        .enumerate()
        .map(|(id, segment)| {
            json!({
                "id": id,
                "seek": (segment.start * 100.0).round() as u64,
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "tokens": [],
                "temperature": 0.0,
                "avg_logprob": segment.confidence.map_or(0.0, |confidence| f64::from(confidence.max(1e-6)).ln()),
                "compression_ratio": 1.0,
                "no_speech_prob": 0.0,
            })
        })
        .collect();
    let mut answer = json!({
        "task": "transcribe",
        "language": language,
        "duration": transcription.duration,
        "text": transcription.text,
        "segments": segments,
        "usage": usage(transcription.duration),
    });
    if words {
        let words = spoken.flat_map(|segment| &segment.words);
        let words = words.map(|word| json!({ "word": word.word, "start": word.start, "end": word.end }));
        answer["words"] = words.collect();
    }
    answer
}

type Decoding = AbortOnDropHandle<Result<Transcription, HttpError>>;

/// A delta for each final, then the whole text.
fn events(
    finals: mpsc::Receiver<Final>,
    decoding: Decoding,
) -> impl futures_util::Stream<Item = Result<Event, axum::Error>> {
    let state = (finals, Some(decoding), true);
    futures_util::stream::unfold(state, |(mut finals, mut decoding, mut first)| async move {
        let of = |value: Value| Event::default().json_data(value);
        while let Some(last) = finals.recv().await {
            if last.text.is_empty() {
                continue;
            }
            let delta = if first { last.text } else { format!(" {}", last.text) };
            first = false;
            let event = of(json!({ "type": "transcript.text.delta", "delta": delta }));
            return Some((event, (finals, decoding, first)));
        }
        let end = match decoding.take()?.await {
            Ok(Ok(transcription)) => transcription.whole().map(|whole| whole.text),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ErrorBody::new(ErrorCode::Internal, "the recording can't be decoded").into()),
        };
        let event = match end {
            Ok(text) => of(json!({ "type": "transcript.text.done", "text": text })),
            Err(error) => of(json!({ "type": "error", "error": error_object(&error.error) })),
        };
        Some((event, (finals, decoding, first)))
    })
}

/// A model by its name, or one of `OpenAI`'s own names, which can be asked for, too.
pub(super) async fn model(Admitted(state): Admitted, Path(name): Path<String>) -> Response {
    let models = state.sessions.models();
    if is_theirs(&name) || models.iter().any(|info| info.name == name) {
        return Json(ModelName::new(&name)).into_response();
    }
    let names: Vec<&str> = models.iter().map(|info| info.name.as_str()).collect();
    let error = ErrorBody::field("model", format!("{name:?}"), format!("one of {}", names.join(", ")));
    refusal(&ErrorBody { code: ErrorCode::UnknownModel, ..error }.into())
}

/// A model as clients of `OpenAI` know one.
#[derive(Serialize)]
pub(super) struct ModelName<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

impl<'a> ModelName<'a> {
    pub(super) const fn new(id: &'a str) -> Self {
        Self { id, object: "model", created: 0, owned_by: "starling" }
    }
}

pub(super) fn refusal(error: &HttpError) -> Response {
    error.with_time((error.status, Json(json!({ "error": error_object(&error.error) }))).into_response())
}
