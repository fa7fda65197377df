//! The log, on standard error, and beside it the spans of what this node does by itself: one subscriber, set up once.

use anyhow::{Context, anyhow};
use tracing::Dispatch;
use tracing::subscriber::Subscriber;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

use crate::config::{LogFormat, LogSettings};
use crate::traces::{SpansLayer, is_own};

type SetFilter = Box<dyn Fn(EnvFilter) -> anyhow::Result<()> + Send + Sync>;

/// What is logged can be changed while the process lives.
pub struct Log {
    set: SetFilter,
}

impl Log {
    /// Sets the log up for the rest of the process's life, and what takes this node's own spans, if anything does.
    ///
    /// # Errors
    /// The directives are wrong, which the settings' check has ruled out, or a subscriber is set up already.
    pub fn start(settings: &LogSettings, spans: Option<SpansLayer<Registry>>) -> anyhow::Result<Self> {
        let (subscriber, log) = subscriber(settings, std::io::stderr, spans)?;
        subscriber.try_init().map_err(|error| anyhow!(error)).context("the log could not be set up")?;
        Ok(log)
    }

    /// From now on this is logged: a level, or directives.
    ///
    /// # Errors
    /// The directives are wrong; what was logged before is logged on.
    pub fn set_level(&self, level: &str) -> anyhow::Result<()> {
        (self.set)(EnvFilter::try_new(level).context("log.level")?)
    }
}

fn subscriber<W>(
    settings: &LogSettings,
    writer: W,
    spans: Option<SpansLayer<Registry>>,
) -> anyhow::Result<(Dispatch, Log)>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.level).context("log.level")?;
    // Lines are the same whether spans are told or not.
    let of_log = filter_fn(|metadata| !is_own(metadata));
    let Some(spans) = spans else {
        let (filter, handle) = reload::Layer::new(filter);
        let subscriber = registry().with(filter).with(of_log).with(lines(settings.format, writer));
        let set: SetFilter = Box::new(move |filter| Ok(handle.reload(filter)?));
        return Ok((subscriber.into(), Log { set }));
    };
    let (filter, handle) = reload::Layer::new(filter);
    let subscriber =
        registry().with(spans).with(lines(settings.format, writer).with_filter(filter.and(of_log)));
    let set: SetFilter = Box::new(move |filter| Ok(handle.reload(filter)?));
    Ok((subscriber.into(), Log { set }))
}

/// What is logged, as it is written.
fn lines<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    // It would complain on standard error of what standard error did not take, and panic when that is not taken either: a full
    // disk must not end what goes on.
    let lines = fmt::layer().with_writer(writer).log_internal_errors(false);
    match format {
        LogFormat::Human => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        // The innermost span, which is the session's, says all that the others would.
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use opentelemetry_sdk::trace::Sampler;
    use starling_actors::SPANS;

    use super::*;
    use crate::traces::{OwnSpans, layer};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of the same story, without its times.
    fn logged(format: LogFormat, spans: bool) -> String {
        let written = Written::default();
        let settings = LogSettings { format, level: "info,starling_node=warn".to_owned() };
        let (writer, spans) = (written.clone(), spans.then(|| layer(Sampler::AlwaysOn, OwnSpans::default())));
        let (subscriber, log) = subscriber(&settings, move || writer.clone(), spans).expect("is right");
        tracing::dispatcher::with_default(&subscriber, || {
            let own = tracing::info_span!(target: SPANS, "drain", sessions = 3);
            let session = tracing::error_span!(target: "starling_actors", "session", id = "some");
            own.in_scope(|| {
                tracing::info!(target: "hyper", "within");
                session.in_scope(|| tracing::warn!(left = 2, "within both"));
            });
            tracing::info!("not at this level");
            tracing::debug!(target: "hyper", "nor this");
            log.set_level("debug").expect("is right");
            tracing::debug!(target: "hyper", "but now");
        });
        let log = String::from_utf8(written.0.lock().expect("no panic").clone()).expect("is text");
        let timeless = |line: &str| match line.split_once("Z") {
            Some((_, rest)) => rest.to_owned(),
            None => panic!("no time in {line:?}"),
        };
        log.lines().map(timeless).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_log_says_the_same_whether_spans_are_told_or_not() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let log = logged(format, false);
            assert_eq!(log, logged(format, true));
            assert_eq!(log.lines().count(), 3, "{log}");
            assert!(!log.contains("drain") && log.contains("session") && log.contains("but now"), "{log}");
        }
    }
}
