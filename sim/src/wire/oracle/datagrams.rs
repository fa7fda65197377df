//! Which datagrams a run has to refuse, by a memory that forgets nothing.

use std::collections::{BTreeMap, BTreeSet};

use starling_protocol::gossip::packet::{self, PacketKey};
use starling_protocol::{Generation, NodeId, NodeName};

/// How far apart packets of one sender may be so that the earlier one is judged; see `starling_core::replay`.
const WINDOW: u64 = 128;

/// All that arrived at one run.
#[derive(Default)]
pub(super) struct Datagrams {
    heard: BTreeMap<NodeName, Heard>,
    must_refuse: u64,
    /// As it told.
    pub(super) refused: u64,
}

/// All of one sender.
#[derive(Default)]
struct Heard {
    generation: Generation,
    highest: u64,
    sequences: BTreeSet<u64>,
}

impl Datagrams {
    /// One arrived, of this sender and with this number, if it has any.
    pub(super) fn arrived(&mut self, own: &NodeId, header: Option<(NodeId, u64)>) {
        let is_fresh = header.is_some_and(|(sender, sequence)| self.is_fresh(own, sender, sequence));
        self.must_refuse += u64::from(!is_fresh);
    }

    fn is_fresh(&mut self, own: &NodeId, sender: NodeId, sequence: u64) -> bool {
        if sender.name == own.name {
            return sender.generation > own.generation;
        }
        let heard = self.heard.entry(sender.name).or_default();
        if sender.generation > heard.generation {
            *heard = Heard { generation: sender.generation, ..Heard::default() };
        }
        let is_fresh = sender.generation == heard.generation
            && sequence.saturating_add(WINDOW) > heard.highest
            && heard.sequences.insert(sequence);
        if is_fresh {
            heard.highest = heard.highest.max(sequence);
        }
        is_fresh
    }

    /// What is wrong with what it refused.
    pub(super) fn problem(&self) -> Option<String> {
        let Self { must_refuse, refused, .. } = self;
        (refused != must_refuse)
            .then(|| format!("taken: {refused} datagrams were refused, and {must_refuse} had to be"))
    }
}

/// The sender and the number of a packet that is what it says.
pub(super) fn opened(key: &PacketKey, bytes: &[u8]) -> Option<(NodeId, u64)> {
    let (header, _) = packet::open(std::slice::from_ref(key), bytes).ok()?;
    Some((header.sender, header.sequence))
}

/// The sender and the number of a packet, where `starling_protocol::gossip::packet` says that they are.
pub(super) fn header_of(bytes: &[u8]) -> Option<(NodeId, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let length = usize::from(*bytes.get(37)?);
    let name = std::str::from_utf8(bytes.get(38..38 + length)?).ok()?;
    let sender = NodeId { name: NodeName::parse(name).ok()?, generation: Generation(number(5)?) };
    Some((sender, number(13)?))
}
