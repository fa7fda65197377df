//! How this node goes: at whose wish, how far it has come, and whether it stays when it has nobody left.
//!
//! Owns: the wish and the state. Must never: end a session; that is the node's drain.
//!
//! A node that ends on a platform which starts it again at once is back before anybody could take its machine away. So one that
//! is to make room stays when it has drained: taking nobody, known to the others, until its platform ends it. What is forgotten like this
//! ends after a while, and serves again when it was started anew.

use std::time::Duration;

use starling_actors::NodeHandle;
use starling_protocol::control::{NodeReply, NodeRequest, Retirement, RetirementPhase};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::operate::{DrainError, milliseconds};

/// That this node is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainOrder {
    /// How long its sessions may go on.
    pub deadline: Duration,
    /// How long it stays when it has none; `None` if it ends then.
    pub stay: Option<Duration>,
}

/// The wish, and how far it has come.
#[derive(Debug, Clone)]
pub(super) struct Retiring {
    order: watch::Sender<Option<DrainOrder>>,
    phase: watch::Sender<RetirementPhase>,
}

impl Default for Retiring {
    fn default() -> Self {
        Self { order: watch::Sender::new(None), phase: watch::Sender::new(RetirementPhase::Not) }
    }
}

impl Retiring {
    /// This node is to go.
    pub(super) fn order(&self, order: DrainOrder) {
        self.order.send_replace(Some(order));
    }

    /// How far it has come.
    pub(super) async fn report(&self, node: &NodeHandle) -> Retirement {
        let status = node.status().await;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let phase = *self.phase.borrow();
        Retirement { phase, sessions: count(status.sessions), streams: count(status.relayed) }
    }
}

impl Cluster {
    /// Resolves when somebody wants this node to go.
    pub async fn drain_requested(&self) -> DrainOrder {
        let mut asked = self.operating.retiring.order.subscribe();
        let order = asked.wait_for(Option::is_some).await.ok().and_then(|order| *order);
        match order {
            Some(order) => order,
            // The sender lives as long as the cluster.
            None => std::future::pending().await,
        }
    }

    /// Lets the node's sessions go, and stays then if that was asked for: until it has stayed for so long, is asked to drain and end,
    /// or is hurried. Whoever hurries leaves `patience` to the sessions that are left. Calls `drained` when none is left.
    pub async fn retire(
        &self,
        node: &NodeHandle,
        order: DrainOrder,
        (hurried, patience): (&CancellationToken, Duration),
        drained: impl FnOnce(),
    ) {
        let retiring = &self.operating.retiring;
        if order.stay.is_some() {
            retiring.phase.send_replace(RetirementPhase::Draining);
        }
        let hurry = async {
            hurried.cancelled().await;
            retiring.phase.send_replace(RetirementPhase::Not);
            tokio::time::sleep(patience).await;
        };
        tokio::select! {
            () = node.drain(order.deadline) => {}
            () = hurry => node.drain(Duration::ZERO).await,
        }
        drained();
        if let (Some(stay), false) = (order.stay, hurried.is_cancelled()) {
            retiring.phase.send_replace(RetirementPhase::Drained);
            tracing::info!(?stay, "drained; stays until its machine is taken away");
            let mut orders = retiring.order.subscribe();
            let recalled = async {
                let recalled = |order: &Option<DrainOrder>| order.is_some_and(|order| order.stay.is_none());
                let _ = orders.wait_for(recalled).await;
            };
            tokio::select! {
                () = hurried.cancelled() => {}
                () = recalled => tracing::info!("wanted after all: ends, to be started anew"),
                () = tokio::time::sleep(stay) => tracing::warn!("nobody has taken this machine away: ends, to be started anew"),
            }
        }
        retiring.phase.send_replace(RetirementPhase::Not);
    }

    /// Has a peer take nobody new and stay when it has nobody left.
    ///
    /// # Errors
    /// See [`DrainError`].
    pub async fn ask_to_retire(
        &self,
        name: &str,
        deadline: Duration,
        stay: Duration,
    ) -> Result<(), DrainError> {
        if name == self.node().name.as_str() {
            self.operating.retiring.order(DrainOrder { deadline, stay: Some(stay) });
            return Ok(());
        }
        let request =
            NodeRequest::Retire { deadline_ms: milliseconds(deadline), stay_ms: milliseconds(stay) };
        match self.ask_to_go(name, &request).await? {
            NodeReply::Retirement(_) => Ok(()),
            other => Err(DrainError::said(name, &other)),
        }
    }

    /// How far a peer has come with that.
    ///
    /// # Errors
    /// See [`DrainError`].
    pub async fn retirement_of(&self, name: &str) -> Result<Retirement, DrainError> {
        match self.ask_to_go(name, &NodeRequest::Retirement).await? {
            NodeReply::Retirement(retirement) => Ok(retirement),
            other => Err(DrainError::said(name, &other)),
        }
    }
}
