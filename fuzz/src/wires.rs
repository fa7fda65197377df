//! Streams of bytes that clients send: frames over bare TCP, and over QUIC.

use std::fmt::Debug;

use starling_protocol::audiosocket::{self, hangup, silence};
use starling_protocol::limits::{MAX_CLIENT_MESSAGE_BYTES, MAX_PHRASES};
use starling_protocol::native::stream::{
    FRAME_HEAD_BYTES, Frame, StreamReader, encode_audio, encode_message, read_client, read_server,
};
use starling_protocol::native::{ClientMessage, ErrorBody};
use starling_protocol::wire::WireReader;
use starling_protocol::wyoming::{self, Request, parse_request};

use super::texts::{checked, in_range};
use super::{pieces, split};

/// The frames of a stream that comes in pieces, and how it ended.
fn read<R: WireReader + Default>(
    parts: impl Iterator<Item: AsRef<[u8]>>,
) -> (Vec<R::Frame>, Option<ErrorBody>) {
    let (mut reader, mut frames) = (R::default(), Vec::new());
    for part in parts {
        reader.push(part.as_ref());
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// The same frames however the bytes are cut; a stream that is none says why.
fn stream<R: WireReader<Frame: PartialEq + Debug> + Default>(seed: u8, data: &[u8]) -> Vec<R::Frame> {
    let whole = read::<R>(std::iter::once(data));
    assert_eq!(read::<R>(pieces(data, seed)), whole, "depends on how it is cut");
    let (frames, end) = whole;
    if let Some(error) = &end {
        checked(error, data.len());
    }
    frames
}

/// Events of a Wyoming client, and what they ask for.
pub fn wyoming(data: &[u8]) {
    let events = stream::<wyoming::EventReader>(data.len() as u8, data);
    let payloads: usize = events.iter().map(|event| event.payload.len() + event.kind.len()).sum();
    assert!(payloads <= data.len(), "{payloads} bytes of audio in {}", data.len());
    for event in events {
        let (kind, came) = (event.kind.clone(), event.payload.clone());
        match parse_request(event) {
            Ok(Request::AudioStart(format)) => in_range(format),
            Ok(Request::AudioChunk { format, audio }) => {
                in_range(format);
                assert_eq!(audio, came);
            }
            Ok(Request::Ping { text }) => {
                let told = wyoming::pong_event(text.as_deref());
                let (events, end) = read::<wyoming::EventReader>(std::iter::once(told));
                assert!(events.len() == 1 && end.is_none(), "{text:?} comes back as {events:?}, {end:?}");
                assert_eq!(events[0].data.get("text").and_then(|text| text.as_str()), text.as_deref());
            }
            Ok(Request::Transcribe { model, language }) => {
                assert!(model.is_none_or(|name| !name.is_empty()));
                assert!(language.is_none_or(|tag| !tag.is_empty()));
            }
            Ok(Request::Other(other)) => assert_eq!(other, kind),
            Ok(Request::Describe | Request::AudioStop) => {}
            Err(error) => checked(&error, data.len()),
        }
    }
}

/// Frames of an Asterisk's `AudioSocket`.
pub fn audiosocket(data: &[u8]) {
    use audiosocket::{Frame, FrameReader};
    let frames = stream::<FrameReader>(data.len() as u8, data);
    assert!(3 * frames.len() <= data.len());
    for frame in frames {
        match frame {
            Frame::Audio { rate, pcm } => {
                assert!(pcm.len() <= usize::from(u16::MAX));
                // What goes back is of the same rate.
                let (back, end) = read::<FrameReader>(std::iter::once(silence(rate)));
                assert_eq!((back.len(), end), (1, None));
                let quiet =
                    |frame: &Frame| matches!(frame, Frame::Audio { rate: other, .. } if *other == rate);
                assert!(back.iter().all(quiet));
            }
            Frame::Dtmf(digit) => assert!(digit.is_ascii_graphic()),
            Frame::Hangup => {
                assert_eq!(read::<FrameReader>(std::iter::once(hangup())), (vec![Frame::Hangup], None));
            }
            Frame::Call(_) | Frame::Error(_) | Frame::Other(_) => {}
        }
    }
}

/// A frame, out of its reader.
#[derive(Debug, Clone, PartialEq)]
enum Held {
    Message(Vec<u8>),
    Audio(Vec<u8>),
}

/// The frames of a native stream, and how it ended.
fn native(parts: impl Iterator<Item: AsRef<[u8]>>) -> (Vec<Held>, Option<String>) {
    let (mut reader, mut frames) = (StreamReader::of_client(), Vec::new());
    for part in parts {
        reader.push(part.as_ref());
        loop {
            match reader.next() {
                Ok(Some(Frame::Message(body))) => frames.push(Held::Message(body.to_vec())),
                Ok(Some(Frame::Audio(samples))) => frames.push(Held::Audio(samples.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string())),
            }
        }
    }
    let end = reader.is_within_frame().then(|| "within a frame".to_owned());
    (frames, end)
}

/// The native protocol on a stream of QUIC or `WebTransport`, from a client (the first byte is even) or from a server.
pub fn native_frames(data: &[u8]) {
    let (choice, rest) = split(data);
    let whole = native(std::iter::once(rest));
    assert_eq!(native(pieces(rest, choice)), whole, "depends on how it is cut");
    let (frames, _) = whole;
    let mut written = Vec::new();
    for frame in &frames {
        match frame {
            Held::Audio(samples) => encode_audio(samples, &mut written),
            Held::Message(body) if choice % 2 == 0 => client_message(body),
            Held::Message(body) => server_message(body),
        }
    }
    let audio = frames.into_iter().filter(|frame| matches!(frame, Held::Audio(_)));
    assert_eq!(native(std::iter::once(written)), (audio.collect(), None), "is not read as it was written");
}

/// The body of a frame as it is written, without its head.
fn body(message: &impl serde::Serialize) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_message(message, &mut frame).expect("is written");
    frame.split_off(FRAME_HEAD_BYTES)
}

fn client_message(bytes: &[u8]) {
    assert!(bytes.len() <= MAX_CLIENT_MESSAGE_BYTES);
    match read_client(bytes) {
        Ok(message) => {
            if let ClientMessage::Hello(hello) = &message {
                in_range(hello.format);
                assert!(hello.options.phrases.len() <= MAX_PHRASES);
            }
            assert_eq!(read_client(&body(&message)).expect("is read again"), message);
        }
        Err(error) => checked(&error.0, bytes.len()),
    }
}

fn server_message(bytes: &[u8]) {
    match read_server(bytes) {
        Ok(message) => {
            let written = body(&message);
            let again = read_server(&written).expect("is read again");
            // As bytes: a number may be none.
            assert_eq!(body(&again), written);
        }
        Err(problem) => assert!(!problem.is_empty()),
    }
}
