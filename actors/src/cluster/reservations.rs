//! Asking peers to keep slots, over the control plane.
//!
//! Owns: the way from a peer's name to the link there. Must never: make a session wait for a link.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use starling_protocol::NodeName;
use starling_protocol::control::{ModelPool, PoolReply, PoolRequest};

use crate::control::{ControlHandle, RequestError};
use crate::{NoAnswer, Reservations};

/// Asks over the links that there are. Asks nobody until it has been given the control plane, which starts after the node
/// that it speaks for.
#[derive(Default)]
pub struct ControlReservations {
    control: OnceLock<ControlHandle>,
}

impl ControlReservations {
    /// Asks over these links from now on.
    pub fn reach_by(&self, control: ControlHandle) {
        // A node has one control plane, so this comes once.
        let _ = self.control.set(control);
    }
}

impl Reservations for ControlReservations {
    fn ask(
        &self,
        node: &NodeName,
        request: PoolRequest,
        within: Duration,
    ) -> BoxFuture<'static, Result<PoolReply, NoAnswer>> {
        let control = self.control.get().cloned();
        let linked = control.and_then(|control| {
            let peer = control.peers().into_iter().find(|peer| peer.name == *node)?;
            Some((control, peer))
        });
        async move {
            let (control, peer) = linked.ok_or(NoAnswer::NotAsked)?;
            control.request::<ModelPool>(&peer, &request, within).await.map_err(|error| match error {
                RequestError::NotConnected | RequestError::TooMany | RequestError::Request(_) => {
                    NoAnswer::NotAsked
                }
                RequestError::Timeout { .. } | RequestError::Lost => NoAnswer::Silent,
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
