//! What an API server of Kubernetes answers to a node that scales the pods.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use starling_kubernetes::{
    Actuator, ActuatorArguments, ActuatorConfig, ActuatorFact, Connection, Fleet, FleetError, FleetView,
    LeaseTimings, ModelNeed, NodeState,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const SET: &str = "starling";
const ME: &str = "starling-0#1";
const MIN_PODS: u32 = 2;
const MAX_PODS: u32 = 6;

/// Decoders of a pod.
const PER_POD: u32 = 8;

/// Looks at the Lease, every 2 s, and at the pods, every 5 s, for so long.
const LIFE: Duration = Duration::from_secs(21);

/// What is answered in a line: the status, and the body, or `=` for what a server would say that keeps what it is told.
type Answer = (StatusCode, String);

/// A server that answers as a script has it, and judges what it is asked.
#[derive(Debug, Default)]
struct Server {
    /// By what is asked for, in order; the last one again and again.
    answers: HashMap<&'static str, VecDeque<Answer>>,
    lease: Option<Value>,
    replicas: u64,
    version: u64,
    /// What the last answer said of how many pods there are to be.
    seen: Option<Value>,
    /// Until when the node may believe that it leads.
    leads_until: Option<Instant>,
    /// The pods that would be left, as the node has asked and the server would have it.
    asked: Option<u64>,
}

impl Server {
    fn of(lines: &[u8]) -> Self {
        let mut server = Self { replicas: 2, version: 1, ..Self::default() };
        for line in lines.split(|byte| *byte == b'\n') {
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let what = words
                .next()
                .and_then(|word| ["lease", "scale", "pod"].into_iter().find(|it| it.as_bytes() == word));
            let status = words.next().and_then(|word| StatusCode::from_bytes(word).ok());
            // One below 200 is none that is an answer.
            let Some((what, status)) = what.zip(status.filter(|status| status.as_u16() >= 200)) else {
                continue;
            };
            let body = String::from_utf8_lossy(words.next().unwrap_or_default()).into_owned();
            server.answers.entry(what).or_default().push_back((status, body));
        }
        server
    }

    fn next(&mut self, what: &str) -> Answer {
        let answers = self.answers.get_mut(what);
        let next =
            answers.and_then(|left| if left.len() > 1 { left.pop_front() } else { left.front().cloned() });
        next.unwrap_or((StatusCode::INTERNAL_SERVER_ERROR, String::new()))
    }

    fn hear(&mut self, method: &Method, path: &str, is_trial: bool, body: &[u8]) -> Answer {
        let written: Value = serde_json::from_slice(body).unwrap_or_default();
        if path.contains("/leases") {
            return self.hear_of_the_lease(method, written);
        }
        if path.contains("/pods/") {
            return self.next("pod");
        }
        let (status, mut body) = self.next("scale");
        if *method == Method::PATCH {
            let to = written["spec"]["replicas"].as_u64().expect("a number of pods");
            self.judge(to, &written);
            self.asked = (is_trial && status.as_u16() < 400).then_some(to);
            if !is_trial && body == "=" {
                (self.replicas, self.version) = (to, self.version + 1);
            }
        }
        if body == "=" {
            let version = self.version.to_string();
            body = json!({
                "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": { "name": SET, "resourceVersion": version },
                "spec": { "replicas": self.replicas }, "status": { "replicas": self.replicas },
            })
            .to_string();
        }
        if *method == Method::GET {
            self.seen = serde_json::from_str(&body).ok();
        }
        (status, body)
    }

    /// Whether a node may have the StatefulSet have so many pods.
    fn judge(&self, to: u64, written: &Value) {
        assert!(self.leads_until.is_some_and(|until| Instant::now() < until), "it does not lead");
        let seen = self.seen.as_ref().expect("it has looked");
        assert_eq!(written["metadata"]["resourceVersion"], seen["metadata"]["resourceVersion"]);
        let had = seen["spec"]["replicas"].as_u64().unwrap_or(0);
        assert!(had > 0, "somebody has set it to none, and means it");
        // More at once, within bounds; fewer by one at a time.
        assert!(if to > had { to <= u64::from(MAX_PODS) } else { to + 1 == had }, "{to} pods of {had}");
    }

    fn hear_of_the_lease(&mut self, method: &Method, mut written: Value) -> Answer {
        let now = Instant::now();
        let (status, mut body) = self.next("lease");
        let writes = *method != Method::GET;
        if writes {
            let spec = &written["spec"];
            let holder = spec["holderIdentity"].as_str().expect("a holder");
            assert!([ME, ""].contains(&holder), "{holder} is somebody else");
            assert!(spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds > 0), "{spec}");
            assert!(spec["leaseTransitions"].as_i64().is_some_and(|count| count >= 0), "{spec}");
        }
        if body == "=" {
            if writes {
                self.version += 1;
                written["metadata"]["resourceVersion"] = self.version.to_string().into();
                self.lease = Some(written.clone());
            }
            let Some(lease) = &self.lease else {
                let status =
                    json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 });
                return (StatusCode::NOT_FOUND, status.to_string());
            };
            body = lease.to_string();
        }
        let told: Value = serde_json::from_str(&body).unwrap_or_default();
        let is_mine = status.as_u16() < 400 && told["spec"]["holderIdentity"] == ME;
        if writes && is_mine && written["spec"]["holderIdentity"] == ME {
            self.leads_until = Some(now + LeaseTimings::default().renew_within);
        } else if writes && written["spec"]["holderIdentity"] == "" {
            self.leads_until = None;
        }
        (status, body)
    }
}

type Shared = Arc<Mutex<Server>>;

fn locked(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(server): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 16).await.expect("what a node asks is short");
    let is_trial = head.uri.query().unwrap_or_default().contains("dryRun=All");
    locked(&server).hear(&head.method, head.uri.path(), is_trial, &body).into_response()
}

/// Four nodes that serve, and what they are told.
struct Nodes {
    server: Shared,
    desired: u32,
}

#[async_trait]
impl Fleet for Nodes {
    async fn look(&self) -> FleetView {
        let serving = (0..4).map(|ordinal| (format!("{SET}-{ordinal}"), NodeState::Serving));
        FleetView {
            needs: vec![ModelNeed { desired: self.desired, per_pod: PER_POD }],
            nodes: serving.collect(),
        }
    }

    async fn drain(&self, node: &str) -> Result<(), FleetError> {
        let asked = locked(&self.server).asked.expect("the server was asked first");
        assert_eq!(node, format!("{SET}-{asked}"), "the highest goes");
        Ok(())
    }

    async fn recall(&self, node: &str) -> Result<(), FleetError> {
        panic!("{node} has not drained");
    }

    fn note(&self, _: &ActuatorFact) {}
}

/// How many decoders are needed, in one byte; then what a server answers, one a line: `lease`, `scale` or `pod`, a status and a body.
pub fn api_server(data: &[u8]) {
    let (desired, lines) = super::split(data);
    let server = Arc::new(Mutex::new(Server::of(lines)));
    let paused = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    paused.expect("a runtime").block_on(async {
        let router = Router::new().fallback(answer).with_state(Arc::clone(&server));
        let client = kube::Client::new(router, "speech");
        let actuator = Actuator::new(ActuatorArguments {
            connection: Connection { client, namespace: "speech".to_owned() },
            stateful_set: SET.to_owned(),
            lease: format!("{SET}-scaler"),
            me: ME.to_owned(),
            config: ActuatorConfig { min_pods: MIN_PODS, max_pods: MAX_PODS, settle: Duration::ZERO },
            check_interval: Duration::from_secs(5),
            dry_run: false,
            timings: LeaseTimings::default(),
            fleet: Arc::new(Nodes { server, desired: desired.into() }),
        });
        let stopping = CancellationToken::new();
        let life = async {
            tokio::time::sleep(LIFE).await;
            stopping.cancel();
        };
        let whole = async { tokio::join!(actuator.run(stopping.clone()), life) };
        tokio::time::timeout(2 * LIFE, whole).await.expect("it ends when it is told to");
    });
}
