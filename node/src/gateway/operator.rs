//! What an operator and a load balancer ask: models, health, readiness, metrics.

use axum::Json;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use starling_actors::{ModelStatus, NodeStatus};
use starling_protocol::native::{ErrorBody, ErrorCode};

use super::reply::HttpError;
use super::{GatewayState, ModelInfo};
use crate::cluster::{ClusterReport, Directory};

#[derive(Serialize)]
struct ModelList<'a> {
    models: Vec<ModelEntry<'a>>,
}

#[derive(Serialize)]
struct ModelEntry<'a> {
    name: &'a str,
    language: &'a str,
    engine: &'a str,
    sample_rate: u32,
    capabilities: Capable,
    default: bool,
    ready: bool,
    slots: Slots,
}

/// What can be asked of a model.
#[derive(Serialize)]
struct Capable {
    words: bool,
    alternatives: bool,
    phrases: bool,
}

#[derive(Serialize, Default)]
struct Slots {
    total: usize,
    busy: usize,
    idle: usize,
}

pub(super) async fn models(State(state): State<GatewayState>) -> Response {
    let status = state.sessions.status().await;
    let entries = state.models.iter().enumerate();
    let directory = state.cluster.directory();
    let models = entries.map(|(index, info)| entry(info, index == 0, &status, &directory)).collect();
    Json(ModelList { models }).into_response()
}

fn entry<'a>(
    info: &'a ModelInfo,
    default: bool,
    status: &NodeStatus,
    directory: &Directory,
) -> ModelEntry<'a> {
    let now = status.models.iter().find(|model| model.name == info.name);
    ModelEntry {
        name: &info.name,
        language: &info.language,
        engine: &info.engine,
        sample_rate: info.sample_rate,
        capabilities: Capable {
            words: info.capabilities.words,
            alternatives: info.capabilities.alternatives,
            phrases: info.capabilities.phrases,
        },
        default,
        ready: now.is_some_and(|model| unready(model, directory).is_none()),
        slots: now.map_or_else(Slots::default, |model| Slots {
            total: count(model.slots_total),
            busy: count(model.slots_busy),
            idle: count(model.slots_idle),
        }),
    }
}

/// The nodes of the cluster and what they serve, as this one sees them.
pub(super) async fn cluster(State(state): State<GatewayState>) -> Response {
    let status = state.sessions.status().await;
    Json(ClusterReport::new(&state.cluster.view(&status))).into_response()
}

/// The process answers: that is all it says.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_ready: Vec<Part>,
}

#[derive(Serialize)]
struct Part {
    part: String,
    reason: String,
}

/// Whether new callers should be sent here, and if not, which part isn't ready.
pub(super) async fn ready(State(state): State<GatewayState>) -> Response {
    let status = state.sessions.status().await;
    let directory = state.cluster.directory();
    let unready = |model| unready(model, &directory);
    let mut not_ready: Vec<Part> = status.models.iter().filter_map(unready).collect();
    if status.draining || state.stopping.is_cancelled() {
        not_ready.push(Part { part: "node".to_owned(), reason: "the node is stopping".to_owned() });
    }
    let ready = not_ready.is_empty();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { ready, not_ready })).into_response()
}

/// Why nobody decodes a model, here or on a peer.
fn unready(model: &ModelStatus, directory: &Directory) -> Option<Part> {
    if model.hosts_ready > 0 || !directory.candidates(&model.name, &model.digest).is_empty() {
        return None;
    }
    let mut reason = match model.hosts_total {
        0 => "this node does not decode, and no other node that does is known".to_owned(),
        total => format!("none of {total} decoder hosts is ready"),
    };
    if let Some(error) = &model.last_error {
        reason = format!("{reason}; last error: {error}");
    }
    Some(Part { part: format!("model {}", model.name), reason })
}

pub(super) async fn metrics(State(state): State<GatewayState>) -> Response {
    let status = state.sessions.status().await;
    match state.metrics.encode(&status, &state.cluster.view(&status)) {
        Ok(text) => ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            HttpError::from(ErrorBody::new(ErrorCode::Internal, "metrics could not be written"))
                .into_response()
        }
    }
}

/// Somebody looked at the stream's address with something that speaks no WebSocket.
pub(super) fn no_upgrade(rejection: &WebSocketUpgradeRejection) -> Response {
    let message = format!("/v1/stream is a WebSocket: {}", rejection.body_text());
    let error = ErrorBody::new(ErrorCode::BadRequest, message);
    HttpError::new(rejection.status(), error).into_response()
}

pub(super) async fn not_found(uri: Uri) -> HttpError {
    let allowed = "/v1/stream, /v1/transcriptions, /v1/models, /v1/cluster, /healthz, /readyz or /metrics";
    HttpError::new(StatusCode::NOT_FOUND, ErrorBody::field("path", format!("{:?}", uri.path()), allowed))
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> HttpError {
    let allowed = if uri.path() == "/v1/transcriptions" { "POST" } else { "GET" };
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorBody::field("method", method.to_string(), allowed))
}

fn count(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
