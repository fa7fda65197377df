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
use starling_core::lineup::Stage;
use starling_core::placement::Candidate;

use super::GatewayState;
use crate::cluster::Directory;

/// Whether the node was ready once, with all that it loads itself.
#[derive(Debug, Default)]
pub struct Startup(AtomicBool);

impl Startup {
    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

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
    if state.started.is_over() {
        return answer(Vec::new());
    }
    answer(missing(&state, &state.sessions.status().await))
}

/// Whether new callers should be sent here, and if not, which part isn't ready.
pub(super) async fn ready(State(state): State<GatewayState>) -> Response {
    answer(not_ready(&state, &state.sessions.status().await))
}

/// What keeps callers from being sent here.
pub(super) fn not_ready(state: &GatewayState, status: &NodeStatus) -> Vec<Part> {
    let mut parts = missing(state, status);
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

/// What a node that starts waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Others of its cluster, and perhaps more.
    Joining,
    /// Its models.
    Models,
    /// It has started.
    Nothing,
}

impl GatewayState {
    /// What keeps this node from having started.
    pub async fn waits_for(&self) -> Waiting {
        if joining(self).is_some() {
            return Waiting::Joining;
        }
        let missing = missing(self, &self.sessions.status().await);
        if missing.is_empty() && self.started.is_over() { Waiting::Nothing } else { Waiting::Models }
    }
}

/// What is not there that callers need. As soon as all is, the node has started.
fn missing(state: &GatewayState, status: &NodeStatus) -> Vec<Part> {
    let (directory, started) = (state.cluster.directory(), state.started.is_over());
    // What is to replace a model is not missed while it loads, nor what it replaces once that has gone.
    let current = status.models.iter().filter(|model| model.stage == Stage::Current);
    let models = current.filter_map(|model| undecoded(model, &directory, started));
    let missing: Vec<Part> = models.chain(joining(state)).collect();
    // A node whose actors don't answer says nothing of models.
    if missing.is_empty() && !status.models.is_empty() {
        state.started.0.store(true, Ordering::Relaxed);
    }
    missing
}

fn joining(state: &GatewayState) -> Option<Part> {
    let reason = state.cluster.joining()?;
    Some(Part { part: "cluster".to_owned(), reason })
}

/// Why nobody decodes a model, here or on a peer.
pub(super) fn unready(model: &ModelStatus, directory: &Directory) -> Option<Part> {
    undecoded(model, directory, true)
}

/// The same, of a node that may not have `started` yet.
fn undecoded(model: &ModelStatus, directory: &Directory, started: bool) -> Option<Part> {
    if is_on_demand(model) {
        return None;
    }
    let others = directory.candidates(&model.name, &model.digest).iter().any(Candidate::serves);
    let reason = lack((model.hosts_ready, model.hosts_total), others, started)?;
    Some(part(model, reason))
}

/// Whether it is loaded for the first who asks for it, and nothing has hindered that yet.
fn is_on_demand(model: &ModelStatus) -> bool {
    model.scaling.is_some_and(|scaling| scaling.on_demand) && model.last_error.is_none()
}

/// Why nobody decodes a model of which this node has so many hosts, ready and in all. A node that is to decode it itself has
/// not started before it does: until then the others' decoding says nothing of whether it ever will, and an upgrade would go on
/// to the next node.
fn lack((ready, total): (usize, usize), others: bool, started: bool) -> Option<String> {
    if ready > 0 || (others && (started || total == 0)) {
        return None;
    }
    Some(match total {
        0 => "this node does not decode, and no other node that does is known".to_owned(),
        total => format!("none of {total} decoder hosts is ready"),
    })
}

fn part(model: &ModelStatus, reason: String) -> Part {
    let reason = match &model.last_error {
        Some(error) => format!("{reason}; last error: {error}"),
        None => reason,
    };
    Part { part: format!("model {}", model.name), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decodes_has_started_once_it_decodes_and_who_does_not_once_others_do() {
        let none = Some("none of 2 decoder hosts is ready".to_owned());
        for others in [false, true] {
            assert_eq!(lack((0, 2), others, false), none, "its own are still to come");
            assert_eq!(lack((1, 2), others, false), None);
            assert_eq!(lack((1, 2), others, true), None);
        }
        assert_eq!(lack((0, 2), true, true), None, "its own are gone for a while, others decode");
        assert_eq!(lack((0, 2), false, true), none);
        for started in [false, true] {
            assert_eq!(lack((0, 0), true, started), None, "a gateway goes by its peers");
            assert!(lack((0, 0), false, started).is_some_and(|reason| reason.contains("does not decode")));
        }
    }
}
