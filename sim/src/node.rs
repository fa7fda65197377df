//! A node: the real actors on a runtime of their own, with simulated ways to everybody else.
//!
//! A runtime for each node is what makes a crash and a pause what they are: dropped, nothing of it runs any more and nobody in
//! it is told; not driven, it stands still while the others go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use starling_actors::{
    Capabilities, CopyArguments, CopyPeers, IncomingStream, Keep, KeptCopy, ModelArguments, ModelScaling,
    NodeArguments, NodeHandle, NodeStatus, PeerStream, Peers, Pulse, SessionLimits, SilentObserver,
    StandbyPolicy, TokenSealer,
};
use starling_core::Timestamp;
use starling_core::tick::TICK;
use starling_engine::scripted;
use starling_protocol::lease::EngineKind;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::gateway;
use crate::gossip::{Record, TELL_EVERY, name_of};
use crate::host::Hosts;
use crate::net::{HostId, Net, Port};
use crate::peers::{SimLink, answer};
use crate::plan::{Plan, Speaks};

/// Memory for copies: more than all clients together need.
const COPIES_BYTES: u64 = 4 << 20;

/// Memory of a node that has hardly any: just so much that it is still asked.
const FULL_BYTES: u64 = (1 << 20) + (64 << 10);

/// How long acknowledgements and finals wait for a new copy.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a node that is drained gives its sessions: more than the longest speech, so that whoever can't leave is served to the end.
pub const DRAIN: Duration = Duration::from_secs(30);

/// What one that is restarted gives them.
pub const RESTART: Duration = Duration::from_millis(300);

/// A node that runs.
pub struct Running {
    runtime: Runtime,
    base: Instant,
    /// World time at its start, and how far its clocks are ahead.
    started: Duration,
    ahead: Duration,
    /// Its clock that goes on while it stands still, in milliseconds.
    clock: Arc<AtomicU64>,
    handle: NodeHandle,
    hosts: Hosts,
    stopping: watch::Sender<Option<Duration>>,
    /// Clients that are served.
    connections: Arc<AtomicUsize>,
    stopped: watch::Receiver<bool>,
    done: watch::Sender<bool>,
}

impl Running {
    /// Starts a node.
    ///
    /// # Errors
    /// It can't be.
    pub fn start(node: HostId, plan: &Plan, net: &Net, sealer: &Arc<TokenSealer>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .context("no runtime")?;
        let hosts = Hosts::new(plan.marked);
        let clock = Arc::new(AtomicU64::new(0));
        let (stopping, leave) = watch::channel(None);
        let connections = Arc::new(AtomicUsize::new(0));
        let (base, handle) = runtime.block_on(async {
            let link = SimLink::new(net, node);
            let reads = Arc::clone(&clock);
            let (pulse, mut ticking) =
                Pulse::on(Arc::new(move || Timestamp(Duration::from_millis(reads.load(Ordering::Relaxed)))));
            let (copies, peers) = (link.clone() as Arc<dyn CopyPeers>, link.peers());
            let arguments = arguments(node, plan, &hosts, (copies, peers), (pulse, sealer));
            let base = Instant::now();
            let handle = NodeHandle::start(arguments).await.context("a node does not start")?;
            tokio::spawn(async move {
                let mut ticks = tokio::time::interval(TICK);
                loop {
                    ticks.tick().await;
                    ticking.tick();
                }
            });
            serve(node, plan.nodes.len(), net, &handle, (&leave, &connections));
            anyhow::Ok((base, handle))
        })?;
        let (done, stopped) = watch::channel(false);
        let (started, ahead) = (net.now(), Duration::ZERO);
        net.rise(node);
        Ok(Self { runtime, base, started, ahead, clock, handle, hosts, stopping, connections, stopped, done })
    }

    /// Runs it up to this time of the world.
    pub fn run_until(&self, now: Duration) {
        let own = now - self.started + self.ahead;
        self.clock.store(u64::try_from(own.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.runtime.block_on(async { tokio::time::sleep_until(self.base + own).await });
    }

    /// It goes on after it stood still: all its timers are late at once.
    pub fn wake(&self, now: Duration) {
        let own = now - self.started + self.ahead;
        self.clock.store(u64::try_from(own.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.runtime.block_on(async {
            let behind = (self.base + own).saturating_duration_since(Instant::now());
            tokio::time::advance(behind).await;
        });
    }

    /// Its clocks jump ahead.
    pub fn jump(&mut self, by: Duration, now: Duration) {
        self.ahead += by;
        self.wake(now);
    }

    /// Begins to stop, with so much time for its sessions.
    pub fn begin_to_stop(&self, within: Duration) {
        self.stopping.send_replace(Some(within));
        let (handle, done) = (self.handle.clone(), self.done.clone());
        let connections = Arc::clone(&self.connections);
        let _inside = self.runtime.enter();
        tokio::spawn(async move {
            handle.drain(within).await;
            // Clients are told the last words before the process ends.
            for _ in 0..100 {
                if connections.load(Ordering::Relaxed) == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            handle.stop().await;
            done.send_replace(true);
        });
    }

    /// Whether it has stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Its decoder hosts.
    #[must_use]
    pub const fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The copies it keeps.
    #[must_use]
    pub fn copies(&self) -> Vec<KeptCopy> {
        self.runtime.block_on(self.handle.kept_copies())
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> NodeStatus {
        self.runtime.block_on(self.handle.status())
    }
}

fn serve(
    node: HostId,
    nodes: usize,
    net: &Net,
    handle: &NodeHandle,
    (leave, connections): (&watch::Receiver<Option<Duration>>, &Arc<AtomicUsize>),
) {
    let (streams, taken) = mpsc::channel(8);
    let serving = handle.clone();
    tokio::spawn(async move { serving.serve_peers(taken).await });
    let mut data = net.listen(node, Port::Data);
    tokio::spawn(async move {
        while let Some(incoming) = data.recv().await {
            let stream = PeerStream { reader: Box::new(incoming.reader), writer: Box::new(incoming.writer) };
            let from = name_of(incoming.from);
            if streams.send(IncomingStream { from, stream }).await.is_err() {
                return;
            }
        }
    });
    let (mut control, asked) = (net.listen(node, Port::Control), handle.clone());
    tokio::spawn(async move {
        while let Some(incoming) = control.recv().await {
            tokio::spawn(answer(incoming, asked.clone()));
        }
    });
    for (port, speaks) in [(Port::Native, Speaks::Native), (Port::Thin, Speaks::Thin)] {
        let (mut clients, handle, leave) = (net.listen(node, port), handle.clone(), leave.clone());
        let connections = Arc::clone(connections);
        tokio::spawn(async move {
            while let Some(incoming) = clients.recv().await {
                let (handle, leave) = (handle.clone(), leave.clone());
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    connections.fetch_add(1, Ordering::Relaxed);
                    let line = (Box::new(incoming.reader) as _, Box::new(incoming.writer) as _);
                    gateway::serve(line, speaks, handle, leave).await;
                    connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
    }
    let (net, handle) = (net.clone(), handle.clone());
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            let record = Record::of(&handle.status().await);
            (0..nodes).filter(|other| *other != node).for_each(|other| net.tell(node, other, record.clone()));
        }
    });
}

/// What a node of a plan is started with, on whatever ways to the others.
pub fn arguments(
    node: HostId,
    plan: &Plan,
    hosts: &Hosts,
    (copies, peers): (Arc<dyn CopyPeers>, Arc<dyn Peers>),
    (pulse, sealer): (Pulse, &Arc<TokenSealer>),
) -> NodeArguments {
    let copies = CopyArguments {
        own: name_of(node),
        peers: Some(copies),
        copies: plan.copies,
        memory_bytes: if plan.is_full(node) { FULL_BYTES } else { COPIES_BYTES },
        patience: PATIENCE,
        sealer: Arc::clone(sealer),
        pulse: Some(pulse),
    };
    let standby = if plan.standby { StandbyPolicy::Warm } else { StandbyPolicy::Off };
    NodeArguments {
        tracing: Default::default(),
        models: vec![model(plan, node)],
        launcher: Arc::new(hosts.clone()),
        limits: SessionLimits { standby, ..SessionLimits::default() },
        observer: Arc::new(SilentObserver),
        peers: Some(peers),
        copies,
    }
}

fn model(plan: &Plan, node: HostId) -> ModelArguments {
    ModelArguments {
        name: "scripted".into(),
        digest: "scripted".into(),
        language: "x-test".into(),
        engine: EngineKind::Scripted,
        model_dir: std::path::PathBuf::new(),
        library_dir: std::path::PathBuf::new(),
        sample_rate: scripted::SAMPLE_RATE,
        capabilities: Capabilities {
            words: true,
            alternatives: false,
            phrases: false,
            ..Capabilities::default()
        },
        hosts: plan.nodes[node].hosts,
        scaling: ModelScaling::default(),
        slots_per_host: plan.nodes[node].slots,
        threads_per_host: 1,
        prewarm_per_host: 1,
        recognizer_audio_budget: Duration::ZERO,
        memory_budget_bytes: 0,
        load_deadline: Duration::from_secs(30),
        nice: 0,
        environment: Vec::new(),
        keep: Keep::default(),
    }
}
