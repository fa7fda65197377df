//! The nodes, as the actuator asks for them: by gossip, and by the control plane where gossip is not enough.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use starling_actors::{ClusterView, MemberState};
use starling_kubernetes::{
    Actuator, ActuatorArguments, ActuatorConfig, ActuatorFact, Connection, Fleet, FleetError, FleetView,
    LeaseTimings, ModelNeed, NodeState, Outcome,
};
use starling_protocol::control::RetirementPhase;
use starling_protocol::gossip::LoadRecord;

use crate::cluster::Cluster;
use crate::config::{ModelScalingSettings, Settings};
use crate::exit::{Exit, Failure};
use crate::metrics::Metrics;
use crate::sessions::Sessions;

/// How long a node that has drained stays to be taken away. Whoever asked looks every few seconds; a new leader begins within one
/// lease. One that nobody takes away serves again after it.
const STAY: Duration = Duration::from_secs(5 * 60);

/// How long the lease may take to be given back: one call and what was under way.
pub(super) const GIVE_BACK: Duration = Duration::from_secs(10);

struct ClusterFleet {
    cluster: Arc<Cluster>,
    sessions: Arc<dyn Sessions>,
    metrics: Arc<Metrics>,
    settings: Settings,
}

pub(super) fn actuator(
    settings: &Settings,
    cluster: &Arc<Cluster>,
    sessions: &Arc<dyn Sessions>,
    metrics: &Arc<Metrics>,
) -> Result<Actuator, Failure> {
    let own = &settings.kubernetes;
    let connection = Connection::in_cluster(&own.namespace).map_err(|error| {
        Failure::new(Exit::Usage, anyhow::anyhow!(error).context("kubernetes.enabled is true"))
    })?;
    metrics.begin_actuator(&starling_core::scaling::ActuatorAction::LABELS, &Outcome::LABELS);
    let fleet = ClusterFleet {
        cluster: Arc::clone(cluster),
        sessions: Arc::clone(sessions),
        metrics: Arc::clone(metrics),
        settings: settings.clone(),
    };
    let cooldowns = settings.models.iter().map(|model| model.scaling.cooldown);
    Ok(Actuator::new(ActuatorArguments {
        connection,
        stateful_set: own.stateful_set.clone(),
        lease: own.lease_name(),
        me: cluster.node().to_string(),
        config: ActuatorConfig {
            min_pods: own.min_pods,
            max_pods: own.max_pods,
            settle: cooldowns.max().unwrap_or(ModelScalingSettings::default().cooldown),
        },
        check_interval: own.check_interval,
        dry_run: own.dry_run,
        timings: LeaseTimings::default(),
        fleet: Arc::new(fleet),
    }))
}

#[async_trait]
impl Fleet for ClusterFleet {
    async fn look(&self) -> FleetView {
        let status = self.sessions.status().await;
        let view = self.cluster.view(&status);
        let needs = self.cluster.scaling(&status).models.into_iter().map(|model| ModelNeed {
            desired: model.desired,
            // Of none it does not matter how many a pod has; nobody may know.
            per_pod: if model.desired == 0 {
                1
            } else {
                decoders_per_pod(&self.settings, &model.name, &view)
            },
        });
        let needs = needs.collect();
        let set = format!("{}-", self.settings.kubernetes.stateful_set);
        // A suspect may be lost already: nothing is done on its account.
        let pods = view
            .members
            .iter()
            .filter(|member| member.state == MemberState::Alive && member.id.name.as_str().starts_with(&set));
        let states = pods.map(|member| async move {
            let name = member.id.name.to_string();
            let state = match member.load.as_deref() {
                Some(load) if load.draining || load.leaving => self.way_out(&name).await,
                Some(load) if serves(&self.settings, load) => NodeState::Serving,
                _ => NodeState::Loading,
            };
            (name, state)
        });
        FleetView { needs, nodes: HashMap::from_iter(join_all(states).await) }
    }

    async fn drain(&self, node: &str) -> Result<(), FleetError> {
        let asked = self.cluster.ask_to_retire(node, self.settings.kubernetes.drain_deadline, STAY).await;
        asked.map_err(|problem| FleetError { node: node.to_owned(), problem: problem.to_string() })
    }

    async fn recall(&self, node: &str) -> Result<(), FleetError> {
        // It has nobody left; if it has been started anew meanwhile, it has.
        let asked = self.cluster.drain(node, self.settings.shutdown.drain_deadline).await;
        asked.map_err(|problem| FleetError { node: node.to_owned(), problem: problem.to_string() })
    }

    fn note(&self, fact: &ActuatorFact) {
        match *fact {
            ActuatorFact::Leads(leads) => self.metrics.note_actuator_leads(leads),
            ActuatorFact::Looked { replicas, wanted, .. } => {
                self.metrics.note_actuator_pods(replicas, wanted);
            }
            ActuatorFact::Acted(action, outcome) => {
                self.metrics.note_actuator_action(action.label(), outcome.label());
            }
            ActuatorFact::Blind => {}
        }
    }
}

impl ClusterFleet {
    /// Of a node that drains: why, and how far it has come. One that does not say counts as one that goes for a reason of its own.
    async fn way_out(&self, name: &str) -> NodeState {
        match self.cluster.retirement_of(name).await {
            Ok(at) if at.phase == RetirementPhase::Drained && at.sessions == 0 && at.streams == 0 => {
                NodeState::Drained
            }
            Ok(at) if at.phase != RetirementPhase::Not => NodeState::Draining,
            Ok(_) => NodeState::Leaving,
            Err(error) => {
                tracing::debug!(%error, "nobody knows how far a node has drained");
                NodeState::Leaving
            }
        }
    }
}

/// Whether a node has decoders, or needs none before somebody comes.
fn serves(settings: &Settings, load: &LoadRecord) -> bool {
    let may_have_none = !settings.models.is_empty() && settings.models.iter().all(|model| model.hosts == 0);
    load.models.iter().any(|model| may_have_none || model.slots_total > 0)
}

/// Decoders that one pod has of a model: as the settings say, or else as many as the node has that has most; 0 where nobody knows.
fn decoders_per_pod(settings: &Settings, model: &str, view: &ClusterView) -> u32 {
    if settings.kubernetes.decoders_per_pod > 0 {
        return settings.kubernetes.decoders_per_pod;
    }
    match settings.models.iter().find(|listed| listed.name == model) {
        Some(listed) if listed.scaling.enabled => listed.scaling.max,
        Some(listed) => u32::from(listed.hosts) * u32::from(listed.slots),
        None => {
            let loads = view.active().filter_map(|member| member.load.as_deref());
            let slots = loads.map(|load| {
                let pools = load.models.iter().filter(|pool| pool.name == model);
                pools.map(|pool| u32::from(pool.slots_total)).sum()
            });
            slots.max().unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_actors::Member;
    use starling_protocol::gossip::{Addresses, ModelLoad, Roles};
    use starling_protocol::{Generation, NodeId, NodeName};

    use super::*;
    use crate::config::ModelSettings;

    fn record(slots: &[(&str, u16)]) -> LoadRecord {
        let model = |(name, total): &(&str, u16)| ModelLoad {
            name: (*name).to_owned(),
            on_demand: false,
            slots_total: *total,
            slots_busy: 0,
            slots_idle: *total,
            real_time_factor_milli: None,
            determinism_class: None,
            files: None,
            leaving: false,
        };
        LoadRecord { models: slots.iter().map(model).collect(), ..blank("a") }
    }

    fn blank(name: &str) -> LoadRecord {
        LoadRecord {
            name: NodeName::parse(name).expect("a name"),
            generation: Generation(1),
            revision: 1,
            version: String::new(),
            zone: String::new(),
            roles: Roles::default(),
            draining: false,
            leaving: false,
            addresses: Addresses::default(),
            replica_bytes_free: 0,
            models: Vec::new(),
            models_omitted: 0,
        }
    }

    fn view(loads: Vec<LoadRecord>) -> ClusterView {
        let me = NodeId { name: NodeName::parse("a").expect("a name"), generation: Generation(1) };
        let members = loads.into_iter().map(|load| Member {
            id: me.clone(),
            address: ([127, 0, 0, 1], 1).into(),
            state: MemberState::Alive,
            load: Some(Arc::new(load)),
        });
        ClusterView { members: members.collect(), me: me.clone() }
    }

    #[test]
    fn a_pods_decoders_are_those_of_the_settings_or_what_is_seen() {
        let mut settings = Settings::default();
        let seen = view(vec![record(&[("m", 4)]), record(&[("m", 4), ("m", 2)])]);
        assert_eq!(decoders_per_pod(&settings, "m", &seen), 6);
        assert_eq!(decoders_per_pod(&settings, "other", &seen), 0);
        settings.models = vec![ModelSettings::named("m")];
        assert_eq!(decoders_per_pod(&settings, "m", &seen), 8);
        settings.models[0].scaling.enabled = true;
        settings.models[0].scaling.max = 24;
        assert_eq!(decoders_per_pod(&settings, "m", &seen), 24);
        settings.kubernetes.decoders_per_pod = 5;
        assert_eq!(decoders_per_pod(&settings, "m", &seen), 5);
    }

    #[test]
    fn a_node_serves_when_it_has_a_decoder_or_needs_none() {
        let mut settings = Settings::default();
        assert!(!serves(&settings, &blank("a")) && !serves(&settings, &record(&[("m", 0)])));
        assert!(serves(&settings, &record(&[("m", 0), ("n", 1)])));
        settings.models = vec![ModelSettings::on_demand("m")];
        assert!(serves(&settings, &record(&[("m", 0)])) && !serves(&settings, &blank("a")));
    }
}
