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
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{any, post, put};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use starling_actors::{Dialect, OpenRequest, Ready};
use starling_protocol::SessionId;
use starling_protocol::gstreamer::{Media, parse_content_type};
use starling_protocol::native::{ErrorBody, SessionOptions};

use super::access::{self, Admitted};
use super::transcriptions::model_for_tag;
use super::{GatewayState, bounded, operator, tracked};

mod recognize;
pub(super) mod reference;
mod speech;
mod workers;

pub use workers::Workers;

/// Where live speech comes in.
pub(super) const SPEECH: &str = "/client/ws/speech";

/// What the original takes a missing id for.
const NO_ID: &str = "none";

/// Longest id in a log, in characters.
const MOST_SHOWN: usize = 128;

/// Paths as kaldi-gstreamer-server has them.
pub(super) fn router() -> Router<GatewayState> {
    Router::new()
        .route(SPEECH, any(speak))
        .route("/client/ws/status", any(watch))
        .route("/client/dynamic/recognize", put(recognize::recognize).post(recognize::recognize))
        .route("/client/dynamic/reference", post(reference::keep))
}

/// What a client says of its stream before it sends any.
#[derive(Debug, Default, Deserialize)]
pub(super) struct CallQuery {
    #[serde(rename = "content-type")]
    content_type: Option<String>,
    #[serde(rename = "content-id")]
    content_id: Option<String>,
    /// Who speaks, for the log.
    #[serde(rename = "user-id")]
    user_id: Option<String>,
    model: Option<String>,
    /// Chooses a model.
    language: Option<String>,
}

/// A stream that is to be opened.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) media: Result<Media, ErrorBody>,
    pub(super) session: SessionId,
    /// Whether the session is found again by the client's content id.
    pub(super) named: bool,
    model: Option<String>,
    language: Option<String>,
    /// Whose it is and what it is called, as the client says: for the log alone.
    pub(super) user: String,
    pub(super) content: String,
}

impl Call {
    pub(super) fn new(query: CallQuery, headers: &HeaderMap, tenant: &str) -> Self {
        let model = query.model.or_else(|| header(headers, "model"));
        let user =
            query.user_id.or_else(|| header(headers, "device-id")).or_else(|| header(headers, "user-id"));
        let content = query.content_id.clone().or_else(|| header(headers, "content-id"));
        let content_id = query.content_id.filter(|id| is_id(id));
        Self {
            user: shown(user),
            content: shown(content),
            media: parse_content_type(query.content_type.as_deref()),
            session: content_id.as_deref().map_or_else(SessionId::random, |id| session_of(tenant, id)),
            named: content_id.is_some(),
            model: model.filter(|name| !name.is_empty()),
            language: query.language.filter(|tag| !tag.is_empty()),
        }
    }

    /// Says whose the session is, as the original does.
    fn log(&self, ready: &Ready) {
        tracing::info!(
            parent: &ready.log,
            user = self.user,
            content = self.content,
            model = ready.model,
            goes_on = ready.resumed,
            "a client of kaldi-gstreamer-server's protocol is heard"
        );
    }

    /// The session that is opened, or gone on with by a client that has nothing but its content id.
    ///
    /// # Errors
    /// No model is for its language.
    fn request(&self, sample_rate: u32, state: &GatewayState) -> Result<OpenRequest, ErrorBody> {
        let model = model_for_tag(self.model.as_deref(), self.language.as_deref(), state)?;
        let words = state.has_words(model.as_deref());
        let alternatives = match state.settings.gstreamer_hypotheses {
            hypotheses if state.has_alternatives(model.as_deref()) => hypotheses,
            _ => 0,
        };
        Ok(OpenRequest {
            model,
            options: SessionOptions { words, alternatives, ..SessionOptions::default() },
            linger: if self.named { state.linger } else { Duration::ZERO },
            by_id: self.named,
            ..OpenRequest::new(self.session, Dialect::Gstreamer, sample_rate)
        })
    }
}

/// What a client says, as far as it is logged.
fn shown(said: Option<String>) -> String {
    said.map_or_else(|| NO_ID.to_owned(), |said| said.chars().take(MOST_SHOWN).collect())
}

/// Whether it says which.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id != NO_ID
}

/// Whether a call at this address may go on with a session, which only the cluster knows.
pub(super) fn may_go_on(uri: &Uri) -> bool {
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.any(|(name, value)| name == "content-id" && is_id(&value))
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
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return operator::no_upgrade(SPEECH, &rejection),
    };
    if let Err(error) = state.check_model(Dialect::Gstreamer, call.model.as_deref()) {
        return access::refusal(SPEECH, error.into());
    }
    bounded(upgrade).on_upgrade(move |socket| tracked(state.clone(), speech::serve(socket, state, call)))
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
pub(super) fn reference_file(folder: &std::path::Path, content_id: &str) -> PathBuf {
    let name: String = form_urlencoded::byte_serialize(content_id.as_bytes()).collect();
    // Dots alone would be another folder.
    folder.join(format!("{}.json", name.replace('.', "%2E")))
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

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
    fn who_speaks_is_known_by_the_query_or_by_a_header_and_is_no_long_story() {
        let call = |user: Option<&str>, headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            let query = CallQuery { user_id: user.map(str::to_owned), ..CallQuery::default() };
            let call = Call::new(query, &headers.collect(), "");
            (call.user, call.content)
        };
        let said = |user: &str, content: &str| (user.to_owned(), content.to_owned());
        assert_eq!(call(None, &[]), said("none", "none"));
        assert_eq!(call(Some("ann"), &[("device-id", "x")]), said("ann", "none"));
        assert_eq!(
            call(None, &[("device-id", "phone-7"), ("content-id", "call 1")]),
            said("phone-7", "call 1")
        );
        assert_eq!(call(Some(&"a".repeat(1_000)), &[]).0.len(), MOST_SHOWN);
    }

    #[test]
    fn no_content_id_leads_out_of_the_folder() {
        let file = |id| reference_file(std::path::Path::new("/r"), id).display().to_string();
        assert_eq!(file("call 1"), "/r/call+1.json");
        assert_eq!(file("../../etc/x"), "/r/%2E%2E%2F%2E%2E%2Fetc%2Fx.json");
    }
}
