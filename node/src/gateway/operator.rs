//! What an operator asks: models, the cluster, metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use starling_actors::NodeStatus;
use starling_protocol::control::ModelOffer;
use starling_protocol::native::{ErrorBody, ErrorCode};

use super::GatewayState;
use super::access::{Admitted, Operator};
use super::health::{self, unready};
use super::openai::ModelName;
use super::reply::HttpError;
use crate::cluster::{ClusterReport, Directory, DrainError, ModelOutcome, UnknownNode};
use crate::metrics::Scrape;
use crate::models::Capable;
use crate::sessions::ModelInfo;

#[derive(Serialize)]
struct ModelList<'a> {
    /// What clients of `OpenAI` look for.
    object: &'static str,
    data: Vec<ModelName<'a>>,
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

#[derive(Serialize, Default)]
struct Slots {
    total: usize,
    busy: usize,
    idle: usize,
}

pub(super) async fn models(Admitted(state): Admitted) -> Response {
    let status = state.sessions.status().await;
    let models = state.sessions.models();
    let entries = models.iter().enumerate();
    let directory = state.cluster.directory();
    let data = models.iter().map(|info| ModelName::new(&info.name)).collect();
    let models = entries.map(|(index, info)| entry(info, index == 0, &status, &directory)).collect();
    Json(ModelList { object: "list", data, models }).into_response()
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
        engine: info.engine,
        sample_rate: info.sample_rate,
        capabilities: info.capabilities.into(),
        default,
        ready: now.is_some_and(|model| unready(model, directory).is_none()),
        slots: now.map_or_else(Slots::default, |model| Slots {
            total: count(model.slots_total),
            busy: count(model.slots_busy),
            idle: count(model.slots_idle),
        }),
    }
}

/// The nodes of the cluster, what they serve and their sessions, as this one sees them.
pub(super) async fn cluster(Operator(state): Operator) -> Response {
    let (status, told) = tokio::join!(state.sessions.status(), state.cluster.told(state.sessions.as_ref()));
    Json(ClusterReport::new(&state.cluster.view(&status), told, &status)).into_response()
}

/// How many decoders each model should have, for whoever starts and stops nodes. Like the metrics it tells of no session: where no
/// keys are asked for, whoever reaches the node may ask, as what scrapes and scales has no place on its machine.
pub(super) async fn scaling(State(state): State<GatewayState>) -> Response {
    Json(state.cluster.scaling(&state.sessions.status().await)).into_response()
}

/// What `POST /v1/cluster/drain` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
    pub(super) node: String,
    deadline_ms: Option<u64>,
    stay_ms: Option<u64>,
}

/// Longest time that a drain may take, in milliseconds: a day, as in the settings.
const LONGEST_DRAIN_MS: u64 = 24 * 3_600_000;

impl DrainQuery {
    /// How long it may take, `own` if nobody says, and how long the node is to stay after it.
    pub(super) fn times(&self, own: Duration) -> Result<(Duration, Option<Duration>), ErrorBody> {
        for (field, given) in [("deadline_ms", self.deadline_ms), ("stay_ms", self.stay_ms)] {
            if let Some(given) = given.filter(|given| *given > LONGEST_DRAIN_MS) {
                return Err(ErrorBody::field(
                    field,
                    given.to_string(),
                    format!("at most {LONGEST_DRAIN_MS}"),
                ));
            }
        }
        Ok((self.deadline_ms.map_or(own, Duration::from_millis), self.stay_ms.map(Duration::from_millis)))
    }
}

/// Tells a node of the cluster to go.
pub(super) async fn drain(
    Operator(state): Operator,
    query: Result<Query<DrainQuery>, QueryRejection>,
) -> Response {
    let times = |query: DrainQuery| Ok((query.times(state.drain_deadline)?, query.node));
    match read(query).and_then(times) {
        Ok(((deadline, stay), node)) => drained(&state, &node, deadline, stay).await,
        Err(refused) => refused.into_response(),
    }
}

/// Lets a node go, and says whether it will.
pub(super) async fn drained(
    state: &GatewayState,
    node: &str,
    deadline: Duration,
    stay: Option<Duration>,
) -> Response {
    let told = match stay {
        None => state.cluster.drain(node, deadline).await,
        Some(stay) => state.cluster.ask_to_retire(node, deadline, stay).await,
    };
    match told {
        Ok(()) => (StatusCode::ACCEPTED, "draining\n").into_response(),
        Err(DrainError::Unknown(error)) => no_such_node(&error).into_response(),
        Err(error @ DrainError::Unanswered { .. }) => {
            HttpError::new(StatusCode::BAD_GATEWAY, ErrorBody::new(ErrorCode::Internal, error.to_string()))
                .into_response()
        }
    }
}

/// What `POST /v1/models` is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelQuery {
    name: String,
    node: Option<String>,
    hosts: Option<u16>,
    slots: Option<u16>,
    threads: Option<u16>,
    prewarm: Option<u16>,
}

impl ModelQuery {
    /// What the nodes are asked.
    pub(super) fn offer(&self) -> ModelOffer {
        let Self { hosts, slots, threads, prewarm, .. } = *self;
        ModelOffer { name: self.name.clone(), hosts, slots, threads, prewarm }
    }
}

#[derive(Serialize)]
struct Outcomes {
    nodes: Vec<ModelOutcome>,
}

/// Has the nodes of the cluster serve a model, too or in place of the one of its name.
pub(super) async fn add_model(
    Operator(state): Operator,
    query: Result<Query<ModelQuery>, QueryRejection>,
) -> Response {
    let query = match read(query) {
        Ok(query) => query,
        Err(refused) => return refused.into_response(),
    };
    match state.cluster.add_model(query.node.as_deref(), &query.offer()).await {
        Ok(nodes) => {
            let taken = nodes.iter().all(|outcome| outcome.error.is_none());
            let code = if taken { StatusCode::OK } else { StatusCode::CONFLICT };
            (code, Json(Outcomes { nodes })).into_response()
        }
        Err(error) => no_such_node(&error).into_response(),
    }
}

pub(super) fn no_such_node(error: &UnknownNode) -> HttpError {
    HttpError::new(StatusCode::NOT_FOUND, ErrorBody::new(ErrorCode::BadRequest, error.to_string()))
}

pub(super) fn read<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, HttpError> {
    query.map(|Query(query)| query).map_err(|rejection| unreadable(rejection).into())
}

/// A query that says what nothing here asks for, or not as it must be said.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn unreadable(rejection: QueryRejection) -> ErrorBody {
    ErrorBody::new(ErrorCode::BadRequest, rejection.body_text())
}

/// A disk that does not answer, as one over a dead network, is left out.
const MACHINE_ANSWERS: Duration = Duration::from_secs(1);

pub(super) async fn metrics(State(state): State<GatewayState>) -> Response {
    let reading = {
        let metrics = Arc::clone(&state.metrics);
        tokio::task::spawn_blocking(move || metrics.read_machine())
    };
    let (status, machine) =
        tokio::join!(state.sessions.status(), tokio::time::timeout(MACHINE_ANSWERS, reading));
    let machine = machine.ok().and_then(Result::ok);
    let scrape = Scrape {
        status: &status,
        cluster: &state.cluster.view(&status),
        scaling: &state.cluster.scaling(&status),
        ready: health::not_ready(&state, &status).is_empty(),
        tenants: &state.tenants.usage(),
        machine: machine.as_ref(),
    };
    match state.metrics.encode(&scrape) {
        Ok(text) => ([(header::CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            HttpError::from(ErrorBody::new(ErrorCode::Internal, "metrics could not be written"))
                .into_response()
        }
    }
}

/// Somebody looked at a stream's address with something that speaks no WebSocket.
pub(super) fn no_upgrade(path: &str, rejection: &WebSocketUpgradeRejection) -> Response {
    let message = format!("{path} is a WebSocket: {}", rejection.body_text());
    let error = ErrorBody::new(ErrorCode::BadRequest, message);
    HttpError::new(rejection.status(), error).into_response()
}

pub(super) async fn not_found(uri: Uri) -> HttpError {
    let allowed = "/, /v1/stream, /v1/transcriptions, /v1/audio/transcriptions, /v1/realtime, /v1/listen, /v1/models, /v1/audiosocket/UUID/events, /v1/cluster, /v1/cluster/events, /v1/sessions, /v1/scaling, /healthz, /livez, /startupz, /readyz or /metrics";
    HttpError::new(StatusCode::NOT_FOUND, ErrorBody::field("path", format!("{:?}", uri.path()), allowed))
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> HttpError {
    let allowed = match uri.path() {
        "/v1/transcriptions" | "/v1/audio/transcriptions" | "/v1/cluster/drain" => "POST",
        path if path.starts_with("/v1/cluster/chaos/") => "POST",
        "/client/dynamic/reference" => "POST",
        "/client/dynamic/recognize" => "PUT or POST",
        "/v1/models" | "/v1/listen" => "GET or POST",
        _ => "GET",
    };
    HttpError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorBody::field("method", method.to_string(), allowed))
}

fn count(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
