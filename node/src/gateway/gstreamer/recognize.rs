//! A whole recording over HTTP, in one piece or in chunks: its text in one answer.

use axum::body::Body;
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use starling_protocol::gstreamer::{Status, error_event, recognized};
use starling_protocol::native::ErrorCode;

use super::{Call, CallQuery};
use crate::gateway::GatewayState;
use crate::gateway::access::Admitted;
use crate::gateway::reply::HttpError;
use crate::gateway::samples::{Recording, Samples, check_length};
use crate::gateway::transcriptions::{Transcription, decode};

pub(super) async fn recognize(
    Admitted(state): Admitted,
    Query(query): Query<CallQuery>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // The content id of a recording is a label: all of it is sent again by whoever tries again.
    let content_type = super::header(&headers, header::CONTENT_TYPE.as_str());
    let call =
        Call::new(CallQuery { content_type, content_id: None, ..query }, &headers, state.tenant_name());
    let id = call.session.to_string();
    let answer = transcribe(&state, &call, &headers, body).await;
    state.workers.count_request();
    let text = match answer {
        Ok(transcription) => recognized(&id, &transcription.text),
        Err(error) if matches!(error.error.code, ErrorCode::Busy | ErrorCode::ShuttingDown) => {
            return no_workers(&error);
        }
        // In this dialect what went wrong is in the body.
        Err(error) => error_event(&id, Status::of(error.error.code), &error.error.message),
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

async fn transcribe(
    state: &GatewayState,
    call: &Call,
    headers: &HeaderMap,
    body: Body,
) -> Result<Transcription, HttpError> {
    let media = call.media.clone().map_err(HttpError::from)?;
    let limit = state.settings.max_recording;
    check_length(headers, limit)?;
    let recording = Recording::new(body, limit, state.settings.peer_timeout);
    let samples = Samples::open(recording, media).await?;
    let mut request = call.request(samples.sample_rate, state)?;
    (request.options.partials, request.options.batch) = (false, true);
    let attached = state.sessions.open(request).await?;
    call.log(&attached.ready);
    decode(attached, samples).await?.whole()
}

/// The original's words, with the time after which it is worth trying again.
fn no_workers(error: &HttpError) -> Response {
    error.with_time((StatusCode::SERVICE_UNAVAILABLE, "No workers available\n").into_response())
}
