//! What is counted, by Prometheus' naming: base units, `_total` for counters, labels with few values.
//!
//! Counters are moved by what the actors observe; gauges are read off the node's status at each scrape. Labels are dialects,
//! configured models and fixed words: never a session, an address or anything else a client chooses.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};
use starling_actors::{
    ClusterView, Dialect, GOSSIP_REFUSALS, MemberState, NodeStatus, Observation, Observer,
};
use starling_protocol::native::ErrorCode;
use tokio::runtime::Handle;

use crate::build;

/// The format that [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label per struct field; a family's labels are a type, so that no call can forget one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabel {
    dialect: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmittedLabels {
    dialect: &'static str,
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    dialect: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedLabels {
    dialect: &'static str,
    model: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    model: String,
    cause: String,
}

type SecondsCounter = Counter<f64, AtomicU64>;
type SecondsGauge = Gauge<f64, AtomicU64>;
type Timings = Family<ModelLabel, Histogram>;

/// All metrics of a node.
pub struct Metrics {
    registry: Registry,
    counters: Counters,
    gauges: Gauges,
    timings: Histograms,
}

#[derive(Default)]
struct Counters {
    requested: Family<DialectLabel, Counter>,
    admitted: Family<AdmittedLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    resumed: Family<DialectLabel, Counter>,
    taken_over: Counter,
    copies_lost: Counter,
    ended: Family<EndedLabels, Counter>,
    audio: Family<DialectLabel, SecondsCounter>,
    finals: Family<CauseLabels, Counter>,
    decoders_lost: Family<CauseLabels, Counter>,
    standbys_promoted: Family<ModelLabel, Counter>,
    standbys_lost: Family<CauseLabels, Counter>,
    replays: Family<ModelLabel, Counter>,
    replayed_audio: Family<ModelLabel, SecondsCounter>,
    given_up: Family<ModelLabel, Counter>,
    hosts_started: Family<ModelLabel, Counter>,
    hosts_exited: Family<CauseLabels, Counter>,
    load_failures: Family<ModelLabel, Counter>,
    gossip_refused: Family<ReasonLabel, Counter>,
}

#[derive(Default)]
struct Gauges {
    sessions: Gauge,
    copies: Gauge,
    copies_bytes: Gauge,
    tasks: Gauge,
    draining: Gauge,
    slots: Family<ModelLabel, Gauge>,
    slots_busy: Family<ModelLabel, Gauge>,
    slots_idle: Family<ModelLabel, Gauge>,
    hosts: Family<ModelLabel, Gauge>,
    hosts_ready: Family<ModelLabel, Gauge>,
    restarts: Family<ModelLabel, Gauge>,
    real_time_factor: Family<ModelLabel, SecondsGauge>,
    resident: Family<ModelLabel, Gauge>,
    members: Family<StateLabel, Gauge>,
}

struct Histograms {
    queue_wait: Timings,
    first_partial: Timings,
    final_latency: Timings,
    replay: Timings,
    load: Timings,
}

/// 1 ms to 16 s: from a warm slot's opening to the longest wait that anything is given.
fn latencies() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// 100 ms to 200 s: small models load in seconds, large ones in minutes.
fn loads() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.0, 12))
}

impl Metrics {
    /// The metrics of a node that serves these models. Series that are sure to come begin at 0, so that the first event of
    /// each can be seen as a rise.
    #[must_use]
    pub fn new<'a>(models: impl IntoIterator<Item = &'a str>) -> Self {
        let counters = Counters::default();
        let gauges = Gauges::default();
        let timings = Histograms {
            queue_wait: Family::new_with_constructor(latencies),
            first_partial: Family::new_with_constructor(latencies),
            final_latency: Family::new_with_constructor(latencies),
            replay: Family::new_with_constructor(latencies),
            load: Family::new_with_constructor(loads),
        };
        let mut registry = Registry::with_prefix("starling");
        register_counters(&mut registry, &counters);
        register_gauges(&mut registry, &gauges);
        register_timings(&mut registry, &timings);
        registry.register(
            "build",
            "What is running",
            Info::new(vec![
                ("version", build::VERSION),
                ("commit", build::COMMIT),
                ("target", build::TARGET),
            ]),
        );
        let metrics = Self { registry, counters, gauges, timings };
        metrics.begin(models);
        metrics
    }
}

/// Registers a clone: metrics are handles to one value.
fn add<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register(name, help, metric.clone());
}

fn register_counters(registry: &mut Registry, counters: &Counters) {
    add(registry, "sessions_requested", "Sessions that clients asked for", &counters.requested);
    add(registry, "sessions_admitted", "Sessions that got a slot", &counters.admitted);
    add(registry, "sessions_refused", "Sessions that were refused", &counters.refused);
    add(registry, "sessions_resumed", "Connections that went on with a session", &counters.resumed);
    let help = "Sessions of other nodes that went on here";
    add(registry, "sessions_taken_over", help, &counters.taken_over);
    let help = "Times that a session had no copy any more and went on alone";
    add(registry, "sessions_left_alone", help, &counters.copies_lost);
    add(registry, "sessions_ended", "Sessions that are over", &counters.ended);
    add(registry, "audio_received_seconds", "Audio taken from clients", &counters.audio);
    add(registry, "finals", "Segments committed, by why they ended", &counters.finals);
    add(registry, "decoders_lost", "Decoders lost under an open session", &counters.decoders_lost);
    add(
        registry,
        "standbys_promoted",
        "Sessions that went on with their standby",
        &counters.standbys_promoted,
    );
    add(registry, "standbys_lost", "Standbys lost under an open session, by why", &counters.standbys_lost);
    add(registry, "replays", "Segments decoded again after a loss", &counters.replays);
    add(registry, "replayed_audio_seconds", "Audio decoded again after a loss", &counters.replayed_audio);
    add(registry, "segments_given_up", "Segments that no decoder survived", &counters.given_up);
    add(registry, "hosts_started", "Decoder hosts that became ready", &counters.hosts_started);
    add(registry, "hosts_exited", "Decoder hosts that ended", &counters.hosts_exited);
    add(
        registry,
        "host_load_failures",
        "Decoder hosts that could not load their model",
        &counters.load_failures,
    );
    add(
        registry,
        "gossip_packets_refused",
        "Packets on the gossip socket that were not used, by why",
        &counters.gossip_refused,
    );
}

fn register_gauges(registry: &mut Registry, gauges: &Gauges) {
    add(registry, "sessions", "Sessions that are open", &gauges.sessions);
    add(registry, "copies", "Copies of other nodes' sessions", &gauges.copies);
    add(registry, "copies_bytes", "Memory of copies of other nodes' sessions", &gauges.copies_bytes);
    add(registry, "tasks", "Tasks that live: actors, connections, and what they started", &gauges.tasks);
    add(registry, "draining", "1 while the node is stopping", &gauges.draining);
    add(registry, "slots", "Streams that can be decoded at once", &gauges.slots);
    add(registry, "slots_busy", "Slots in use", &gauges.slots_busy);
    add(registry, "slots_idle", "Slots that are free", &gauges.slots_idle);
    add(registry, "hosts", "Decoder hosts there should be", &gauges.hosts);
    add(registry, "hosts_ready", "Decoder hosts that are ready", &gauges.hosts_ready);
    add(registry, "host_restarts", "Decoder hosts started again since the node's start", &gauges.restarts);
    add(
        registry,
        "real_time_factor",
        "CPU seconds of decoding for each second of audio",
        &gauges.real_time_factor,
    );
    add(registry, "hosts_resident_memory_bytes", "Resident memory of the decoder hosts", &gauges.resident);
    add(registry, "cluster_members", "Nodes of the cluster by state, this one too", &gauges.members);
}

fn register_timings(registry: &mut Registry, timings: &Histograms) {
    add(registry, "queue_wait_seconds", "From asking for a session to its slot", &timings.queue_wait);
    add(
        registry,
        "first_partial_seconds",
        "From a session's first audio to its first partial",
        &timings.first_partial,
    );
    add(
        registry,
        "final_latency_seconds",
        "From the arrival of a segment's last audio to its final",
        &timings.final_latency,
    );
    add(
        registry,
        "replay_seconds",
        "From the loss of a decoder to its replacement having caught up",
        &timings.replay,
    );
    add(registry, "host_load_seconds", "From a host's start to its being ready", &timings.load);
}

impl Metrics {
    fn begin<'a>(&self, models: impl IntoIterator<Item = &'a str>) {
        for dialect in Dialect::ALL {
            let label = DialectLabel { dialect: dialect.label() };
            drop(self.counters.requested.get_or_create(&label));
            drop(self.counters.resumed.get_or_create(&label));
            drop(self.counters.audio.get_or_create(&label));
        }
        for reason in GOSSIP_REFUSALS {
            drop(self.counters.gossip_refused.get_or_create(&ReasonLabel { reason }));
        }
        for model in models {
            let label = label(model);
            drop(self.counters.standbys_promoted.get_or_create(&label));
            drop(self.counters.replays.get_or_create(&label));
            drop(self.counters.replayed_audio.get_or_create(&label));
            drop(self.counters.given_up.get_or_create(&label));
            drop(self.counters.hosts_started.get_or_create(&label));
            drop(self.counters.load_failures.get_or_create(&label));
            let timings = &self.timings;
            for timing in [
                &timings.queue_wait,
                &timings.first_partial,
                &timings.final_latency,
                &timings.replay,
                &timings.load,
            ] {
                drop(timing.get_or_create(&label));
            }
        }
    }

    /// All metrics as text, with the gauges as `status` and `cluster` have them.
    ///
    /// # Errors
    /// Only when out of memory.
    pub fn encode(&self, status: &NodeStatus, cluster: &ClusterView) -> Result<String, fmt::Error> {
        self.gauges.set(status);
        self.gauges.set_members(cluster);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Gauges {
    fn set(&self, status: &NodeStatus) {
        self.sessions.set(whole(status.sessions));
        self.copies.set(whole(status.copies));
        self.copies_bytes.set(whole(status.copies_bytes));
        if let Ok(runtime) = Handle::try_current() {
            self.tasks.set(whole(runtime.metrics().num_alive_tasks()));
        }
        self.draining.set(i64::from(status.draining));
        for model in &status.models {
            let label = label(&model.name);
            self.slots.get_or_create(&label).set(whole(model.slots_total));
            self.slots_busy.get_or_create(&label).set(whole(model.slots_busy));
            self.slots_idle.get_or_create(&label).set(whole(model.slots_idle));
            self.hosts.get_or_create(&label).set(whole(model.hosts_total));
            self.hosts_ready.get_or_create(&label).set(whole(model.hosts_ready));
            self.restarts.get_or_create(&label).set(whole(model.restarts));
            self.resident.get_or_create(&label).set(whole(model.resident_bytes));
            if let Some(factor) = model.real_time_factor {
                self.real_time_factor.get_or_create(&label).set(factor);
            }
        }
    }
}

impl Gauges {
    fn set_members(&self, cluster: &ClusterView) {
        for state in MemberState::ALL {
            let members = cluster.members.iter().filter(|member| member.state == state).count();
            self.members.get_or_create(&StateLabel { state: state.label() }).set(whole(members));
        }
    }
}

impl Observer for Metrics {
    fn observe(&self, observation: &Observation<'_>) {
        let (counters, timings) = (&self.counters, &self.timings);
        match *observation {
            Observation::SessionRequested { dialect } => {
                counters.requested.get_or_create(&DialectLabel { dialect: dialect.label() }).inc();
            }
            Observation::SessionAdmitted { dialect, model, queue_wait } => {
                let labels = AdmittedLabels { dialect: dialect.label(), model: model.to_owned() };
                counters.admitted.get_or_create(&labels).inc();
                observe(&timings.queue_wait, model, queue_wait);
            }
            Observation::SessionRefused { dialect, reason } => {
                let labels = RefusedLabels { dialect: dialect.label(), reason: error_label(reason) };
                counters.refused.get_or_create(&labels).inc();
            }
            Observation::SessionTakenOver { .. } => drop(self.counters.taken_over.inc()),
            Observation::SessionLeftAlone { .. } => drop(self.counters.copies_lost.inc()),
            Observation::SessionResumed { dialect } => {
                counters.resumed.get_or_create(&DialectLabel { dialect: dialect.label() }).inc();
            }
            Observation::SessionEnded { dialect, model, outcome, .. } => {
                let labels = EndedLabels { dialect: dialect.label(), model: model.to_owned(), outcome };
                counters.ended.get_or_create(&labels).inc();
            }
            Observation::FirstPartial { model, after } => observe(&timings.first_partial, model, after),
            Observation::FinalCommitted { model, latency, cause } => {
                let cause = serde_label(&cause);
                counters.finals.get_or_create(&CauseLabels { model: model.to_owned(), cause }).inc();
                observe(&timings.final_latency, model, latency);
            }
            Observation::AudioReceived { dialect, audio } => {
                let label = DialectLabel { dialect: dialect.label() };
                counters.audio.get_or_create(&label).inc_by(audio.as_secs_f64());
            }
            Observation::DecoderLost { model, cause } => {
                let cause = cause.label().to_owned();
                counters.decoders_lost.get_or_create(&CauseLabels { model: model.to_owned(), cause }).inc();
            }
            Observation::StandbyPromoted { model } => {
                counters.standbys_promoted.get_or_create(&label(model)).inc();
            }
            Observation::StandbyLost { model, cause } => {
                let labels = CauseLabels { model: model.to_owned(), cause: cause.to_owned() };
                counters.standbys_lost.get_or_create(&labels).inc();
            }
            Observation::Replayed { model, audio, took } => {
                counters.replays.get_or_create(&label(model)).inc();
                counters.replayed_audio.get_or_create(&label(model)).inc_by(audio.as_secs_f64());
                observe(&timings.replay, model, took);
            }
            Observation::SegmentGivenUp { model } => {
                counters.given_up.get_or_create(&label(model)).inc();
            }
            Observation::HostStarted { model, load, prewarm } => {
                counters.hosts_started.get_or_create(&label(model)).inc();
                observe(&timings.load, model, load + prewarm);
            }
            Observation::HostExited { model, end } => {
                let cause = end.label().to_owned();
                counters.hosts_exited.get_or_create(&CauseLabels { model: model.to_owned(), cause }).inc();
            }
            Observation::HostLoadFailed { model, .. } => {
                counters.load_failures.get_or_create(&label(model)).inc();
            }
            Observation::GossipRefused { reason } => {
                counters.gossip_refused.get_or_create(&ReasonLabel { reason }).inc();
            }
            // The actors may come to tell of more than is counted here.
            _ => {}
        }
    }
}

fn observe(timings: &Timings, model: &str, duration: Duration) {
    timings.get_or_create(&label(model)).observe(duration.as_secs_f64());
}

fn label(model: &str) -> ModelLabel {
    ModelLabel { model: model.to_owned() }
}

fn error_label(code: ErrorCode) -> String {
    serde_label(&code)
}

/// The word a fixed set's member has on the wire.
fn serde_label<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "other".to_owned(),
    }
}

fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
