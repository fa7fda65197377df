//! Streams of frames and courses of events.

use std::time::Duration;

use serde_json::{Value, json};
use starling_actors::fuzzing::Listener;
use starling_protocol::native::stream::{encode_audio, encode_message};
use starling_protocol::native::{Hello, ServerMessage, parse_client};
use starling_protocol::{Generation, NodeId, NodeName, SessionId};

use super::{ID, Seeds};

pub(super) fn streams(seeds: &mut Seeds) {
    seeds.push(("audiosocket", "seed-0".into(), call(&[0x10, 0x01, 0x40], &[1; 320])));
    seeds.push(("audiosocket", "seed-1".into(), call(&[0x12, 0x00, 0x03], b"odd")));
    seeds.push(("audiosocket", "seed-2".into(), b"\xFF\0\x01\x04\x02\0\0".into()));
    let format = json!({ "rate": 16_000, "width": 2, "channels": 1, "timestamp": null });
    let utterance = [
        event("describe", &Value::Null, b""),
        event("transcribe", &json!({ "name": "m", "language": "en" }), b""),
        event("audio-start", &format, b""),
        event("audio-chunk", &format, b"12\n456"),
        event("audio-stop", &json!({ "timestamp": 3 }), b""),
    ];
    seeds.push(("wyoming", "seed-0".into(), utterance.concat()));
    let others = [
        event("ping", &json!({ "text": "still \"there\"?" }), b""),
        event("audio-chunk", &json!({ "rate": 48_000, "width": 4, "channels": 8 }), b"1"),
        event("run-satellite", &Value::Null, b"x"),
        b"{\"type\":\"transcribe\",\"data\":{\"language\":\"\"},\"payload_length\":null}\n".to_vec(),
    ];
    seeds.push(("wyoming", "seed-1".into(), others.concat()));
    native(seeds);
    membership(seeds);
    sessions(seeds);
}

/// A call in `AudioSocket`: its UUID, audio, a key, the end.
fn call(head: &[u8], audio: &[u8]) -> Vec<u8> {
    let id = SessionId::parse(ID).expect("an id").0;
    [b"\x01\0\x10".as_slice(), id.as_bytes(), head, audio, b"\x03\0\x015\0\0\0"].concat()
}

/// As the package `wyoming` lays an event out.
fn event(kind: &str, data: &Value, payload: &[u8]) -> Vec<u8> {
    let body = if data.is_null() { String::new() } else { data.to_string() };
    let mut head = json!({ "type": kind, "version": "1.10.2" });
    if !body.is_empty() {
        head["data_length"] = body.len().into();
    }
    if !payload.is_empty() {
        head["payload_length"] = payload.len().into();
    }
    [head.to_string().as_bytes(), b"\n", body.as_bytes(), payload].concat()
}

fn native(seeds: &mut Seeds) {
    let mut client = vec![0];
    let hello = Hello::new(SessionId::parse(ID).expect("an id"));
    let others = [r#"{"type":"finalize"}"#, r#"{"type":"confirm","segment":3}"#, r#"{"type":"end"}"#];
    let hello = starling_protocol::native::ClientMessage::Hello(Box::new(hello));
    encode_message(&hello, &mut client).expect("is written");
    encode_audio(&[1; 64], &mut client);
    for text in others {
        encode_message(&parse_client(text).expect("a message"), &mut client).expect("is written");
    }
    seeds.push(("native_frames", "seed-client".into(), client));
    let mut server = vec![1];
    let texts = super::texts::TEXTS.iter().find(|(target, _)| *target == "native_server").expect("is there");
    for text in texts.1 {
        let message: ServerMessage = serde_json::from_str(text).expect("a message");
        encode_message(&message, &mut server).expect("is written");
    }
    seeds.push(("native_frames", "seed-server".into(), server));
}

/// What the first of two members hears of the other until they know each other.
fn membership(seeds: &mut Seeds) {
    let member = |name: &str, port, other| {
        let name = NodeName::parse(name).expect("a name");
        Listener::new(NodeId { name, generation: Generation(7) }, port, other)
    };
    let (mut one, mut two) = (member("node-1", 7_400, 7_401), member("node-2", 7_401, 7_400));
    let mut bytes = Vec::new();
    let after = Duration::from_millis(120);
    // To be refused, which costs nothing but the time.
    let mut to_two = one.hear(after, b"").sent;
    let mut to_one = two.hear(after, b"").sent;
    for round in 0..12 {
        let mut answers = Vec::new();
        for packet in to_two.drain(..) {
            answers.extend(two.hear(Duration::ZERO, &packet).sent);
        }
        answers.extend(two.hear(after, b"").sent);
        for packet in to_one.drain(..) {
            if let Ok(length) = u8::try_from(packet.len()) {
                bytes.extend([length, if round == 0 { 0 } else { 7 }]);
                bytes.extend_from_slice(&packet);
            }
            to_two.extend(one.hear(Duration::ZERO, &packet).sent);
        }
        to_two.extend(one.hear(after, b"").sent);
        to_one = answers;
        if bytes.len() > 2_000 {
            break;
        }
    }
    assert_eq!(one.view().members.len(), 2, "they do not know each other");
    seeds.push(("membership", "seed-0".into(), bytes));
}

/// Events as `session_machine` has them: four bytes each.
fn sessions(seeds: &mut Seeds) {
    const AUDIO: [u8; 4] = [0, 0x40, 0x1F, 1];
    const FINALIZE: [u8; 4] = [2, 0, 0, 0];
    const END: [u8; 4] = [3, 0, 0, 0];
    const CONFIRM: [u8; 4] = [4, 0, 0, 0];
    const COME_BACK: [u8; 4] = [7, 0, 0, 0];
    const DETACH: [u8; 4] = [8, 0, 0, 0];
    const GRANT: [u8; 4] = [9, 0, 0, 0];
    const GRANT_STANDBY: [u8; 4] = [11, 3, 0, 0];
    const DECODE: [u8; 4] = [12, 12, 0, 0];
    const DECODE_STANDBY: [u8; 4] = [14, 5, 0, 0];
    const KILL: [u8; 4] = [16, 0, 0, 0];
    const POISON: [u8; 4] = [16, 0, 1, 0];
    const LOSE_STANDBY: [u8; 4] = [16, 3, 6, 0];
    const WAIT: [u8; 4] = [22, 0xE8, 0x03, 0];
    const MOVE: [u8; 4] = [23, 15, 0, 0];
    let plain = [0, 0x0C];
    type Course<'a> = (&'a str, [u8; 2], &'a [[u8; 4]]);
    let courses: [Course<'_>; 7] = [
        (
            "plain",
            plain,
            &[GRANT, AUDIO, DECODE, FINALIZE, DECODE, CONFIRM, AUDIO, DECODE, END, DECODE, CONFIRM],
        ),
        ("resampled", [2, 0x0C], &[GRANT, AUDIO, AUDIO, DECODE, END, DECODE, CONFIRM]),
        (
            "kills",
            plain,
            &[GRANT, AUDIO, DECODE, KILL, AUDIO, GRANT, FINALIZE, KILL, GRANT, DECODE, AUDIO, END],
        ),
        (
            "poison",
            plain,
            &[GRANT, AUDIO, AUDIO, POISON, GRANT, POISON, GRANT, POISON, GRANT, POISON, GRANT, DECODE],
        ),
        (
            "standby",
            [0, 0x2C],
            &[
                GRANT,
                AUDIO,
                GRANT_STANDBY,
                DECODE,
                DECODE_STANDBY,
                KILL,
                DECODE,
                GRANT_STANDBY,
                LOSE_STANDBY,
                DECODE,
            ],
        ),
        ("away", [1, 0x3C], &[GRANT, AUDIO, DECODE, DETACH, WAIT, DECODE, COME_BACK, CONFIRM, DECODE, WAIT]),
        (
            "moved",
            plain,
            &[GRANT, AUDIO, DECODE, FINALIZE, MOVE, COME_BACK, GRANT, DECODE, AUDIO, END, MOVE, GRANT],
        ),
    ];
    for (name, settings, events) in courses {
        let bytes = [settings.as_slice(), events.as_flattened()].concat();
        seeds.push(("session_machine", format!("seed-{name}"), bytes));
    }
}
