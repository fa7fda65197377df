//! kaldi-gstreamer-server's protocol, on its own paths: live speech, whole recordings, how many decoders are free, reference
//! texts.
//!
//! Owns: what a request of this dialect asks for. Must never: show a client that something went well when it did not.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{any, post, put};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use starling_actors::{Dialect, OpenRequest};
use starling_protocol::SessionId;
use starling_protocol::gstreamer::{Media, parse_content_type};
use starling_protocol::native::{ErrorBody, SessionOptions};

use super::access::Admitted;
use super::{GatewayState, bounded, operator, tracked};

mod recognize;
mod reference;
mod speech;
mod workers;

pub use workers::Workers;

/// What the original takes a missing id for.
const NO_ID: &str = "none";

/// Paths as kaldi-gstreamer-server has them.
pub(super) fn router() -> Router<GatewayState> {
    Router::new()
        .route("/client/ws/speech", any(speak))
        .route("/client/ws/status", any(watch))
        .route("/client/dynamic/recognize", put(recognize::recognize).post(recognize::recognize))
        .route("/client/dynamic/reference", post(reference::keep))
}

/// What a client says of its stream before it sends any.
#[derive(Debug, Default, Deserialize)]
struct CallQuery {
    #[serde(rename = "content-type")]
    content_type: Option<String>,
    #[serde(rename = "content-id")]
    content_id: Option<String>,
    model: Option<String>,
}

/// A stream that is to be opened.
#[derive(Debug)]
struct Call {
    media: Result<Media, ErrorBody>,
    session: SessionId,
    /// Whether the session is found again by the client's content id.
    named: bool,
    model: Option<String>,
}

impl Call {
    fn new(query: CallQuery, headers: &HeaderMap, tenant: &str) -> Self {
        let model = query.model.or_else(|| header(headers, "model"));
        let content_id = query.content_id.filter(|id| !id.is_empty() && id != NO_ID);
        Self {
            media: parse_content_type(query.content_type.as_deref()),
            session: content_id.as_deref().map_or_else(SessionId::random, |id| session_of(tenant, id)),
            named: content_id.is_some(),
            model: model.filter(|name| !name.is_empty()),
        }
    }

    /// The session that is opened, or gone on with by a client that has nothing but its content id.
    fn request(&self, sample_rate: u32, state: &GatewayState) -> OpenRequest {
        OpenRequest {
            model: self.model.clone(),
            options: SessionOptions { words: true, ..SessionOptions::default() },
            linger: if self.named { state.linger } else { Duration::ZERO },
            by_id: self.named,
            ..OpenRequest::new(self.session, Dialect::Gstreamer, sample_rate)
        }
    }
}

/// The session of a tenant's content id: the same on every node, and one that no other tenant and no client of another dialect
/// can have.
fn session_of(tenant: &str, content_id: &str) -> SessionId {
    // A tenant's name has no zeros in it.
    let digest = Sha256::digest(format!("kaldi-gstreamer-server\0{tenant}\0{content_id}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    SessionId::of_digest(bytes)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

async fn speak(
    Admitted(state): Admitted,
    Query(query): Query<CallQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let call = Call::new(query, &headers, state.tenant_name());
    match upgrade {
        Ok(upgrade) => bounded(upgrade)
            .on_upgrade(move |socket| tracked(state.clone(), speech::serve(socket, state, call))),
        Err(rejection) => operator::no_upgrade("/client/ws/speech", &rejection),
    }
}

async fn watch(
    Admitted(state): Admitted,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => {
            bounded(upgrade).on_upgrade(move |socket| tracked(state.clone(), workers::serve(socket, state)))
        }
        Err(rejection) => operator::no_upgrade("/client/ws/status", &rejection),
    }
}

/// The file of a content id's reference text. Whatever the id is, it is one name in the folder.
fn reference_file(folder: &std::path::Path, content_id: &str) -> PathBuf {
    let name: String = form_urlencoded::byte_serialize(content_id.as_bytes()).collect();
    // Dots alone would be another folder.
    folder.join(format!("{}.json", name.replace('.', "%2E")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_id_is_the_same_session_everywhere_and_no_other_is() {
        assert_eq!(session_of("a", "call-1"), session_of("a", "call-1"));
        assert_ne!(session_of("a", "call-1"), session_of("a", "call-2"));
        assert_ne!(session_of("a", "call-1"), session_of("b", "call-1"));
    }

    #[test]
    fn a_missing_content_id_is_none_however_it_is_missing() {
        let call = |id: Option<&str>| {
            let query = CallQuery { content_id: id.map(str::to_owned), ..CallQuery::default() };
            Call::new(query, &HeaderMap::new(), "").named
        };
        assert_eq!(
            [call(None), call(Some("")), call(Some("none")), call(Some("a"))],
            [false, false, false, true]
        );
    }

    #[test]
    fn no_content_id_leads_out_of_the_folder() {
        let file = |id| reference_file(std::path::Path::new("/r"), id).display().to_string();
        assert_eq!(file("call 1"), "/r/call+1.json");
        assert_eq!(file("../../etc/x"), "/r/%2E%2E%2F%2E%2E%2Fetc%2Fx.json");
    }
}
