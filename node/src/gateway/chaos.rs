//! What an operator may break, to see what follows: `POST /v1/cluster/chaos/kill` and `/v1/cluster/chaos/drain`.
//!
//! Owns: whether that is allowed here. Must never: break anything where `chaos.enabled` is false.

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use starling_protocol::native::{ErrorBody, ErrorCode};

use super::GatewayState;
use super::access::Operator;
use super::operator::{drained, no_such_node, read};
use super::reply::HttpError;
use crate::cluster::KillError;

/// What `kill` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KillQuery {
    node: String,
    model: Option<String>,
}

/// What `drain` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
    node: String,
}

#[derive(Serialize)]
struct Killed {
    node: String,
    model: String,
    pid: u32,
    /// Sessions that lost their decoder.
    sessions: u32,
}

pub(super) async fn kill(
    Operator(state): Operator,
    query: Result<Query<KillQuery>, QueryRejection>,
) -> Response {
    let KillQuery { node, model } = match allowed(&state, query) {
        Ok(query) => query,
        Err(refused) => return refused.into_response(),
    };
    tracing::warn!(node, model, "an operator has a decoder killed");
    match state.cluster.kill_decoder(&node, model).await {
        Ok(killed) => {
            let sessions = killed.leases;
            Json(Killed { node, model: killed.model, pid: killed.pid, sessions }).into_response()
        }
        Err(KillError::Unknown(error)) => no_such_node(&error).into_response(),
        Err(error @ KillError::Refused { .. }) => {
            HttpError::new(StatusCode::CONFLICT, ErrorBody::new(ErrorCode::Forbidden, error.to_string()))
                .into_response()
        }
        Err(error @ KillError::Unanswered { .. }) => {
            HttpError::new(StatusCode::BAD_GATEWAY, ErrorBody::new(ErrorCode::Internal, error.to_string()))
                .into_response()
        }
    }
}

pub(super) async fn drain(
    Operator(state): Operator,
    query: Result<Query<DrainQuery>, QueryRejection>,
) -> Response {
    match allowed(&state, query) {
        Ok(DrainQuery { node }) => drained(&state, &node, state.drain_deadline, None).await,
        Err(refused) => refused.into_response(),
    }
}

fn allowed<T>(state: &GatewayState, query: Result<Query<T>, QueryRejection>) -> Result<T, HttpError> {
    if !state.page.chaos {
        let message = "chaos.enabled is false in this node's settings: nothing is broken on purpose here";
        return Err(ErrorBody::new(ErrorCode::Forbidden, message).into());
    }
    read(query)
}
