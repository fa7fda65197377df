//! Pages in browsers: which may use this node, and what a browser is told about what it gets.
//!
//! A browser sends a page's origin along, and lets every page open a WebSocket anywhere: without a look at the origin, any page that
//! a person behind a node's firewall opens could use the node. Programs send none, and are not concerned.
//!
//! Owns: the decision about an origin, and the headers that go with it (Fetch, "CORS protocol"). Must never: take a key's place.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::GatewayState;
use super::access::refusal;
use crate::cluster::Directory;

/// Any page.
pub(crate) const ANY: &str = "*";

/// Answers of pages' requests can be read with these headers.
const SHOWN_HEADERS: [HeaderName; 2] = [header::RETRY_AFTER, HeaderName::from_static("dg-request-id")];

/// What every answer says to browsers: it is of the type that it says, and where it came from is nobody's business.
const FOR_BROWSERS: [(HeaderName, HeaderValue); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
];

/// Has routes look at origins.
pub(super) fn guarded(router: Router<GatewayState>, state: &GatewayState) -> Router<GatewayState> {
    let listed = Arc::new(state.settings.allowed_origins.clone());
    let directory = state.cluster.directory();
    // The page of a node that is gone goes on with the others.
    let tells = move |origin: &HeaderValue, _parts: &_| {
        is_listed(&listed, origin) || is_of_cluster(&directory, origin)
    };
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(tells))
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        // The dialects' clients have headers of their own; a page that may come may send any.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(SHOWN_HEADERS);
    router.layer(from_fn_with_state(state.clone(), look)).layer(cors)
}

async fn look(State(state): State<GatewayState>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let mut response = match check(&state, headers.get(header::ORIGIN), headers.get(header::HOST)) {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(request.uri().path(), error.into()),
    };
    for (name, value) in FOR_BROWSERS {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Whether whoever asks this host may use the node.
///
/// # Errors
/// It is a page of an origin that may not.
pub(super) fn check(
    state: &GatewayState,
    origin: Option<&HeaderValue>,
    host: Option<&HeaderValue>,
) -> Result<(), ErrorBody> {
    let Some(origin) = origin else { return Ok(()) };
    // Whoever has a key was given it: a page can't send one that it does not know.
    let keyed = state.tenants.asks_for_keys();
    let listed = is_listed(&state.settings.allowed_origins, origin);
    if keyed || listed || is_own(origin, host) || is_of_cluster(&state.cluster.directory(), origin) {
        return Ok(());
    }
    let value = origin.to_str().unwrap_or("unreadable").to_owned();
    let allowed = "this node's own, another node's, or one of gateway.allowed_origins";
    Err(ErrorBody { code: ErrorCode::Forbidden, ..ErrorBody::field("origin", value, allowed) })
}

fn is_listed(listed: &[String], origin: &HeaderValue) -> bool {
    listed.iter().any(|one| one == ANY || one.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
}

/// Whether the page that is served at this host may use the node: not at a name, which anybody may have point here.
pub(super) fn admits_own_page(state: &GatewayState, host: Option<&HeaderValue>) -> bool {
    let place = host.and_then(|host| host.to_str().ok());
    let schemes = ["http", "https"].into_iter();
    let origins = schemes.filter_map(|scheme| HeaderValue::from_str(&format!("{scheme}://{}", place?)).ok());
    origins.into_iter().any(|origin| check(state, Some(&origin), host).is_ok())
}

/// Whether a page is that of a node of the cluster, by the address at which others reach it.
fn is_of_cluster(directory: &Directory, origin: &HeaderValue) -> bool {
    let place = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
    // An origin has no port where that is the scheme's own.
    let address = place.and_then(|place| place.parse().or_else(|_| format!("{place}:80").parse()).ok());
    address.is_some_and(|address| directory.has_served(address))
}

/// Whether a page is this node's own, or of this very machine: whoever serves pages there can do worse.
pub(super) fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let Some((_, place)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let name = place.rsplit_once(':').map_or(place, |(name, port)| match port.parse::<u16>() {
        Ok(_) => name,
        Err(_) => place,
    });
    // A name that was made to point here is not this node's: its page would have been served by somebody else.
    let here = |name: &str| matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    here(name)
        || host.is_some_and(|host| host.as_bytes().eq_ignore_ascii_case(place.as_bytes()) && !is_a_name(name))
}

/// Whether a host is a name, which whoever owns it can have point anywhere, and no address.
fn is_a_name(host: &str) -> bool {
    host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
}

/// Whether a setting is an origin as browsers write it.
pub(crate) fn is_origin(text: &str) -> bool {
    let place = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == ANY || place.is_some_and(|place| !place.is_empty() && !place.contains(['/', '?', '#', ' ', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(origin: &'static str, host: &'static str) -> bool {
        is_own(&HeaderValue::from_static(origin), Some(&HeaderValue::from_static(host)))
    }

    #[test]
    fn pages_of_this_machine_and_of_the_nodes_address_are_its_own() {
        for origin in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443", "http://localhost"]
        {
            assert!(own(origin, "10.0.0.7:8080"), "{origin}");
        }
        assert!(own("http://10.0.0.7:8080", "10.0.0.7:8080"));
        assert!(own("http://[fd00::7]:8080", "[fd00::7]:8080"));
    }

    #[test]
    fn pages_of_others_are_not() {
        for (origin, host) in [
            ("https://evil.example", "127.0.0.1:8080"),
            // A name that is made to point at a node behind a firewall, so that the page and the node seem to be one.
            ("http://evil.example:8080", "evil.example:8080"),
            ("http://10.0.0.8:8080", "10.0.0.7:8080"),
            ("http://localhost.evil.example", "127.0.0.1:8080"),
            ("null", "127.0.0.1:8080"),
        ] {
            assert!(!own(origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn a_listed_origin_is_what_browsers_write() {
        for fine in ["*", "https://app.example", "http://app.example:8080", "http://[::1]:80"] {
            assert!(is_origin(fine), "{fine}");
        }
        for wrong in
            ["", "app.example", "https://", "https://app.example/", "ftp://app.example", "https://a b"]
        {
            assert!(!is_origin(wrong), "{wrong}");
        }
        let listed = ["https://App.example".to_owned()];
        assert!(is_listed(&listed, &HeaderValue::from_static("https://app.example")));
        assert!(!is_listed(&listed, &HeaderValue::from_static("http://app.example")));
        assert!(is_listed(&[ANY.to_owned()], &HeaderValue::from_static("null")));
    }
}
