//! What the gateways read in a request's address and headers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, Uri};
use serde::de::DeserializeOwned;
use starling_protocol::SessionId;
use starling_protocol::gstreamer::Media;
use starling_protocol::native::{ErrorBody, SessionOptions};
use starling_protocol::realtime::Config;

use crate::gateway::{access, gstreamer, operator, page, realtime, transcriptions};

fn query<T: DeserializeOwned>(uri: &Uri) -> Result<Query<T>, ErrorBody> {
    Query::try_from_uri(uri).map_err(operator::unreadable)
}

/// What `POST /v1/transcriptions` is asked for: model, language and options.
///
/// # Errors
/// Its query can't be read, or asks for what can't be.
pub fn transcription(uri: &Uri) -> Result<(Option<String>, Option<String>, SessionOptions), ErrorBody> {
    let Query(parameters) = query::<transcriptions::Parameters>(uri)?;
    let options = parameters.options()?;
    let (model, language) = parameters.meant();
    Ok((model.map(str::to_owned), language.map(str::to_owned), options))
}

/// What `POST /v1/cluster/drain` is asked for: the node, how long it may take, and how long it is to stay.
///
/// # Errors
/// Its query can't be read, or asks for what can't be.
pub fn drain(uri: &Uri, own: Duration) -> Result<(String, Duration, Option<Duration>), ErrorBody> {
    let Query(asked) = query::<operator::DrainQuery>(uri)?;
    let (deadline, stay) = asked.times(own)?;
    Ok((asked.node, deadline, stay))
}

/// The name of the model that `POST /v1/models` is asked for.
///
/// # Errors
/// Its query can't be read.
pub fn added_model(uri: &Uri) -> Result<String, ErrorBody> {
    let Query(asked) = query::<operator::ModelQuery>(uri)?;
    Ok(asked.offer().name)
}

/// What a connection to `GET /v1/realtime` begins as, and whether its client speaks the older version.
///
/// # Errors
/// It wants something else.
pub fn realtime(uri: &Uri, headers: &HeaderMap) -> Result<(Config, bool), ErrorBody> {
    realtime::Call::new(uri, headers).map(|call| (call.config, call.beta))
}

/// What a call of kaldi-gstreamer-server's protocol begins as.
#[derive(Debug)]
pub struct KaldiCall {
    /// What it sends.
    pub media: Result<Media, ErrorBody>,
    /// Its session.
    pub session: SessionId,
    /// Whether the session is found again by the client's content id.
    pub named: bool,
    /// Whether limits on new sessions are left to the cluster, which knows whether it goes on.
    pub may_go_on: bool,
    /// What is logged of whose it is, and what it is called.
    pub logged: [String; 2],
}

/// What a tenant's call of kaldi-gstreamer-server's protocol begins as.
///
/// # Errors
/// Its query can't be read.
pub fn kaldi_call(uri: &Uri, headers: &HeaderMap, tenant: &str) -> Result<KaldiCall, ErrorBody> {
    let Query(asked) = query(uri)?;
    let call = gstreamer::Call::new(asked, headers, tenant);
    Ok(KaldiCall {
        media: call.media,
        session: call.session,
        named: call.named,
        may_go_on: gstreamer::may_go_on(uri),
        logged: [call.user, call.content],
    })
}

/// Where a reference text is kept.
///
/// # Errors
/// The headers name no text, or can't; in words.
pub fn reference_file(folder: &Path, headers: &HeaderMap) -> Result<PathBuf, String> {
    let content_id = gstreamer::reference::content_id(headers)?;
    Ok(gstreamer::reference_file(folder, &content_id))
}

/// What a page at this host that came over TLS may connect to; `None` where it is not told.
#[must_use]
pub fn page_policy(host: &str, webtransport: Option<u16>) -> Option<HeaderValue> {
    page::policy_at(host, webtransport)
}

/// An address without the key in it; `None` where it has none.
#[must_use]
pub fn without_key(uri: &Uri) -> Option<Uri> {
    access::without_key(uri)
}
