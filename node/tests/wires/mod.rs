//! What clients over bare TCP may send: `AudioSocket`'s frames and Wyoming's events, valid, spoilt and out of order, cut anywhere.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use starling_protocol::audiosocket::FrameReader;
use starling_protocol::wire::WireReader;
use starling_protocol::wyoming::EventReader;

/// What a client does with one connection.
#[derive(Debug, Clone)]
pub(super) struct WireLife {
    pub(super) sent: Vec<u8>,
    /// Bytes of a piece.
    pub(super) cut: usize,
    /// Whether it waits for what still comes, or goes away.
    pub(super) waits: bool,
    /// After how many pieces of audio the node gives its session up.
    pub(super) fails_after: Option<usize>,
}

fn lives(parts: impl Strategy<Value = Vec<Vec<u8>>>) -> impl Strategy<Value = WireLife> {
    let fails_after = prop_oneof![4 => Just(None), 1 => (0usize..4).prop_map(Some)];
    let cut = prop_oneof![3 => Just(usize::MAX), 1 => 40usize..400];
    (parts, cut, any::<bool>(), fails_after).prop_map(|(parts, cut, waits, fails_after)| WireLife {
        sent: parts.concat(),
        cut,
        waits,
        fails_after,
    })
}

/// A byte that is another one, is not there, or is one too many.
fn spoilt(part: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (part, any::<Index>(), any::<u8>(), 0usize..3).prop_map(|(mut part, at, by, change)| {
        let at = at.index(part.len());
        match change {
            0 => part[at] = by,
            1 => {
                let _ = part.remove(at);
            }
            _ => part.insert(at, by),
        }
        part
    })
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("fits");
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

/// A call's first frame. Of an id that is no version 4 most are refused.
fn id() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; 16]>(), prop_oneof![7 => Just(0x40), 1 => any::<u8>()]).prop_map(|(mut id, version)| {
        id[6] = version | (id[6] & 0x0F);
        id[8] = 0x80 | (id[8] & 0x3F);
        frame(0x01, &id)
    })
}

fn call_part() -> impl Strategy<Value = Vec<u8>> {
    let audio = (prop_oneof![6 => Just(0x10u8), 1 => 0x10u8..0x1A], 0usize..700);
    let audio = audio.prop_map(|(kind, bytes)| frame(kind, &vec![0; bytes])).boxed();
    let digit = vec(any::<u8>(), 0..3).prop_map(|digits| frame(0x03, &digits));
    let ends = select(vec![frame(0x00, b""), frame(0xFF, b""), frame(0xFF, &[1]), frame(0x00, b"?")]);
    let other = (any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(kind, payload)| frame(kind, &payload));
    // Of which the other end never comes.
    let begun = (1u8..0x11, 1u16..).prop_map(|(kind, length)| [&[kind][..], &length.to_be_bytes()].concat());
    prop_oneof![
        10 => audio.clone(),
        2 => spoilt(audio),
        2 => digit,
        1 => id(),
        1 => ends,
        2 => other,
        1 => begun,
        1 => vec(any::<u8>(), 1..40),
    ]
}

/// Calls of Asterisk's, and what is none.
pub(super) fn audiosocket() -> impl Strategy<Value = WireLife> {
    let begins = prop_oneof![7 => id().prop_map(Some), 1 => Just(None)];
    lives(
        (begins, vec(call_part(), 0..14))
            .prop_map(|(begins, parts)| begins.into_iter().chain(parts).collect::<Vec<_>>()),
    )
}

fn event(kind: &str, data: &Value, payload: &[u8]) -> Vec<u8> {
    let body = if data.is_null() { String::new() } else { data.to_string() };
    let head = json!({ "type": kind, "data_length": body.len(), "payload_length": payload.len() });
    [head.to_string().as_bytes(), b"\n", body.as_bytes(), payload].concat()
}

fn wyoming_part() -> impl Strategy<Value = Vec<u8>> {
    let format =
        |rate: u32, width: u32, channels: u32| json!({ "rate": rate, "width": width, "channels": channels });
    let usual = move || format(16_000, 2, 1);
    let formats = prop_oneof![
        9 => Just(usual()),
        1 => (any::<u32>(), 0u32..9, 0u32..20).prop_map(move |(rate, width, channels)| format(rate, width, channels)),
    ];
    let chunk = (formats, 0usize..3_000);
    let chunk = chunk.prop_map(|(format, bytes)| event("audio-chunk", &format, &vec![0; bytes])).boxed();
    let others = select(vec![
        event("describe", &Value::Null, b""),
        event("ping", &json!({ "text": "there?" }), b""),
        event("transcribe", &json!({ "language": "ko-KR", "context": {} }), b""),
        event("transcribe", &json!({ "name": "nobody's", "language": 7 }), b""),
        event("synthesize", &json!({ "text": "hello" }), b"payload"),
    ]);
    let marks =
        select(vec![event("audio-start", &usual(), b""), event("audio-stop", &json!({}), b"")]).boxed();
    let lines = select(vec![
        b"{}\n".to_vec(),
        b"\n".to_vec(),
        b"{\"type\":\"audio-stop\",\"data_length\":-1}\n".to_vec(),
        b"{\"type\":\"audio-chunk\",\"payload_length\":99999999999}\n".to_vec(),
        b"{\"type\":\"describe\",\"data\":[]}\n".to_vec(),
        vec![b'{'; 70_000],
    ]);
    prop_oneof![
        8 => chunk.clone(),
        5 => marks.clone(),
        3 => others,
        1 => spoilt(chunk),
        1 => spoilt(marks),
        1 => lines,
        1 => vec(any::<u8>(), 1..40),
    ]
}

/// Utterances of Home Assistant's, and what are none.
pub(super) fn wyoming() -> impl Strategy<Value = WireLife> {
    let begins = prop_oneof![4 => Just(Some(event("audio-start", &json!({ "rate": 16_000, "width": 2, "channels": 1 }), b""))), 1 => Just(None)];
    lives(
        (begins, vec(wyoming_part(), 0..14))
            .prop_map(|(begins, parts)| begins.into_iter().chain(parts).collect::<Vec<_>>()),
    )
}

/// Whether a gateway's answer is of its dialect; the end of it may be missing.
pub(super) fn are_frames(answer: &[u8]) -> bool {
    is_read::<FrameReader>(answer)
}

/// See [`are_frames`].
pub(super) fn are_events(answer: &[u8]) -> bool {
    is_read::<EventReader>(answer)
}

fn is_read<R: WireReader + Default>(answer: &[u8]) -> bool {
    let mut reader = R::default();
    reader.push(answer);
    loop {
        match reader.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}
