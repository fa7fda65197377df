//! Who may come in: the key of a request, before anything else is done with it.
//!
//! Owns: where each dialect's clients carry a key, and how each is refused. Must never: read a body, or let a key into a log.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use starling_actors::{Dialect, Observation, Observer};
use starling_protocol::SessionId;
use starling_protocol::gstreamer::{Status, error_event};
use starling_protocol::lease::TraceContext;
use starling_protocol::native::{ErrorBody, ErrorCode};
use starling_protocol::trace::SpanContext;

use super::reply::HttpError;
use super::{GatewayState, deepgram, gstreamer, openai, page};
use crate::tenants::{Identified, Tenant, TenantSessions};
use crate::traces::RequestSpan;

/// Kinds of credentials that `Authorization` may name: RFC 6750's, and that of one speech service's clients.
const SCHEMES: [&str; 2] = ["bearer", "token"];

/// WebSocket subprotocols of clients that can set no header, such as browsers: the key follows as a second one. One of them is
/// answered with, as RFC 6455 (4.2.2) wants it; the key never is.
pub(super) const SUBPROTOCOLS: [&str; 2] = ["token", "bearer"];

/// How the subprotocol begins in which `OpenAI`'s library for browsers has its key.
const KEY_PROTOCOL: &str = "openai-insecure-api-key.";

/// Parameters of a query that may hold a key, for clients that can't do either.
const PARAMETERS: [&str; 2] = ["token", "api_key"];

/// Longest `traceparent` and `tracestate` that are handed on: the first has a fixed length (W3C Trace Context, 3.2), the
/// second need not be passed beyond 512 characters (3.3.1.5).
const MAX_TRACE_BYTES: usize = 512;

/// What whoever comes without a key is told.
const KEY_NEEDED: &str = "a key is needed: in the header Authorization as \"Bearer KEY\", in a WebSocket's subprotocols as \
                          \"token, KEY\", in the query as token=KEY, or over QUIC as api_key in hello";

/// What a request needs a key for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It does not need one.
    Nothing,
    /// To be served as a client.
    Service,
    /// To be served as a client, with a session that is begun at once.
    Session,
    /// To look after the cluster.
    Operation,
}

/// The gateways' state as whoever sent this request has it.
pub(super) struct Admitted(pub(super) GatewayState);

impl FromRequestParts<GatewayState> for Admitted {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &GatewayState) -> Result<Self, HttpError> {
        let Some(tenant) = parts.extensions.get::<Arc<Tenant>>() else {
            // A route that nobody looked at before.
            return Err(ErrorBody::new(ErrorCode::Internal, "the request's key was not looked at").into());
        };
        let request = parts.extensions.get::<RequestSpan>().cloned().unwrap_or_default();
        let state = GatewayState { trace: trace_of(&parts.headers), request, ..state.clone() };
        Ok(Self(state.of(Arc::clone(tenant))))
    }
}

/// The same for a request that an operator alone may make.
pub(super) struct Operator(pub(super) GatewayState);

impl FromRequestParts<GatewayState> for Operator {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, state: &GatewayState) -> Result<Self, HttpError> {
        let Admitted(state) = Admitted::from_request_parts(parts, state).await?;
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        if peer.is_some_and(|peer| state.is_operator(peer)) {
            return Ok(Self(state));
        }
        let message = "this is for operators: with an operator's key, or on the node's own machine (a loopback address) where no \
                       keys are asked for";
        Err(ErrorBody::new(ErrorCode::Forbidden, message).into())
    }
}

impl GatewayState {
    fn of(&self, tenant: Arc<Tenant>) -> Self {
        let observer = Arc::clone(&self.metrics) as Arc<dyn Observer>;
        let inner = Arc::clone(&self.gateway.sessions);
        let told = (self.trace.clone(), self.request.clone());
        let sessions = TenantSessions::new(Arc::clone(&tenant), inner, told, observer);
        Self { sessions: Arc::new(sessions), tenant: Some(tenant), ..self.clone() }
    }

    /// As what is asked for on a stream or a connection has it, which is told of by itself.
    pub(super) fn asking(&self, protocol: &'static str, transport: &'static str) -> Self {
        let request = RequestSpan::over(protocol, transport, self.trace.as_ref());
        let state = Self { request, ..self.clone() };
        match &self.tenant {
            Some(tenant) => state.of(Arc::clone(tenant)),
            None => state,
        }
    }

    /// As the tenant has it whose listener this is.
    pub(super) fn of_listener(&self, key: &str, name: &str) -> Result<Self, ErrorBody> {
        let tenant = self.tenants.named(name).ok_or_else(|| {
            // It was there at the start; the settings were read again since.
            let message = format!("{key} is {name:?}, and no tenant has that name any more");
            ErrorBody::new(ErrorCode::Forbidden, message)
        })?;
        Ok(self.of(tenant))
    }

    /// Whether whoever asks from there may look after the cluster.
    pub(super) fn is_operator(&self, peer: SocketAddr) -> bool {
        self.tenant.as_deref().is_some_and(|tenant| self.tenants.may_operate(tenant, peer.ip()))
    }

    /// Whoever is served may use a model, if it names one.
    ///
    /// # Errors
    /// It may not. That is counted as a session that was refused.
    pub(super) fn check_model(&self, dialect: Dialect, model: Option<&str>) -> Result<(), ErrorBody> {
        let (Some(tenant), Some(model)) = (&self.tenant, model) else { return Ok(()) };
        tenant.check_model(model).inspect_err(|error| self.note_refused(dialect, error))
    }

    /// Counts a session that is refused before the node hears of it.
    fn note_refused(&self, dialect: Dialect, error: &ErrorBody) {
        self.metrics.observe(&Observation::SessionRequested { dialect });
        self.metrics.observe(&Observation::SessionRefused { dialect, reason: error.code });
    }

    /// The name of whoever is served; empty where nobody has one.
    pub(super) fn tenant_name(&self) -> &str {
        self.tenant.as_deref().map_or("", Tenant::name)
    }
}

/// Looks at a request's key.
pub(super) async fn look(State(state): State<GatewayState>, request: Request, next: Next) -> Response {
    let need = need(request.method(), request.uri());
    let dialect = dialect(request.uri().path());
    looked(&state, need, dialect, request, next).await
}

/// The same where every path is a client's of vosk-server, which can't go on with an earlier session.
pub(super) async fn look_at_client(
    State(state): State<GatewayState>,
    request: Request,
    next: Next,
) -> Response {
    looked(&state, Need::Session, Dialect::Vosk, request, next).await
}

async fn looked(
    state: &GatewayState,
    need: Need,
    dialect: Dialect,
    mut request: Request,
    next: Next,
) -> Response {
    match admit(state, need, dialect, request.uri(), request.headers()) {
        Ok(Some(tenant)) => drop(request.extensions_mut().insert(tenant)),
        Ok(None) => {}
        Err(error) => {
            let path = request.uri().path();
            let trace = trace_of(request.headers()).as_ref().and_then(SpanContext::of);
            let trace_id = trace.map(|context| tracing::field::display(context.trace));
            tracing::debug!(path, code = ?error.error.code, trace_id, "a request is refused");
            return refusal(path, error);
        }
    }
    if let Some(uri) = without_key(request.uri()) {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

/// The gateways' state as whoever shows this key has it.
pub(super) fn admit_key(state: &GatewayState, key: Option<&str>) -> Result<GatewayState, ErrorBody> {
    Ok(state.of(identified(state, key)?))
}

fn identified(state: &GatewayState, key: Option<&str>) -> Result<Arc<Tenant>, ErrorBody> {
    let unauthorized = ErrorCode::Unauthorized;
    let (code, reason, message) = match state.tenants.identify(key) {
        Identified::Tenant(tenant) => return Ok(tenant),
        Identified::NoKey => (unauthorized, "no_key", KEY_NEEDED.to_owned()),
        Identified::UnknownKey => (unauthorized, "unknown_key", "the key is not known here".to_owned()),
        Identified::BadToken(error) => (unauthorized, "bad_token", error.to_string()),
        Identified::UnknownTenant => {
            let message = "the token is good, but names a tenant that is not listed here".to_owned();
            (ErrorCode::Forbidden, "unknown_tenant", message)
        }
    };
    state.metrics.note_key_refused(reason);
    Err(ErrorBody::new(code, message))
}

/// The same for a request that begins streams: without a key it is undecided until their first messages.
#[cfg(feature = "webtransport")]
pub(super) fn admit_request(
    state: &GatewayState,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<GatewayState, ErrorBody> {
    let state = GatewayState { trace: trace_of(headers), ..state.clone() };
    match key_of(uri, headers) {
        Some(key) => admit_key(&state, Some(&key)),
        None => Ok(state),
    }
}

fn admit(
    state: &GatewayState,
    need: Need,
    dialect: Dialect,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Arc<Tenant>>, HttpError> {
    if need == Need::Nothing {
        return Ok(None);
    }
    let key = key_of(uri, headers);
    let tenant = identified(state, key.as_deref())?;
    if need == Need::Operation && !tenant.is_operator() {
        return Err(ErrorBody::new(ErrorCode::Forbidden, "it takes an operator's key").into());
    }
    if need == Need::Session
        && let Err(over) = tenant.check()
    {
        state.note_refused(dialect, &over);
        return Err(over.into());
    }
    Ok(Some(tenant))
}

fn need(method: &Method, uri: &Uri) -> Need {
    match uri.path() {
        "/healthz" | "/livez" | "/startupz" | "/readyz" => Need::Nothing,
        path if page::is_page(path) => Need::Nothing,
        "/metrics" | "/v1/sessions" | "/v1/scaling" => Need::Operation,
        "/v1/models" if !matches!(*method, Method::GET | Method::HEAD) => Need::Operation,
        path if path == "/v1/cluster" || path.starts_with("/v1/cluster/") => Need::Operation,
        "/v1/transcriptions"
        | "/v1/audio/transcriptions"
        | "/v1/realtime"
        | "/v1/listen"
        | "/client/dynamic/recognize" => Need::Session,
        gstreamer::SPEECH if !gstreamer::may_go_on(uri) => Need::Session,
        // Of other streams only the first message, or the cluster, tells whether a session goes on and is no new one; the limits are
        // looked at then.
        _ => Need::Service,
    }
}

/// Whose clients ask for sessions at a path.
fn dialect(path: &str) -> Dialect {
    match path {
        "/v1/audio/transcriptions" => Dialect::OpenAi,
        "/v1/realtime" => Dialect::Realtime,
        "/v1/listen" => Dialect::Deepgram,
        path if path.starts_with("/client/") => Dialect::Gstreamer,
        _ => Dialect::Http,
    }
}

/// The key that a request carries, wherever it does.
pub(super) fn key_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let text = |name: &header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let authorized = text(&header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.trim().split_once(' ')?;
        SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()).then(|| key.trim())
    });
    let spoken = || {
        let (protocol, key) = text(&header::SEC_WEBSOCKET_PROTOCOL)?.split_once(',')?;
        SUBPROTOCOLS.contains(&protocol.trim()).then(|| key.split(',').next().unwrap_or_default().trim())
    };
    let named = || {
        let mut protocols = text(&header::SEC_WEBSOCKET_PROTOCOL)?.split(',');
        protocols.find_map(|protocol| protocol.trim().strip_prefix(KEY_PROTOCOL))
    };
    let asked = || {
        let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes());
        pairs.find(|(name, _)| PARAMETERS.contains(&name.as_ref())).map(|(_, key)| key.into_owned())
    };
    let found = authorized.or_else(spoken).or_else(named).map(str::to_owned).or_else(asked);
    found.filter(|key| !key.is_empty())
}

/// An address without the key in it, which no handler is to take for anything else; `None` where it has none.
pub(super) fn without_key(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let is_key = |pair: &&str| {
        form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| PARAMETERS.contains(&name.as_ref()))
    };
    let others: Vec<&str> = query.split('&').filter(|pair| !is_key(pair)).collect();
    if others.len() == query.split('&').count() {
        return None;
    }
    let (path, query) = (uri.path(), others.join("&"));
    let text = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = text.parse().ok();
    Uri::from_parts(parts).ok()
}

/// The trace that a request is part of, as its headers have it.
pub(super) fn trace_of(headers: &HeaderMap) -> Option<TraceContext> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    trace_context(text("traceparent"), text("tracestate"))
}

/// What a client says of its trace. What is longer than such texts are is left out.
pub(super) fn trace_context(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<TraceContext> {
    let short = |text: &&str| text.len() <= MAX_TRACE_BYTES;
    Some(TraceContext {
        traceparent: traceparent.filter(short)?.to_owned(),
        tracestate: tracestate.filter(short).unwrap_or_default().to_owned(),
    })
}

/// In the shape that the clients of this path read.
pub(super) fn refusal(path: &str, error: HttpError) -> Response {
    if path.starts_with("/v1/audio/") || path.starts_with("/v1/models/") || path == "/v1/realtime" {
        return openai::refusal(&error);
    }
    if path == "/v1/listen" {
        return deepgram::refusal(&SessionId::random().to_string(), &error);
    }
    if path.starts_with("/client/") {
        let text = error_event("", Status::of(error.error.code), &error.error.message);
        let json = [(header::CONTENT_TYPE, "application/json")];
        return error.with_time((error.status, json, text).into_response());
    }
    error.into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn key(uri: &str, given: &[(header::HeaderName, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.insert(name, HeaderValue::from_str(value).expect("a header"));
        }
        key_of(&uri.parse().expect("an address"), &headers)
    }

    #[test]
    fn a_key_is_found_wherever_a_client_can_put_it() {
        let found = Some("k1".to_owned());
        for value in ["Bearer k1", "bearer  k1 ", "Token k1", "TOKEN k1"] {
            assert_eq!(key("/v1/stream", &[(header::AUTHORIZATION, value)]), found, "{value}");
        }
        for value in ["token, k1", "token,k1", "bearer, k1, more"] {
            assert_eq!(key("/v1/stream", &[(header::SEC_WEBSOCKET_PROTOCOL, value)]), found, "{value}");
        }
        for value in [
            "realtime, openai-insecure-api-key.k1",
            "realtime,openai-insecure-api-key.k1,openai-beta.realtime-v1",
        ] {
            assert_eq!(key("/v1/realtime", &[(header::SEC_WEBSOCKET_PROTOCOL, value)]), found, "{value}");
        }
        assert_eq!(key("/?a=b&token=k1", &[]), found);
        assert_eq!(key("/?api_key=k%31", &[]), found);
    }

    #[test]
    fn what_is_no_key_is_none() {
        assert_eq!(key("/v1/stream", &[]), None);
        assert_eq!(key("/?token=", &[]), None);
        for value in ["k1", "Basic k1", "Bearer", "Bearer "] {
            assert_eq!(key("/", &[(header::AUTHORIZATION, value)]), None, "{value}");
        }
        for value in ["token", "chat, k1", "token,", "realtime", "realtime, openai-insecure-api-key."] {
            assert_eq!(key("/", &[(header::SEC_WEBSOCKET_PROTOCOL, value)]), None, "{value}");
        }
    }

    #[test]
    fn no_handler_reads_the_key_in_an_address() {
        let left = |uri: &str| without_key(&uri.parse().expect("an address")).map(|uri| uri.to_string());
        assert_eq!(left("/v1/models?token=k1").as_deref(), Some("/v1/models"));
        assert_eq!(left("/a?x=%26&api_key=k%31&y&to%6ben=k2").as_deref(), Some("/a?x=%26&y"));
        assert_eq!(left("http://node:1/a?token=k&x=1").as_deref(), Some("http://node:1/a?x=1"));
        assert_eq!(left("/a?token=k&x=why?").as_deref(), Some("/a?x=why?"), "the value is as it came");
        for none in ["/", "/a?x=token&tokens=1", "/token=k"] {
            assert_eq!(left(none), None, "{none}");
        }
    }

    #[test]
    fn the_header_comes_first() {
        let both = [(header::AUTHORIZATION, "Bearer k1"), (header::SEC_WEBSOCKET_PROTOCOL, "token, k2")];
        assert_eq!(key("/?token=k3", &both).as_deref(), Some("k1"));
        assert_eq!(key("/?token=k3", &both[1..]).as_deref(), Some("k2"));
    }

    #[test]
    fn only_health_is_for_everybody_and_the_cluster_is_its_operators() {
        let of = |uri: &str| need(&Method::GET, &uri.parse().expect("an address"));
        assert_eq!(["/healthz", "/livez", "/startupz", "/readyz"].map(of), [Need::Nothing; 4]);
        assert_eq!([of("/healthz"), of("/readyz"), of("/"), of("/page/x.mjs")], [Need::Nothing; 4]);
        assert_eq!([of("/v1/sessions"), of("/v1/cluster/events"), of("/v1/scaling")], [Need::Operation; 3]);
        assert_eq!(of("/v1/pages"), Need::Service);
        assert_eq!([of("/metrics"), of("/v1/cluster"), of("/v1/cluster/drain")], [Need::Operation; 3]);
        assert_eq!(
            [of("/v1/models"), of("/nowhere"), of("/v1/clusters"), of("/v1/stream/")],
            [Need::Service; 4]
        );
        assert_eq!(of("/v1/stream"), Need::Service);
        let posted = |uri: &str| need(&Method::POST, &uri.parse().expect("an address"));
        assert_eq!(posted("/v1/models"), Need::Operation);
        assert_eq!(posted("/v1/audio/transcriptions"), Need::Session);
        assert_eq!(of("/v1/realtime"), Need::Session);
    }

    #[test]
    fn limits_are_looked_at_before_an_upgrade_where_nothing_can_go_on() {
        let of = |uri: &str| need(&Method::GET, &uri.parse().expect("an address"));
        for fresh in ["", "?model=m", "?content-id=", "?content-id=none", "?x=content-id"] {
            assert_eq!(of(&format!("/client/ws/speech{fresh}")), Need::Session, "{fresh}");
        }
        assert_eq!(of("/client/ws/speech?user-id=a&content-id=call+7"), Need::Service, "it may go on");
        assert_eq!(of("/client/ws/status"), Need::Service);
    }
}
