//! Nodes in one process that keep copies of each other's sessions, and what each of them tells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use starling_actors::{
    CopyArguments, NodeArguments, NodeHandle, Observation, Observer, SessionLimits, SessionNews, Span,
    TokenSealer, Tracer,
};
use starling_protocol::NodeName;
use starling_protocol::control::SessionReport;
use starling_protocol::trace::{SpanContext, TraceId};

use super::client::scripted_model;
use super::fake_host::FakeLauncher;
use super::memory_link::{Handles, MemoryCopies, Net, name};

/// What a node tells of sessions: how they ended, and all spans. Of those that a session's client does not want, none.
#[derive(Default)]
pub struct Told {
    ended: Mutex<Vec<(&'static str, SessionReport)>>,
    spans: Mutex<Vec<Span>>,
}

impl Observer for Told {
    fn observe(&self, observation: &Observation<'_>) {
        if let Observation::SessionNews { news: SessionNews::Over { outcome, report }, .. } = *observation {
            self.ended.lock().expect("no panic").push((outcome, report.clone()));
        }
    }
}

impl Tracer for Told {
    fn samples(&self, _: TraceId, parent: Option<SpanContext>) -> bool {
        parent.is_none_or(|parent| parent.sampled)
    }

    fn export(&self, span: Span) {
        self.spans.lock().expect("no panic").push(span);
    }
}

impl Told {
    /// Sessions that ended, and how.
    pub fn ended(&self) -> Vec<(&'static str, SessionReport)> {
        self.ended.lock().expect("no panic").clone()
    }

    /// Spans of this name.
    pub fn spans(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().expect("no panic");
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

/// Nodes that each decode for themselves and keep copies of the others' sessions.
pub struct Cluster {
    pub net: Net,
    handles: Handles,
    sealer: Arc<TokenSealer>,
    told: Mutex<HashMap<NodeName, Arc<Told>>>,
}

impl Cluster {
    pub async fn start(names: &[&str]) -> Self {
        let net = Net::default();
        let sealer = Arc::new(TokenSealer::random());
        let cluster = Self { net, handles: Handles::default(), sealer, told: Mutex::default() };
        for node in names {
            cluster.join(node, 1, FakeLauncher::default()).await;
        }
        cluster
    }

    pub async fn join(&self, node: &str, copies: u8, launcher: FakeLauncher) {
        let told = Arc::new(Told::default());
        self.join_with(node, copies, launcher, Arc::clone(&told) as Arc<dyn Observer>, told).await;
    }

    /// The same with an observer of its own.
    pub async fn join_with(
        &self,
        node: &str,
        copies: u8,
        launcher: FakeLauncher,
        observer: Arc<dyn Observer>,
        told: Arc<Told>,
    ) {
        let (link, streams) = self.net.join(node);
        let copies = CopyArguments {
            own: name(node),
            peers: Some(Arc::new(MemoryCopies::new(&self.net, &link, &self.handles))),
            copies,
            memory_bytes: 64 << 20,
            patience: Duration::from_secs(2),
            sealer: Arc::clone(&self.sealer),
            pulse: None,
        };
        self.told.lock().expect("no panic").insert(name(node), Arc::clone(&told));
        let arguments = NodeArguments {
            models: vec![scripted_model(2, 4)],
            launcher: Arc::new(launcher),
            limits: SessionLimits::default(),
            observer,
            tracing: Some(told),
            peers: None,
            copies,
        };
        let handle = NodeHandle::start(arguments).await.expect("starts");
        let serving = handle.clone();
        tokio::spawn(async move { serving.serve_peers(streams).await });
        self.handles.lock().expect("no panic").insert(name(node), handle);
    }

    pub fn node(&self, node: &str) -> NodeHandle {
        self.handles.lock().expect("no panic")[&name(node)].clone()
    }

    /// What a node has told.
    pub fn told(&self, node: &str) -> Arc<Told> {
        Arc::clone(&self.told.lock().expect("no panic")[&name(node)])
    }

    /// The node is gone as far as anybody can tell.
    pub fn kill(&self, node: &str) {
        let mut handles = self.handles.lock().expect("no panic");
        handles.remove(&name(node));
        handles.keys().for_each(|other| self.net.cut(node, other.as_str()));
    }

    /// The others ask nothing of the node and have nothing kept there; what is open stays so.
    pub fn hide(&self, node: &str) -> NodeHandle {
        self.handles.lock().expect("no panic").remove(&name(node)).expect("is there")
    }

    /// They do again.
    pub fn show(&self, node: &str, handle: NodeHandle) {
        self.handles.lock().expect("no panic").insert(name(node), handle);
    }

    pub async fn copies(&self) -> usize {
        let handles: Vec<NodeHandle> = self.handles.lock().expect("no panic").values().cloned().collect();
        let mut copies = 0;
        for handle in handles {
            copies += handle.status().await.copies;
        }
        copies
    }
}
