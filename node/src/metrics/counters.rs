//! What only grows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use starling_actors::{Dialect, GOSSIP_REFUSALS, NodeStatus, SESSION_OUTCOMES};
use starling_core::audio::Suspicion;
use starling_core::pool::HostEnd;
use starling_core::session::LossCause;
use starling_protocol::native::ErrorCode;

use super::labels::{
    AdmittedLabels, CauseLabels, DialectLabel, EndedLabels, ModelLabel, ReasonLabel, RefusedLabels,
    TenantLabel, error_label, label,
};
use super::{KEY_REFUSALS, Scrape, add};
use crate::traces::SpansDropped;

pub(super) type SecondsCounter = Counter<f64, AtomicU64>;

/// Why new sessions are refused by a node that is as it should be, and by one that is not.
const REFUSALS: [ErrorCode; 7] = [
    ErrorCode::Busy,
    ErrorCode::OverQuota,
    ErrorCode::ShuttingDown,
    ErrorCode::Internal,
    ErrorCode::BadRequest,
    ErrorCode::UnknownModel,
    ErrorCode::Forbidden,
];

/// Why a client can't go on.
const RESUME_REFUSALS: [ErrorCode; 6] = [
    ErrorCode::Gap,
    ErrorCode::UnknownSession,
    ErrorCode::BadToken,
    ErrorCode::Superseded,
    ErrorCode::ShuttingDown,
    ErrorCode::Internal,
];

#[derive(Default)]
pub(super) struct Counters {
    pub(super) requested: Family<DialectLabel, Counter>,
    pub(super) admitted: Family<AdmittedLabels, Counter>,
    pub(super) refused: Family<RefusedLabels, Counter>,
    pub(super) keys_refused: Family<ReasonLabel, Counter>,
    pub(super) resumed: Family<DialectLabel, Counter>,
    pub(super) resumes_refused: Family<ReasonLabel, Counter>,
    pub(super) taken_over: Counter,
    pub(super) left_alone: Counter,
    pub(super) ended: Family<EndedLabels, Counter>,
    pub(super) words_lost: Family<ModelLabel, Counter>,
    pub(super) audio: Family<DialectLabel, SecondsCounter>,
    pub(super) backpressure: SecondsCounter,
    pub(super) suspect_audio: Family<ReasonLabel, Counter>,
    pub(super) finals: Family<CauseLabels, Counter>,
    pub(super) decoders_lost: Family<CauseLabels, Counter>,
    pub(super) standbys_promoted: Family<ModelLabel, Counter>,
    pub(super) standbys_lost: Family<CauseLabels, Counter>,
    pub(super) replayed_audio: Family<ModelLabel, SecondsCounter>,
    pub(super) given_up: Family<ModelLabel, Counter>,
    pub(super) hosts_started: Family<ModelLabel, Counter>,
    pub(super) hosts_exited: Family<CauseLabels, Counter>,
    pub(super) load_failures: Family<ModelLabel, Counter>,
    pub(super) gossip_refused: Family<ReasonLabel, Counter>,
    pub(super) spans_dropped: Family<ReasonLabel, Counter>,
    pub(super) stalls: Counter,
    pub(super) stalled: SecondsCounter,
    decoded: Family<ModelLabel, SecondsCounter>,
    decoding: Family<ModelLabel, SecondsCounter>,
    /// What each pool had said at the scrape before.
    pools: Mutex<HashMap<u64, [Duration; 2]>>,
    tenants_begun: Family<TenantLabel, Counter>,
    tenants_refused: Family<TenantLabel, Counter>,
    tenants_audio: Family<TenantLabel, SecondsCounter>,
}

impl Counters {
    pub(super) fn register(&self, registry: &mut Registry) {
        self.register_sessions(registry);
        self.register_decoding(registry);
        let help = "Packets on the gossip socket that were not used, by why";
        add(registry, "gossip_packets_refused", help, &self.gossip_refused);
        let help = "Spans that never reached the collector, by why";
        add(registry, "trace_spans_dropped", help, &self.spans_dropped);
        let help = "Times that this process stood still: suspended, frozen or starved";
        add(registry, "clock_stalls", help, &self.stalls);
        add(registry, "clock_stalled_seconds", "How long it stood still in all", &self.stalled);
        add(registry, "tenant_sessions_begun", "Sessions that a tenant began", &self.tenants_begun);
        let help = "Sessions that a tenant was refused because of its limits";
        add(registry, "tenant_sessions_refused", help, &self.tenants_refused);
        add(registry, "tenant_audio_seconds", "Audio of a tenant's sessions", &self.tenants_audio);
    }

    fn register_sessions(&self, registry: &mut Registry) {
        add(registry, "sessions_requested", "New sessions that clients asked for", &self.requested);
        add(registry, "sessions_admitted", "Sessions that got a decoder", &self.admitted);
        add(registry, "sessions_refused", "New sessions that were refused, by why", &self.refused);
        add(registry, "keys_refused", "Requests whose key was refused, by why", &self.keys_refused);
        add(registry, "sessions_resumed", "Connections that went on with a session", &self.resumed);
        let help =
            "Connections that could not go on with a session, by why; gap is audio that no node has any more";
        add(registry, "resumes_refused", help, &self.resumes_refused);
        let help = "Sessions of other nodes that went on here";
        add(registry, "sessions_taken_over", help, &self.taken_over);
        let help = "Times that a session had no copy any more and went on alone";
        add(registry, "sessions_left_alone", help, &self.left_alone);
        add(registry, "sessions_ended", "Sessions that are over, by how they ended", &self.ended);
        let help = "Words of finals that a client may not have when its session ended by no wish of its own, and that no node has \
                    any more; to stay 0";
        add(registry, "words_lost", help, &self.words_lost);
        add(registry, "audio_received_seconds", "Audio taken from clients", &self.audio);
        let help = "Time that audio waited to be taken in because a session's journal was full";
        add(registry, "backpressure_seconds", help, &self.backpressure);
        let help = "Sessions whose audio is most likely not what it was said to be, by what it looks like";
        add(registry, "suspect_audio", help, &self.suspect_audio);
    }

    fn register_decoding(&self, registry: &mut Registry) {
        add(registry, "finals", "Segments committed, by why they ended", &self.finals);
        add(registry, "decoders_lost", "Decoders lost under an open session, by why", &self.decoders_lost);
        let help = "Sessions that went on with their standby";
        add(registry, "standbys_promoted", help, &self.standbys_promoted);
        let help = "Standbys lost under an open session, by why";
        add(registry, "standbys_lost", help, &self.standbys_lost);
        let help = "Audio decoded again after a loss";
        add(registry, "replayed_audio_seconds", help, &self.replayed_audio);
        add(registry, "segments_given_up", "Segments that no decoder survived", &self.given_up);
        add(registry, "hosts_started", "Decoder hosts that became ready", &self.hosts_started);
        add(registry, "hosts_exited", "Decoder hosts that ended, by how", &self.hosts_exited);
        let help = "Decoder hosts that could not load their model";
        add(registry, "host_load_failures", help, &self.load_failures);
        add(registry, "decoded_audio_seconds", "Audio that decoder hosts have decoded", &self.decoded);
        let help = "CPU time that decoder hosts took to decode it; by the audio it is the real-time factor";
        add(registry, "decoding_cpu_seconds", help, &self.decoding);
    }

    pub(super) fn begin(&self) {
        for dialect in Dialect::ALL.map(Dialect::label) {
            let label = DialectLabel { dialect };
            drop(self.requested.get_or_create(&label));
            drop(self.resumed.get_or_create(&label));
            drop(self.audio.get_or_create(&label));
            for reason in REFUSALS.map(error_label) {
                drop(self.refused.get_or_create(&RefusedLabels { dialect, reason }));
            }
        }
        let fixed = |family: &Family<ReasonLabel, Counter>, reason: String| {
            drop(family.get_or_create(&ReasonLabel { reason }));
        };
        RESUME_REFUSALS.map(error_label).into_iter().for_each(|reason| fixed(&self.resumes_refused, reason));
        KEY_REFUSALS.into_iter().for_each(|reason| fixed(&self.keys_refused, reason.to_owned()));
        Suspicion::LABELS.into_iter().for_each(|reason| fixed(&self.suspect_audio, reason.to_owned()));
        GOSSIP_REFUSALS.into_iter().for_each(|reason| fixed(&self.gossip_refused, reason.to_owned()));
        let _ = self.spans_dropped();
    }

    /// Where spans are counted that never reach the collector.
    pub(super) fn spans_dropped(&self) -> SpansDropped {
        let of =
            |reason: &str| self.spans_dropped.get_or_create_owned(&ReasonLabel { reason: reason.to_owned() });
        SpansDropped { queue_full: of("queue_full"), not_sent: of("not_sent") }
    }

    pub(super) fn begin_model(&self, model: &str) {
        let of_model = label(model);
        for family in [
            &self.words_lost,
            &self.standbys_promoted,
            &self.given_up,
            &self.hosts_started,
            &self.load_failures,
        ] {
            drop(family.get_or_create(&of_model));
        }
        for family in [&self.replayed_audio, &self.decoded, &self.decoding] {
            drop(family.get_or_create(&of_model));
        }
        let cause = |cause: &str| CauseLabels { model: model.to_owned(), cause: cause.to_owned() };
        for loss in LossCause::LABELS {
            drop(self.decoders_lost.get_or_create(&cause(loss)));
        }
        for end in HostEnd::LABELS {
            drop(self.hosts_exited.get_or_create(&cause(end)));
        }
        for dialect in Dialect::ALL.map(Dialect::label) {
            drop(self.admitted.get_or_create(&AdmittedLabels { dialect, model: model.to_owned() }));
            for outcome in SESSION_OUTCOMES {
                drop(self.ended.get_or_create(&EndedLabels { dialect, model: model.to_owned(), outcome }));
            }
        }
    }

    /// Takes over what is counted elsewhere.
    pub(super) fn set(&self, scrape: &Scrape<'_>) {
        self.add_decoding(scrape.status);
        for tenant in scrape.tenants {
            let label = TenantLabel { tenant: tenant.label().to_owned() };
            let store = |counter: &Counter, value| counter.inner().store(value, Ordering::Relaxed);
            store(&self.tenants_begun.get_or_create(&label), tenant.begun);
            store(&self.tenants_refused.get_or_create(&label), tenant.refused);
            let audio = tenant.audio.as_secs_f64().to_bits();
            self.tenants_audio.get_or_create(&label).inner().store(audio, Ordering::Relaxed);
        }
    }

    /// Adds what each pool has done since the last scrape: pools come and go, and a model's sum must never fall.
    fn add_decoding(&self, status: &NodeStatus) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool, _| status.models.iter().any(|model| model.pool == *pool));
        for model in &status.models {
            let said = pools.entry(model.pool).or_default();
            let [decoded, decoding] = [model.decoded, model.decoding];
            let label = label(&model.name);
            let more = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64();
            self.decoded.get_or_create(&label).inc_by(more(decoded, said[0]));
            self.decoding.get_or_create(&label).inc_by(more(decoding, said[1]));
            *said = [decoded.max(said[0]), decoding.max(said[1])];
        }
    }
}
