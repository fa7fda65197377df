//! A state: the client, the nodes, what lies between them, which faults are still to come, and what is to hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use starling_client::machine::Machine;
use starling_core::invariants::FinalsLedger;
use starling_core::replica::{Answer, KeeperMachine, OpenFailure, ReplicationMachine, StreamId, Tries};
use starling_core::session::SessionMachine;
use starling_protocol::native::{ErrorCode, Hello, Resume};
use starling_protocol::replica::View;
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, NodeName, Segment, SessionId, SourceOffset};

use crate::model::Mistake;
use crate::parts::{Copy, Message, Store, Text};

pub(crate) const NODES: usize = 3;

/// A node, by number.
pub(crate) type Node = usize;

static NAMES: LazyLock<[NodeName; NODES]> =
    LazyLock::new(|| ["a", "b", "c"].map(|name| NodeName::parse(name).expect("a name")));

pub(crate) fn name(node: Node) -> &'static NodeName {
    &NAMES[node]
}

pub(crate) fn number(name: &NodeName) -> Node {
    NAMES.iter().position(|known| known == name).expect("a node")
}

/// Where clients reach a node.
pub(crate) fn address(node: Node) -> String {
    format!("{}:80", name(node))
}

/// How often what may go wrong in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// Connections, streams between nodes, questions and answers that are lost.
    pub losses: u8,
    /// Connections of the client's that are lost, and nothing else.
    pub hangups: u8,
    /// Questions that arrive a second time, at any later moment.
    pub duplicates: u8,
    /// Nodes that are gone for good.
    pub crashes: u8,
    /// Nodes that stand still for a while.
    pub pauses: u8,
    /// Timers that run out while something else could still happen, as they do when what they wait for is slow.
    pub early_timers: u8,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct State {
    pub(crate) client: Arc<Client>,
    pub(crate) nodes: [Arc<Peer>; NODES],
    pub(crate) net: Arc<Net>,
    pub(crate) paused: Option<Node>,
    pub(crate) faults: Faults,
    pub(crate) mistake: Option<Mistake>,
    pub(crate) seen: Arc<Seen>,
}

/// The client: the SDK's machine, and whoever speaks and listens.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Client {
    pub(crate) machine: Machine,
    pub(crate) now: Duration,
    pub(crate) pieces: usize,
    pub(crate) ledger: FinalsLedger,
    pub(crate) done: bool,
    pub(crate) failed: Option<String>,
    pub(crate) fresh: u128,
    /// The connection that the machine has.
    pub(crate) conn: Option<ConnId>,
    /// As it was last told.
    pub(crate) durable: bool,
    pub(crate) acked: u64,
}

pub(crate) type ConnId = u32;
pub(crate) type LinkId = u32;
pub(crate) type AskId = u32;

/// What lies between.
#[derive(Debug, Clone, PartialEq, Hash, Default)]
pub(crate) struct Net {
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) asks: BTreeMap<AskId, Ask>,
    pub(crate) last: u32,
}

impl Net {
    pub(crate) fn next_id(&mut self) -> u32 {
        self.last += 1;
        self.last
    }
}

/// A client's connection.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Conn {
    pub(crate) node: Node,
    /// What the node takes it for.
    pub(crate) serves: Option<(SessionId, Epoch)>,
    pub(crate) to_server: VecDeque<ToServer>,
    pub(crate) outbox: Outbox,
    /// The client's end.
    pub(crate) open: bool,
    /// Nothing comes any more, and the client did not notice.
    pub(crate) broken: bool,
    /// The node has noticed that it is over.
    pub(crate) left: bool,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) enum ToServer {
    Hello(Box<Hello>),
    Audio(u64, u64),
    Confirm(Segment),
    Finalize,
    End,
    Closed,
}

/// What waits for one connection to be told, in this order: see the actors' outbox.
#[derive(Debug, Clone, PartialEq, Hash, Default)]
pub(crate) struct Outbox {
    pub(crate) ready: Option<Ready>,
    pub(crate) view: Option<Set>,
    pub(crate) finals: VecDeque<Text>,
    pub(crate) ack: Option<SourceOffset>,
    pub(crate) last: Option<Last>,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_none()
            && self.view.is_none()
            && self.finals.is_empty()
            && self.ack.is_none()
            && self.last.is_none()
    }
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Ready {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) set: Set,
    pub(crate) have_until: SourceOffset,
    pub(crate) next_segment: Segment,
}

/// Where copies are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Set {
    pub(crate) view: View,
    pub(crate) owner: Node,
    pub(crate) keepers: Vec<Node>,
    pub(crate) durable: bool,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) enum Last {
    Failed(ErrorCode),
    Done { segments: u64, frames: SourceOffset },
}

/// An owner's stream to a keeper.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Link {
    pub(crate) session: SessionId,
    pub(crate) owner: Node,
    pub(crate) tries: Tries,
    pub(crate) keeper: Node,
    pub(crate) stream: Option<StreamId>,
    pub(crate) to_keeper: VecDeque<ToKeeper>,
    pub(crate) to_owner: VecDeque<ToOwner>,
    pub(crate) owner_listens: bool,
    pub(crate) keeper_listens: bool,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) enum ToKeeper {
    Open(Epoch),
    Says(Message),
    Closed,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) enum ToOwner {
    Opened,
    Refused(OpenFailure),
    Applied(u64),
    Lost(OpenFailure),
}

/// A question on the control plane, or its answer.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Ask {
    pub(crate) asker: Node,
    pub(crate) to: Node,
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    /// Whether the answer is still waited for.
    pub(crate) awaited: bool,
    pub(crate) said: Said,
}

#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) enum Said {
    Promote,
    Answer(Answer),
    Fetch,
    Copy(Option<Copy>),
}

/// A node.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Peer {
    pub(crate) up: bool,
    pub(crate) now: Duration,
    pub(crate) keeper: KeeperMachine,
    pub(crate) copies: BTreeMap<SessionId, Copy>,
    pub(crate) streams: BTreeMap<StreamId, Filling>,
    pub(crate) last_stream: u64,
    pub(crate) owners: BTreeMap<SessionId, Owner>,
    pub(crate) takeovers: BTreeMap<SessionId, Takeover>,
    /// What the event is of that the keeper handles.
    pub(crate) offered: Option<Copy>,
}

/// A stream from an owner, at its keeper.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Filling {
    pub(crate) link: LinkId,
    pub(crate) session: SessionId,
    pub(crate) copy: Option<Copy>,
    pub(crate) applied: u64,
}

/// A session where it lives: its two machines, and what its actor has beside them.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Owner {
    pub(crate) session: SessionMachine,
    pub(crate) copies: Option<ReplicationMachine>,
    pub(crate) store: Store,
    pub(crate) finals: VecDeque<(Text, Option<Facts>)>,
    pub(crate) pushed: Segment,
    pub(crate) done: Option<(u64, SourceOffset)>,
    pub(crate) conn: Option<ConnId>,
    pub(crate) attaching: Option<ConnId>,
    pub(crate) trim_to: SourceOffset,
    pub(crate) holders: Vec<Node>,
    pub(crate) granted: Option<Attempt>,
    pub(crate) decoder: Decoder,
    pub(crate) heard: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Hash)]
pub(crate) struct Facts {
    pub(crate) to: DecodeOffset,
    pub(crate) answered: bool,
    pub(crate) needed_from: SourceOffset,
}

/// One that cuts at the end of each full step.
#[derive(Debug, Clone, PartialEq, Hash, Default)]
pub(crate) struct Decoder {
    pub(crate) attempt: Attempt,
    pub(crate) segment: Segment,
    pub(crate) from: DecodeOffset,
    pub(crate) work: VecDeque<Work>,
}

#[derive(Debug, Clone, Copy, PartialEq, Hash)]
pub(crate) enum Work {
    Step(DecodeOffset, DecodeOffset),
    Flush(DecodeOffset, CutCause),
}

/// A session that is looked for elsewhere.
#[derive(Debug, Clone, PartialEq, Hash)]
pub(crate) struct Takeover {
    pub(crate) resume: Resume,
    pub(crate) conn: ConnId,
    pub(crate) view: View,
    /// Those that were asked; this node first.
    pub(crate) nodes: Vec<Node>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) chosen: Option<(Node, Option<(Segment, SourceOffset)>)>,
    pub(crate) waiting: Option<(Resume, ConnId)>,
}

/// What was seen from outside.
#[derive(Debug, Clone, PartialEq, Hash, Default)]
pub(crate) struct Seen {
    /// The first thing that should not be.
    pub(crate) broken: Option<(Invariant, String)>,
    /// What was told of each segment, on whichever connection.
    pub(crate) told: BTreeMap<(SessionId, Segment), Text>,
    /// Audio before this was acknowledged while the session was durable, and so must be found after any one loss.
    pub(crate) promised: (Option<SessionId>, u64),
    /// The epoch that each node obeyed last.
    pub(crate) obeyed: BTreeMap<(Node, SessionId), Epoch>,
}

/// As in ARCHITECTURE.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Invariant {
    /// Finals and gaps are contiguous.
    I1,
    /// One content for each segment, told once.
    I2,
    /// What was acknowledged is in two copies, or the session says that it is not.
    I4,
    /// A session's epoch falls nowhere.
    I5,
    /// Everything is told in the end.
    I7,
    /// Nothing is left in the end.
    I10,
}

impl Seen {
    pub(crate) fn breaks(&mut self, invariant: Invariant, what: impl Into<String>) {
        if self.broken.is_none() {
            self.broken = Some((invariant, what.into()));
        }
    }
}

impl State {
    pub(crate) fn client(&mut self) -> &mut Client {
        Arc::make_mut(&mut self.client)
    }

    pub(crate) fn node(&mut self, node: Node) -> &mut Peer {
        Arc::make_mut(&mut self.nodes[node])
    }

    pub(crate) fn net(&mut self) -> &mut Net {
        Arc::make_mut(&mut self.net)
    }

    pub(crate) fn breaks(&mut self, invariant: Invariant, what: impl Into<String>) {
        Arc::make_mut(&mut self.seen).breaks(invariant, what);
    }

    /// Whether the node does anything at the moment.
    pub(crate) fn runs(&self, node: Node) -> bool {
        self.nodes[node].up && self.paused != Some(node)
    }
}
