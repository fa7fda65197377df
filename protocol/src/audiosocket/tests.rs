use proptest::prelude::*;

use super::*;
use crate::native::ErrorCode;
use crate::wire::tests::read_in_pieces;
use crate::{CutCause, Segment};

const CALL: &str = "40325ec2-5efd-4bd3-805f-53576e581d13";

fn call() -> SessionId {
    SessionId::parse(CALL).expect("a UUID")
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("fits");
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

fn one(kind: u8, payload: &[u8]) -> Frame {
    let (mut frames, error) = read_in_pieces(FrameReader::default(), &frame(kind, payload), &[]);
    assert_eq!((frames.len(), error), (1, None));
    frames.remove(0)
}

#[test]
fn each_type_is_what_the_documentation_says() {
    assert_eq!(one(0x00, &[]), Frame::Hangup);
    assert_eq!(one(0x01, call().0.as_bytes()), Frame::Call(call()));
    assert_eq!(one(0x03, b"5"), Frame::Dtmf('5'));
    assert_eq!(one(0x03, b"#"), Frame::Dtmf('#'));
    assert_eq!(one(0xFF, &[1]), Frame::Error(Some(1)));
    assert_eq!(one(0xFF, &[]), Frame::Error(None));
    let rates = [8_000, 12_000, 16_000, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];
    for (kind, rate) in (0x10..).zip(rates) {
        assert_eq!(one(kind, &[1, 2]), Frame::Audio { rate, pcm: vec![1, 2] });
    }
}

#[test]
fn what_is_not_known_is_passed_over() {
    assert_eq!(one(0x02, &[1, b'5', 0, 0, 0, 0]), Frame::Other(0x02));
    assert_eq!(one(0x19, &[0; 9]), Frame::Other(0x19));
    assert_eq!(one(0x03, &[]), Frame::Other(0x03));
    assert_eq!(one(0x03, &[7]), Frame::Other(0x03), "no key makes that");
}

#[test]
fn a_uuid_of_another_length_is_none() {
    let (frames, error) = read_in_pieces(FrameReader::default(), &frame(0x01, CALL.as_bytes()), &[]);
    assert!(frames.is_empty());
    let error = error.expect("is refused");
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert_eq!(error.message, "the call's UUID (type 0x01) is 36 bytes long; it must be 16 bytes long");
}

#[test]
fn silence_is_20_ms_in_the_type_of_its_rate() {
    for (kind, rate) in (0x10..).zip(RATES) {
        let Frame::Audio { rate: told, pcm } = one(kind, &silence(rate)[HEADER_BYTES..]) else {
            panic!("audio")
        };
        assert_eq!((told, pcm.len()), (rate, rate as usize / 50 * 2));
        assert_eq!(silence(rate), frame(kind, &pcm));
    }
    assert_eq!(silence(11_025), silence(8_000));
    assert_eq!(hangup().to_vec(), frame(0x00, &[]));
}

#[test]
fn events_are_lines_of_json() {
    let last = Final {
        segment: Segment(0),
        from: SourceOffset(0),
        to: SourceOffset(8_000),
        start: 0.0,
        end: 1.0,
        cause: CutCause::Endpoint,
        text: "hello\nthere".to_owned(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    };
    let error = ErrorBody::new(ErrorCode::Busy, "all slots are in use");
    let events = [
        CallEvent::Begin { call: call(), model: "m", sample_rate: 8_000 },
        CallEvent::Final(&last),
        CallEvent::Dtmf { digit: '5' },
        CallEvent::Missed { events: 3 },
        CallEvent::Done { segments: 1, frames: SourceOffset(8_000) },
        CallEvent::Error(&error),
    ];
    let told: Vec<String> = events.iter().map(CallEvent::to_json).collect();
    insta::assert_snapshot!(told.join("\n"));
    assert!(told.iter().all(|line| !line.contains('\n')));
    assert_eq!(events.map(|event| event.is_last()), [false, false, false, false, true, true]);
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..400);
    let kinds = prop_oneof![Just(0x00), Just(0x03), Just(0x10), Just(0x12), Just(0xFF), Just(0x77)];
    let any_frame = (kinds, payload).prop_map(|(kind, payload)| frame(kind, &payload));
    let id = any::<[u8; 16]>().prop_map(|id| frame(0x01, &id));
    proptest::collection::vec(prop_oneof![4 => any_frame, 1 => id], 0..12)
        .prop_map(|frames: Vec<Vec<u8>>| frames.concat())
}

proptest! {
    #[test]
    fn where_bytes_are_cut_makes_no_difference(
        bytes in frames(), cuts in proptest::collection::vec(1usize..300, 0..40),
    ) {
        let at_once = read_in_pieces(FrameReader::default(), &bytes, &[]);
        prop_assert!(at_once.1.is_none());
        prop_assert_eq!(read_in_pieces(FrameReader::default(), &bytes, &cuts), at_once);
    }

    #[test]
    fn no_bytes_do_harm(
        bytes in proptest::collection::vec(any::<u8>(), 0..2_000), cuts in proptest::collection::vec(1usize..50, 0..40),
    ) {
        let at_once = read_in_pieces(FrameReader::default(), &bytes, &[]);
        prop_assert_eq!(read_in_pieces(FrameReader::default(), &bytes, &cuts), at_once);
    }
}
