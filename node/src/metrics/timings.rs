//! How long things take.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use starling_actors::TAKEN_OVER;
use starling_core::session::LossCause;

use super::add;
use super::labels::{CauseLabels, ModelLabel, PACES, PaceLabels, label};

/// Times that a caller waits for, in seconds: round figures, so that objectives can be set at them, from a warm decoder's opening
/// to the longest wait that anything is given. At 3 s is an alert's threshold: within a bucket quantiles are interpolated.
const WAITS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 3.0, 5.0, 10.0, 20.0];

type OfModel = Family<ModelLabel, Histogram>;

pub(super) struct Timings {
    pub(super) queue_wait: OfModel,
    pub(super) first_partial: Family<PaceLabels, Histogram>,
    pub(super) final_latency: Family<PaceLabels, Histogram>,
    pub(super) speech_to_final: Family<PaceLabels, Histogram>,
    pub(super) commit: OfModel,
    pub(super) failover: Family<CauseLabels, Histogram>,
    pub(super) resume: Histogram,
    pub(super) gossip: Histogram,
    pub(super) load: OfModel,
}

fn waits() -> Histogram {
    Histogram::new(WAITS)
}

/// 100 ms to 200 s: small models load in seconds, large ones in minutes.
fn loads() -> Histogram {
    Histogram::new(exponential_buckets(0.1, 2.0, 12))
}

/// 100 us, which loopback takes, to 1.6 s, by when a node is given up.
fn round_trips() -> Histogram {
    Histogram::new(exponential_buckets(0.000_1, 2.0, 15))
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            queue_wait: Family::new_with_constructor(waits),
            first_partial: Family::new_with_constructor(waits),
            final_latency: Family::new_with_constructor(waits),
            speech_to_final: Family::new_with_constructor(waits),
            commit: Family::new_with_constructor(waits),
            failover: Family::new_with_constructor(waits),
            resume: waits(),
            gossip: round_trips(),
            load: Family::new_with_constructor(loads),
        }
    }
}

impl Timings {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "From asking for a session to its decoder";
        add(registry, "queue_wait_seconds", help, &self.queue_wait);
        let help = "From a session's first audio to its first partial";
        add(registry, "first_partial_seconds", help, &self.first_partial);
        let help = "From the arrival of a segment's last audio to its final";
        add(registry, "final_latency_seconds", help, &self.final_latency);
        let help = "From the arrival of the end of a segment's last word to its final, the silence that ends it counted; of segments \
                    whose words have times";
        add(registry, "speech_to_final_seconds", help, &self.speech_to_final);
        let help = "From a final's being made to its being told, once a copy has it";
        add(registry, "commit_seconds", help, &self.commit);
        let help = "From the notice of a decoder's loss, or of its whole node's, to the next one's having caught up, by what was lost";
        add(registry, "failover_seconds", help, &self.failover);
        let help = "From a client's asking to go on with its session to the answer";
        add(registry, "resume_seconds", help, &self.resume);
        let help = "From a probe of another node to its answer";
        add(registry, "gossip_round_trip_seconds", help, &self.gossip);
        let help = "From a host's start to its being ready";
        add(registry, "host_load_seconds", help, &self.load);
    }

    pub(super) fn begin_model(&self, model: &str) {
        let of_model = label(model);
        for timing in [&self.queue_wait, &self.commit, &self.load] {
            drop(timing.get_or_create(&of_model));
        }
        for timing in [&self.first_partial, &self.final_latency, &self.speech_to_final] {
            for pace in PACES {
                drop(timing.get_or_create(&PaceLabels { model: model.to_owned(), pace }));
            }
        }
        for cause in LossCause::LABELS.into_iter().chain([TAKEN_OVER]) {
            let labels = CauseLabels { model: model.to_owned(), cause: cause.to_owned() };
            drop(self.failover.get_or_create(&labels));
        }
    }
}
