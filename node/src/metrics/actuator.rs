//! What the node that scales the pods does.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::ActuatorLabels;
use super::{Metrics, add, whole};

#[derive(Default)]
pub(super) struct ActuatorMetrics {
    leads: Gauge,
    pods: Gauge,
    wanted: Gauge,
    actions: Family<ActuatorLabels, Counter>,
}

impl ActuatorMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "1 while this node is the one that scales the pods";
        add(registry, "actuator_leads", help, &self.leads);
        let help = "Pods that the StatefulSet is to have, as the node sees it that scales them; 0 on others";
        add(registry, "actuator_pods", help, &self.pods);
        let help = "Pods that it should have; 0 on others";
        add(registry, "actuator_pods_wanted", help, &self.wanted);
        let help = "What was decided about pods, by what became of it";
        add(registry, "actuator_actions", help, &self.actions);
    }
}

impl Metrics {
    /// Series of a node that may scale pods: each of these actions can have each of these outcomes.
    pub fn begin_actuator(&self, actions: &[&'static str], outcomes: &[&'static str]) {
        for action in actions {
            for outcome in outcomes {
                drop(self.actuator.actions.get_or_create(&ActuatorLabels { action, outcome }));
            }
        }
    }

    /// Whether this node is the one that scales the pods.
    pub fn note_actuator_leads(&self, leads: bool) {
        self.actuator.leads.set(leads.into());
        if !leads {
            self.note_actuator_pods(0, 0);
        }
    }

    /// How many pods there are to be, and how many there should be.
    pub fn note_actuator_pods(&self, pods: u32, wanted: u32) {
        self.actuator.pods.set(whole(pods));
        self.actuator.wanted.set(whole(wanted));
    }

    /// Something was decided about pods.
    pub fn note_actuator_action(&self, action: &'static str, outcome: &'static str) {
        self.actuator.actions.get_or_create(&ActuatorLabels { action, outcome }).inc();
    }
}
