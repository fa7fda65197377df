//! Where spans go: a collector that speaks OTLP, named by the standard variables of OpenTelemetry.
//!
//! Owns: the exporter, the queue before it, and the count of what is dropped. Must never: hold a session up, or keep more than the
//! queue has room for.

mod http;
mod own;
mod request;
mod settings;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, Value};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SamplingDecision, ShouldSample, SpanData, SpanEvents,
    SpanExporter, SpanLinks, SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use starling_actors::{Span, Tracer, Tracing};
use starling_protocol::NodeId;
use starling_protocol::trace as ids;

use self::http::BlockingHttp;
pub use self::own::{OwnSpans, SpansLayer, is_own, layer, remote};
pub use self::request::{Asked, RequestSpan};
pub use self::settings::{TraceSettings, TraceSettingsError};
use crate::build;
use crate::exit::{Exit, Failure};

/// What is gathered when the node stops may take so long to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Spans that never reached the collector.
#[derive(Debug, Clone, Default)]
pub struct SpansDropped {
    /// The queue was full.
    pub queue_full: Counter,
    /// The collector did not take them.
    pub not_sent: Counter,
}

/// A node's way to the collector.
#[derive(Debug)]
pub struct Traces {
    processor: BatchSpanProcessor,
    sampler: Box<dyn ShouldSample>,
    scope: InstrumentationScope,
    /// What every span says of the node: not every viewer shows what a resource says.
    node: [KeyValue; 2],
    queue: Arc<Queue>,
}

/// Spans between a session and the collector. The processor has a queue of its own, and does not tell what it drops: nothing
/// comes to it that it has no room for.
#[derive(Debug)]
struct Queue {
    length: usize,
    waiting: AtomicUsize,
    dropped: SpansDropped,
    failing: AtomicBool,
}

impl Traces {
    /// What the settings ask for. To be called within the runtime.
    ///
    /// # Errors
    /// A variable that the exporter reads says what can't be.
    pub fn start(
        node: &NodeId,
        settings: &TraceSettings,
        dropped: SpansDropped,
    ) -> Result<Arc<Self>, Failure> {
        let exporter = exporter(settings).map_err(|error| Failure::new(Exit::Usage, error))?;
        tracing::info!(protocol = settings.protocol_name(), sampler = ?settings.sampler, "sessions are traced");
        Ok(Arc::new(Self::over(exporter, node, settings, dropped)))
    }

    fn over(
        exporter: impl SpanExporter + 'static,
        node: &NodeId,
        settings: &TraceSettings,
        dropped: SpansDropped,
    ) -> Self {
        let queue = Arc::new(Queue {
            length: settings.queue_length,
            waiting: AtomicUsize::new(0),
            dropped,
            failing: AtomicBool::new(false),
        });
        let exporter = Counted { exporter, queue: Arc::clone(&queue) };
        let config = BatchConfigBuilder::default().with_max_queue_size(settings.queue_length).build();
        let mut processor = BatchSpanProcessor::new(exporter, config);
        processor.set_resource(&resource(node, settings));
        let node = [
            KeyValue::new("node.id", node.name.to_string()),
            KeyValue::new("node.generation", node.generation.0.to_string()),
        ];
        Self { processor, sampler: Box::new(settings.sampler.clone()), scope: scope(), node, queue }
    }

    /// One that is no session's: of what this node does by itself.
    fn take(&self, mut span: SpanData) {
        if self.queue.enter() {
            span.attributes.extend(self.node.iter().cloned());
            self.processor.on_end(span);
        }
    }

    /// Sends what is gathered, for as long as that may take.
    pub async fn finish(self: Arc<Self>) {
        let flushed = tokio::task::spawn_blocking(move || self.processor.shutdown_with_timeout(FLUSH)).await;
        match flushed {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans were not sent"),
            Err(error) => tracing::warn!(%error, "the last spans were not sent"),
        }
    }

    fn data(&self, span: Span) -> SpanData {
        let mut events = SpanEvents::default();
        events.events = span
            .events
            .into_iter()
            .map(|event| Event::new(event.name, at(event.at), attributes(event.attributes), 0))
            .collect();
        let mut attributes = attributes(span.attributes);
        attributes.extend(self.node.iter().cloned());
        SpanData {
            span_context: context(span.trace, span.id, true, &span.state),
            parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.0)),
            parent_span_is_remote: span.parent_is_remote,
            span_kind: if span.is_served { SpanKind::Server } else { SpanKind::Internal },
            name: span.name.into(),
            start_time: at(span.start),
            end_time: at(span.end),
            attributes,
            dropped_attributes_count: 0,
            events,
            links: SpanLinks::default(),
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: self.scope.clone(),
        }
    }
}

impl Tracer for Traces {
    fn samples(&self, trace: ids::TraceId, parent: Option<ids::SpanContext>) -> bool {
        let parent = parent.map(|parent| {
            let parent = context(parent.trace, parent.span, parent.sampled, "");
            Context::new().with_remote_span_context(parent)
        });
        let trace = TraceId::from(trace.0);
        let kind = SpanKind::Server;
        let sampled = self.sampler.should_sample(parent.as_ref(), trace, "session", &kind, &[], &[]);
        sampled.decision == SamplingDecision::RecordAndSample
    }

    fn export(&self, span: Span) {
        if self.queue.enter() {
            self.processor.on_end(self.data(span));
        }
    }
}

impl Queue {
    /// Takes a place for one span; false, and counted, where there is none.
    fn enter(&self) -> bool {
        let taken = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |waiting| {
            (waiting < self.length).then_some(waiting + 1)
        });
        if taken.is_err() {
            self.dropped.queue_full.inc();
        }
        taken.is_ok()
    }

    /// These were sent, or were not.
    fn leave(&self, spans: usize, sent: &OTelSdkResult) {
        self.waiting.fetch_sub(spans, Ordering::AcqRel);
        match sent {
            Ok(()) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the collector takes spans again");
                }
            }
            Err(error) => {
                self.dropped.not_sent.inc_by(spans as u64);
                // Once, and not for each batch: the count says how many.
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the collector takes no spans; they are dropped until it does");
                }
            }
        }
    }
}

/// Tells the queue what has left it.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    queue: Arc<Queue>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        self.queue.leave(spans, &sent);
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Endpoint, headers, time limit and compression are read from the environment by the library.
fn exporter(settings: &TraceSettings) -> anyhow::Result<opentelemetry_otlp::SpanExporter> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let built = match settings.protocol {
        Protocol::Grpc => {
            let builder = builder.with_tonic();
            if settings.is_encrypted { builder.with_tls_config(tls(settings)?) } else { builder }.build()
        }
        protocol => {
            let client = BlockingHttp::new(settings)?;
            builder.with_http().with_protocol(protocol).with_http_client(client).build()
        }
    };
    built.context("spans can't be exported as the OTEL_EXPORTER_OTLP_ variables say")
}

fn tls(settings: &TraceSettings) -> anyhow::Result<ClientTlsConfig> {
    let config = ClientTlsConfig::new();
    Ok(match settings.certificates()? {
        Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        None => config.with_native_roots(),
    })
}

fn resource(node: &NodeId, settings: &TraceSettings) -> Resource {
    let own = [
        ("service.name", "starling".to_owned()),
        ("service.version", build::VERSION.to_owned()),
        ("service.instance.id", node.to_string()),
    ];
    // What the operator says of the service counts.
    let own = own.into_iter().filter(|(name, _)| !settings.names(name));
    Resource::builder().with_attributes(own.map(|(name, value)| KeyValue::new(name, value))).build()
}

fn context(trace: ids::TraceId, span: ids::SpanId, sampled: bool, state: &str) -> SpanContext {
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    // One that can't be read is left out, as the recommendation wants it (W3C Trace Context, 3.3.1).
    let state = TraceState::from_str(state).unwrap_or_default();
    SpanContext::new(TraceId::from(trace.0), SpanId::from(span.0), flags, true, state)
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("starling").with_version(build::VERSION).build()
}

fn at(since_1970: Duration) -> SystemTime {
    UNIX_EPOCH + since_1970
}

fn attributes(told: Vec<(&'static str, starling_actors::Value)>) -> Vec<KeyValue> {
    told.into_iter().map(|(name, value)| KeyValue::new(name, self::value(value))).collect()
}

fn value(told: starling_actors::Value) -> Value {
    match told {
        starling_actors::Value::Text(text) => text.into(),
        starling_actors::Value::Count(count) => i64::try_from(count).unwrap_or(i64::MAX).into(),
        starling_actors::Value::Number(number) => number.into(),
        starling_actors::Value::Flag(flag) => flag.into(),
    }
}

/// What the actors are given.
#[must_use]
pub fn tracing_of(traces: Option<&Arc<Traces>>) -> Tracing {
    traces.map(|traces| Arc::clone(traces) as Arc<dyn Tracer>)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::Sampler;
    use starling_protocol::{Generation, NodeName};

    use super::*;

    /// Spans as a collector gets them.
    #[derive(Debug, Clone, Default)]
    pub(super) struct Gathered(Arc<Mutex<Vec<SpanData>>>);

    impl Gathered {
        pub(super) fn spans(&self) -> Vec<SpanData> {
            self.0.lock().expect("no panic").clone()
        }
    }

    impl SpanExporter for Gathered {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().expect("no panic").extend(batch);
            Ok(())
        }
    }

    /// Those of a node, to a collector in this process.
    pub(super) fn traces(to: Gathered, sampler: Sampler) -> Arc<Traces> {
        let named = |name: &str| (name == "OTEL_TRACES_EXPORTER").then(|| "otlp".to_owned());
        let settings = TraceSettings::from_variables(&named, &mut Vec::new());
        let mut settings = settings.expect("is right").expect("is on");
        settings.sampler = sampler;
        let node = NodeId { name: NodeName::parse("node-a").expect("a name"), generation: Generation(7) };
        Arc::new(Traces::over(to, &node, &settings, SpansDropped::default()))
    }

    #[test]
    fn what_has_no_room_or_is_not_taken_is_counted() {
        let dropped = SpansDropped::default();
        let queue = Queue {
            length: 2,
            waiting: AtomicUsize::new(0),
            dropped: dropped.clone(),
            failing: AtomicBool::new(false),
        };
        assert_eq!([queue.enter(), queue.enter(), queue.enter()], [true, true, false]);
        assert_eq!((dropped.queue_full.get(), dropped.not_sent.get()), (1, 0));
        queue.leave(2, &Err(OTelSdkError::InternalFailure("nobody is there".into())));
        assert_eq!((dropped.queue_full.get(), dropped.not_sent.get()), (1, 2));
        assert_eq!([queue.enter(), queue.enter()], [true, true]);
        queue.leave(2, &Ok(()));
        assert_eq!((dropped.queue_full.get(), dropped.not_sent.get()), (1, 2));
    }
}
