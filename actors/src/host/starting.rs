//! The start of a decoder host, from its process to its being ready, as a span of this node's own ([`SPANS`]).

use std::time::Duration;

use starling_core::pool::{HostId, StartCause};
use starling_protocol::lease::HostSpec;
use tracing::Span;
use tracing::field::Empty;

use crate::trace::SPANS;

/// A host that is not ready yet.
pub(super) struct Starting(Span);

impl Starting {
    pub(super) fn begin(host: HostId, spec: &HostSpec, cause: StartCause) -> Self {
        Self(tracing::info_span!(
            target: SPANS,
            "host_start",
            model = spec.model,
            cause = cause.label(),
            host = number(host.0),
            slots = i64::from(spec.slots),
            pid = Empty,
            load_s = Empty,
            prewarm_s = Empty,
            "error.type" = Empty,
            otel.status_description = Empty,
        ))
    }

    pub(super) fn launched(&self, pid: Option<u32>) {
        self.0.record("pid", pid.map(i64::from));
    }

    /// Its model is loaded, and recognizers are warm.
    pub(super) fn ready(self, load: Duration, prewarm: Duration) {
        self.0.record("load_s", load.as_secs_f64()).record("prewarm_s", prewarm.as_secs_f64());
    }

    /// It will never be ready.
    pub(super) fn failed(&self, error: &'static str) {
        self.0.record("error.type", error).record("otel.status_description", error);
    }
}

/// Whole numbers of spans have a sign.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
