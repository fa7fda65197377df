//! The making of a copy, as the node tells of it that keeps it.

use starling_core::Timestamp;
use starling_protocol::replica::CopyHeader;
use starling_protocol::trace::SpanContext;

use super::{Span, Tracing, Wall, ids};

/// A copy that is being filled.
pub(crate) struct CopyTrace {
    began: Timestamp,
    header: CopyHeader,
    context: SpanContext,
}

impl CopyTrace {
    /// `None` when nobody wants to know.
    pub(crate) fn begin(tracing: &Tracing, now: Timestamp, header: &CopyHeader) -> Option<Self> {
        tracing.as_ref()?;
        let context = SpanContext::of(header.trace.as_ref()?).filter(|context| context.sampled)?;
        Some(Self { began: now, header: header.clone(), context })
    }

    /// The copy is whole.
    pub(crate) fn whole(self, tracing: &Tracing, now: Timestamp, bytes: usize) {
        let Some(tracer) = tracing else { return };
        let wall = Wall::read(now);
        let span = Span {
            trace: self.context.trace,
            id: ids::fresh(),
            parent: Some(self.context.span),
            parent_is_remote: true,
            state: self.header.trace.map(|trace| trace.tracestate).unwrap_or_default().into(),
            name: "copy",
            is_served: false,
            start: wall.of(self.began),
            end: wall.of(now),
            attributes: vec![
                ("session.id", self.header.session.to_string().into()),
                ("epoch", self.header.epoch.0.into()),
            ],
            events: Vec::new(),
            error: None,
        };
        tracer.export(span.with("bytes", bytes as u64));
    }
}
