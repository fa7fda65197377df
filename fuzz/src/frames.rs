//! What nodes, decoder hosts and tokens say in MessagePack.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_actors::fuzzing::{Heard, Listener};
use starling_core::replica::SessionCopy;
use starling_protocol::control::{
    ModelPool, NodeAgent, Replica, Service, decode_call, decode_reply, encode_call, encode_reply,
};
use starling_protocol::data::{HeaderReply, LeaseReply, StreamHeader};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::gossip::LoadRecord;
use starling_protocol::gossip::packet::{
    MAX_GOSSIP_BYTES, MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES, PacketKey, Payload, open, seal,
};
use starling_protocol::lease::{FlightEntry, FromHost, ToHost};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::replica::{FromReplica, ToReplica};
use starling_protocol::token::{self, TokenBody, TokenKey};

use super::{pieces, split};

/// The frames on a link that brings these bytes in pieces, each as it is written again, and how the link ended.
fn read<M: Serialize + DeserializeOwned>(
    parts: impl Iterator<Item: AsRef<[u8]>>,
) -> (Vec<M>, Vec<u8>, Option<String>) {
    let mut reader = FrameReader::new(MAX_LEASE_FRAME_BYTES);
    let (mut messages, mut written) = (Vec::new(), Vec::new());
    for part in parts {
        reader.push(part.as_ref());
        loop {
            match reader.next::<M>() {
                Ok(Some(message)) => {
                    // What is read can be longer as it is written here: defaults are written out, numbers widened.
                    encode(&message, usize::MAX, &mut written).expect("is written");
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, written, Some(error.to_string())),
            }
        }
    }
    (messages, written, None)
}

/// Whatever frames there are, they are the same however the bytes are cut, and when they are read from how they are written.
fn link<M: Serialize + DeserializeOwned>(seed: u8, data: &[u8]) -> Vec<M> {
    let (messages, written, end) = read::<M>(std::iter::once(data));
    let (_, apart, other_end) = read::<M>(pieces(data, seed));
    assert_eq!((&apart, &other_end), (&written, &end), "depends on how it is cut");
    let (_, again, end) = read::<M>(std::iter::once(&written));
    assert_eq!((again, end), (written, None), "is not read as it was written");
    messages
}

/// Between a node and a decoder host, both ways.
pub fn lease_frames(data: &[u8]) {
    let (choice, rest) = split(data);
    if choice % 2 == 0 {
        for mut message in link::<ToHost>(choice, rest) {
            message.lease_mut();
        }
    } else {
        for mut message in link::<FromHost>(choice, rest) {
            let lease = message.lease();
            assert_eq!(message.lease_mut().copied(), lease);
        }
    }
    if let Some(entry) = rest.first_chunk().and_then(FlightEntry::from_bytes) {
        assert_eq!(Some(&entry.to_bytes()), rest.first_chunk(), "the flight recorder");
    }
}

/// The beginnings of streams between nodes, and leases on them.
pub fn data_frames(data: &[u8]) {
    let (choice, rest) = split(data);
    match choice % 3 {
        0 => drop(link::<StreamHeader>(choice, rest)),
        1 => drop(link::<HeaderReply>(choice, rest)),
        _ => drop(link::<LeaseReply>(choice, rest)),
    }
}

/// Copies of sessions between nodes, and what a keeper makes of them.
pub fn replica_frames(data: &[u8]) {
    let (choice, rest) = split(data);
    if choice % 2 == 1 {
        drop(link::<FromReplica>(choice, rest));
        return;
    }
    let mut messages = link::<ToReplica>(choice, rest).into_iter();
    let Some(ToReplica::Begin(start)) = messages.next() else { return };
    let mut copy = SessionCopy::begin(*start);
    for message in messages {
        let before = copy.clone();
        if copy.apply(message).is_err() {
            assert_eq!(
                format!("{copy:?}"),
                format!("{before:?}"),
                "a message that is refused changes nothing"
            );
        }
    }
    let held = copy.bytes();
    assert!(held <= 64 * data.len() + 4_096, "{held} bytes of {}", data.len());
    assert!(copy.messages().count() >= 2);
}

/// What nodes ask each other.
pub fn control(data: &[u8]) {
    let (choice, rest) = split(data);
    match choice % 3 {
        0 => service::<NodeAgent>(rest),
        1 => service::<ModelPool>(rest),
        _ => service::<Replica>(rest),
    }
}

fn service<S: Service>(data: &[u8]) {
    if let Ok(call) = decode_call::<S>(data)
        && let Ok(bytes) = encode_call::<S>(&call.from, &call.request)
    {
        let again = decode_call::<S>(&bytes).expect("is read again");
        assert_eq!((again.from, again.request), (call.from, call.request));
    }
    let bytes = encode_reply::<S>(&decode_reply::<S>(data));
    assert_eq!(
        encode_reply::<S>(&decode_reply::<S>(&bytes)),
        bytes,
        "an answer is not read as it was written"
    );
}

/// Gossip: sealed packets, what is in them, and nodes' records. The packet is sealed here, or nothing would ever be opened.
pub fn gossip(data: &[u8]) {
    let key = PacketKey { id: 7, bytes: [7; 32] };
    let keys = std::slice::from_ref(&key);
    if let Ok((header, _)) = open(keys, data) {
        panic!("forged: {header:?}");
    }
    if let Some(payload) = Payload::decode(data)
        && let Payload::Gossip(bytes) = payload
    {
        assert_eq!(payload.encode(), data);
        assert_eq!(bytes.len() + 1, data.len());
    }
    let (choice, rest) = split(data);
    let sender = node(u64::from(choice));
    match seal(&key, &sender, &[choice; 16], 1, rest) {
        Ok(mut sealed) => {
            assert!(sealed.len() <= MAX_PACKET_BYTES);
            let (header, payload) = open(keys, &sealed).expect("is opened");
            assert_eq!((&header.sender, payload.as_slice()), (&sender, rest));
            let at = (usize::from(choice) * 31) % sealed.len();
            sealed[at] ^= 1;
            open(keys, &sealed).expect_err("was changed");
        }
        Err(error) => assert!(rest.len() > MAX_PAYLOAD_BYTES, "{error}"),
    }
    if let Ok(mut record) = LoadRecord::decode(data) {
        let bytes = record.encode_what_fits();
        if let Ok(bytes) = bytes {
            let again = LoadRecord::decode(&bytes).expect("is read again");
            assert_eq!(again, record);
            assert!(!again.is_later_than(&record));
        }
    }
}

/// What members of a cluster tell one of them: each packet behind its length in one byte, and how long it is after the one before.
pub fn membership(data: &[u8]) {
    let mut listener = Listener::new(node(7), 7_400, 7_401);
    let mut rest = data;
    let (mut heard, mut known) = (0, 0);
    while let [length, wait, tail @ ..] = rest {
        let (packet, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        heard += packet.len();
        let Heard { refused, sent, changes } =
            listener.hear(Duration::from_millis(u64::from(*wait) * 4), packet);
        assert!(refused.is_none_or(|reason| !reason.is_empty()));
        // Timers that are due send to three members each; nothing that is heard brings forth a flood.
        assert!(sent.len() <= 64, "{} packets follow one", sent.len());
        assert!(sent.iter().all(|packet| packet.len() <= MAX_GOSSIP_BYTES));
        let members = listener.view().members;
        assert!(members.iter().filter(|member| member.id.name == node(7).name).count() == 1);
        // A member takes more bytes than this to be told of.
        assert!(members.len() <= 1 + heard / 8, "{} members of {heard} bytes", members.len());
        known = members.len().max(known);
        assert!(changes <= 2 * known);
    }
}

fn node(generation: u64) -> starling_protocol::NodeId {
    starling_protocol::NodeId {
        name: starling_protocol::NodeName::parse("node-1").expect("a name"),
        generation: starling_protocol::Generation(generation),
    }
}

/// What a client shows to go on with its session.
pub fn resume_token(data: &[u8]) {
    let key = TokenKey { id: 7, bytes: [7; 32] };
    let keys = std::slice::from_ref(&key);
    let text = String::from_utf8_lossy(data);
    token::open(keys, &text, 0).expect_err("forged");
    if let Ok(body) = rmp_serde::from_slice::<TokenBody>(data) {
        let text = token::seal(&key, &[1; 24], &body).expect("is sealed");
        let read = token::open(keys, &text, 0);
        if text.len() <= token::MAX_TOKEN_BYTES && body.expires_unix_s > 0 {
            assert_eq!(read, Ok(body));
        } else {
            read.expect_err("is too long, or over");
        }
    }
}
