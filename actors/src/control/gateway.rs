//! What peers may ask of this node: one remotable actor for each service.
//!
//! Owns: the way from a peer's bytes to the service and back. Must never: leave a request unanswered that it does not
//! understand, or work on more than [`MAX_IN_PROGRESS`] at once.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ractor::message::{BoxedDowncastErr, SerializedMessage};
use ractor::{Actor, ActorProcessingErr, ActorRef, Message, RpcReplyPort};
use starling_protocol::NodeId;
use starling_protocol::control::{
    Call, ModelPool, NodeAgent, NodeReply, NodeRequest, PoolReply, PoolRequest, Replica, ReplicaReply,
    ReplicaRequest, Service, decode_call, encode_reply,
};
use tokio::sync::Semaphore;
use tracing::warn;

/// Most requests that one service works on. A peer has 64 on their way at most, so a few peers may ask at once.
pub(super) const MAX_IN_PROGRESS: usize = 256;

/// Longest time that a service may take, whatever the peer would wait.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// What a node does for its peers. Each answer must come without waiting for another node's.
pub trait ControlServices: Send + Sync + 'static {
    /// Status and drain; heartbeats are answered before they come here.
    fn node(&self, from: NodeId, request: NodeRequest) -> BoxFuture<'static, NodeReply>;

    /// Reservations.
    fn pool(&self, from: NodeId, request: PoolRequest) -> BoxFuture<'static, PoolReply>;

    /// Copies of sessions.
    fn replica(&self, from: NodeId, request: ReplicaRequest) -> BoxFuture<'static, ReplicaReply>;
}

/// A service as a gateway serves it.
pub(super) trait Served: Service {
    /// The answer that needs nobody, if there is one.
    fn at_once(request: &Self::Request) -> Option<Self::Reply>;

    fn answer(
        services: &dyn ControlServices,
        from: NodeId,
        request: Self::Request,
    ) -> BoxFuture<'static, Self::Reply>;
}

impl Served for NodeAgent {
    fn at_once(request: &NodeRequest) -> Option<NodeReply> {
        let NodeRequest::Heartbeat { sequence } = request else { return None };
        Some(NodeReply::Heartbeat { sequence: *sequence })
    }

    fn answer(
        services: &dyn ControlServices,
        from: NodeId,
        request: NodeRequest,
    ) -> BoxFuture<'static, NodeReply> {
        services.node(from, request)
    }
}

impl Served for ModelPool {
    fn at_once(_: &PoolRequest) -> Option<PoolReply> {
        None
    }

    fn answer(
        services: &dyn ControlServices,
        from: NodeId,
        request: PoolRequest,
    ) -> BoxFuture<'static, PoolReply> {
        services.pool(from, request)
    }
}

impl Served for Replica {
    fn at_once(_: &ReplicaRequest) -> Option<ReplicaReply> {
        None
    }

    fn answer(
        services: &dyn ControlServices,
        from: NodeId,
        request: ReplicaRequest,
    ) -> BoxFuture<'static, ReplicaReply> {
        services.replica(from, request)
    }
}

/// The one message of a remotable actor.
pub(super) enum GatewayMessage {
    /// A question, and where the answer goes.
    Request(Vec<u8>, RpcReplyPort<Vec<u8>>),
}

/// Written out, because ractor drops what a derived implementation doesn't know by name, and who asked waits in vain. Here
/// every call is a request, and what it means is found out where it can be answered.
impl Message for GatewayMessage {
    fn serializable() -> bool {
        true
    }

    fn serialize(self) -> Result<SerializedMessage, BoxedDowncastErr> {
        let Self::Request(args, reply) = self;
        Ok(SerializedMessage::Call { variant: "Request".to_owned(), args, reply, metadata: None })
    }

    fn deserialize(message: SerializedMessage) -> Result<Self, BoxedDowncastErr> {
        match message {
            SerializedMessage::Call { args, reply, .. } => Ok(Self::Request(args, reply)),
            SerializedMessage::Cast { .. } | SerializedMessage::CallReply(..) => Err(BoxedDowncastErr),
        }
    }
}

/// The actor of one service.
pub(super) struct GatewayActor<S>(PhantomData<S>);

impl<S> GatewayActor<S> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

pub(super) struct GatewayState {
    services: Arc<dyn ControlServices>,
    places: Arc<Semaphore>,
}

impl<S: Served> Actor for GatewayActor<S> {
    type Msg = GatewayMessage;
    type State = GatewayState;
    type Arguments = Arc<dyn ControlServices>;

    async fn pre_start(
        &self,
        _: ActorRef<GatewayMessage>,
        services: Arc<dyn ControlServices>,
    ) -> Result<GatewayState, ActorProcessingErr> {
        Ok(GatewayState { services, places: Arc::new(Semaphore::new(MAX_IN_PROGRESS)) })
    }

    async fn handle(
        &self,
        _: ActorRef<GatewayMessage>,
        message: GatewayMessage,
        state: &mut GatewayState,
    ) -> Result<(), ActorProcessingErr> {
        let GatewayMessage::Request(bytes, reply) = message;
        state.request::<S>(&bytes, reply);
        Ok(())
    }
}

impl GatewayState {
    fn request<S: Served>(&self, bytes: &[u8], reply: RpcReplyPort<Vec<u8>>) {
        let answer = |answer: &S::Reply, reply: RpcReplyPort<Vec<u8>>| {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(encode_reply::<S>(answer));
        };
        let Call { version, from, request } = match decode_call::<S>(bytes) {
            Ok(call) => call,
            Err(error) => {
                warn!(service = S::NAME, %error, "a peer asked what this node doesn't understand");
                return answer(&S::unknown(), reply);
            }
        };
        if let Some(at_once) = S::at_once(&request) {
            return answer(&at_once, reply);
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            warn!(service = S::NAME, %from, version, "too many requests of peers");
            return answer(&S::busy(), reply);
        };
        let within = reply.get_timeout().unwrap_or(LONGEST_ANSWER).min(LONGEST_ANSWER);
        let work = S::answer(self.services.as_ref(), from, request);
        tokio::spawn(async move {
            let _place = place;
            if let Ok(done) = tokio::time::timeout(within, work).await {
                let _ = reply.send(encode_reply::<S>(&done));
            }
        });
    }
}

/// By what name peers know a node's gateways.
pub(super) fn label(node: &NodeId, service: &str) -> String {
    format!("{node}/{service}")
}
