//! The node's telling the others of its load, from its start to its end.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::sessions::Sessions;

/// The others are told of this node's load for as long as it has one.
pub(super) struct Telling {
    task: JoinHandle<()>,
    told: Option<oneshot::Receiver<()>>,
    over: CancellationToken,
}

impl Telling {
    pub(super) fn start(
        cluster: &Arc<Cluster>,
        sessions: &Arc<dyn Sessions>,
        stopping: CancellationToken,
    ) -> Self {
        let ((tell, told), over) = (oneshot::channel(), CancellationToken::new());
        let telling = Arc::clone(cluster).keep_telling(Arc::clone(sessions), stopping, tell, over.clone());
        Self { task: tokio::spawn(telling), told: Some(told), over }
    }

    /// Waits until they have been told that it stops.
    pub(super) async fn told(mut self) -> Self {
        if let Some(told) = self.told.take() {
            let _ = told.await;
        }
        self
    }

    pub(super) async fn finish(self) {
        self.over.cancel();
        let _ = self.task.await;
    }
}
