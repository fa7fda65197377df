//! Requests over HTTP that come to no session: which are told of as spans.
//!
//! Must never: tell of what is asked for every few seconds, or by the dozen, and by nobody who follows a trace.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use starling_protocol::native::ErrorCode;

use super::{access, page};
use crate::net::Encrypted;
use crate::traces::{Asked, RequestSpan};

/// Tells of a request, whatever becomes of it.
pub(super) async fn tell(mut request: Request, next: Next) -> Response {
    let told = begin(&request);
    if told.is_told() {
        request.extensions_mut().insert(told.clone());
    }
    let response = next.run(request).await;
    told.answered(response.status(), response.extensions().get::<ErrorCode>().copied());
    response
}

fn begin(request: &Request) -> RequestSpan {
    let path = request.uri().path();
    if page::is_page(path) || matches!(path, "/metrics" | "/healthz" | "/livez" | "/startupz" | "/readyz") {
        return RequestSpan::default();
    }
    RequestSpan::begin(&Asked {
        method: request.method(),
        route: request.extensions().get().map(MatchedPath::as_str),
        path,
        encrypted: request.extensions().get().map(|Encrypted(encrypted)| *encrypted),
        trace: access::trace_of(request.headers()).as_ref(),
    })
}
