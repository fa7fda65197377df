//! What the program holds of its membership.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorRef};
use starling_protocol::Generation;
use starling_protocol::gossip::LoadEncodeError;
use thiserror::Error;
use tokio::sync::{broadcast, oneshot, watch};

use super::actor::{ActorArguments, MembershipActor, MembershipMessage, first_goodbye};
use super::arguments::{LoadReport, MembershipArguments};
use super::pulse::{Pulse, ReadClock};
use super::roster::Roster;
use super::view::{ClusterChange, ClusterView};
use crate::network::Datagrams;

/// The actor does nothing that takes long.
const ANSWER: Duration = Duration::from_secs(2);

/// Changes that a listener may be behind. One that is further behind is told so, and looks at the view.
const CHANGES_BEHIND: usize = 256;

/// Membership can't do what it was asked for.
#[derive(Debug, Error)]
pub enum MembershipError {
    /// It could not be started. Nothing runs.
    #[error("membership cannot be started: {0}")]
    Start(#[from] ractor::SpawnErr),
    /// It has ended. Nothing was said.
    #[error("membership has ended")]
    Ended,
    /// What was to be said of this node is too long. What was said before stands.
    #[error(transparent)]
    TooLong(#[from] LoadEncodeError),
}

/// A node's running membership. When the last handle is dropped it goes on; it ends by [`Self::leave`] or [`Self::halt`].
#[derive(Clone)]
pub struct MembershipHandle {
    actor: ActorRef<MembershipMessage>,
    view: watch::Receiver<Arc<ClusterView>>,
    changes: broadcast::Sender<ClusterChange>,
    superseded: watch::Receiver<Option<Generation>>,
    pulse: Pulse,
}

impl MembershipHandle {
    /// Starts to look for others. Returns at once; the cluster may be found later.
    ///
    /// # Errors
    /// See [`MembershipError::Start`].
    pub async fn start<D: Datagrams>(membership: MembershipArguments<D>) -> Result<Self, MembershipError> {
        Self::start_with(membership, Pulse::start()).await
    }

    /// The same, with its tick by a clock of the caller's. For simulations.
    ///
    /// # Errors
    /// See [`MembershipError::Start`].
    pub async fn start_on<D: Datagrams>(
        membership: MembershipArguments<D>,
        clock: ReadClock,
    ) -> Result<Self, MembershipError> {
        Self::start_with(membership, Pulse::by(clock)).await
    }

    async fn start_with<D: Datagrams>(
        membership: MembershipArguments<D>,
        pulse: Pulse,
    ) -> Result<Self, MembershipError> {
        let alone = Roster::new(membership.node.clone(), membership.advertise).view(None);
        let (view_sender, view) = watch::channel(Arc::new(alone));
        let (superseded_sender, superseded) = watch::channel(None);
        let changes = broadcast::Sender::new(CHANGES_BEHIND);
        let arguments = ActorArguments {
            membership,
            view: view_sender,
            changes: changes.clone(),
            superseded: superseded_sender,
            pulse: pulse.clone(),
        };
        let (actor, _) = Actor::spawn(None, MembershipActor::new(), arguments).await?;
        Ok(Self { actor, view, changes, superseded, pulse })
    }

    /// The cluster as it is seen now.
    #[must_use]
    pub fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view.borrow())
    }

    /// The cluster as it is seen, whenever it looks different.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.clone()
    }

    /// Changes from now on. A listener that falls behind gets `Lagged` and should look at the view.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<ClusterChange> {
        self.changes.subscribe()
    }

    /// Our own tick.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Says this of this node. To be called each second or when something changed; what is the same as before costs nothing.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn say(&self, report: LoadReport) -> Result<(), MembershipError> {
        let (reply, answer) = oneshot::channel();
        let said = self.actor.cast(MembershipMessage::Say(report, reply.into()));
        said.map_err(|_| MembershipError::Ended)?;
        let answer = tokio::time::timeout(ANSWER, answer).await;
        Ok(answer.ok().and_then(Result::ok).ok_or(MembershipError::Ended)??)
    }

    /// Resolves with the generation of another process that runs under this node's name. This process should end.
    pub async fn superseded(&self) -> Generation {
        let mut superseded = self.superseded.clone();
        let by = superseded.wait_for(Option::is_some).await.ok().and_then(|by| *by);
        match by {
            Some(by) => by,
            // Membership has ended in some other way.
            None => std::future::pending().await,
        }
    }

    /// Says goodbye, so that nobody takes this node's end for a failure, and ends.
    pub async fn leave(&self) {
        let (reply, answer) = oneshot::channel();
        if self.actor.cast(first_goodbye(reply.into())).is_ok() {
            let _ = tokio::time::timeout(ANSWER, answer).await;
        }
    }

    /// Ends at once and tells nobody, as a crash would.
    pub async fn halt(&self) {
        let _ = self.actor.kill_and_wait(Some(ANSWER)).await;
    }
}
