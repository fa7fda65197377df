//! A node as the membership protocol knows it, and how that is written.

use std::fmt;
use std::net::SocketAddr;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Identity, Member};
use serde::{Deserialize, Serialize};
use starling_core::sabotage::{Bug, is};
use starling_protocol::{NodeId, NodeName};
use thiserror::Error;

use super::probes::Probes;

/// One incarnation of a node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Peer {
    /// `None` for whoever listens at the address: that is all that is known of a seed.
    pub(super) id: Option<NodeId>,
    /// How often the others had given this run up and it came back. The run's own name stays as it is: sessions, leases
    /// and links are tied to it.
    pub(super) renewal: u32,
    /// Where its gossip socket is.
    pub(super) address: SocketAddr,
}

impl Peer {
    pub(super) const fn new(id: NodeId, address: SocketAddr) -> Self {
        Self { id: Some(id), renewal: 0, address }
    }

    pub(super) const fn anybody_at(address: SocketAddr) -> Self {
        Self { id: None, renewal: 0, address }
    }

    fn rank(&self) -> (Option<u64>, u32, SocketAddr) {
        (self.id.as_ref().map(|id| id.generation.0), self.renewal, self.address)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id}.{} at {}", self.renewal, self.address),
            None => write!(f, "anybody at {}", self.address),
        }
    }
}

/// What makes two peers the same node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PeerKey {
    Named(NodeName),
    At(SocketAddr),
}

impl Identity for Peer {
    /// The name and not the address: a node may come back elsewhere, and is then still the same one.
    type Addr = PeerKey;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> PeerKey {
        match &self.id {
            Some(id) => PeerKey::Named(id.name.clone()),
            None => PeerKey::At(self.address),
        }
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.rank() > adversary.rank() && !is(Bug::OldRunBelieved)
    }
}

/// The bytes of the membership protocol: MessagePack arrays, the shortest form that needs no code of our own. Their layout
/// is pinned by the packet's format number.
pub(super) struct PeerCodec {
    /// Ourselves, whom a packet to anybody at our address reaches.
    pub(super) me: Peer,
    /// Told of probes and their answers.
    pub(super) probes: Probes,
}

#[derive(Debug, Error)]
pub(super) enum PeerCodecError {
    #[error("cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("cannot be decoded: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    #[error("a member without a name")]
    Nameless,
}

impl Codec<Peer> for PeerCodec {
    type Error = PeerCodecError;

    fn encode_header(&mut self, header: &Header<Peer>, buf: impl BufMut) -> Result<(), PeerCodecError> {
        self.probes.sends(&header.message);
        Ok(rmp_serde::encode::write(&mut buf.writer(), header)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Peer>, PeerCodecError> {
        let mut header: Header<Peer> = rmp_serde::decode::from_read(buf.reader())?;
        if header.src.id.is_none() {
            return Err(PeerCodecError::Nameless);
        }
        if header.dst.id.is_none() {
            // It came in at our socket, so we are who listens there, by whatever address the sender knows it.
            header.dst = self.me.clone();
        }
        self.probes.hears(&header.message);
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Peer>, buf: impl BufMut) -> Result<(), PeerCodecError> {
        Ok(rmp_serde::encode::write(&mut buf.writer(), member)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Peer>, PeerCodecError> {
        let member: Member<Peer> = rmp_serde::decode::from_read(buf.reader())?;
        if member.id().id.is_none() {
            return Err(PeerCodecError::Nameless);
        }
        Ok(member)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_protocol::Generation;

    fn peer(generation: u64, renewal: u32) -> Peer {
        let name = NodeName::parse("node-1").expect("a name");
        let address = "10.0.0.1:7400".parse().expect("an address");
        Peer { renewal, ..Peer::new(NodeId { name, generation: Generation(generation) }, address) }
    }

    #[test]
    fn a_later_run_wins_over_any_renewal_and_a_renewal_over_its_elder() {
        assert!(peer(2, 0).win_addr_conflict(&peer(1, 9)));
        assert!(peer(1, 1).win_addr_conflict(&peer(1, 0)));
        assert!(!peer(1, 0).win_addr_conflict(&peer(1, 0)));
        assert_eq!(peer(1, 0).renew(), Some(peer(1, 1)));
        assert_eq!(peer(1, u32::MAX).renew(), None);
        assert_eq!(peer(1, 0).addr(), peer(2, 5).addr());
    }

    #[test]
    fn members_are_read_one_after_the_other_and_short_buffers_are_errors() {
        let mut codec = PeerCodec { me: peer(1, 0), probes: Probes::default() };
        let members = [Member::alive(peer(1, 0)), Member::down(peer(2, 3))];
        let mut bytes = Vec::new();
        for member in &members {
            codec.encode_member(member, &mut bytes).expect("encodes");
        }
        assert!(bytes.len() <= 2 * 48, "{}", bytes.len());
        let mut rest = &bytes[..];
        for member in &members {
            assert_eq!(codec.decode_member(&mut rest).expect("decodes"), *member);
        }
        assert!(codec.decode_member(&mut rest).is_err());
        assert!(codec.encode_member(&members[0], (&mut [0; 8][..]).limit(8)).is_err());
    }

    #[test]
    fn a_packet_to_anybody_here_is_to_us_and_one_from_nobody_is_refused() {
        let me = peer(7, 0);
        let mut codec = PeerCodec { me: me.clone(), probes: Probes::default() };
        let elsewhere = Peer::anybody_at("192.0.2.1:1".parse().expect("an address"));
        let header = |src: &Peer, dst: &Peer| Header {
            src: src.clone(),
            src_incarnation: 0,
            dst: dst.clone(),
            message: foca::Message::Announce,
        };
        let mut bytes = Vec::new();
        codec.encode_header(&header(&peer(1, 0), &elsewhere), &mut bytes).expect("encodes");
        assert_eq!(codec.decode_header(&bytes[..]).expect("decodes").dst, me);
        bytes.clear();
        codec.encode_header(&header(&elsewhere, &me), &mut bytes).expect("encodes");
        assert!(matches!(codec.decode_header(&bytes[..]), Err(PeerCodecError::Nameless)));
    }
}
