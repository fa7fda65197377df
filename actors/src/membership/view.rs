//! The cluster as this node sees it, and what changes in it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use starling_protocol::gossip::LoadRecord;
use starling_protocol::{Generation, NodeId, NodeName};

/// All nodes that are known, this one too, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// This run of this node.
    pub me: NodeId,
    /// Everybody. Nodes that are gone stay for some minutes.
    pub members: Vec<Member>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its latest run.
    pub id: NodeId,
    /// Where its gossip socket is.
    pub address: SocketAddr,
    /// Whether it is there.
    pub state: MemberState,
    /// What it told of itself last in this run; `None` until it has. Records follow a member by up to a second.
    pub load: Option<Arc<LoadRecord>>,
}

/// Whether a node is there, as far as gossip knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer somebody's last probe.
    Suspected,
    /// It was given up.
    Down,
    /// It said that it would go, and went.
    Left,
}

impl MemberState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspected, Self::Down, Self::Left];

    /// The state as one word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspected => "suspected",
            Self::Down => "down",
            Self::Left => "left",
        }
    }

    /// Whether it is a member: suspects are until they are given up.
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspected)
    }
}

impl Member {
    /// Whether it said that it takes no new sessions.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.load.as_ref().is_some_and(|load| load.draining)
    }
}

impl ClusterView {
    /// The node of this name.
    #[must_use]
    pub fn get(&self, name: &NodeName) -> Option<&Member> {
        self.members.iter().find(|member| member.id.name == *name)
    }

    /// The nodes that are members now, this one too.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state.is_active())
    }
}

/// Something changed. The view has the change in it when this is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterChange {
    /// A run of a node became a member, for the first time or again.
    Joined(NodeId),
    /// It told something new of itself.
    Updated(NodeId),
    /// It takes no new sessions from now on.
    Draining(NodeId),
    /// It did not answer.
    Suspected(NodeId),
    /// It did after all.
    Trusted(NodeId),
    /// It was given up, or the node was started again.
    Down(NodeId),
    /// It went as it had said.
    Left(NodeId),
    /// This process stood still for so long. Whatever it believed before may be over.
    Paused {
        /// How long.
        pause: Duration,
    },
    /// The others had given this node up, and have now taken it back. Its sessions may have been taken over.
    DeclaredDown,
    /// Another process runs under this node's name with a later generation. This one takes no part any more and should end.
    Superseded {
        /// The other's generation.
        by: Generation,
    },
}
