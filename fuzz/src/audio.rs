//! Audio, from samples to containers.

use std::io::{Seek, Write};

use bytes::Bytes;
use starling_core::audio::PcmReader;
use starling_node::gateway::fuzzing::{self, Heard};
use starling_node::gateway::wav::{MAX_HEAD_BYTES, parse_head};
use starling_protocol::limits::{MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, OPUS_RATES};
use starling_protocol::native::{Encoding, ErrorBody, ErrorCode};

use super::running::block_on;
use super::{pieces, split};

const ENCODINGS: [Encoding; 8] = [
    Encoding::PcmS16le,
    Encoding::PcmU8,
    Encoding::PcmS24le,
    Encoding::PcmS32le,
    Encoding::PcmF32le,
    Encoding::Mulaw,
    Encoding::Alaw,
    Encoding::PcmF64le,
];

/// Samples without a head: the encoding and the number of channels are in the first byte.
pub fn pcm(data: &[u8]) {
    let (choice, rest) = split(data);
    let encoding = ENCODINGS[usize::from(choice) % ENCODINGS.len()];
    let channels = choice / 8 % (MAX_CHANNELS + 1);
    let mut reader = PcmReader::new(encoding, channels);
    let (mut whole, mut cut) = (Vec::new(), Vec::new());
    reader.clone().read(rest, &mut whole);
    let mut other = reader.clone();
    pieces(rest, choice).for_each(|piece| other.read(piece, &mut cut));
    assert!(whole == cut, "depends on how it is cut");
    assert_eq!(whole.len(), rest.len() / reader.frame_bytes() * 2);
    if reader.is_plain() {
        assert!(whole == rest[..rest.len() / 2 * 2]);
    }
    let mut apart = vec![Vec::new(); usize::from(reader.channels())];
    reader.read_apart(rest, &mut apart);
    assert!(apart.iter().all(|channel| channel.len() == whole.len()));
    if let [only] = apart.as_slice() {
        assert!(*only == whole, "one channel is its own mean");
    }
}

/// The head of a WAV. What was said of a beginning is said of all that begins with it.
pub fn wav_head(data: &[u8]) {
    let whole = parse_head(data);
    if let Ok(Some(head)) = &whole {
        assert!((12..=MAX_HEAD_BYTES + 8).contains(&head.data_at) && head.data_at <= data.len());
        assert!((1..=MAX_CHANNELS).contains(&head.format.channels));
        assert!((MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&head.format.sample_rate));
        assert!(head.seconds(data.len() as u64).is_finite());
    }
    let mut at = 0;
    for piece in pieces(data, data.len() as u8) {
        at += piece.len();
        match parse_head(&data[..at]) {
            Ok(None) => {}
            found => {
                assert_eq!(found, whole, "after {at} bytes");
                return;
            }
        }
    }
    assert!(data.is_empty() || whole == Ok(None));
}

/// Opus packets, each behind its length in one byte; rate and channels are in the first.
pub fn opus(data: &[u8]) {
    let (choice, mut rest) = split(data);
    let sample_rate = OPUS_RATES[usize::from(choice) % OPUS_RATES.len()];
    let channels = choice / 5 % 2 + 1;
    let mut packets = Vec::new();
    while let Some((length, tail)) = rest.split_first() {
        let (packet, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        packets.push(packet);
        rest = tail;
    }
    let decoded = fuzzing::opus(sample_rate, channels, &packets).expect("the codec has such audio");
    for packet in &decoded {
        match packet {
            // 120 ms (RFC 6716, section 3.2.5) are the most that a packet has.
            Ok(pcm) => assert!(pcm.len() <= sample_rate as usize * 120 / 1_000 * 2 * usize::from(channels)),
            Err(error) => assert_eq!(error.code, ErrorCode::BadMessage, "{error:?}"),
        }
    }
    let again = fuzzing::opus(sample_rate, channels, &packets).expect("the codec has such audio");
    assert!(decoded == again, "a replay is not the same");
}

/// Bytes are refused for what they are, or are audio of a kind that is taken.
fn checked(heard: &Result<Heard, ErrorBody>) {
    match heard {
        Ok(heard) => {
            assert!((1..=MAX_CHANNELS).contains(&heard.channels), "{heard:?}");
            assert!((MIN_SAMPLE_RATE..=MAX_SAMPLE_RATE).contains(&heard.sample_rate), "{heard:?}");
        }
        Err(error) => assert_ne!(error.code, ErrorCode::Internal, "the decoder fell over: {error:?}"),
    }
}

/// A live stream that says itself what it is, in messages.
pub fn live_audio(data: &[u8]) {
    let (choice, rest) = split(data);
    let apart = choice % 2 == 1;
    let whole = block_on(fuzzing::live_audio(vec![Bytes::copy_from_slice(rest)], apart));
    checked(&whole);
    // In fewer pieces than others: each goes through two threads.
    let size = rest.len() / 8 + usize::from(choice) + 1;
    let cut = rest.chunks(size).map(Bytes::copy_from_slice).collect();
    let cut = block_on(fuzzing::live_audio(cut, apart));
    match (&whole, &cut) {
        (Ok(whole), Ok(cut)) => assert_eq!(whole, cut, "depends on how it is cut"),
        // How much there was of it may be said differently.
        (Err(_), Err(_)) => {}
        (whole, cut) => panic!("depends on how it is cut: {whole:?}, {cut:?}"),
    }
}

/// A recording in a file, which its decoder reads back and forth.
pub fn recording(data: &[u8]) {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(data).and_then(|()| file.rewind()).expect("is written");
    checked(&block_on(fuzzing::recording(file)));
}
