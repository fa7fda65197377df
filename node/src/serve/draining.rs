//! What is told of a node's drain: how many sessions it had, and how they left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use starling_actors::{NodeHandle, Observation, Observer, SPANS};
use tracing::Span;
use tracing::field::Empty;

use crate::cluster::DrainOrder;

/// Sessions that left this node since its start.
#[derive(Debug, Default)]
pub(super) struct Partings {
    /// Another node goes on with them.
    moved: AtomicU64,
    /// Their time was over.
    cut_off: AtomicU64,
}

impl Observer for Partings {
    fn observe(&self, observation: &Observation<'_>) {
        let Observation::SessionEnded { outcome, .. } = observation else { return };
        match *outcome {
            "superseded" => drop(self.moved.fetch_add(1, Ordering::Relaxed)),
            "shut_down" => drop(self.cut_off.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Partings {
    fn counted(&self) -> [u64; 2] {
        [&self.moved, &self.cut_off].map(|count| count.load(Ordering::Relaxed))
    }
}

/// A drain, from the order to the last session's end.
pub(super) struct Drain {
    span: Span,
    partings: Arc<Partings>,
    before: [u64; 2],
}

impl Drain {
    /// `cause` is who wants it: `signal`, `order`, or `superseded` by a later process of the same name.
    pub(super) async fn begin(
        node: &NodeHandle,
        order: DrainOrder,
        cause: &'static str,
        partings: Arc<Partings>,
    ) -> Self {
        let span = tracing::info_span!(
            target: SPANS,
            "drain",
            cause,
            deadline_s = order.deadline.as_secs_f64(),
            stays = order.stay.is_some(),
            sessions = Empty,
            streams = Empty,
            moved = Empty,
            cut_off = Empty,
        );
        if !span.is_disabled() {
            let status = node.status().await;
            span.record("sessions", number(status.sessions)).record("streams", number(status.relayed));
        }
        let before = partings.counted();
        Self { span, partings, before }
    }

    pub(super) fn done(self) {
        let [moved, cut_off] = self.partings.counted();
        self.span.record("moved", number(moved - self.before[0]));
        self.span.record("cut_off", number(cut_off - self.before[1]));
    }
}

fn number(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}
