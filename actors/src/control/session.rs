//! The bridge to ractor_cluster: one of its sessions over one link.
//!
//! Owns: the session's actor. It stands where the session expects ractor_cluster's own node server, which would open a port
//! of its own, elect among links to a peer by drawing lots, and accept any number of strangers. Must never: have an opinion
//! on which link to a peer is the right one.

use std::collections::HashMap;

use prost::Message as _;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::node::{NodeConnectionMode, SessionCheckReply};
use ractor_cluster::{NetworkStream, NodeServerMessage, NodeSession, NodeSessionMessage};
use starling_core::peer_links::Side;
use starling_protocol::{Generation, NodeId, NodeName};
use tokio::sync::mpsc;

use super::MAX_FRAME_BYTES;

/// ractor_cluster wants its sessions to share a password. TLS has told who is there, with more than a password, before this
/// is asked for; so it is no secret.
const COOKIE: &str = "starling-control/1";

/// What is heard of a session.
#[derive(Debug)]
pub(super) enum SessionEvent {
    /// The peer says who it is.
    Named(String),
    /// Each side knows the other's actors; these are the peer's, among others.
    Ready(Vec<ActorCell>),
    /// The session is gone.
    Ended,
}

pub(super) struct SessionServerActor;

pub(super) struct SessionServerArguments {
    pub(super) number: u64,
    pub(super) side: Side,
    pub(super) own: NodeId,
    pub(super) stream: NetworkStream,
    /// A session says each thing once; a channel with a few places is never full.
    pub(super) events: mpsc::Sender<SessionEvent>,
}

pub(super) struct SessionServerState {
    session: ActorRef<NodeSessionMessage>,
    events: mpsc::Sender<SessionEvent>,
}

/// ractor_cluster's message by which a node introduces itself. Its own type has no public name, but it is read from the
/// same bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Introduction {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    flags: Option<Flags>,
    #[prost(string, tag = "3")]
    connection: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Flags {
    #[prost(uint32, tag = "1")]
    version: u32,
}

impl Actor for SessionServerActor {
    type Msg = NodeServerMessage;
    type State = SessionServerState;
    type Arguments = SessionServerArguments;

    async fn pre_start(
        &self,
        myself: ActorRef<NodeServerMessage>,
        arguments: SessionServerArguments,
    ) -> Result<SessionServerState, ActorProcessingErr> {
        let SessionServerArguments { number, side, own, stream, events } = arguments;
        // A session takes a peer with its own name, or its own address, for itself, and leaves.
        let introduction = Introduction {
            name: own.to_string(),
            flags: Some(Flags { version: 1 }),
            connection: own.to_string(),
        };
        let session = NodeSession::new(
            number,
            side == Side::Accepted,
            COOKIE.to_owned(),
            myself.clone(),
            prost::Message::decode(introduction.encode_to_vec().as_slice())?,
            NodeConnectionMode::Isolated,
        )
        .with_max_inbound_frame_size(MAX_FRAME_BYTES);
        let (session, _) = Actor::spawn_linked(None, session, stream, myself.get_cell()).await?;
        Ok(SessionServerState { session, events })
    }

    async fn handle(
        &self,
        _: ActorRef<NodeServerMessage>,
        message: NodeServerMessage,
        state: &mut SessionServerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            NodeServerMessage::CheckSession { reply, .. } => {
                let _ = reply.send(SessionCheckReply::NoOtherConnection);
            }
            NodeServerMessage::UpdateSession { name, .. } => {
                let _ = state.events.try_send(SessionEvent::Named(name.name));
            }
            NodeServerMessage::ConnectionReady(_) => {
                let announced = state.session.get_cell().get_children();
                let _ = state.events.try_send(SessionEvent::Ready(announced));
            }
            // A peer may ask whom else we know. Gossip tells it.
            NodeServerMessage::GetSessions(reply) => {
                let _ = reply.send(HashMap::new());
            }
            _ => {}
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<NodeServerMessage>,
        event: SupervisionEvent,
        state: &mut SessionServerState,
    ) -> Result<(), ActorProcessingErr> {
        if matches!(event, SupervisionEvent::ActorTerminated(..) | SupervisionEvent::ActorFailed(..)) {
            let _ = state.events.try_send(SessionEvent::Ended);
            myself.stop(None);
        }
        Ok(())
    }
}

/// Reads `name#generation`.
pub(crate) fn parse_id(text: &str) -> Option<NodeId> {
    let (name, generation) = text.split_once('#')?;
    Some(NodeId { name: NodeName::parse(name).ok()?, generation: Generation(generation.parse().ok()?) })
}
