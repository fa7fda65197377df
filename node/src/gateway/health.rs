//! Whether this node is started, alive and ready, for whoever sends callers to it or restarts it.
//!
//! Owns: those four answers. Must never: ask another node; what is answered is this one's own business.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use starling_actors::{ModelStatus, NodeStatus};

use super::GatewayState;
use crate::cluster::Directory;

/// Whether the node was ready once.
#[derive(Debug, Default)]
pub struct Startup(AtomicBool);

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_ready: Vec<Part>,
}

/// A part that is not as it should be.
#[derive(Serialize)]
pub(super) struct Part {
    part: String,
    reason: String,
}

/// The process answers: that is all it says.
pub(super) async fn healthy() -> &'static str {
    "ok\n"
}

/// Whether the node's actors answer. When they do not, it can't come right by itself.
pub(super) async fn alive(State(state): State<GatewayState>) -> Response {
    // It has a model as long as its supervisor answers, and is given 5 s to.
    if state.sessions.status().await.models.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the node's actors do not answer\n").into_response();
    }
    "ok\n".into_response()
}

/// Whether the node has been ready since its start, whatever it is now.
pub(super) async fn started(State(state): State<GatewayState>) -> Response {
    if state.started.0.load(Ordering::Relaxed) {
        return answer(Vec::new());
    }
    let mut not_ready = loading(&state, &state.sessions.status().await);
    not_ready.extend(joining(&state));
    if not_ready.is_empty() {
        state.started.0.store(true, Ordering::Relaxed);
    }
    answer(not_ready)
}

/// Whether new callers should be sent here, and if not, which part isn't ready.
pub(super) async fn ready(State(state): State<GatewayState>) -> Response {
    answer(not_ready(&state, &state.sessions.status().await))
}

/// What keeps callers from being sent here.
pub(super) fn not_ready(state: &GatewayState, status: &NodeStatus) -> Vec<Part> {
    let mut parts = loading(state, status);
    parts.extend(joining(state));
    if status.draining || state.stopping.is_cancelled() {
        parts.push(Part { part: "node".to_owned(), reason: "the node is stopping".to_owned() });
    }
    parts
}

fn answer(not_ready: Vec<Part>) -> Response {
    let ready = not_ready.is_empty();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Readiness { ready, not_ready })).into_response()
}

fn loading(state: &GatewayState, status: &NodeStatus) -> Vec<Part> {
    let directory = state.cluster.directory();
    status.models.iter().filter_map(|model| unready(model, &directory)).collect()
}

fn joining(state: &GatewayState) -> Option<Part> {
    let reason = state.cluster.joining()?;
    Some(Part { part: "cluster".to_owned(), reason })
}

/// Why nobody decodes a model, here or on a peer.
pub(super) fn unready(model: &ModelStatus, directory: &Directory) -> Option<Part> {
    let on_demand = model.scaling.is_some_and(|scaling| scaling.on_demand) && model.last_error.is_none();
    if on_demand || model.hosts_ready > 0 || !directory.candidates(&model.name, &model.digest).is_empty() {
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
