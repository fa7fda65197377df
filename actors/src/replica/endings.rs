//! The ends of sessions that nobody came back to, told by one of the nodes that had a copy.
//!
//! Owns: the question to the other nodes, and what is told then. Must never: choose who tells (that is
//! `starling_core::replica::Orphans`), hold up the keeper, or ask for more than a few sessions at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use starling_core::Timestamp;
use starling_core::replica::{KeeperConfig, KeeperMachine, Orphans, RanOut, SessionCopy};
use starling_protocol::control::{CopySummary, ReplicaReply, SessionReport};
use starling_protocol::replica::CopyStart;
use starling_protocol::{Epoch, NodeId, NodeName, SessionId};
use tokio::sync::Semaphore;
use tracing::info;

use super::CopyPeers;
use super::keeper::KeeperArguments;
use crate::clock::{Clock, unix_now};
use crate::observe::{OWNER_LOST, Observation, Observer, SessionNews};
use crate::session::Dialect;
use crate::trace::{Orphaned, SessionTrace, Tracing, kept_id, log_span, trace_id};

/// Sessions that the others are asked for at once. A node that dies leaves hundreds, which run out together; nobody waits.
const AT_ONCE: usize = 4;

/// Who wrote a copy.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    name: NodeName,
    /// `None` where it was not heard of yet.
    run: Option<NodeId>,
}

/// See the module.
pub(super) struct Endings {
    orphans: Orphans,
    clock: Clock,
    telling: Arc<Telling>,
}

struct Telling {
    own: NodeName,
    peers: Option<Arc<dyn CopyPeers>>,
    observer: Arc<dyn Observer>,
    tracing: Tracing,
    turns: Semaphore,
}

/// A session whose copy is gone.
struct Orphan {
    owner: Owner,
    held: CopySummary,
    start: CopyStart,
    /// When the owner's stream ended.
    lost: Timestamp,
    audio: Duration,
    open: Duration,
}

impl Endings {
    pub(super) fn new(arguments: &KeeperArguments, config: KeeperConfig) -> Self {
        let telling = Telling {
            own: arguments.own.clone(),
            peers: arguments.peers.clone(),
            observer: Arc::clone(&arguments.observer),
            tracing: arguments.tracing.clone(),
            turns: Semaphore::new(AT_ONCE),
        };
        let orphans = Orphans::new(config.max_sessions, config.remember);
        Self { orphans, clock: arguments.clock, telling: Arc::new(telling) }
    }

    /// Who this is that begins to write.
    pub(super) fn owner(&self, name: NodeName) -> Owner {
        let run = self.telling.peers.as_ref().and_then(|peers| peers.run_of(&name));
        Owner { name, run }
    }

    /// The owner said as `epoch` that its session is over, of which a copy would be kept for so long.
    pub(super) fn over(&mut self, session: SessionId, epoch: Epoch, keep: Duration) {
        self.orphans.over(self.clock.now(), session, epoch, keep);
    }

    pub(super) fn knows_better(&self, keeper: &KeeperMachine, asked: &RanOut<'_>) -> bool {
        self.orphans.knows_better(self.clock.now(), keeper, &self.telling.own, asked)
    }

    /// A copy goes that was kept for so long since its owner was lost. Asks the others who tells of the session's end.
    pub(super) fn ran_out(&mut self, owner: Owner, copy: &SessionCopy, held: CopySummary, keep: Duration) {
        let now = self.clock.now();
        let session = copy.facts().session;
        self.orphans.ran_out(now, session, held);
        let start = copy.start().clone();
        let hz = f64::from(start.facts.source_hz.max(1));
        let seconds = |frames: u64| Duration::from_secs_f64(frames as f64 / hz);
        let orphan = Orphan {
            owner,
            held,
            lost: Timestamp(now.0.saturating_sub(keep)),
            audio: seconds(copy.audio_end().0),
            open: seconds(copy.audio_end().0.saturating_sub(start.final_end.0)),
            start,
        };
        let (telling, clock) = (Arc::clone(&self.telling), self.clock);
        tokio::spawn(async move {
            if telling.is_to_tell(&orphan).await {
                telling.tell(clock.now(), &orphan);
            }
        });
    }
}

impl Telling {
    async fn is_to_tell(&self, orphan: &Orphan) -> bool {
        let (Some(peers), Ok(_turn)) = (&self.peers, self.turns.acquire().await) else { return false };
        let Owner { name, run } = &orphan.owner;
        // An owner that is there tells of its sessions itself; it went on with another copy.
        if run.is_some() && peers.run_of(name) == *run {
            return false;
        }
        let session = orphan.start.facts.session;
        let nodes = peers.keepers("").into_iter().map(|keeper| keeper.node);
        let asked = nodes.map(|node| peers.ran_out(&node, session, orphan.held));
        let answers = join_all(asked).await;
        !answers.iter().any(|answer| matches!(answer, Some(ReplicaReply::Fenced { .. } | ReplicaReply::Busy)))
    }

    fn tell(&self, now: Timestamp, orphan: &Orphan) {
        let Orphan { owner, start, lost, audio, open, .. } = orphan;
        let (session, model) = (start.facts.session, start.facts.model.as_str());
        let log = log_span(session, start.facts.trace.as_ref());
        info!(parent: &log, owner = %owner.name, "nobody came back to a session whose node was lost");
        if let Some(dialect) = Dialect::of_label(&start.facts.dialect) {
            self.observer.observe(&Observation::SessionEnded { dialect, model, outcome: OWNER_LOST });
        }
        let report = report(start, *audio, self.tracing.is_some());
        let news = SessionNews::Over { outcome: OWNER_LOST, report: &report };
        self.observer.observe(&Observation::SessionNews { session, model, news });
        if let Some(tracer) = &self.tracing {
            let told = Orphaned { start, owner: &owner.name, lost: *lost, audio: *audio, open: *open };
            SessionTrace::orphaned(Arc::clone(tracer), now, &told);
        }
    }
}

/// How the session was, as far as a copy says; `traces` if this node tells of traces.
fn report(start: &CopyStart, audio: Duration, traces: bool) -> SessionReport {
    let facts = &start.facts;
    let context = facts.trace.as_ref();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let age = facts.opened().map(|opened| unix_now().saturating_sub(opened));
    SessionReport {
        session: facts.session,
        dialect: facts.dialect.clone(),
        model: facts.model.clone(),
        replicas: Vec::new(),
        durable: false,
        connected: false,
        decoder: None,
        standby: None,
        attempt: start.attempt.0,
        epoch: start.epoch,
        lag_ms: 0,
        tenant: facts.tenant.clone(),
        audio_ms: milliseconds(audio),
        age_ms: milliseconds(age.unwrap_or(audio)),
        // The loss of its owner is a fault, by which it is kept.
        trace_id: context.and_then(|context| {
            if traces && facts.root.is_some() { trace_id(context) } else { kept_id(context) }
        }),
    }
}
