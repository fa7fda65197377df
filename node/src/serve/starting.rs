//! What is told of a node's start: its stages, one after the other, up to its being ready.

use std::time::Duration;

use starling_actors::SPANS;
use tokio::time::Instant;
use tracing::Span;
use tracing::field::Empty;

use crate::gateway::{GatewayState, Waiting};

/// How often it is looked whether the node is ready. Nobody waits for it.
const LOOK: Duration = Duration::from_millis(50);

/// A node that is not ready yet.
pub(super) struct Starting {
    whole: Span,
    stage: Span,
    /// Goes on until the hosts that the node starts with are ready, or have failed.
    load: Span,
    began: Instant,
}

impl Starting {
    pub(super) fn begin() -> Self {
        let whole = tracing::info_span!(
            target: SPANS,
            "node_start",
            ready_s = Empty,
            "error.type" = Empty,
            otel.status_description = Empty,
        );
        Self { whole, stage: Span::none(), load: Span::none(), began: Instant::now() }
    }

    /// The stage before is over.
    pub(super) fn stage(&mut self, name: &'static str) {
        self.stage = self.part(name);
    }

    /// From now on models load, whatever else goes on: hosts that are started within this are part of it.
    pub(super) fn loading(&mut self) -> Span {
        self.load = self.part("load");
        self.load.clone()
    }

    /// The node is up, and ready as soon as it has joined and decodes.
    pub(super) fn up(mut self, gateway: GatewayState) {
        self.stage = Span::none();
        if self.whole.is_disabled() {
            return;
        }
        tokio::spawn(async move { self.watch(&gateway).await });
    }

    async fn watch(self, gateway: &GatewayState) {
        let mut join = self.part("join");
        loop {
            let waiting = gateway.waits_for().await;
            if waiting != Waiting::Joining {
                join = Span::none();
            }
            if waiting == Waiting::Nothing {
                self.whole.record("ready_s", self.began.elapsed().as_secs_f64());
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = gateway.stopping.cancelled() => {
                    for span in [&self.whole, &self.load, &join] {
                        span.record("error.type", "stopped").record("otel.status_description", "stopped");
                    }
                    return;
                }
            }
        }
    }

    fn part(&self, name: &'static str) -> Span {
        tracing::info_span!(
            target: SPANS,
            parent: &self.whole,
            "stage",
            otel.name = name,
            "error.type" = Empty,
            otel.status_description = Empty,
        )
    }
}
