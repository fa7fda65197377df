//! The metrics of the systems that came before, for dashboards and alerts that are there already.
//!
//! Those had one master, which counted requests, and a process for each decoder, its workers. Here each node counts the requests
//! that were made to it and the decoders that it has, and no other node counts them too: the sum over the nodes is what the master
//! said. Must never: be the only place where something is counted.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use starling_actors::NodeStatus;

use super::labels::{ModelLabel, WorkerLabels, label};
use super::{add, whole};

#[derive(Default)]
pub(super) struct Legacy {
    requests: Counter,
    rejects: Counter,
    available: Gauge,
    status: Family<WorkerLabels, Gauge>,
    model: Family<ModelLabel, Gauge>,
}

impl Legacy {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        // Both spellings occur.
        for name in ["number_of_request_receive_by_master", "number_of_request_received_by_master"] {
            add(registry, name, "As starling_sessions_requested, of all dialects", &this.requests);
        }
        let help = "As starling_sessions_refused, of all dialects and reasons";
        add(registry, "number_of_request_reject", help, &this.rejects);
        let help = "As starling_slots_idle, of all models";
        add(registry, "number_of_worker_available", help, &this.available);
        let help = "Decoders of a model that are idle, busy or still to come";
        add(registry, "worker_status", help, &this.status);
        add(registry, "worker_model", "Decoders that have a model loaded", &this.model);
        this
    }

    pub(super) fn note_requested(&self) {
        self.requests.inc();
    }

    pub(super) fn note_refused(&self) {
        self.rejects.inc();
    }

    pub(super) fn set(&self, status: &NodeStatus) {
        self.available.set(status.models.iter().map(|model| whole(model.slots_idle)).sum());
        self.status.clear();
        self.model.clear();
        for model in &status.models {
            self.model.get_or_create(&label(&model.name)).inc_by(whole(model.slots_total));
            let loading = model.slots_desired.saturating_sub(model.slots_total);
            let counts = [("idle", model.slots_idle), ("busy", model.slots_busy), ("loading", loading)];
            for (status, count) in counts {
                let labels = WorkerLabels { model: model.name.clone(), status };
                self.status.get_or_create(&labels).inc_by(whole(count));
            }
        }
    }
}
