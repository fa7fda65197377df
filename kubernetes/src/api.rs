//! The calls to the API server. Each has a deadline; each names what it asked for when it fails.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp as WallTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Config};
use serde_json::json;
use starling_core::leadership::LeaseRecord;
use thiserror::Error;

/// Who changes objects, as `kubectl get --show-managed-fields` tells.
const MANAGER: &str = "starling";

/// Most pods of a cluster that Kubernetes is made for ("Considerations for large clusters"). A StatefulSet that is to have more is a slip of
/// somebody's, and each pod is looked at.
const MOST_PODS: u32 = 150_000;

/// This process is not in a pod that may speak to the API server.
#[derive(Debug, Error)]
#[error(
    "there is no way to the API server: {0}; it takes a pod with automountServiceAccountToken: true, and the variables \
     KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT that every pod has"
)]
pub struct NotInCluster(#[source] Box<dyn std::error::Error + Send + Sync>);

/// A way to the API server, and the namespace that is meant.
#[derive(Clone)]
pub struct Connection {
    /// The way.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl Connection {
    /// That of a pod, by the files of its service account. Without a name the namespace is the account's.
    ///
    /// # Errors
    /// This is no pod, or it has no token.
    pub fn in_cluster(namespace: &str) -> Result<Self, NotInCluster> {
        let config = Config::incluster().map_err(|error| NotInCluster(error.into()))?;
        let own = config.default_namespace.clone();
        Self::new(config, if namespace.is_empty() { &own } else { namespace })
    }

    /// One that is made up.
    ///
    /// # Errors
    /// The certificates that it names can't be used.
    pub fn new(config: Config, namespace: &str) -> Result<Self, NotInCluster> {
        // The client takes the process's provider, and there are two to choose from. Who installed one before has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(config).map_err(|error| NotInCluster(error.into()))?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }
}

/// A call was not answered, or not with yes.
#[derive(Debug, Error)]
pub enum CallError {
    /// The object is another than was thought: somebody else changed it first.
    #[error("{what} was changed by somebody else meanwhile")]
    Conflict {
        /// The object.
        what: String,
    },
    /// This pod's account may not.
    #[error("this pod's account may not {verb} {what}; the chart's Role says what it needs: {message}")]
    Forbidden {
        /// What it wanted to do.
        verb: &'static str,
        /// With which object.
        what: String,
        /// What the API server says.
        message: String,
    },
    /// The server did not answer in time. What was asked for may have been done.
    #[error("the API server has not answered within {after:?} ({verb} {what})")]
    TimedOut {
        /// What was asked.
        verb: &'static str,
        /// Of which object.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The StatefulSet is to have more pods than there can be.
    #[error("{what} says {replicas} replicas; a cluster has {MOST_PODS} pods at most")]
    TooMany {
        /// Of which object.
        what: String,
        /// What it says.
        replicas: u32,
    },
    /// Anything else.
    #[error("{verb} {what}: {source}")]
    Failed {
        /// What was asked.
        verb: &'static str,
        /// Of which object.
        what: String,
        /// Why not.
        source: Box<kube::Error>,
    },
}

/// How many pods there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetScale {
    pub(crate) replicas: u32,
    pub(crate) created: u32,
    version: Option<String>,
}

/// The objects of one cluster.
#[derive(Clone)]
pub(crate) struct Objects {
    sets: Api<StatefulSet>,
    leases: Api<Lease>,
    pods: Api<Pod>,
    set: String,
    lease: String,
    timeout: Duration,
}

impl Objects {
    pub(crate) fn new(connection: &Connection, set: &str, lease: &str, timeout: Duration) -> Self {
        let Connection { client, namespace } = connection;
        Self {
            sets: Api::namespaced(client.clone(), namespace),
            leases: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            set: set.to_owned(),
            lease: lease.to_owned(),
            timeout,
        }
    }

    /// The name of a pod.
    pub(crate) fn pod(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.set)
    }

    /// How many pods the StatefulSet has.
    pub(crate) async fn scale(&self) -> Result<SetScale, CallError> {
        let scale = self.call("get", self.scale_name(), self.sets.get_scale(&self.set)).await?;
        let replicas = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let created = scale.status.as_ref().map_or(0, |status| status.replicas);
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let version = scale.metadata.resource_version;
        let scale = SetScale { replicas: count(replicas), created: count(created), version };
        if scale.replicas > MOST_PODS {
            return Err(CallError::TooMany { what: self.scale_name(), replicas: scale.replicas });
        }
        Ok(scale)
    }

    /// Has the StatefulSet have so many pods, if it is still as it was seen. `only_ask` has the server check all of it, rights too, and
    /// do nothing.
    pub(crate) async fn set_replicas(
        &self,
        seen: &SetScale,
        to: u32,
        only_ask: bool,
    ) -> Result<(), CallError> {
        let patch = json!({
            "metadata": { "resourceVersion": seen.version },
            "spec": { "replicas": to },
        });
        let how = PatchParams {
            dry_run: only_ask,
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        let call = self.sets.patch_scale(&self.set, &how, &patch);
        self.call("patch", self.scale_name(), call).await.map(|_: Scale| ())
    }

    /// Whether the pod's containers have ever been started: not while it waits for a machine, for an image or for its init
    /// containers. A pod that is not there counts as one that has: another of its name may have run, and its node may run still.
    pub(crate) async fn has_run(&self, ordinal: u32) -> Result<bool, CallError> {
        let name = self.pod(ordinal);
        let pod = self.call("get", format!("pod {name}"), self.pods.get_opt(&name)).await?;
        let phase = pod.and_then(|pod| pod.status).and_then(|status| status.phase);
        Ok(phase.as_deref() != Some("Pending"))
    }

    /// How the Lease is, if it is there.
    pub(crate) async fn lease(&self) -> Result<Option<LeaseRecord>, CallError> {
        let lease = self.call("get", self.lease_name(), self.leases.get_opt(&self.lease)).await?;
        Ok(lease.map(|lease| record(&lease)))
    }

    /// Makes the Lease.
    pub(crate) async fn create_lease(&self, lease: &LeaseRecord) -> Result<LeaseRecord, CallError> {
        let object = self.object(lease);
        let how = self.post();
        let call = self.leases.create(&how, &object);
        self.call("create", self.lease_name(), call).await.map(|lease| record(&lease))
    }

    /// Writes the Lease, if it is still of the version that is named.
    pub(crate) async fn replace_lease(&self, lease: &LeaseRecord) -> Result<LeaseRecord, CallError> {
        let object = self.object(lease);
        let how = self.post();
        let call = self.leases.replace(&self.lease, &how, &object);
        self.call("update", self.lease_name(), call).await.map(|lease| record(&lease))
    }

    fn scale_name(&self) -> String {
        format!("the scale of statefulset {}", self.set)
    }

    fn lease_name(&self) -> String {
        format!("lease {}", self.lease)
    }

    fn post(&self) -> PostParams {
        PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }
    }

    fn object(&self, lease: &LeaseRecord) -> Lease {
        // Microseconds of any time that a clock can show.
        let time = |us: i64| WallTime::from_microsecond(us).ok().map(MicroTime);
        Lease {
            metadata: ObjectMeta {
                name: Some(self.lease.clone()),
                resource_version: (!lease.version.is_empty()).then(|| lease.version.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(lease.holder.clone()),
                // The server takes none of less than a second.
                lease_duration_seconds: Some(
                    i32::try_from(lease.duration.as_secs().max(1)).unwrap_or(i32::MAX),
                ),
                lease_transitions: Some(i32::try_from(lease.transitions).unwrap_or(i32::MAX)),
                acquire_time: time(lease.acquired_us),
                renew_time: time(lease.renewed_us),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn call<T>(
        &self,
        verb: &'static str,
        what: String,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let Ok(answer) = tokio::time::timeout(self.timeout, call).await else {
            return Err(CallError::TimedOut { verb, what, after: self.timeout });
        };
        answer.map_err(|error| match error {
            // Of a Lease that is made and is there already, too.
            kube::Error::Api(status) if status.code == 409 => CallError::Conflict { what },
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                CallError::Forbidden { verb, what, message: status.message }
            }
            source => CallError::Failed { verb, what, source: Box::new(source) },
        })
    }
}

fn record(lease: &Lease) -> LeaseRecord {
    let spec = lease.spec.clone().unwrap_or_default();
    let us = |time: Option<MicroTime>| time.map_or(0, |time| time.0.as_microsecond());
    let count = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0);
    LeaseRecord {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(count(spec.lease_duration_seconds).into()),
        transitions: count(spec.lease_transitions),
        acquired_us: us(spec.acquire_time),
        renewed_us: us(spec.renew_time),
    }
}
