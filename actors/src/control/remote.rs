//! A peer's services, as this node sees them.
//!
//! Owns: the references to a peer's actors, and how many requests are on their way to it. Must never: let a reference out:
//! stopping, killing or draining a remote reference ends the whole link.

use std::sync::Arc;
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{ActorCell, ActorRef};
use starling_core::sabotage::{Bug, is};
use starling_protocol::NodeId;
use starling_protocol::control::{ModelPool, NodeAgent, Replica, Service};
use tokio::sync::Semaphore;

use super::gateway::{GatewayMessage, label};
use super::handle::RequestError;

/// Most requests that are on their way to one peer, so that what waits in ractor_cluster's queues is bounded.
const MAX_ON_THE_WAY: usize = 64;

/// One service of a peer. It can be asked, and nothing else.
pub(super) struct RemoteService {
    name: &'static str,
    actor: ActorRef<GatewayMessage>,
}

impl RemoteService {
    pub(super) async fn call(&self, request: Vec<u8>, timeout: Duration) -> Result<Vec<u8>, RequestError> {
        let message = |reply| GatewayMessage::Request(request, reply);
        let within = if is(Bug::QuestionWithoutDeadline) { None } else { Some(timeout) };
        match self.actor.call(message, within).await {
            Ok(CallResult::Success(reply)) => Ok(reply),
            Ok(CallResult::Timeout) => Err(RequestError::Timeout { within: timeout }),
            Ok(CallResult::SenderError) | Err(_) => Err(RequestError::Lost),
        }
    }
}

/// A peer that is up.
pub(super) struct RemotePeer {
    pub(super) id: NodeId,
    services: [RemoteService; 3],
    places: Semaphore,
}

impl RemotePeer {
    /// Finds the services of `id` among the actors that the peer has announced.
    pub(super) fn find(id: NodeId, announced: &[ActorCell]) -> Option<Arc<Self>> {
        let service = |name| {
            let label = label(&id, name);
            let is_it =
                |cell: &&ActorCell| !cell.get_id().is_local() && cell.get_name().as_ref() == Some(&label);
            let cell = announced.iter().find(is_it)?;
            Some(RemoteService { name, actor: cell.clone().into() })
        };
        let services = [service(NodeAgent::NAME)?, service(ModelPool::NAME)?, service(Replica::NAME)?];
        Some(Arc::new(Self { id, services, places: Semaphore::new(MAX_ON_THE_WAY) }))
    }

    /// Asks a service, unless too many requests are on their way already.
    pub(super) async fn ask<S: Service>(
        &self,
        request: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        let _place = self.places.try_acquire().map_err(|_| RequestError::TooMany)?;
        self.service::<S>()?.call(request, timeout).await
    }

    /// Asks the node agent, however many requests are on their way.
    pub(super) async fn heartbeat(
        &self,
        request: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, RequestError> {
        self.service::<NodeAgent>()?.call(request, timeout).await
    }

    fn service<S: Service>(&self) -> Result<&RemoteService, RequestError> {
        self.services.iter().find(|service| service.name == S::NAME).ok_or(RequestError::NotConnected)
    }
}
