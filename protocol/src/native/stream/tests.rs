use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;
use crate::native::{
    ApiKey, AudioFormat, CLOSES, Close, Encoding, ErrorBody, ErrorCode, Final, Hello, Resume, SessionOptions,
    TimedAlternative, TimedWord, WarningCode, parse_client, webtransport_code,
};
use crate::{CutCause, Epoch, Segment, SessionId, SourceOffset};

fn session() -> SessionId {
    SessionId::parse("6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11").expect("an id")
}

fn client_messages() -> Vec<ClientMessage> {
    let mut full = Hello::new(session());
    full.model = Some("m".into());
    full.format = AudioFormat { encoding: Encoding::Mulaw, sample_rate: 8_000, channels: 2 };
    full.options = SessionOptions { words: true, phrases: vec!["yes".into()], ..SessionOptions::default() };
    full.resume = Some(Resume {
        token: "t".into(),
        epoch: Epoch(3),
        last_final: Some(Segment(1)),
        final_to: Some(SourceOffset(64_000)),
        have_from: SourceOffset(64_000),
    });
    full.api_key = Some(ApiKey::from("key".to_owned()));
    full.traceparent = Some("00-0af7-b7ad-01".into());
    vec![
        ClientMessage::Hello(Box::new(Hello::new(session()))),
        ClientMessage::Hello(Box::new(full)),
        ClientMessage::Confirm { segment: Segment(300) },
        ClientMessage::Finalize {},
        ClientMessage::End {},
    ]
}

fn server_messages() -> Vec<ServerMessage> {
    let word = TimedWord { word: "hello".into(), start: 0.0, end: 0.1, confidence: Some(0.5) };
    let mut error = ErrorBody::field("format.sample_rate", "4000", "8000 to 48000");
    error.retry_after_ms = Some(1_500);
    vec![
        ServerMessage::Ready {
            session: session(),
            epoch: Epoch(1),
            token: "t".into(),
            model: "m".into(),
            have_until: SourceOffset(0),
            next_segment: Segment(0),
            resumed: false,
            durable: true,
            linger_ms: 60_000,
            node: "node-1".into(),
        },
        ServerMessage::View {
            view: 2,
            token: "t".into(),
            durable: true,
            resume_at: vec!["10.0.0.7:8080".into()],
        },
        ServerMessage::Ack { until: SourceOffset(1_600) },
        ServerMessage::Partial {
            segment: Segment(0),
            from: SourceOffset(0),
            until: SourceOffset(1_600),
            text: "hel".into(),
        },
        ServerMessage::Final(Final {
            segment: Segment(0),
            from: SourceOffset(0),
            to: SourceOffset(1_600),
            start: 0.0,
            end: 0.1,
            cause: CutCause::Endpoint,
            text: "hello".into(),
            words: vec![word.clone()],
            confidence: Some(0.5),
            alternatives: vec![TimedAlternative { text: "hallo".into(), confidence: 1.5, words: vec![word] }],
            error: None,
        }),
        ServerMessage::Warning { code: WarningCode::Determinism, message: "w".into() },
        ServerMessage::Error(error),
        ServerMessage::Done { segments: 1, frames: SourceOffset(1_600) },
        ServerMessage::GoAway { deadline_ms: 25_000 },
    ]
}

fn frame<M: Serialize>(message: &M) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes).expect("encodes");
    bytes
}

/// The bodies of the messages in these bytes.
fn bodies(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = StreamReader::new(1 << 20);
    reader.push(bytes);
    let mut bodies = Vec::new();
    while let Some(frame) = reader.next().expect("frames") {
        let Frame::Message(body) = frame else { panic!("no message") };
        bodies.push(body.to_vec());
    }
    bodies
}

fn packed(value: &Value) -> Vec<u8> {
    bodies(&frame(value)).remove(0)
}

#[test]
fn frames_look_like_this() {
    let mut lines = Vec::new();
    for message in client_messages() {
        let json = serde_json::to_string(&message).expect("encodes");
        lines.push(format!("C: {json}\n{}", HEXLOWER.encode(&frame(&message))));
    }
    let mut audio = Vec::new();
    encode_audio(&[1, 2, 3, 4], &mut audio);
    lines.push(format!("C: audio of two samples\n{}", HEXLOWER.encode(&audio)));
    for message in server_messages() {
        let json = serde_json::to_string(&message).expect("encodes");
        lines.push(format!("S: {json}\n{}", HEXLOWER.encode(&frame(&message))));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_message_survives_the_round_trip() {
    for message in client_messages() {
        assert_eq!(read_client(&bodies(&frame(&message))[0]).expect("is one"), message);
    }
    for message in server_messages() {
        assert_eq!(read_server(&bodies(&frame(&message))[0]).expect("is one"), message);
    }
}

#[test]
fn a_message_is_the_map_that_it_is_as_json_and_refused_with_the_same_words() {
    for text in [
        r#"{"type":"hello","format":{"sample_rate":4000}}"#,
        r#"{"type":"hello","formt":{}}"#,
        r#"{"type":"helo"}"#,
        r#"{"type":"hello","options":{"phrases":["yes"," "]}}"#,
        r#"{"confirm":1}"#,
        r#"{"type":"confirm"}"#,
        r#"[1]"#,
        r#"{"type":"hello","session":"6f2c1f5e-08a3-4b0e-9f0d-3f6f0f5f7a11"}"#,
    ] {
        let value: Value = serde_json::from_str(text).expect("is JSON");
        assert_eq!(read_client(&packed(&value)), parse_client(text), "{text}");
    }
}

#[test]
fn what_is_no_message_is_refused_in_words() {
    let problem = |body: &[u8]| read_client(body).expect_err("is none").0.message;
    assert!(problem(b"").contains("is not MessagePack"));
    let mut two = packed(&serde_json::json!({"type": "end"}));
    two.push(0xc0);
    assert!(problem(&two).ends_with("1 bytes follow the map"), "{}", problem(&two));
    let deep = [0x91; 100];
    assert!(problem(&deep).contains("depth"), "{}", problem(&deep));
    // A key is in no error, whatever else is wrong.
    let hello = serde_json::json!({"type": "hello", "api_key": "secret", "format": {"channels": 9}});
    assert!(!problem(&packed(&hello)).contains("secret"));
}

#[test]
fn lengths_are_looked_at_before_anything_is_kept() {
    let of = |bytes: &[u8]| {
        let mut reader = StreamReader::of_client();
        reader.push(bytes);
        reader.next().map(|frame| frame.is_some())
    };
    let most = u32::try_from(MAX_CLIENT_MESSAGE_BYTES).expect("fits") + 1;
    assert_eq!(of(&most.to_be_bytes()), Ok(false));
    let bytes = MAX_CLIENT_MESSAGE_BYTES + 1;
    let too_long = FrameError::TooLong { bytes, limit: MAX_CLIENT_MESSAGE_BYTES };
    assert_eq!(of(&(most + 1).to_be_bytes()), Err(too_long));
    assert!(matches!(of(&u32::MAX.to_be_bytes()), Err(FrameError::TooLong { .. })));
    assert_eq!(of(&[0, 0, 0, 0]), Err(FrameError::Empty));
    assert_eq!(of(&[0, 0, 0, 2, 3]), Err(FrameError::Kind(3)));
    assert_eq!(of(&[0, 0, 0, 1, 2]), Ok(true), "audio may be empty");
}

#[test]
fn every_close_has_numbers_of_its_own() {
    let mut codes: Vec<u32> = CLOSES.map(Close::stream).into_iter().filter(|code| *code != 0x11).collect();
    let all = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), all);
    for close in CLOSES {
        assert!(matches!(close.websocket(), 1000..=1013), "{close:?}");
    }
    // The first and the last number that the draft gives applications.
    assert_eq!(webtransport_code(0), 0x52e4_a40f_a8db);
    assert_eq!(webtransport_code(u32::MAX), 0x52e5_ac98_3162);
    // Numbers of the form 0x1f * n + 0x21 say nothing in HTTP/3 (RFC 9114, 8.1).
    for close in CLOSES {
        let code = webtransport_code(close.stream());
        assert_ne!((code - 0x21) % 0x1f, 0, "{close:?}");
    }
    assert_eq!(Close::Error(ErrorCode::Busy).stream(), 3);
}

proptest! {
    #[test]
    fn frames_survive_any_chunking(
        bodies in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 0..20),
        chunk in 1usize..41,
    ) {
        let mut bytes = Vec::new();
        for (is_audio, body) in &bodies {
            if *is_audio {
                encode_audio(body, &mut bytes);
            } else {
                encode_message(&serde_json::json!({"body": body}), &mut bytes).expect("encodes");
            }
        }
        let mut reader = StreamReader::new(1 << 10);
        let mut seen = Vec::new();
        for piece in bytes.chunks(chunk) {
            reader.push(piece);
            while let Some(frame) = reader.next().expect("whole") {
                seen.push(match frame {
                    Frame::Audio(samples) => (true, samples.to_vec()),
                    Frame::Message(body) => {
                        let value: Value = unpack(body).expect("is one");
                        let body = value["body"].as_array().expect("a list").iter();
                        (false, body.map(|byte| byte.as_u64().expect("a byte") as u8).collect())
                    }
                });
            }
        }
        prop_assert_eq!(seen, bodies);
        prop_assert!(!reader.is_within_frame());
    }

    #[test]
    fn random_bytes_never_panic_and_are_never_hoarded(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let mut reader = StreamReader::new(128);
        'stream: for piece in &pieces {
            reader.push(piece);
            loop {
                match reader.next() {
                    Ok(Some(Frame::Message(body))) => {
                        let _ = read_client(body);
                        let _ = read_server(body);
                    }
                    Ok(Some(Frame::Audio(samples))) => prop_assert!(samples.len() <= 128),
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
            prop_assert!(reader.buffer.len() - reader.read <= 128 + FRAME_HEAD_BYTES);
        }
    }

    #[test]
    fn random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = read_client(&body);
        let _ = read_server(&body);
    }
}
