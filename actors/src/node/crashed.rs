//! Sessions whose actor failed: what is told of them, since they can't tell it themselves.
//!
//! Owns: what the node knows of each session from outside. Must never: hold up the supervisor, or tell of the end of a session's
//! trace that goes on with a copy.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use ractor::{ActorRef, RpcReplyPort};
use starling_core::Timestamp;
use starling_protocol::SessionId;
use starling_protocol::control::{CopySummary, ReplicaReply, SessionReport};
use starling_protocol::lease::TraceContext;
use tokio::sync::oneshot;

use super::supervisor::{NodeMessage, SupervisorState};
use crate::clock::unix_now;
use crate::observe::{CRASHED, Observation, SessionNews};
use crate::replica::{CopyPeers, RanOutElsewhere, keep};
use crate::session::{Dialect, LastSeen, OpenRequest, Sighting};
use crate::trace::{End, SharedTrace, kept_id};

/// A session that lives here, as it is known from outside.
pub(super) struct Running {
    pub(super) session: SessionId,
    /// What each line of the log says of it.
    pub(super) log: tracing::Span,
    dialect: Dialect,
    model: Arc<str>,
    tenant: String,
    linger: Duration,
    began: Timestamp,
    /// When its first owner began with it, since 1970.
    opened: Duration,
    /// What its client said of its trace.
    asked: Option<TraceContext>,
    trace: Option<SharedTrace>,
    seen: Sighting,
}

impl Running {
    pub(super) fn new(
        request: &OpenRequest,
        model: &Arc<str>,
        (began, opened): (Timestamp, Option<Duration>),
        (trace, log): (Option<&SharedTrace>, &tracing::Span),
        seen: &Sighting,
    ) -> Self {
        Self {
            session: request.session,
            log: log.clone(),
            dialect: request.dialect,
            model: Arc::clone(model),
            tenant: request.tenant.clone(),
            linger: request.linger,
            began,
            opened: opened.unwrap_or_else(unix_now),
            asked: request.trace.clone(),
            trace: trace.cloned(),
            seen: Arc::clone(seen),
        }
    }

    fn report(&self, now: Timestamp, seen: &LastSeen) -> SessionReport {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let age = now.since(self.began).max(unix_now().saturating_sub(self.opened));
        let context = self.trace.as_ref().map(|trace| trace.lock().context()).or_else(|| self.asked.clone());
        SessionReport {
            session: self.session,
            dialect: self.dialect.label().to_owned(),
            model: self.model.to_string(),
            replicas: Vec::new(),
            durable: false,
            connected: false,
            decoder: None,
            standby: None,
            attempt: seen.attempt.0,
            epoch: seen.reached.epoch,
            lag_ms: 0,
            tenant: self.tenant.clone(),
            audio_ms: milliseconds(seen.audio),
            age_ms: milliseconds(age),
            trace_id: context.as_ref().and_then(kept_id),
        }
    }
}

impl SupervisorState {
    /// Tells of a session whose actor failed. Its client may go on with a copy of it: then whoever it goes on with tells of the
    /// end of its trace.
    pub(super) fn crashed(&self, myself: &ActorRef<NodeMessage>, running: &Running) {
        let now = self.clock.now();
        let seen = running.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(trace) = &running.trace {
            trace.lock().broke();
        }
        // One that was not admitted, or has ended, is told of as that.
        if let Some(seen) = &seen {
            let (session, model, report) = (running.session, &*running.model, running.report(now, seen));
            let news = SessionNews::Over { outcome: CRASHED, report: &report };
            self.observer.observe(&Observation::SessionNews { session, model, news });
        }
        let Some(trace) = running.trace.clone() else { return };
        let (audio, segments) =
            seen.as_ref().map_or((Duration::ZERO, 0), |seen| (seen.audio, seen.reached.next_segment.0));
        let end = End { outcome: CRASHED, error: Some("internal"), audio, segments, elsewhere: false };
        match (seen.filter(|seen| seen.has_copies), &self.copies.peers) {
            (Some(seen), Some(peers)) if !running.linger.is_zero() => {
                let (myself, peers, session) = (myself.clone(), Arc::clone(peers), running.session);
                let (wait, own) = (keep(running.linger), self.copies.own.clone());
                let copy = seen.reached;
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    let here = |reply| NodeMessage::RanOut(RanOutElsewhere { session, copy, by: own, reply });
                    if !goes_on(&*peers, &myself, here, session, copy).await {
                        trace.lock().ended(now, &end);
                    }
                });
            }
            _ => trace.lock().ended(now, &end),
        }
    }
}

/// Whether another node has gone on with a session, or this one.
async fn goes_on(
    peers: &dyn CopyPeers,
    myself: &ActorRef<NodeMessage>,
    here: impl FnOnce(RpcReplyPort<ReplicaReply>) -> NodeMessage,
    session: SessionId,
    copy: CopySummary,
) -> bool {
    let (ask, answer) = oneshot::channel();
    let _ = myself.cast(here(ask.into()));
    let here = async { tokio::time::timeout(PATIENCE, answer).await.ok()?.ok() };
    let nodes = peers.keepers("").into_iter().map(|keeper| keeper.node);
    let asked = nodes.map(|node| peers.ran_out(&node, session, copy));
    let (here, others) = tokio::join!(here, join_all(asked));
    let mut answers = others.into_iter().chain([here]);
    answers.any(|answer| matches!(answer, Some(ReplicaReply::Fenced { .. } | ReplicaReply::Busy)))
}

/// The node's own answer takes two messages between actors.
const PATIENCE: Duration = Duration::from_secs(2);
