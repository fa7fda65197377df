//! Spans of what this node does by itself, which begin and end where that work lives: they are made with `tracing`, under a target
//! of their own ([`SPANS`]), and go the sessions' way from there.
//!
//! Owns: which spans are taken, and those that are over before the node has a name. Must never: take those of libraries, least of
//! all of the one that sends spans.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use starling_actors::SPANS;
use starling_protocol::lease::TraceContext;
use starling_protocol::trace::SpanContext;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::{Traces, scope};

/// A field by which a span that has begun says that others tell of it all, and is left out.
const TOLD_ELSEWHERE: &str = "told_elsewhere";

/// Spans that are over before the node has a name: a few stages of its start.
const EARLY: usize = 64;

/// A layer of the one subscriber, to be set up before anything else is logged.
pub type SpansLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// See the module. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct OwnSpans(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    traces: Option<Arc<Traces>>,
    early: Vec<SpanData>,
}

impl OwnSpans {
    /// From now on spans go there; those first that were over before.
    pub fn connect(&self, traces: &Arc<Traces>) {
        let early = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.traces = Some(Arc::clone(traces));
            std::mem::take(&mut kept.early)
        };
        early.into_iter().for_each(|span| traces.take(span));
    }
}

impl SpanProcessor for OwnSpans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.attributes.iter().any(|attribute| attribute.key.as_str() == TOLD_ELSEWHERE) {
            return;
        }
        let traces = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(traces) = &kept.traces else {
                if kept.early.len() < EARLY {
                    kept.early.push(span);
                }
                return;
            };
            Arc::clone(traces)
        };
        traces.take(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// The sessions' spans go the same way: it is theirs to close.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Whether a span is one of this node's own, and no library's.
#[must_use]
pub fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPANS
}

/// Makes spans of this node's own into those of OpenTelemetry, as the sampler wills.
pub fn layer<S>(sampler: Sampler, taken_by: impl SpanProcessor + 'static) -> SpansLayer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(taken_by).build();
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer_with_scope(scope()))
        // What a span says of itself is all there is to be said.
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // A span is begun for good when it ends: until then it may find out whose child it is.
        .with_context_activation(false)
        // The level spares everybody else's spans a look at each.
        .with_filter(filter_fn(is_own).with_max_level_hint(LevelFilter::INFO))
        .boxed()
}

/// What a span is to be a child of that somebody else told of.
pub fn remote(trace: &TraceContext) -> Option<Context> {
    let SpanContext { trace: id, span, sampled } = SpanContext::of(trace)?;
    Some(Context::new().with_remote_span_context(super::context(id, span, sampled, &trace.tracestate)))
}

#[cfg(test)]
mod tests {
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::tests::{Gathered, traces};
    use super::*;

    #[test]
    fn own_spans_alone_are_told_those_first_that_were_over_before_the_node_had_a_name() {
        let (own, gathered) = (OwnSpans::default(), Gathered::default());
        let subscriber = tracing_subscriber::registry().with(layer(Sampler::AlwaysOn, own.clone()));
        let traces = traces(gathered.clone(), Sampler::AlwaysOn);
        tracing::subscriber::with_default(subscriber, || {
            info_span!(target: SPANS, "early", "error.type" = "some", n = 3_i64);
            tracing::info_span!("somebody else's").in_scope(|| {
                let whole = info_span!(target: SPANS, "whole", otel.name = tracing::field::Empty);
                whole.record("otel.name", "renamed");
                whole.in_scope(|| {
                    tracing::info!("what is logged within is no event of it");
                    own.connect(&traces);
                    info_span!(target: SPANS, "part");
                    info_span!(target: SPANS, "left out", told_elsewhere = true);
                    tracing::debug_span!(target: SPANS, "too small");
                });
            });
        });
        traces.processor.shutdown_with_timeout(Duration::from_secs(5)).expect("is sent");
        let told = gathered.spans();
        let names: Vec<&str> = told.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["early", "part", "renamed"]);
        let [early, part, whole] = &told[..] else { panic!("three") };
        assert_eq!(part.parent_span_id, whole.span_context.span_id());
        assert!(early.parent_span_id == opentelemetry::SpanId::INVALID && whole.events.is_empty());
        let mut said: Vec<String> = early
            .attributes
            .iter()
            .map(|attribute| format!("{}={}", attribute.key, attribute.value))
            .collect();
        said.sort_unstable();
        assert_eq!(said, ["error.type=some", "n=3", "node.generation=7", "node.id=node-a"]);
        assert_eq!(traces.queue.dropped.queue_full.get() + traces.queue.dropped.not_sent.get(), 0);
    }

    #[test]
    fn a_clients_trace_goes_on_and_its_word_on_what_is_kept_counts() {
        const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        let (own, gathered) = (OwnSpans::default(), Gathered::default());
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let subscriber = tracing_subscriber::registry().with(layer(sampler.clone(), own.clone()));
        let traces = traces(gathered.clone(), sampler);
        own.connect(&traces);
        tracing::subscriber::with_default(subscriber, || {
            use tracing_opentelemetry::OpenTelemetrySpanExt as _;
            for (flags, name) in [("00", "unwanted"), ("01", "wanted")] {
                let told = TraceContext {
                    traceparent: format!("{CALLER}-{flags}"),
                    tracestate: "vendor=1".to_owned(),
                };
                let span = info_span!(target: SPANS, "request", otel.name = name);
                span.set_parent(remote(&told).expect("is one")).expect("has not begun");
            }
        });
        traces.processor.shutdown_with_timeout(Duration::from_secs(5)).expect("is sent");
        let [span] = &gathered.spans()[..] else { panic!("the one that is wanted") };
        assert_eq!((span.name.as_ref(), span.parent_span_is_remote), ("wanted", true));
        assert_eq!(span.span_context.trace_id().to_string(), CALLER[3..35]);
        assert_eq!(span.parent_span_id.to_string(), CALLER[36..]);
        assert_eq!(span.span_context.trace_state().header(), "vendor=1");
    }
}
