//! What is observed, counted.

use std::time::Duration;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use starling_actors::{Dialect, Observation, Observer, SessionStanding};

use super::Metrics;
use super::labels::{
    AdmittedLabels, CauseLabels, DialectLabel, EndedLabels, ModelLabel, PaceLabels, ReasonLabel,
    RefusedLabels, SessionLabels, error_label, label, pace, serde_label,
};

impl Observer for Metrics {
    fn observe(&self, observation: &Observation<'_>) {
        self.observe_session(observation);
        self.observe_decoding(observation);
        self.observe_node(observation);
    }
}

// The actors may come to tell of more than is counted here: what one part does not know is left to the others.
impl Metrics {
    fn observe_session(&self, observation: &Observation<'_>) {
        let (counters, timings) = (&self.counters, &self.timings);
        match *observation {
            Observation::SessionRequested { dialect } => {
                counters.requested.get_or_create(&of(dialect)).inc();
                self.legacy.iter().for_each(|legacy| legacy.note_requested());
            }
            Observation::SessionAdmitted { dialect, model, queue_wait } => {
                let labels = AdmittedLabels { dialect: dialect.label(), model: model.to_owned() };
                counters.admitted.get_or_create(&labels).inc();
                observe(&timings.queue_wait, model, queue_wait);
            }
            Observation::SessionRefused { dialect, reason } => {
                let labels = RefusedLabels { dialect: dialect.label(), reason: error_label(reason) };
                counters.refused.get_or_create(&labels).inc();
                self.legacy.iter().for_each(|legacy| legacy.note_refused());
            }
            Observation::SessionTakenOver { .. } => drop(counters.taken_over.inc()),
            Observation::SessionLeftAlone { .. } => drop(counters.left_alone.inc()),
            Observation::SessionResumed { dialect } => {
                counters.resumed.get_or_create(&of(dialect)).inc();
            }
            Observation::SessionEnded { dialect, model, outcome } => {
                let labels = EndedLabels { dialect: dialect.label(), model: model.to_owned(), outcome };
                counters.ended.get_or_create(&labels).inc();
            }
            Observation::SessionChanged { dialect, was, is } => {
                was.iter().for_each(|was| self.move_session(dialect, was, -1));
                is.iter().for_each(|is| self.move_session(dialect, is, 1));
            }
            Observation::WordsLost { model, words } => {
                counters.words_lost.get_or_create(&label(model)).inc_by(words as u64);
            }
            Observation::AudioReceived { dialect, audio } => {
                counters.audio.get_or_create(&of(dialect)).inc_by(audio.as_secs_f64());
            }
            Observation::FirstPartial { model, live, after } => {
                paced(&timings.first_partial, model, live, after);
            }
            Observation::FinalCommitted { model, live, cause, latency, since_speech } => {
                counters.finals.get_or_create(&causes(model, &serde_label(&cause))).inc();
                paced(&timings.final_latency, model, live, latency);
                if let Some(since) = since_speech {
                    paced(&timings.speech_to_final, model, live, since);
                }
            }
            Observation::FinalReleased { model, took } => observe(&timings.commit, model, took),
            _ => {}
        }
    }

    fn observe_decoding(&self, observation: &Observation<'_>) {
        let (counters, timings) = (&self.counters, &self.timings);
        match *observation {
            Observation::DecoderLost { model, cause } => {
                counters.decoders_lost.get_or_create(&causes(model, cause.label())).inc();
            }
            Observation::StandbyPromoted { model } => {
                counters.standbys_promoted.get_or_create(&label(model)).inc();
            }
            Observation::StandbyLost { model, cause } => {
                counters.standbys_lost.get_or_create(&causes(model, cause)).inc();
            }
            Observation::Replayed { model, cause, audio, took } => {
                counters.replayed_audio.get_or_create(&label(model)).inc_by(audio.as_secs_f64());
                timings.failover.get_or_create(&causes(model, cause)).observe(took.as_secs_f64());
            }
            Observation::SegmentGivenUp { model } => {
                counters.given_up.get_or_create(&label(model)).inc();
            }
            Observation::HostStarted { model, load, prewarm } => {
                counters.hosts_started.get_or_create(&label(model)).inc();
                observe(&timings.load, model, load + prewarm);
            }
            Observation::HostExited { model, end } => {
                counters.hosts_exited.get_or_create(&causes(model, end.label())).inc();
            }
            Observation::HostLoadFailed { model, .. } => {
                counters.load_failures.get_or_create(&label(model)).inc();
            }
            _ => {}
        }
    }

    fn observe_node(&self, observation: &Observation<'_>) {
        match *observation {
            Observation::GossipRefused { reason } => {
                let label = ReasonLabel { reason: reason.to_owned() };
                self.counters.gossip_refused.get_or_create(&label).inc();
            }
            Observation::GossipAnswered { took } => self.timings.gossip.observe(took.as_secs_f64()),
            Observation::StoodStill { pause } => {
                self.counters.stalls.inc();
                self.counters.stalled.inc_by(pause.as_secs_f64());
            }
            _ => {}
        }
    }

    fn move_session(&self, dialect: Dialect, standing: &SessionStanding, by: i64) {
        let labels = SessionLabels { state: standing.phase.label(), dialect: dialect.label() };
        self.gauges.sessions.get_or_create(&labels).inc_by(by);
        if standing.lacks_copy {
            self.gauges.lacking_copy.inc_by(by);
        }
    }
}

fn of(dialect: Dialect) -> DialectLabel {
    DialectLabel { dialect: dialect.label() }
}

fn causes(model: &str, cause: &str) -> CauseLabels {
    CauseLabels { model: model.to_owned(), cause: cause.to_owned() }
}

fn observe(timings: &Family<ModelLabel, Histogram>, model: &str, duration: Duration) {
    timings.get_or_create(&label(model)).observe(duration.as_secs_f64());
}

fn paced(timings: &Family<PaceLabels, Histogram>, model: &str, live: bool, duration: Duration) {
    let labels = PaceLabels { model: model.to_owned(), pace: pace(live) };
    timings.get_or_create(&labels).observe(duration.as_secs_f64());
}
