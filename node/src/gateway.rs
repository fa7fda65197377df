//! The ways in: WebSocket, QUIC and WebTransport, the protocols of other services over WebSocket, HTTP and bare TCP, recordings over
//! HTTP, and what an operator asks.
//!
//! Owns: sockets, and the translation between a dialect and a session's events. Must never: decide when a segment ends, who
//! is admitted, or what is decoded again.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use starling_actors::Ready;
use starling_protocol::lease::TraceContext;
use starling_protocol::limits::{MAX_CLIENT_MESSAGE_BYTES, MAX_SAMPLE_RATE};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::access::Admitted;
pub use self::audiosocket::{Calls, audiosocket_service};
pub use self::health::{Startup, Waiting};
pub(crate) use self::origin::is_origin;
pub use self::page::PageSettings;
pub use self::rounds::Rounds;
pub use self::wyoming::wyoming_service;
use crate::cluster::{Cluster, Watcher};
use crate::config::{AudioSocketSettings, GatewaySettings, WyomingSettings};
use crate::metrics::Metrics;
use crate::net::Service;
use crate::sessions::{ModelInfo, Sessions};
use crate::tenants::{Tenant, Tenants};
use crate::traces::RequestSpan;

mod access;
mod audio;
mod audiosocket;
mod chaos;
mod deepgram;
mod events;
#[doc(hidden)]
pub mod fuzzing;
pub mod gstreamer;
mod health;
mod link;
mod native;
mod openai;
mod operator;
mod origin;
mod page;
pub mod quic;
mod realtime;
mod reply;
mod request;
mod rounds;
mod samples;
mod transcriptions;
mod vosk;
pub mod wav;
mod wire;
mod wyoming;

/// Read at once from a client: two 100 ms messages at 16 kHz and their heads. The library's own 128 KiB would be most of
/// what an idle session takes.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What all gateways share, as one of their clients has it.
#[derive(Clone)]
pub struct GatewayState {
    gateway: Arc<Gateway>,
    /// The node's sessions, or what its client may have of them.
    sessions: Arc<dyn Sessions>,
    /// `None` where that is not known yet.
    tenant: Option<Arc<Tenant>>,
    /// The client's trace, where its request named one.
    trace: Option<TraceContext>,
    /// What is told of the request, until it has a session.
    request: RequestSpan,
}

impl Deref for GatewayState {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        &self.gateway
    }
}

/// See [`GatewayState`].
pub struct Gateway {
    /// The node's sessions.
    pub sessions: Arc<dyn Sessions>,
    /// Whose requests are served.
    pub tenants: Arc<Tenants>,
    /// The nodes it works with.
    pub cluster: Arc<Cluster>,
    /// The same, live.
    pub watcher: Arc<Watcher>,
    /// What the page is told.
    pub page: PageSettings,
    /// How connections are treated.
    pub settings: GatewaySettings,
    /// How long a native session outlives its connection.
    pub linger: Duration,
    /// How long a client may take for its first audio where that opens its session; zero for ever. The session counts after that.
    pub idle: Duration,
    /// When live sessions take in audio.
    pub rounds: Arc<Rounds>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How calls over `AudioSocket` are heard.
    pub audiosocket: AudioSocketSettings,
    /// Whether there are any: some listener is on.
    pub takes_calls: bool,
    /// What was said in them.
    pub calls: Arc<Calls>,
    /// How clients of Wyoming are heard.
    pub wyoming: WyomingSettings,
    /// What clients of kaldi-gstreamer-server's protocol are told of the node.
    pub workers: gstreamer::Workers,
    /// Whether it was ready once.
    pub started: Startup,
    /// Cancelled when the node begins to stop.
    pub stopping: CancellationToken,
    /// How long sessions may go on after that.
    pub drain_deadline: Duration,
    /// Cancelled when whatever is still connected is to be dropped.
    pub closing: CancellationToken,
    /// The connections that are being served.
    pub connections: TaskTracker,
}

impl GatewayState {
    /// The rate of a model; the highest there is for one that isn't known, which only makes replies wait for less.
    fn sample_rate_of(&self, model: &str) -> u32 {
        let models = self.sessions.models();
        let model = models.iter().find(|info| info.name == model);
        model.map_or(MAX_SAMPLE_RATE, |info| info.sample_rate)
    }

    /// Whether a model, or the default one, has times of words: of a dialect whose clients get them unasked, nobody is to be told
    /// that there are none. A model that isn't known may have them.
    fn has_words(&self, model: Option<&str>) -> bool {
        self.meant(model).is_none_or(|info| info.capabilities.words)
    }

    /// The same of alternatives.
    fn has_alternatives(&self, model: Option<&str>) -> bool {
        self.meant(model).is_none_or(|info| info.capabilities.alternatives)
    }

    /// The model of this name, or the default one.
    fn meant(&self, model: Option<&str>) -> Option<ModelInfo> {
        let mut models = self.sessions.models().into_iter();
        match model {
            Some(name) => models.find(|info| info.name == name),
            None => models.next(),
        }
    }
}

impl From<Gateway> for GatewayState {
    fn from(gateway: Gateway) -> Self {
        let sessions = Arc::clone(&gateway.sessions);
        let request = RequestSpan::default();
        Self { gateway: Arc::new(gateway), sessions, tenant: None, trace: None, request }
    }
}

/// The native protocol and everything over HTTP; whoever is not served is told as the clients of the path read it.
#[must_use]
pub fn http_service(state: GatewayState) -> Service {
    Service::Http(http_router(state), |path, error| access::refusal(path, error.clone().into()))
}

/// The same on a listener with TLS.
#[must_use]
pub fn https_service(state: GatewayState) -> Service {
    let router = http_router(state).layer(Extension(page::OverTls));
    Service::Http(router, |path, error| access::refusal(path, error.clone().into()))
}

fn http_router(state: GatewayState) -> Router {
    // A form's parts have heads, which are held until they are whole.
    let most = usize::try_from(state.settings.max_recording).unwrap_or(usize::MAX).saturating_add(1 << 20);
    let form_limit = DefaultBodyLimit::max(most);
    let routes = Router::new()
        .route("/v1/stream", any(stream))
        .route("/v1/transcriptions", post(transcriptions::transcribe))
        .route("/v1/audio/transcriptions", post(openai::transcribe).layer(form_limit))
        .route("/v1/models", get(operator::models).post(operator::add_model))
        .route("/v1/models/{model}", get(openai::model))
        .route("/v1/audiosocket/{uuid}/events", get(audiosocket::events))
        .route("/v1/cluster", get(operator::cluster))
        .route("/v1/cluster/drain", post(operator::drain))
        .route("/v1/scaling", get(operator::scaling))
        .route("/healthz", get(health::healthy))
        .route("/livez", get(health::alive))
        .route("/startupz", get(health::started))
        .route("/readyz", get(health::ready))
        .route("/v1/cluster/events", get(events::events))
        .route("/v1/cluster/chaos/kill", post(chaos::kill))
        .route("/v1/cluster/chaos/drain", post(chaos::drain))
        .route("/v1/sessions", get(events::sessions))
        .route("/metrics", get(operator::metrics))
        .merge(page::router())
        .merge(gstreamer::router())
        .merge(deepgram::router())
        .merge(realtime::router())
        .fallback(operator::not_found)
        .method_not_allowed_fallback(operator::method_not_allowed)
        // Recordings are counted as they arrive; nothing else reads a body.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(state.clone(), access::look));
    origin::guarded(routes, &state).layer(from_fn(request::tell)).with_state(state)
}

/// vosk-server's protocol, on any path.
pub fn vosk_router(state: GatewayState) -> Router {
    let looked_at = from_fn_with_state(state.clone(), access::look_at_client);
    let routes = Router::new().fallback(any(vosk_stream)).layer(looked_at);
    origin::guarded(routes, &state).layer(from_fn(request::tell)).with_state(state)
}

async fn stream(
    Admitted(state): Admitted,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return operator::no_upgrade("/v1/stream", &rejection),
    };
    bounded(upgrade).on_upgrade(move |socket| tracked(state.clone(), native::serve(socket, state)))
}

async fn vosk_stream(Admitted(state): Admitted, upgrade: WebSocketUpgrade) -> Response {
    bounded(upgrade).on_upgrade(move |socket| tracked(state.clone(), vosk::serve(socket, state)))
}

/// Logs what a session leaves out, for dialects that have no word for it.
fn note_warnings(ready: &Ready) {
    for (code, message) in &ready.warnings {
        tracing::info!(parent: &ready.log, ?code, reason = message, "a session is not quite what its client asked for");
    }
}

/// An upgraded connection is no longer the listener's: the node's stop has to find it all the same.
async fn tracked(state: GatewayState, connection: impl Future<Output = ()>) {
    let served = state.connections.track_future(connection);
    tokio::select! {
        () = served => {}
        () = state.closing.cancelled() => {}
    }
}

fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .protocols(access::SUBPROTOCOLS)
        .max_message_size(MAX_CLIENT_MESSAGE_BYTES)
        .max_frame_size(MAX_CLIENT_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        // Replies are short and each is flushed; without a limit a peer that doesn't read would be written into memory.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_CLIENT_MESSAGE_BYTES)
}
