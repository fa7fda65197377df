//! The cluster as it is seen live: one look after the other, for as long as anybody looks on.
//!
//! Owns: the looks, and what those who watch are given. Must never: look when nobody does, or wait for a slow watcher.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use starling_actors::unix_now;
use starling_protocol::control::{NodeAgent, NodeRecent, NodeReply, NodeRequest};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::feed::Feed;
use super::report::ClusterReport;
use super::story::{ClusterEvent, NodeTold, Story};
use super::{Cluster, operate};
use crate::sessions::Sessions;

/// Time between two looks: a person sees a change at once, and a hundred nodes answer it with a fraction of a core.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Watchers at once. Each is a connection that is written to twice a second.
const MOST_WATCHERS: usize = 64;

/// What there is to be seen.
#[derive(Debug, Default)]
pub struct Scene {
    /// [`ClusterReport`] as JSON; `None` before the first look.
    pub report: Option<Arc<str>>,
    /// The last events, the oldest first.
    pub events: Vec<ClusterEvent>,
}

/// See the module.
pub struct Watcher {
    cluster: Arc<Cluster>,
    sessions: Arc<dyn Sessions>,
    feed: Arc<Feed>,
    scenes: watch::Sender<Arc<Scene>>,
    looking: Mutex<bool>,
}

impl Watcher {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>, sessions: Arc<dyn Sessions>, feed: Arc<Feed>) -> Arc<Self> {
        let scenes = watch::Sender::new(Arc::default());
        Arc::new(Self { cluster, sessions, feed, scenes, looking: Mutex::new(false) })
    }

    /// What is to be seen from now on; `None` when as many watch as may.
    #[must_use]
    pub fn watch(self: &Arc<Self>) -> Option<watch::Receiver<Arc<Scene>>> {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.scenes.receiver_count() >= MOST_WATCHERS {
            return None;
        }
        let scenes = self.scenes.subscribe();
        if !std::mem::replace(&mut *looking, true) {
            tokio::spawn(Arc::clone(self).look_on());
        }
        Some(scenes)
    }

    async fn look_on(self: Arc<Self>) {
        let mut story = Story::default();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let report = self.look(&mut story).await;
            let json = serde_json::to_string(&report).map(Arc::from).ok();
            let scene = Scene { report: json, events: story.after(0).cloned().collect() };
            let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
            if self.scenes.receiver_count() == 0 {
                *looking = false;
                self.scenes.send_replace(Arc::default());
                return;
            }
            self.scenes.send_replace(Arc::new(scene));
        }
    }

    async fn look(&self, story: &mut Story) -> ClusterReport {
        let status = self.sessions.status().await;
        let view = self.cluster.view(&status);
        let (told, others) =
            tokio::join!(self.cluster.told(self.sessions.as_ref()), self.recent_of_others(story));
        let report = ClusterReport::new(&view, told, &status);
        let me = self.cluster.node();
        let own = NodeTold {
            node: me.name.to_string(),
            generation: me.generation.0,
            events: self.feed.recent(story.heard(me.name.as_str(), me.generation.0)).events,
        };
        let told = others.into_iter().chain([own]).collect();
        story.look(&report, told, u64::try_from(unix_now().as_millis()).unwrap_or(u64::MAX));
        report
    }

    async fn recent_of_others(&self, story: &Story) -> Vec<NodeTold> {
        let after = |node: &starling_protocol::NodeId| story.heard(node.name.as_str(), node.generation.0);
        let recent = self.cluster.recent_of_peers(after).await;
        let told = recent.into_iter().map(|(node, recent)| NodeTold {
            node: node.name.to_string(),
            generation: node.generation.0,
            events: recent.events,
        });
        told.collect()
    }

    /// What has happened on each node lately, this one among them.
    pub async fn recent(&self) -> Vec<(starling_protocol::NodeId, NodeRecent)> {
        // Whoever wants the ended sessions alone wants no events.
        let mut all = self.cluster.recent_of_peers(|_| u64::MAX).await;
        all.push((self.cluster.node().clone(), self.feed.recent(u64::MAX)));
        all
    }
}

impl Cluster {
    /// What the peers that answer say has happened on them, after the events that `after` says are known.
    async fn recent_of_peers(
        &self,
        after: impl Fn(&starling_protocol::NodeId) -> u64,
    ) -> Vec<(starling_protocol::NodeId, NodeRecent)> {
        let control = self.operating.control.get();
        let peers = control.map(|control| control.peers()).unwrap_or_default();
        let asked = peers.into_iter().map(|peer| {
            let (control, request) = (control.cloned(), NodeRequest::Recent { after: after(&peer) });
            async move {
                match control?.request::<NodeAgent>(&peer, &request, operate::ANSWER).await {
                    Ok(NodeReply::Recent(recent)) => Some((peer, *recent)),
                    // Silent, or of an earlier version.
                    _ => None,
                }
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}
