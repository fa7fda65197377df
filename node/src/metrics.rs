//! What is counted, by Prometheus' naming: base units, `_total` for counters, labels with few values.
//!
//! Owns: every metric of the node. Counters are moved by what the actors and gateways observe; gauges are read off the node's state
//! at each scrape. Must never: have a session, an address or anything else that a client chooses as a label: labels are dialects,
//! models and tenants of the settings, and fixed words.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use starling_actors::{ClusterView, NodeStatus};
use starling_protocol::native::ErrorCode;

use self::actuator::ActuatorMetrics;
use self::counters::Counters;
use self::gauges::{Gauges, Scraped};
use self::labels::ReasonLabel;
pub(crate) use self::labels::error_label;
use self::legacy::Legacy;
pub use self::machine::MachineFacts;
use self::machine::MachineMetrics;
use self::timings::Timings;
use crate::build;
use crate::cluster::ScalingReport;
use crate::tenants::TenantUse;
use crate::tls::Certificate;
use crate::traces::SpansDropped;

mod actuator;
mod counters;
mod gauges;
mod labels;
mod legacy;
mod machine;
mod observe;
mod timings;

#[cfg(test)]
mod tests;

/// The format that [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why a key is refused, as it is counted.
pub const KEY_REFUSALS: [&str; 4] = ["no_key", "unknown_key", "bad_token", "unknown_tenant"];

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    counters: Counters,
    gauges: Gauges,
    timings: Timings,
    machine: MachineMetrics,
    actuator: ActuatorMetrics,
    legacy: Option<Legacy>,
    /// Whose end is told, by what it is for.
    certificates: Mutex<Vec<(&'static str, Ends)>>,
    /// A scrape sets gauges and then writes them: one at a time.
    scraping: Mutex<()>,
    disk: PathBuf,
}

/// When a certificate ends.
enum Ends {
    /// It may be replaced while the node runs.
    Current(Arc<Certificate>),
    /// In seconds since 1970.
    At(i64),
}

/// How metrics are kept.
#[derive(Debug, Clone, Default)]
pub struct MetricsOptions {
    /// Also under the names that the older systems had.
    pub legacy_names: bool,
    /// A folder on the disk whose room is told.
    pub disk: PathBuf,
}

/// What a scrape is made of.
pub struct Scrape<'a> {
    /// The node.
    pub status: &'a NodeStatus,
    /// It and the others.
    pub cluster: &'a ClusterView,
    /// What all of them together need.
    pub scaling: &'a ScalingReport,
    /// Whether it is ready for callers.
    pub ready: bool,
    /// What its tenants take.
    pub tenants: &'a [TenantUse],
    /// The process and the machine, if they could be read in time.
    pub machine: Option<&'a MachineFacts>,
}

impl Metrics {
    /// Where spans are counted that never reach the collector.
    #[must_use]
    pub fn spans_dropped(&self) -> SpansDropped {
        self.counters.spans_dropped()
    }

    /// The metrics of a node that serves these models. Series that are sure to come begin at 0, so that the first event of
    /// each can be seen as a rise.
    #[must_use]
    pub fn new<'a>(models: impl IntoIterator<Item = &'a str>, options: MetricsOptions) -> Self {
        let mut registry = Registry::default();
        let machine = MachineMetrics::default();
        machine.register_process(&mut registry);
        let legacy = options.legacy_names.then(|| Legacy::register(&mut registry));
        let own = registry.sub_registry_with_prefix("starling");
        let (counters, gauges, timings) = (Counters::default(), Gauges::default(), Timings::default());
        counters.register(own);
        gauges.register(own);
        timings.register(own);
        machine.register(own);
        let actuator = ActuatorMetrics::default();
        actuator.register(own);
        let version = vec![("version", build::VERSION), ("commit", build::COMMIT), ("target", build::TARGET)];
        own.register("build", "What is running", Info::new(version));
        counters.begin();
        gauges.begin();
        let (certificates, scraping) = (Mutex::default(), Mutex::default());
        let disk = options.disk;
        let metrics = Self {
            registry,
            counters,
            gauges,
            timings,
            machine,
            actuator,
            legacy,
            certificates,
            scraping,
            disk,
        };
        models.into_iter().for_each(|model| metrics.begin_model(model));
        metrics
    }

    /// Series of a model that are sure to come.
    fn begin_model(&self, model: &str) {
        self.counters.begin_model(model);
        self.timings.begin_model(model);
    }

    /// All metrics as text, with the gauges as they are now.
    ///
    /// # Errors
    /// Only when out of memory.
    pub fn encode(&self, scrape: &Scrape<'_>) -> Result<String, fmt::Error> {
        let _alone = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        // Models may be added while the node runs.
        scrape.status.models.iter().for_each(|model| self.begin_model(&model.name));
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let ends: Vec<(&'static str, i64)> =
            certificates.iter().filter_map(|(what, ends)| Some((*what, ends.unix_s()?))).collect();
        drop(certificates);
        self.gauges.set(&Scraped { scrape, certificates: &ends });
        self.counters.set(scrape);
        if let Some(facts) = scrape.machine {
            self.machine.set(facts);
        }
        if let Some(legacy) = &self.legacy {
            legacy.set(scrape.status);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// What the process and the machine take now. Reads files: for a thread that may wait.
    #[must_use]
    pub fn read_machine(&self) -> MachineFacts {
        MachineFacts::read(&self.disk)
    }

    /// From now on it is told when the certificate ends that clients are shown, whichever that is by then.
    pub fn watch_certificate(&self, certificate: &Arc<Certificate>) {
        self.add_certificate("clients", Ends::Current(Arc::clone(certificate)));
    }

    /// From now on it is told when the certificate ends that other nodes are shown.
    pub fn note_cluster_certificate(&self, ends_unix_s: i64) {
        self.add_certificate("cluster", Ends::At(ends_unix_s));
    }

    fn add_certificate(&self, what: &'static str, ends: Ends) {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).push((what, ends));
    }

    /// A client went on with a session, so long after it asked.
    pub fn note_resumed(&self, took: Duration) {
        self.timings.resume.observe(took.as_secs_f64());
    }

    /// A client could not go on with its session.
    pub fn note_resume_refused(&self, reason: ErrorCode) {
        let label = ReasonLabel { reason: error_label(reason) };
        self.counters.resumes_refused.get_or_create(&label).inc();
    }

    /// Audio waited so long to be taken in.
    pub fn note_backpressure(&self, waited: Duration) {
        self.counters.backpressure.inc_by(waited.as_secs_f64());
    }

    /// A session's audio is not what it was said to be, by what it looks like.
    pub fn note_suspect_audio(&self, reason: &'static str) {
        let label = ReasonLabel { reason: reason.to_owned() };
        self.counters.suspect_audio.get_or_create(&label).inc();
    }

    /// A key was refused for one of [`KEY_REFUSALS`].
    pub fn note_key_refused(&self, reason: &'static str) {
        let label = ReasonLabel { reason: reason.to_owned() };
        self.counters.keys_refused.get_or_create(&label).inc();
    }
}

impl Ends {
    fn unix_s(&self) -> Option<i64> {
        match self {
            Self::Current(certificate) => certificate.ends_unix_s(),
            Self::At(ends) => Some(*ends),
        }
    }
}

/// Registers a clone: metrics are handles to one value.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

/// As large as a gauge can be, at most.
fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
