//! Errors over HTTP: the native protocol's error body under `error`, with the status that fits.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use starling_protocol::native::{ErrorBody, ErrorCode};

/// An answer that says what is wrong.
#[derive(Debug)]
pub(super) struct HttpError {
    pub(super) status: StatusCode,
    pub(super) error: Box<ErrorBody>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a ErrorBody,
}

impl HttpError {
    pub(super) fn new(status: StatusCode, error: ErrorBody) -> Self {
        Self { status, error: Box::new(error) }
    }

    /// The response with the time after which it is worth trying again, in whole seconds, if it is, and with what kind of key
    /// is wanted (RFC 9110, 11.6.1), if that is what is missing.
    pub(super) fn with_time(&self, mut response: Response) -> Response {
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            let milliseconds = self.error.retry_after_ms.unwrap_or(1_000);
            let seconds = milliseconds.div_ceil(1_000).max(1);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For what is told of the request; the text of the answer is for its client.
        response.extensions_mut().insert(self.error.code);
        response
    }
}

impl From<ErrorBody> for HttpError {
    fn from(error: ErrorBody) -> Self {
        let status = match error.code {
            ErrorCode::BadMessage | ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::UnknownModel | ErrorCode::UnknownSession => StatusCode::NOT_FOUND,
            ErrorCode::Busy | ErrorCode::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::IdleTimeout | ErrorCode::SlowReader => StatusCode::REQUEST_TIMEOUT,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::OverQuota => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::SessionTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        self.with_time((self.status, Json(Body { error: &self.error })).into_response())
    }
}
