//! The key that gossip is sealed with, out of the cluster's secret.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use starling_protocol::gossip::packet::PacketKey;

/// Every key of the cluster is derived under a label of its own, so that none of them tells anything of another.
const LABEL: &[u8] = b"starling gossip 1";

/// The gossip key of a cluster's secret.
#[must_use]
pub fn gossip_key(secret: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    // Fails only for outputs of more than 255 hashes.
    let derived = Hkdf::<Sha256>::new(None, secret).expand(LABEL, &mut key);
    debug_assert!(derived.is_ok());
    key
}

/// The gossip key with the id by which packets name it: the start of its hash, which gives nothing of the key away.
#[must_use]
pub fn packet_key(secret: &[u8]) -> PacketKey {
    let bytes = gossip_key(secret);
    let hash = Sha256::digest(bytes);
    let id = hash.iter().take(4).fold(0, |id, byte| id << 8 | u32::from(*byte));
    PacketKey { id, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_same_on_every_node_and_another_for_another_secret() {
        let hex =
            |secret: &[u8]| gossip_key(secret).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        // Worked out once more with Python's hmac: a node of another version must come to the same.
        assert_eq!(hex(b"secret"), "9fcd48397495c4fa764c7c31d59c83f0cf4cc4f4c1b787ee2a7ee6b69466f083");
        assert_ne!(hex(b"secret"), hex(b"secreu"));
        assert_ne!(packet_key(b"secret").id, packet_key(b"secreu").id);
    }
}
