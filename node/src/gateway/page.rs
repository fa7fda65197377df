//! The page: files out of the binary, and what it has to know of its node.
//!
//! Owns: how browsers get the page, and what they may do with it. Must never: tell who has no key anything that takes one.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use rust_embed::Embed;
use serde::Serialize;
use starling_protocol::native::ErrorBody;

use super::reply::HttpError;
use super::{GatewayState, access, origin};
use crate::build;
use crate::tls::Certificate;

/// The page's own files.
#[derive(Embed)]
#[folder = "../web/page"]
struct Files;

/// The page speaks with the client that everybody may copy.
const CLIENT: (&str, &[u8]) =
    ("starling-client.mjs", include_bytes!("../../../clients/javascript/starling-client.mjs"));

/// Where nodes are reached: at addresses of their own, which change while the page is open, so connections are let through by their
/// schemes.
const ANY_NODE: &str = "http: https: ws: wss:";

/// What the page may do: run what came from here, and speak with nodes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' http: https: ws: wss:; \
                      manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

const FOR_PAGES: [(HeaderName, HeaderValue); 4] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    // Asked for each time, and sent only when another version of the node has others.
    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("microphone=(self), camera=(), geolocation=(), payment=(), usb=()"),
    ),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
];

/// What the page is told of that is no gateway's business.
#[derive(Debug, Clone, Default)]
pub struct PageSettings {
    /// The UDP port of WebTransport, if there is one.
    pub quic_port: Option<u16>,
    /// What it is served with.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether operators may break things.
    pub chaos: bool,
    /// Where a trace is shown; see `tracing.viewer_url`.
    pub viewer_url: String,
}

impl PageSettings {
    fn webtransport_port(&self) -> Option<u16> {
        self.quic_port.filter(|_| cfg!(feature = "webtransport"))
    }
}

pub(super) fn router() -> Router<GatewayState> {
    Router::new().route("/", get(index)).route("/page/{*path}", get(file)).route("/v1/page", get(facts))
}

/// Whether a path is the page's, which everybody may see: it knows nothing.
pub(super) fn is_page(path: &str) -> bool {
    path == "/" || path.starts_with("/page/") || path == "/v1/page"
}

/// A request came over TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct OverTls;

async fn index(
    State(state): State<GatewayState>,
    tls: Option<Extension<OverTls>>,
    headers: HeaderMap,
) -> Response {
    let mut response = found("index.html", &headers).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if let Some(policy) = tls.and(host).and_then(|host| policy_at(host, state.page.webtransport_port())) {
        response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The policy of a page that was served over TLS: it knows of no node but this one. `None` where the host is none that a policy
/// can name (CSP 3, 2.3.1 has no IPv6 addresses).
pub(super) fn policy_at(host: &str, webtransport: Option<u16>) -> Option<HeaderValue> {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "443"));
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if name.is_empty() || !name.chars().all(named) || port.parse::<u16>().is_err() {
        return None;
    }
    let webtransport = webtransport.map(|port| format!(" https://{name}:{port}")).unwrap_or_default();
    // Not every browser takes 'self' for WebSockets too.
    let here = format!("wss://{name}:{port}{webtransport}");
    HeaderValue::from_str(&POLICY.replace(ANY_NODE, &here)).ok()
}

async fn file(Path(path): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let missing = || {
        let error =
            ErrorBody::field("path", format!("{:?}", uri.path()), "a file of the page; it begins at /");
        HttpError::new(StatusCode::NOT_FOUND, error).into_response()
    };
    found(&path, &headers).unwrap_or_else(missing)
}

fn found(path: &str, asked: &HeaderMap) -> Option<Response> {
    let (name, client) = CLIENT;
    let (body, digest): (Cow<'static, [u8]>, String) = if path == name {
        (Cow::Borrowed(client), digest(client))
    } else {
        let body = Files::get(path)?.data;
        let digest = digest(&body);
        (body, digest)
    };
    let tag = HeaderValue::from_str(&format!("\"{digest}\"")).ok()?;
    let known = asked.get(header::IF_NONE_MATCH) == Some(&tag);
    let kind = [(header::CONTENT_TYPE, content_type(path)), (header::ETAG, tag.to_str().unwrap_or_default())];
    let mut response =
        if known { (StatusCode::NOT_MODIFIED, kind).into_response() } else { (kind, body).into_response() };
    for (name, value) in FOR_PAGES {
        response.headers_mut().insert(name, value);
    }
    Some(response)
}

fn digest(body: &[u8]) -> String {
    use sha2::Digest;
    data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(body)[..16])
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json" | "webmanifest") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}

#[derive(Serialize)]
struct Facts {
    version: &'static str,
    node: String,
    /// Whether keys are asked for.
    keys: bool,
    /// What whoever asks may be: `nobody`, `client` or `operator`.
    role: &'static str,
    /// Whether a page of the address that was asked may use the node.
    admitted: bool,
    /// Nodes, and where clients reach them.
    nodes: Vec<NodeFacts>,
    webtransport: Option<WebTransportFacts>,
    chaos: bool,
}

#[derive(Serialize)]
struct NodeFacts {
    name: String,
    address: SocketAddr,
}

#[derive(Serialize)]
struct WebTransportFacts {
    port: u16,
    /// SHA-256, in hexadecimal. Browsers take it for a certificate that nobody signed.
    certificate_hash: String,
}

async fn facts(
    State(state): State<GatewayState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let key = access::key_of(&uri, &headers);
    let known = access::admit_key(&state, key.as_deref()).ok();
    let role = match &known {
        None => "nobody",
        Some(known) if known.is_operator(peer) => "operator",
        Some(_) => "client",
    };
    let nodes = state.cluster.directory().http_addresses().into_iter();
    let nodes = nodes.map(|(name, address)| NodeFacts { name: name.to_string(), address });
    let certificate = state.page.certificate.as_deref();
    let hash = certificate.map(|certificate| data_encoding::HEXLOWER.encode(&certificate.sha256()));
    let facts = Facts {
        version: build::VERSION,
        node: state.cluster.node().name.to_string(),
        keys: state.tenants.asks_for_keys(),
        role,
        admitted: origin::admits_own_page(&state, headers.get(header::HOST)),
        nodes: if known.is_some() { nodes.collect() } else { Vec::new() },
        webtransport: state
            .page
            .webtransport_port()
            .zip(hash)
            .map(|(port, certificate_hash)| WebTransportFacts { port, certificate_hash }),
        chaos: role == "operator" && state.page.chaos,
    };
    ([(header::CACHE_CONTROL, "no-store")], Json(facts)).into_response()
}

#[cfg(test)]
mod tests;
