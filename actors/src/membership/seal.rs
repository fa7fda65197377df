//! Seals what this run sends, and opens what others sent to it.

use std::cmp::Ordering;

use starling_core::replay::{ReplayError, ReplayWindows};
use starling_protocol::gossip::packet::{self, PacketKey, Payload, Salt, SealError};
use starling_protocol::{Generation, NodeId};

use super::refusal::Refusal;

/// Senders that are remembered. A cluster has a few dozen; only holders of the key take a place.
const MOST_SENDERS: usize = 1_024;

pub(super) struct Sealer {
    keys: Vec<PacketKey>,
    me: NodeId,
    salt: Salt,
    sequence: u64,
    windows: ReplayWindows,
}

/// What a packet was found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Of a member, with its payload.
    Fresh(Vec<u8>),
    /// Of a later run of our own name.
    Successor(Generation),
    /// Authentic, but its sender runs again since, as this generation.
    OldRun(Generation),
}

impl Sealer {
    pub(super) fn new(keys: Vec<PacketKey>, me: NodeId, salt: Salt) -> Self {
        Self { keys, me, salt, sequence: 0, windows: ReplayWindows::new(MOST_SENDERS) }
    }

    pub(super) fn seal(&mut self, payload: Payload<'_>) -> Result<Vec<u8>, SealError> {
        let key = self.keys.first().ok_or(SealError::Cipher)?;
        // At a million packets a second it would take 500,000 years to come round.
        self.sequence += 1;
        packet::seal(key, &self.me, &self.salt, self.sequence, &payload.encode())
    }

    pub(super) fn open(&mut self, bytes: &[u8]) -> Result<Opened, Refusal> {
        let (header, payload) = packet::open(&self.keys, bytes)?;
        if header.sender.name == self.me.name {
            return match header.sender.generation.cmp(&self.me.generation) {
                Ordering::Greater => Ok(Opened::Successor(header.sender.generation)),
                Ordering::Equal => Err(Refusal::Own),
                Ordering::Less => Ok(Opened::OldRun(self.me.generation)),
            };
        }
        match self.windows.accept(&header.sender, header.sequence) {
            Ok(()) => Ok(Opened::Fresh(payload)),
            Err(ReplayError::OldGeneration(latest)) => Ok(Opened::OldRun(latest)),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::key::packet_key;
    use starling_protocol::NodeName;

    fn sealer(name: &str, generation: u64, secret: &[u8]) -> Sealer {
        let me = NodeId { name: NodeName::parse(name).expect("a name"), generation: Generation(generation) };
        Sealer::new(vec![packet_key(secret)], me, [u8::try_from(generation).expect("small"); 16])
    }

    fn sealed(by: &mut Sealer) -> Vec<u8> {
        by.seal(Payload::Gossip(b"x")).expect("sealed")
    }

    #[test]
    fn a_packet_is_taken_once_from_the_latest_run_of_another() {
        let mut receiver = sealer("b", 1, b"secret");
        let (mut old, mut new) = (sealer("a", 1, b"secret"), sealer("a", 2, b"secret"));
        let packet = sealed(&mut old);
        assert_eq!(receiver.open(&packet), Ok(Opened::Fresh(Payload::Gossip(b"x").encode())));
        assert_eq!(receiver.open(&packet), Err(Refusal::Replayed));
        assert!(matches!(receiver.open(&sealed(&mut new)), Ok(Opened::Fresh(_))));
        assert_eq!(receiver.open(&sealed(&mut old)), Ok(Opened::OldRun(Generation(2))));
    }

    #[test]
    fn our_own_name_is_ours_our_successors_or_our_predecessors() {
        let mut receiver = sealer("a", 2, b"secret");
        let own = sealed(&mut receiver);
        assert_eq!(receiver.open(&own), Err(Refusal::Own));
        assert_eq!(receiver.open(&sealed(&mut sealer("a", 1, b"secret"))), Ok(Opened::OldRun(Generation(2))));
        let successor = sealed(&mut sealer("a", 3, b"secret"));
        assert_eq!(receiver.open(&successor), Ok(Opened::Successor(Generation(3))));
    }

    #[test]
    fn a_node_with_a_second_key_hears_both_and_speaks_the_first() {
        let mut both = sealer("a", 1, b"new");
        both.keys.push(packet_key(b"old"));
        assert!(both.open(&sealed(&mut sealer("b", 1, b"old"))).is_ok());
        assert!(both.open(&sealed(&mut sealer("c", 1, b"new"))).is_ok());
        let packet = sealed(&mut both);
        assert!(sealer("c", 1, b"new").open(&packet).is_ok());
        assert_eq!(sealer("b", 1, b"old").open(&packet), Err(Refusal::UnknownKey));
    }
}
