//! `POST /v1/transcriptions`: a recording in, its text out, while it arrives.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use starling_actors::{Dialect, OpenRequest, SessionEvent};
use starling_protocol::gstreamer::Media;
use starling_protocol::limits::MAX_ALTERNATIVES;
use starling_protocol::native::{Endpointing, ErrorBody, ErrorCode, Final, SessionOptions};
use starling_protocol::{Segment, SessionId};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::access::Admitted;
use super::reply::HttpError;
use super::samples::{Recording, Samples, check_length};
use super::{GatewayState, note_warnings, operator};
use crate::sessions::{Attached, Input, ModelInfo, Output, feed};

/// How long the last finals may take once the whole recording was handed on: as for a caller's last final, some segments
/// decoded again included.
const END_TIMEOUT: Duration = Duration::from_secs(120);

/// Beside anything that begins with `audio/` or `video/`: what a recording is, its first bytes say.
const CONTENT_TYPES: &[&str] = &[
    "application/octet-stream",
    "application/ogg",
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
    #[serde(default)]
    channels: Channels,
    silence_ms: Option<u32>,
    max_segment_ms: Option<u32>,
}

/// What becomes of a recording's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Channels {
    /// They are mixed to one.
    #[default]
    Mixed,
    /// Each is heard for itself: an agent on the left, a customer on the right.
    Apart,
}

impl Parameters {
    /// The model and the language that are named.
    pub(super) fn meant(&self) -> (Option<&str>, Option<&str>) {
        (self.model.as_deref(), self.language.as_deref())
    }

    /// How it is to be heard.
    pub(super) fn options(&self) -> Result<SessionOptions, ErrorBody> {
        let Self { words, alternatives, silence_ms, max_segment_ms, .. } = *self;
        if alternatives > MAX_ALTERNATIVES {
            let allowed = format!("0 to {MAX_ALTERNATIVES}");
            return Err(ErrorBody::field("alternatives", alternatives.to_string(), allowed));
        }
        let endpointing = Endpointing { silence_ms, max_segment_ms };
        endpointing.check("")?;
        Ok(SessionOptions {
            words,
            alternatives,
            partials: false,
            batch: true,
            endpointing,
            ..SessionOptions::default()
        })
    }
}

/// The answer where each channel was heard for itself.
#[derive(Debug, Serialize)]
struct ByChannel {
    model: String,
    /// Seconds.
    duration: f64,
    channels: Vec<Channel>,
}

#[derive(Debug, Serialize)]
struct Channel {
    /// From 0 on, as they are interleaved in the recording.
    channel: usize,
    text: String,
    segments: Vec<Final>,
}

impl From<Vec<Transcription>> for ByChannel {
    fn from(heard: Vec<Transcription>) -> Self {
        let model = heard.first().map(|first| first.model.clone()).unwrap_or_default();
        let duration = heard.iter().map(|one| one.duration).fold(0.0, f64::max);
        let channels = heard.into_iter().enumerate();
        let channels =
            channels.map(|(channel, one)| Channel { channel, text: one.text, segments: one.segments });
        Self { model, duration, channels: channels.collect() }
    }
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Transcription {
    pub(super) text: String,
    pub(super) model: String,
    /// Seconds.
    pub(super) duration: f64,
    pub(super) segments: Vec<Final>,
}

impl Transcription {
    /// Refuses a text with a hole in it, which would look like a whole one to clients that can't be told of single segments.
    pub(super) fn whole(self) -> Result<Self, HttpError> {
        match self.segments.iter().find_map(|segment| segment.error.clone()) {
            Some(error) => Err(ErrorBody::new(ErrorCode::Internal, error).into()),
            None => Ok(self),
        }
    }
}

pub(super) async fn transcribe(
    Admitted(state): Admitted,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let parameters = operator::read(parameters)?;
        check_headers(&headers, state.settings.max_recording)?;
        let recording = Recording::new(body, state.settings.max_recording, state.settings.peer_timeout);
        let samples = Samples::open(recording, Media::Container).await?;
        let apart = parameters.channels == Channels::Apart;
        let mut attached = Vec::new();
        for _ in 0..if apart { samples.channels } else { 1 } {
            let request = open_request(&parameters, samples.sample_rate, &state)?;
            // Sessions that were opened before one that isn't end with their input.
            attached.push(state.sessions.open(request).await?);
        }
        let mut heard = decode_streams(attached, samples).await?;
        Ok(match heard.pop() {
            Some(one) if !apart => Json(one).into_response(),
            last => {
                heard.extend(last);
                Json(ByChannel::from(heard)).into_response()
            }
        })
    };
    answer.await.unwrap_or_else(|error: HttpError| error.into_response())
}

fn check_headers(headers: &HeaderMap, limit: u64) -> Result<(), HttpError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(kind) = text(header::CONTENT_TYPE) {
        let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fits = ["audio/", "video/"].iter().any(|kind| essence.starts_with(kind));
        if !fits && !CONTENT_TYPES.contains(&essence.as_str()) {
            let error = ErrorBody::field("content-type", format!("{essence:?}"), "such as audio/wav");
            return Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
        }
    }
    check_length(headers, limit)
}

fn open_request(
    parameters: &Parameters,
    sample_rate: u32,
    state: &GatewayState,
) -> Result<OpenRequest, ErrorBody> {
    let options = parameters.options()?;
    let (model, language) = parameters.meant();
    Ok(OpenRequest {
        model: model_for_tag(model, language, state)?,
        options,
        ..OpenRequest::new(SessionId::random(), Dialect::Http, sample_rate)
    })
}

/// What is said for a language that is to be found out.
const IDENTIFIED: [&str; 3] = ["auto", "multi", "detect"];

/// The model that a client means: the one it names, or one for its language.
pub(super) fn model_for(
    model: Option<&str>,
    language: Option<&str>,
    state: &GatewayState,
) -> Result<Option<String>, ErrorBody> {
    let Some(language) = language else {
        return Ok(model.map(str::to_owned));
    };
    let identified = IDENTIFIED.iter().any(|word| word.eq_ignore_ascii_case(language));
    let fits = |info: &&ModelInfo| {
        info.language.eq_ignore_ascii_case(language) && model.is_none_or(|model| *model == info.name)
    };
    let models = state.sessions.models();
    if let Some(info) = models.iter().find(fits) {
        return Ok(Some(info.name.clone()));
    }
    let spoken: Vec<String> =
        models.iter().map(|info| format!("{} ({})", info.language, info.name)).collect();
    let reason = if identified { ": no engine here can tell which language is spoken" } else { "" };
    let allowed = format!("one of {}{reason}", spoken.join(", "));
    Err(ErrorBody::field("language", format!("{language:?}"), allowed))
}

/// [`model_for`] a language that may have a region: one that no model was made for is no other language.
pub(super) fn model_for_tag(
    model: Option<&str>,
    tag: Option<&str>,
    state: &GatewayState,
) -> Result<Option<String>, ErrorBody> {
    model_for(model, tag, state).or_else(|error| {
        let language = tag.and_then(|tag| tag.split(['-', '_']).next());
        model_for(model, language, state).map_err(|_| error)
    })
}

/// What came out so far.
#[derive(Default)]
struct Collected {
    finals: Vec<Final>,
    frames: u64,
    failed: Option<ErrorBody>,
    done: bool,
    listener: Option<mpsc::Sender<Final>>,
    /// Finals that the listener has.
    told: usize,
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

    /// Tells the listener of what is new. One that does not listen holds the decoding back; one that has gone is not told.
    async fn tell(&mut self) {
        let Some(listener) = &self.listener else { return };
        for last in &self.finals[self.told..] {
            if listener.send(last.clone()).await.is_err() {
                break;
            }
        }
        self.told = self.finals.len();
    }

    fn last(&self) -> Option<Segment> {
        self.finals.last().map(|last| last.segment)
    }
}

/// A session that a recording, or a channel of one, goes into.
struct Track {
    input: Box<dyn Input>,
    output: Box<dyn Output>,
    model: String,
    collected: Collected,
}

impl Track {
    fn new(attached: Attached, listener: Option<mpsc::Sender<Final>>) -> Self {
        let Attached { ready, input, output } = attached;
        note_warnings(&ready);
        Self { input, output, model: ready.model, collected: Collected { listener, ..Collected::default() } }
    }

    /// Returns whether it takes more.
    async fn feed(&mut self, piece: &[u8]) -> bool {
        let Self { input, output, collected, .. } = self;
        let take_in = |event| {
            collected.take_in(event);
            collected.last()
        };
        let fed = feed(&mut **input, &mut **output, piece, take_in).await;
        self.collected.tell().await;
        fed.is_ok()
    }

    async fn finish(mut self, sample_rate: u32) -> Result<Transcription, HttpError> {
        // A session that is over says so in its events.
        let _ = self.input.end().await;
        finish(self.collected, &mut *self.input, &mut *self.output, self.model, sample_rate).await
    }
}

/// Decodes a recording to its end.
pub(super) async fn decode(attached: Attached, samples: Samples) -> Result<Transcription, HttpError> {
    decode_aloud(attached, samples, None).await
}

/// The same, for whoever wants to hear each final when it comes.
pub(super) async fn decode_aloud(
    attached: Attached,
    mut samples: Samples,
    listener: Option<mpsc::Sender<Final>>,
) -> Result<Transcription, HttpError> {
    let mut track = Track::new(attached, listener);
    while let Some(piece) = samples.next().await? {
        if !track.feed(&piece).await {
            break;
        }
    }
    track.finish(samples.sample_rate).await
}

/// Decodes each channel for itself where there is a session for each; with a single session, all of them as one.
pub(super) async fn decode_streams(
    mut attached: Vec<Attached>,
    mut samples: Samples,
) -> Result<Vec<Transcription>, HttpError> {
    if attached.len() == 1
        && let Some(attached) = attached.pop()
    {
        return Ok(vec![decode(attached, samples).await?]);
    }
    let mut tracks: Vec<Track> = attached.into_iter().map(|attached| Track::new(attached, None)).collect();
    while let Some(pieces) = samples.next_apart().await? {
        let fed = join_all(tracks.iter_mut().zip(&pieces).map(|(track, piece)| track.feed(piece))).await;
        if !fed.into_iter().all(|takes| takes) {
            break;
        }
    }
    let finished = tracks.into_iter().map(|track| track.finish(samples.sample_rate));
    join_all(finished).await.into_iter().collect()
}

async fn finish(
    mut collected: Collected,
    input: &mut dyn Input,
    output: &mut dyn Output,
    model: String,
    sample_rate: u32,
) -> Result<Transcription, HttpError> {
    let rest = async {
        while let Some(event) = output.next().await {
            collected.take_in(event);
            confirm(&collected, input).await;
            collected.tell().await;
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
        duration: collected.frames as f64 / f64::from(sample_rate),
        segments: collected.finals,
    })
}

/// The answer is held here and can't be asked for again: the session need not keep it.
async fn confirm(collected: &Collected, input: &mut dyn Input) {
    if let Some(segment) = collected.last() {
        let _ = input.confirm(segment).await;
    }
}
