//! A request, as a span of this node's own, until it has a session: what began a session is told of by that.
//!
//! Owns: how such a request is called (OpenTelemetry's conventions, for HTTP servers where it came over HTTP). Must never: let a
//! span's name hold what a client says, or any part of it a query or a key.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{Method, StatusCode};
use starling_actors::SPANS;
use starling_protocol::lease::TraceContext;
use starling_protocol::native::ErrorCode;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::remote;
use crate::metrics::error_label;

/// Longest path that is told of: where there is no route, it is the client's own text.
const MAX_PATH_BYTES: usize = 128;

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The pattern of paths that it fits, if there is one.
    pub route: Option<&'a str>,
    /// Its path, without its query.
    pub path: &'a str,
    /// Whether it came over TLS, where that is known.
    pub encrypted: Option<bool>,
    /// What it is a part of.
    pub trace: Option<&'a TraceContext>,
}

/// A request that is not told of to its end yet, if it is to be told of. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct RequestSpan(Option<Arc<Mutex<Open>>>);

#[derive(Debug)]
struct Open {
    /// [`Span::none`] once all is told.
    span: Span,
    /// Whether it ends with its session's beginning, its refusal, or its connection: it has been answered and goes on in another
    /// protocol, or there is no answer to it.
    upgraded: bool,
    /// Whether it is told of only if it is refused.
    refused_only: bool,
    /// Whether it is known why it failed.
    failed: bool,
}

impl RequestSpan {
    /// A request has come.
    #[must_use]
    pub fn begin(asked: &Asked<'_>) -> Self {
        let Asked { method, route, path, encrypted, trace } = *asked;
        let method = name(method);
        let span = tracing::info_span!(
            target: SPANS,
            parent: None,
            "request",
            otel.name = Empty,
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = method,
            http.route = Empty,
            http.response.status_code = Empty,
            url.path = Empty,
            url.scheme = encrypted.map(|encrypted| if encrypted { "https" } else { "http" }),
            "error.type" = Empty,
            told_elsewhere = Empty,
        );
        if span.is_disabled() {
            return Self::default();
        }
        let called = if method == OTHER { "HTTP" } else { method };
        match route {
            // The path itself may hold an id by which others could ask.
            Some(route) => {
                span.record("otel.name", format!("{called} {route}")).record("http.route", route);
            }
            None => {
                let path = &path[..path.floor_char_boundary(MAX_PATH_BYTES)];
                span.record("otel.name", called).record("url.path", path);
            }
        }
        Self::of(Open { span, upgraded: false, refused_only: false, failed: false }, trace)
    }

    /// One of a protocol that has no requests of its own: a stream, a connection, or what is asked for on it. It is told of only if
    /// it is refused, for many of them ask for nothing.
    #[must_use]
    pub fn over(protocol: &'static str, transport: &'static str, trace: Option<&TraceContext>) -> Self {
        let span = tracing::info_span!(
            target: SPANS,
            parent: None,
            "request",
            otel.name = protocol,
            otel.kind = "server",
            network.protocol.name = protocol,
            network.transport = transport,
            "error.type" = Empty,
            told_elsewhere = Empty,
        );
        if span.is_disabled() {
            return Self::default();
        }
        Self::of(Open { span, upgraded: true, refused_only: true, failed: false }, trace)
    }

    fn of(open: Open, trace: Option<&TraceContext>) -> Self {
        open.join(trace);
        Self(Some(Arc::new(Mutex::new(open))))
    }

    /// Whether it is to be told of.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.0.is_some()
    }

    /// It has a session, which tells of it.
    pub fn began_session(&self) {
        if let Some(mut open) = self.open() {
            open.span.record("told_elsewhere", true);
            open.span = Span::none();
        }
    }

    /// There is no session for it. What its client said of its trace after its head goes before what it said there.
    pub fn refused(&self, code: ErrorCode, trace: Option<&TraceContext>) {
        if let Some(mut open) = self.open() {
            open.join(trace);
            open.fail(&error_label(code));
            if open.upgraded {
                open.span = Span::none();
            }
        }
    }

    /// It was answered; an error has a code.
    pub fn answered(&self, status: StatusCode, code: Option<ErrorCode>) {
        let Some(mut open) = self.open() else { return };
        open.span.record("http.response.status_code", i64::from(status.as_u16()));
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // It ends with its session's beginning, or its connection.
            open.upgraded = true;
            return;
        }
        if status.is_client_error() || status.is_server_error() {
            open.fail(&code.map_or_else(|| status.as_u16().to_string(), error_label));
        }
        // What is the client's own fault is none of the server's, say the conventions.
        if status.is_server_error() {
            open.span.record("otel.status_code", "ERROR");
        }
        open.span = Span::none();
    }

    fn open(&self) -> Option<MutexGuard<'_, Open>> {
        let open = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        (!open.span.is_none()).then_some(open)
    }
}

impl Open {
    fn join(&self, trace: Option<&TraceContext>) {
        if let Some(parent) = trace.and_then(remote) {
            // It has not begun for good as long as it lasts.
            let _ = self.span.set_parent(parent);
        }
    }

    fn fail(&mut self, error: &str) {
        if !std::mem::replace(&mut self.failed, true) {
            self.span.record("error.type", error);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.refused_only && !self.failed {
            self.span.record("told_elsewhere", true);
        }
    }
}

/// What the conventions call a method that they don't know.
const OTHER: &str = "_OTHER";

fn name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| method.as_str() == *known).unwrap_or(OTHER)
}
