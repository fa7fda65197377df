use super::*;
use proptest::prelude::*;

fn key(byte: u8) -> PacketKey {
    PacketKey { id: u32::from(byte), bytes: [byte; 32] }
}

fn sender() -> NodeId {
    NodeId { name: NodeName::parse("node-1").expect("a name"), generation: Generation(0x0102) }
}

const SALT: Salt = *b"0123456789abcdef";

#[test]
fn a_packet_looks_like_this() {
    let payload = Payload::Gossip(b"hello").encode();
    let packet = seal(&key(7), &sender(), &SALT, 3, &payload).expect("sealed");
    let hex: String = packet.iter().map(|byte| format!("{byte:02x}")).collect();
    insta::assert_snapshot!(hex);
    let (header, opened) = open(&[key(1), key(7)], &packet).expect("opened");
    assert_eq!(header, Header { key_id: 7, sender: sender(), sequence: 3, salt: SALT });
    assert_eq!(Payload::decode(&opened), Some(Payload::Gossip(b"hello")));
}

#[test]
fn the_longest_payload_of_the_longest_name_fits_and_one_byte_more_does_not() {
    let sender =
        NodeId { name: NodeName::parse(&"x".repeat(63)).expect("a name"), generation: Generation(1) };
    let packet = seal(&key(1), &sender, &SALT, 1, &[0; MAX_PAYLOAD_BYTES]).expect("sealed");
    assert_eq!(packet.len(), MAX_PACKET_BYTES);
    open(&[key(1)], &packet).expect("opened");
    let refused = seal(&key(1), &sender, &SALT, 1, &[0; MAX_PAYLOAD_BYTES + 1]);
    assert_eq!(refused, Err(SealError::TooLong { bytes: MAX_PAYLOAD_BYTES + 1 }));
}

#[test]
fn a_wrong_key_is_told_from_a_forgery() {
    let packet = seal(&key(1), &sender(), &SALT, 1, b"x").expect("sealed");
    assert_eq!(open(&[key(2)], &packet), Err(OpenError::UnknownKey));
    let pretender = PacketKey { id: 1, ..key(2) };
    assert_eq!(open(&[pretender], &packet), Err(OpenError::Forged));
}

#[test]
fn the_same_text_is_sealed_differently_each_time_and_in_each_run() {
    let sealed = |salt: &Salt, sequence| {
        let packet = seal(&key(1), &sender(), salt, sequence, b"the same text").expect("sealed");
        packet[packet.len() - 29..].to_vec()
    };
    let all = [sealed(&SALT, 1), sealed(&SALT, 2), sealed(&[9; 16], 1)];
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2]);
}

#[test]
fn an_answer_to_a_run_that_is_over_can_be_read_and_kinds_to_come_are_passed_over() {
    let superseded = Payload::Superseded(Generation(5));
    assert_eq!(Payload::decode(&superseded.encode()), Some(superseded));
    assert_eq!(Payload::decode(&[1, 2]), None);
    assert_eq!(Payload::decode(&[9, 1, 2]), None);
    assert_eq!(Payload::decode(&[]), None);
}

#[test]
fn a_key_is_not_printed() {
    assert_eq!(format!("{:?}", key(0xab)), "PacketKey { id: 000000ab }");
}

proptest! {
    #[test]
    fn whatever_bit_is_changed_the_packet_is_refused(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let packet = seal(&key(1), &sender(), &SALT, 9, &payload).expect("sealed");
        prop_assert_eq!(open(&[key(1)], &packet).expect("opened").1, payload);
        let mut changed = packet.clone();
        changed[at.index(packet.len())] ^= 1 << bit;
        prop_assert!(open(&[key(1)], &changed).is_err());
        prop_assert!(open(&[key(1)], &packet[..at.index(packet.len())]).is_err());
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1_400)) {
        prop_assert!(open(&[key(1)], &bytes).is_err());
    }
}
