//! `[kubernetes]`: the nodes scale the StatefulSet that they are the pods of.
//!
//! Owns: what the settings and this node's knowledge of the others come to for the actuator. Must never: decide, or speak to the API
//! server; the crate `starling-kubernetes` does, which is there with the feature `kubernetes`.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::Settings;
use crate::exit::Failure;
use crate::metrics::Metrics;
use crate::sessions::Sessions;

#[cfg(feature = "kubernetes")]
mod fleet;

/// Whether this program can scale pods.
pub const IS_BUILT: bool = cfg!(feature = "kubernetes");

/// What scales, while it does.
#[derive(Default)]
pub struct Scaling {
    #[cfg(feature = "kubernetes")]
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Scaling {
    /// Waits until another node may do it; some seconds at most. To be called when it was told to stop.
    pub async fn finish(self) {
        #[cfg(feature = "kubernetes")]
        if let Some(task) = self.task
            && tokio::time::timeout(fleet::GIVE_BACK, task).await.is_err()
        {
            tracing::info!("the lease was not given back in time; it runs out");
        }
    }
}

/// Begins, if the settings say so.
///
/// # Errors
/// There is no way to the API server.
#[cfg_attr(
    not(feature = "kubernetes"),
    expect(unused_variables, reason = "the settings were refused before")
)]
pub fn start(
    settings: &Settings,
    cluster: &Arc<Cluster>,
    sessions: &Arc<dyn Sessions>,
    metrics: &Arc<Metrics>,
    stopping: &CancellationToken,
) -> Result<Scaling, Failure> {
    #[cfg(feature = "kubernetes")]
    if settings.kubernetes.enabled {
        let actuator = fleet::actuator(settings, cluster, sessions, metrics)?;
        return Ok(Scaling { task: Some(tokio::spawn(actuator.run(stopping.clone()))) });
    }
    Ok(Scaling::default())
}
