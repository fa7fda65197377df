//! What is as it is now.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use starling_actors::{ClusterView, Dialect, MemberState, ModelStatus, NodeStatus, SessionPhase};

use super::labels::{
    CertificateLabel, ModelLabel, NodeLabels, SessionLabels, StateLabel, TenantLabel, label,
};
use super::{Scrape, add, whole};

pub(super) type SecondsGauge = Gauge<f64, AtomicU64>;

type OfModel = Family<ModelLabel, Gauge>;

#[derive(Default)]
pub(super) struct Gauges {
    /// Moved as sessions tell how they stand, not read off.
    pub(super) sessions: Family<SessionLabels, Gauge>,
    pub(super) lacking_copy: Gauge,
    relayed: Gauge,
    copies: Gauge,
    copies_bytes: Gauge,
    tasks: Gauge,
    copies_free: Gauge,
    ready: Gauge,
    draining: Gauge,
    slots: OfModel,
    slots_busy: OfModel,
    slots_idle: OfModel,
    slots_desired: OfModel,
    desired_decoders: OfModel,
    waiting: OfModel,
    hosts: OfModel,
    hosts_ready: OfModel,
    real_time_factor: Family<ModelLabel, SecondsGauge>,
    resident: OfModel,
    members: Family<StateLabel, Gauge>,
    node: Family<NodeLabels, Gauge>,
    tenants: Family<TenantLabel, Gauge>,
    certificates: Family<CertificateLabel, Gauge>,
}

/// What they are set from.
pub(super) struct Scraped<'a> {
    pub(super) scrape: &'a Scrape<'a>,
    /// When certificates end, in seconds since 1970.
    pub(super) certificates: &'a [(&'static str, i64)],
}

impl Gauges {
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Sessions by how they stand with their client and their decoder";
        add(registry, "sessions", help, &self.sessions);
        let help = "Sessions that should have a copy on another node and have none";
        add(registry, "sessions_lacking_copy", help, &self.lacking_copy);
        add(registry, "sessions_relayed", "Sessions of other nodes that decode here", &self.relayed);
        add(registry, "copies", "Copies of other nodes' sessions", &self.copies);
        add(registry, "copies_bytes", "Memory of copies of other nodes' sessions", &self.copies_bytes);
        let help = "Tasks that live: actors, connections, and what they started";
        add(registry, "tasks", help, &self.tasks);
        add(registry, "copies_free_bytes", "Memory that there is for more copies", &self.copies_free);
        add(registry, "ready", "1 while new callers should be sent here, as /readyz says", &self.ready);
        add(registry, "draining", "1 while the node is stopping", &self.draining);
        add(registry, "slots", "Decoders: streams that can be decoded at once", &self.slots);
        add(registry, "slots_busy", "Decoders in use, or kept for a session that comes", &self.slots_busy);
        add(registry, "slots_idle", "Decoders that a new session could have", &self.slots_idle);
        let help = "Decoders that the node aims for, those of hosts that are still to come counted";
        add(registry, "slots_desired", help, &self.slots_desired);
        let help = "Decoders that the whole cluster should have, as this node sees it: take the maximum of all nodes, not the sum";
        add(registry, "desired_decoders", help, &self.desired_decoders);
        add(registry, "requests_waiting", "Requests for a decoder that wait", &self.waiting);
        add(registry, "hosts", "Decoder hosts there should be", &self.hosts);
        add(registry, "hosts_ready", "Decoder hosts that are ready", &self.hosts_ready);
        let help = "CPU seconds of decoding for each second of audio, since the start";
        add(registry, "real_time_factor", help, &self.real_time_factor);
        let help = "Resident memory of the decoder hosts";
        add(registry, "hosts_resident_memory_bytes", help, &self.resident);
        add(registry, "cluster_members", "Nodes of the cluster by state, this one too", &self.members);
        add(registry, "node_info", "Who this node is; always 1", &self.node);
        add(registry, "tenant_sessions", "Sessions that a tenant's clients are connected to", &self.tenants);
        let help = "When a certificate ends, in seconds since 1970: the one that clients are shown, the one that nodes are";
        add(registry, "certificate_expiry_timestamp_seconds", help, &self.certificates);
    }

    pub(super) fn begin(&self) {
        for dialect in Dialect::ALL.map(Dialect::label) {
            for state in SessionPhase::ALL.map(SessionPhase::label) {
                drop(self.sessions.get_or_create(&SessionLabels { state, dialect }));
            }
        }
    }

    pub(super) fn set(&self, scraped: &Scraped<'_>) {
        let Scraped { scrape, certificates } = scraped;
        self.set_node(scrape.status, scrape.ready);
        self.set_models(scrape.status);
        self.set_cluster(scrape.cluster);
        self.desired_decoders.clear();
        for model in &scrape.scaling.models {
            self.desired_decoders.get_or_create(&label(&model.name)).set(model.desired.into());
        }
        self.tenants.clear();
        for tenant in scrape.tenants {
            let label = TenantLabel { tenant: tenant.label().to_owned() };
            self.tenants.get_or_create(&label).set(whole(tenant.open));
        }
        for (certificate, ends) in *certificates {
            self.certificates.get_or_create(&CertificateLabel { certificate }).set(*ends);
        }
    }

    fn set_node(&self, status: &NodeStatus, ready: bool) {
        self.relayed.set(whole(status.relayed));
        self.copies.set(whole(status.copies));
        self.copies_bytes.set(whole(status.copies_bytes));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.tasks.set(whole(runtime.metrics().num_alive_tasks()));
        }
        self.copies_free.set(whole(status.copies_free_bytes));
        self.ready.set(i64::from(ready));
        self.draining.set(i64::from(status.draining));
    }

    /// A model that is being replaced has two pools; one that is gone has no series.
    fn set_models(&self, status: &NodeStatus) {
        type Figure = fn(&ModelStatus) -> i64;
        let sums: [(&OfModel, Figure); 8] = [
            (&self.slots, |model| whole(model.slots_total)),
            (&self.slots_busy, |model| whole(model.slots_busy)),
            (&self.slots_idle, |model| whole(model.slots_idle)),
            (&self.slots_desired, |model| whole(model.slots_desired)),
            (&self.waiting, |model| whole(model.waiting)),
            (&self.hosts, |model| whole(model.hosts_total)),
            (&self.hosts_ready, |model| whole(model.hosts_ready)),
            (&self.resident, |model| whole(model.resident_bytes)),
        ];
        for (family, of) in sums {
            family.clear();
            for model in &status.models {
                family.get_or_create(&label(&model.name)).inc_by(of(model));
            }
        }
        self.real_time_factor.clear();
        // The pool that new sessions get comes first, and is the one that counts.
        for model in status.models.iter().rev() {
            if let Some(factor) = model.real_time_factor {
                self.real_time_factor.get_or_create(&label(&model.name)).set(factor);
            }
        }
    }

    fn set_cluster(&self, cluster: &ClusterView) {
        for state in MemberState::ALL {
            let members = cluster.members.iter().filter(|member| member.state == state).count();
            self.members.get_or_create(&StateLabel { state: state.label() }).set(whole(members));
        }
        let me = cluster.members.iter().find(|member| member.id == cluster.me);
        let load = me.and_then(|member| member.load.as_deref());
        let roles = load.map(|load| {
            let roles = [("gateway", load.roles.gateway), ("decoder", load.roles.decoder)];
            roles.into_iter().filter(|(_, has)| *has).map(|(role, _)| role).collect::<Vec<_>>().join(",")
        });
        let labels = NodeLabels {
            node: cluster.me.name.to_string(),
            zone: load.map(|load| load.zone.clone()).unwrap_or_default(),
            roles: roles.unwrap_or_default(),
        };
        self.node.clear();
        self.node.get_or_create(&labels).set(1);
    }
}
