//! Copies of sessions: those that this node keeps for others, those that others keep for it, and going on from one.
//!
//! Owns: the streams that copies travel on, the copies in memory, resume tokens. Must never: decide whom to obey or when a
//! client may be told (that is `starling_core::replica`), or hold more on its way than a window.

mod endings;
mod keeper;
mod stream;
mod takeover;
mod token;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use starling_core::placement::Keeper;
use starling_protocol::control::{CopySummary, ReplicaReply};
use starling_protocol::lease::TraceContext;
use starling_protocol::{Epoch, NodeId, NodeName, SessionId};

pub use self::keeper::KeptCopy;
pub(crate) use self::keeper::{
    CopyRequest, FetchRequest, KeeperActor, KeeperArguments, KeeperHandle, KeeperMessage, Kept,
    RanOutElsewhere, keep,
};
pub(crate) use self::stream::{CopyStream, OpenedStream, WINDOW, open_copy};
pub(crate) use self::takeover::{
    NotTaken, TakenOver, TakeoverRequest, find_by_id, take_over, unanswered, unknown,
};
pub use self::token::TokenSealer;
use crate::data::{LinkError, PeerStream};
use crate::membership::Pulse;

/// Other nodes as keepers of copies.
pub trait CopyPeers: Send + Sync + 'static {
    /// Nodes that keep copies, as last heard of, and what each decodes `model` alike with; this one is not among them.
    fn keepers(&self, model: &str) -> Vec<Keeper>;

    /// Where this node stands.
    fn own_zone(&self) -> String;

    /// Opens a stream on the data plane.
    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>>;

    /// Asks a node to obey `epoch` from now on; `None` when it does not answer within a deadline of the implementor's.
    fn promote(
        &self,
        node: &NodeName,
        session: SessionId,
        epoch: Epoch,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'static, Option<ReplicaReply>>;

    /// Asks a node what it has of a session; `None` as above.
    fn held(&self, node: &NodeName, session: SessionId) -> BoxFuture<'static, Option<ReplicaReply>>;

    /// Asks a node whether it knows better of a session whose copy has run out here; `None` as above.
    fn ran_out(
        &self,
        node: &NodeName,
        session: SessionId,
        copy: CopySummary,
    ) -> BoxFuture<'static, Option<ReplicaReply>>;

    /// The run of a node that is there, as last heard of.
    fn run_of(&self, node: &NodeName) -> Option<NodeId>;

    /// Where clients reach a node, `HOST:PORT`, if that is known.
    fn client_address(&self, node: &NodeName) -> Option<String>;
}

/// What a node is told of copies.
#[derive(Clone)]
pub struct CopyArguments {
    /// This node.
    pub own: NodeName,
    /// Other nodes; `None` for a node on its own.
    pub peers: Option<Arc<dyn CopyPeers>>,
    /// Copies that each session gets beside its owner's: 0 to 2.
    pub copies: u8,
    /// Memory for copies of others' sessions, in bytes.
    pub memory_bytes: u64,
    /// How long acknowledgements and finals wait for a new copy when the last is lost.
    pub patience: Duration,
    /// Seals and reads resume tokens.
    pub sealer: Arc<TokenSealer>,
    /// Tells whether this process stood still; `None` where nothing watches that.
    pub pulse: Option<Pulse>,
}

impl CopyArguments {
    /// A node on its own: no copies, and tokens that nobody else reads.
    #[must_use]
    pub fn alone(own: NodeName) -> Self {
        Self {
            own,
            peers: None,
            copies: 0,
            memory_bytes: 0,
            patience: Duration::from_secs(2),
            sealer: Arc::new(TokenSealer::random()),
            pulse: None,
        }
    }
}
