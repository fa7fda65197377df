//! An API server that knows one StatefulSet's scale, Leases and pods, with versions and conflicts as the real one has them, and nodes
//! that do as they are told.
#![allow(unreachable_pub, reason = "a test's support is its crate's own")]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use kube::Client;
use serde_json::{Value, json};
use starling_kubernetes::{
    Actuator, ActuatorArguments, ActuatorConfig, ActuatorFact, Connection, Fleet, FleetError, FleetView,
    LeaseTimings, ModelNeed, NodeState, Outcome,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub const SET: &str = "starling";

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is answered with this code, and nothing is done.
    Refused(u16),
    /// It is done, and never answered.
    Unanswered,
}

/// What the server holds.
#[derive(Debug, Default)]
pub struct Objects {
    version: u64,
    pub replicas: u32,
    pub created: u32,
    set_version: u64,
    leases: HashMap<String, Value>,
    /// By their names; others are not there.
    pub phases: HashMap<String, &'static str>,
    /// Calls in their order, as `PATCH /path?query`.
    pub calls: Vec<String>,
    /// What goes wrong with the next calls that begin so.
    pub faults: VecDeque<(&'static str, Fault)>,
}

/// The server.
#[derive(Debug, Clone, Default)]
pub struct ApiServer(Arc<Mutex<Objects>>);

impl ApiServer {
    pub fn with_pods(replicas: u32) -> Self {
        let objects =
            Objects { replicas, created: replicas, version: 1, set_version: 1, ..Objects::default() };
        Self(Arc::new(Mutex::new(objects)))
    }

    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().expect("not poisoned")
    }

    pub fn replicas(&self) -> u32 {
        self.objects().replicas
    }

    pub fn calls(&self, beginning: &str) -> Vec<String> {
        self.objects().calls.iter().filter(|call| call.starts_with(beginning)).cloned().collect()
    }

    pub fn holder(&self) -> String {
        let objects = self.objects();
        let lease = objects.leases.values().next();
        lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }

    /// A way to it without a socket, which can be cut: calls are not answered from then on.
    pub fn line(&self) -> (Connection, CancellationToken) {
        let cut = CancellationToken::new();
        let router = self.router().layer(from_fn_with_state(cut.clone(), cuttable));
        (Connection { client: Client::new(router, "speech"), namespace: "speech".to_owned() }, cut)
    }

    pub fn router(&self) -> Router {
        let namespaced = |group: &str, rest: &str| format!("/apis/{group}/namespaces/speech/{rest}");
        Router::new()
            .route(&namespaced("apps/v1", "statefulsets/{name}/scale"), get(scale).patch(patch_scale))
            .route(&namespaced("coordination.k8s.io/v1", "leases"), post(create_lease))
            .route(&namespaced("coordination.k8s.io/v1", "leases/{name}"), get(lease).put(replace_lease))
            .route("/api/v1/namespaces/speech/pods/{name}", get(pod))
            .layer(from_fn_with_state(self.clone(), count))
            .with_state(self.clone())
    }
}

async fn cuttable(State(cut): State<CancellationToken>, request: Request, next: Next) -> Response {
    if cut.is_cancelled() {
        std::future::pending::<()>().await;
    }
    next.run(request).await
}

async fn count(State(server): State<ApiServer>, request: Request, next: Next) -> Response {
    let call = format!("{} {}", request.method(), request.uri());
    let fault = {
        let mut objects = server.objects();
        let fault = objects.faults.iter().position(|(beginning, _)| call.starts_with(beginning));
        let fault = fault.and_then(|at| objects.faults.remove(at)).map(|(_, fault)| fault);
        objects.calls.push(call);
        fault
    };
    match fault {
        None => next.run(request).await,
        Some(Fault::Refused(code)) => refusal(code, "as the test wants it"),
        Some(Fault::Unanswered) => {
            next.run(request).await;
            std::future::pending().await
        }
    }
}

fn refusal(code: u16, message: &str) -> Response {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (StatusCode::from_u16(code).expect("a code"), axum::Json(status)).into_response()
}

fn scale_of(objects: &Objects) -> Response {
    axum::Json(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": SET, "namespace": "speech", "resourceVersion": objects.set_version.to_string() },
        "spec": { "replicas": objects.replicas },
        "status": { "replicas": objects.created, "selector": "app=starling" },
    }))
    .into_response()
}

async fn scale(State(server): State<ApiServer>, Path(name): Path<String>) -> Response {
    if name != SET {
        return refusal(404, "no such set");
    }
    scale_of(&server.objects())
}

async fn patch_scale(
    State(server): State<ApiServer>,
    Path(name): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(
        (name.as_str(), headers["content-type"].as_bytes()),
        (SET, &b"application/merge-patch+json"[..])
    );
    let patch: Value = serde_json::from_slice(&body).expect("JSON");
    let mut objects = server.objects();
    let version = patch["metadata"]["resourceVersion"].as_str().expect("a version");
    if version != objects.set_version.to_string() {
        return refusal(409, "the object has been modified");
    }
    if query.get("dryRun").is_none_or(|value| value != "All") {
        objects.version += 1;
        objects.set_version = objects.version;
        objects.replicas = u32::try_from(patch["spec"]["replicas"].as_u64().expect("a number")).expect("few");
        // Its controller is quick.
        objects.created = objects.replicas;
    }
    scale_of(&objects)
}

async fn lease(State(server): State<ApiServer>, Path(name): Path<String>) -> Response {
    let lease = server.objects().leases.get(&name).cloned();
    lease.map_or_else(|| refusal(404, "no such lease"), |lease| axum::Json(lease).into_response())
}

async fn create_lease(State(server): State<ApiServer>, body: Bytes) -> Response {
    let lease: Value = serde_json::from_slice(&body).expect("JSON");
    let name = lease["metadata"]["name"].as_str().expect("a name").to_owned();
    let mut objects = server.objects();
    if objects.leases.contains_key(&name) {
        return refusal(409, "it exists");
    }
    keep_lease(&mut objects, name, lease)
}

async fn replace_lease(State(server): State<ApiServer>, Path(name): Path<String>, body: Bytes) -> Response {
    let lease: Value = serde_json::from_slice(&body).expect("JSON");
    let mut objects = server.objects();
    let Some(before) = objects.leases.get(&name) else { return refusal(404, "no such lease") };
    if before["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] {
        return refusal(409, "the object has been modified");
    }
    keep_lease(&mut objects, name, lease)
}

fn keep_lease(objects: &mut Objects, name: String, mut lease: Value) -> Response {
    objects.version += 1;
    lease["metadata"]["resourceVersion"] = Value::from(objects.version.to_string());
    objects.leases.insert(name, lease.clone());
    axum::Json(lease).into_response()
}

async fn pod(State(server): State<ApiServer>, Path(name): Path<String>) -> Response {
    let phase = server.objects().phases.get(&name).copied();
    phase.map_or_else(
        || refusal(404, "no such pod"),
        |phase| {
            let pod = json!({
                "kind": "Pod", "apiVersion": "v1", "metadata": { "name": name }, "status": { "phase": phase },
            });
            axum::Json(pod).into_response()
        },
    )
}

/// What the nodes are, and what they were told.
#[derive(Debug, Default)]
pub struct Nodes {
    pub needs: Vec<ModelNeed>,
    pub states: HashMap<String, NodeState>,
    pub told: Vec<String>,
}

/// All nodes together, as each of them sees them.
#[derive(Debug, Clone, Default)]
pub struct Cluster(Arc<Mutex<Nodes>>);

impl Cluster {
    pub fn serving(pods: u32, desired: u32) -> Self {
        let cluster = Self::default();
        cluster.desire(desired);
        for ordinal in 0..pods {
            cluster.set(ordinal, Some(NodeState::Serving));
        }
        cluster
    }

    pub fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().expect("not poisoned")
    }

    /// So many decoders; a pod has eight.
    pub fn desire(&self, desired: u32) {
        self.nodes().needs = vec![ModelNeed { desired, per_pod: 8 }, ModelNeed { desired: 1, per_pod: 8 }];
    }

    pub fn set(&self, ordinal: u32, state: Option<NodeState>) {
        let name = format!("{SET}-{ordinal}");
        let mut nodes = self.nodes();
        match state {
            Some(state) => drop(nodes.states.insert(name, state)),
            None => drop(nodes.states.remove(&name)),
        }
    }

    pub fn told(&self) -> Vec<String> {
        self.nodes().told.clone()
    }
}

/// One node's view of the cluster, and what its actuator tells.
#[derive(Debug, Clone)]
pub struct Node {
    pub cluster: Cluster,
    facts: Arc<Mutex<Vec<(Instant, ActuatorFact)>>>,
}

impl Node {
    pub fn of(cluster: &Cluster) -> Self {
        Self { cluster: cluster.clone(), facts: Arc::default() }
    }

    fn facts(&self) -> Vec<(Instant, ActuatorFact)> {
        self.facts.lock().expect("not poisoned").clone()
    }

    pub fn leads(&self) -> bool {
        let leads = |fact: &ActuatorFact| match fact {
            ActuatorFact::Leads(leads) => Some(*leads),
            _ => None,
        };
        self.facts().iter().rev().find_map(|(_, fact)| leads(fact)).unwrap_or(false)
    }

    /// When it told this first after that.
    pub fn told_after(&self, after: Instant, fact: &ActuatorFact) -> Option<Instant> {
        self.facts().iter().find(|(at, told)| *at >= after && told == fact).map(|(at, _)| *at)
    }

    /// How often it looked whether it leads.
    pub fn looks(&self) -> usize {
        self.facts().iter().filter(|(_, fact)| matches!(fact, ActuatorFact::Leads(_))).count()
    }

    /// What became of its actions.
    pub fn outcomes(&self) -> Vec<(&'static str, Outcome)> {
        let acted = |fact: ActuatorFact| match fact {
            ActuatorFact::Acted(action, outcome) => Some((action.label(), outcome)),
            _ => None,
        };
        self.facts().into_iter().filter_map(|(_, fact)| acted(fact)).collect()
    }

    /// Starts its actuator.
    pub fn start(
        &self,
        connection: Connection,
        me: &str,
        change: impl FnOnce(&mut ActuatorArguments),
    ) -> Running {
        let mut arguments = ActuatorArguments {
            connection,
            stateful_set: SET.to_owned(),
            lease: format!("{SET}-scaler"),
            me: me.to_owned(),
            config: ActuatorConfig { min_pods: 2, max_pods: 6, settle: Duration::ZERO },
            check_interval: Duration::from_secs(5),
            dry_run: false,
            timings: LeaseTimings::default(),
            fleet: Arc::new(self.clone()),
        };
        change(&mut arguments);
        let stopping = CancellationToken::new();
        let task = tokio::spawn(Actuator::new(arguments).run(stopping.clone()));
        Running { stopping, task }
    }
}

/// An actuator that runs.
pub struct Running {
    stopping: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Has it end, and waits for that.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.task.await.expect("it does not panic");
    }
}

#[async_trait::async_trait]
impl Fleet for Node {
    async fn look(&self) -> FleetView {
        let nodes = self.cluster.nodes();
        FleetView { needs: nodes.needs.clone(), nodes: nodes.states.clone() }
    }

    async fn drain(&self, node: &str) -> Result<(), FleetError> {
        let mut nodes = self.cluster.nodes();
        nodes.told.push(format!("drain {node}"));
        nodes.states.insert(node.to_owned(), NodeState::Draining);
        Ok(())
    }

    async fn recall(&self, node: &str) -> Result<(), FleetError> {
        let mut nodes = self.cluster.nodes();
        nodes.told.push(format!("recall {node}"));
        nodes.states.remove(node);
        Ok(())
    }

    fn note(&self, fact: &ActuatorFact) {
        self.facts.lock().expect("not poisoned").push((Instant::now(), fact.clone()));
    }
}

/// Lets time pass.
pub async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}
