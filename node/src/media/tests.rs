use std::io::{Seek, Write};

use proptest::prelude::*;
use starling_core::audio::PcmReader;
use starling_protocol::native::Encoding;

use super::*;

const FLAC: &[u8] = include_bytes!("../../tests/recordings/sweep.flac");
const MP3: &[u8] = include_bytes!("../../tests/recordings/sweep.mp3");
const OGG: &[u8] = include_bytes!("../../tests/recordings/sweep.ogg");
const AAC: &[u8] = include_bytes!("../../tests/recordings/sweep.aac");
const M4A: &[u8] = include_bytes!("../../tests/recordings/sweep.m4a");
const OPUS: &[u8] = include_bytes!("../../tests/recordings/sweep.opus");
const WEBM: &[u8] = include_bytes!("../../tests/recordings/sweep.webm");
const M4A_INDEX_FIRST: &[u8] = include_bytes!("../../tests/recordings/sweep-faststart.m4a");

/// The recordings' sound: a second that rises from 200 Hz, twice as loud on the left.
fn sweep() -> Vec<i16> {
    let frame = |index: u32| {
        let time = f64::from(index) / 16_000.0;
        let value = (2.0 * std::f64::consts::PI * (200.0 + 300.0 * time) * time).sin();
        let (left, right) = ((12_000.0 * value) as i32, (6_000.0 * value) as i32);
        (left + right).div_euclid(2) as i16
    };
    (0..16_000).map(frame).collect()
}

async fn by_stream(bytes: &[u8], piece: usize) -> Result<(u32, Vec<i16>), ErrorBody> {
    let (sender, source) = stream();
    let pieces: Vec<Bytes> = bytes.chunks(piece).map(Bytes::copy_from_slice).collect();
    tokio::spawn(async move {
        for piece in pieces {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    all(decompress(source).await?).await
}

async fn by_file(bytes: &[u8]) -> Result<(u32, Vec<i16>), ErrorBody> {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).and_then(|()| file.rewind()).expect("written");
    all(decompress(Compressed::File(file)).await?).await
}

async fn all(mut decompressed: Decompressed) -> Result<(u32, Vec<i16>), ErrorBody> {
    let mut reader = PcmReader::new(Encoding::PcmS16le, decompressed.channels);
    let mut mono = Vec::new();
    while let Some(piece) = decompressed.next().await {
        reader.read(&piece?, &mut mono);
    }
    let samples = mono.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect();
    Ok((decompressed.sample_rate, samples))
}

/// How alike two sounds are, 1 at the most, wherever the second begins within an encoder's delay.
fn likeness(expected: &[i16], heard: &[i16]) -> f64 {
    let product = |one: &[i16], other: &[i16]| -> f64 {
        one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let best = (0..2_600.min(heard.len())).map(|delay| {
        let (heard, expected) = (&heard[delay..], &expected[..expected.len().min(heard.len() - delay)]);
        let heard = &heard[..expected.len()];
        product(expected, heard) / (product(expected, expected) * product(heard, heard)).sqrt()
    });
    best.fold(0.0, f64::max)
}

#[tokio::test]
async fn what_loses_nothing_gives_the_very_samples() {
    for piece in [1, 700, FLAC.len()] {
        let (sample_rate, samples) = by_stream(FLAC, piece).await.expect("is decoded");
        assert_eq!(sample_rate, 16_000);
        assert!(samples == sweep(), "in pieces of {piece}");
    }
}

#[tokio::test]
async fn what_loses_something_gives_the_sound() {
    for (name, bytes) in [("mp3", MP3), ("ogg", OGG), ("aac", AAC), ("m4a, index first", M4A_INDEX_FIRST)] {
        let (sample_rate, samples) =
            by_stream(bytes, 700).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(sample_rate, 16_000, "{name}");
        assert!((15_000..20_000).contains(&samples.len()), "{name}: {} samples", samples.len());
        let likeness = likeness(&sweep(), &samples);
        assert!(likeness > 0.95, "{name}: {likeness}");
    }
}

#[tokio::test]
async fn opus_is_decoded_from_where_its_sound_begins_to_where_it_ends() {
    // Each sample thrice: 16 kHz as it is at 48.
    let expected: Vec<i16> = sweep().into_iter().flat_map(|sample| [sample; 3]).collect();
    for (name, bytes) in [("ogg", OPUS), ("webm", WEBM)] {
        for piece in [100, bytes.len()] {
            let (sample_rate, samples) = by_stream(bytes, piece).await.expect(name);
            assert_eq!(sample_rate, 48_000, "{name}");
            assert!(samples.len().abs_diff(48_000) < 1_000, "{name}: {} samples", samples.len());
            let likeness = likeness(&expected, &samples);
            assert!(likeness > 0.95, "{name}: {likeness}");
        }
    }
}

#[tokio::test]
async fn channels_stay_as_they_are() {
    let (sender, source) = stream();
    sender.send(Bytes::from_static(FLAC)).await.expect("taken");
    drop(sender);
    let mut decompressed = decompress(source).await.expect("begins");
    assert_eq!(decompressed.channels, 2);
    let piece = decompressed.next().await.expect("samples").expect("fine");
    let loudest = |channel: usize| {
        let samples = piece.chunks_exact(4).map(|frame| &frame[2 * channel..][..2]);
        samples.map(|sample| i16::from_le_bytes([sample[0], sample[1]]).unsigned_abs()).max()
    };
    assert!(loudest(0) > loudest(1));
}

#[tokio::test]
async fn an_mp4_with_its_index_at_the_end_is_read_from_a_file() {
    let (_, samples) = by_file(M4A).await.expect("is decoded");
    assert!(likeness(&sweep(), &samples) > 0.95);
}

#[tokio::test]
async fn what_is_no_recording_is_named() {
    let nothing = vec![7; 40_000];
    for bytes in [&b""[..], b"OggS nothing that is known here", &nothing] {
        let error = by_stream(bytes, 700).await.expect_err("is refused");
        assert_eq!(error.field.as_deref(), Some("body"));
        assert_eq!(error.allowed.as_deref(), Some(KNOWN));
    }
}

#[tokio::test]
async fn a_transfer_that_breaks_off_ends_where_it_did() {
    for (name, bytes) in [("flac", FLAC), ("mp3", MP3), ("aac", AAC)] {
        let (_, samples) = by_stream(&bytes[..bytes.len() * 3 / 4], 700).await.expect(name);
        assert!((4_000..14_500).contains(&samples.len()), "{name}: {} samples", samples.len());
    }
}

/// A FLAC of this many frames (RFC 9639), each of which is 65535 samples of one value at 8 kHz: 8 s in 14 bytes.
fn flac_of_nothing(frames: u8) -> Vec<u8> {
    let crc = |bytes: &[u8], polynomial: u16, bits: u32| {
        bytes.iter().fold(0u16, |crc, byte| {
            (0..8).fold(crc ^ (u16::from(*byte) << (bits - 8)), |crc, _| {
                let (top, shifted) = (crc & (1 << (bits - 1)), crc << 1);
                (if top == 0 { shifted } else { shifted ^ polynomial }) & (u16::MAX >> (16 - bits))
            })
        })
    };
    let mut flac = b"fLaC\x80\0\0\x22".to_vec();
    flac.extend([0xFF; 4]);
    flac.extend([0; 6]);
    // 8000 in 20 bits, one channel in 3, 16 bits a sample in 5; how many there are, and their digest, is not known.
    flac.extend([0x01, 0xF4, 0x00, 0xF0]);
    flac.extend([0; 4 + 16]);
    for number in 0..frames {
        let mut frame = vec![0xFF, 0xF8, 0x74, 0x08, number, 0xFF, 0xFE];
        frame.push(crc(&frame, 0x07, 8) as u8);
        frame.extend([0x00, 0x00, 0x07]);
        frame.extend(crc(&frame, 0x8005, 16).to_be_bytes());
        flac.extend(frame);
    }
    flac
}

#[tokio::test]
async fn what_holds_more_than_speech_can_is_not_decoded_to_its_end() {
    let bomb = flac_of_nothing(100);
    let (sample_rate, samples) = by_stream(&bomb[..42 + 3 * 13], 700).await.expect("is decoded");
    assert_eq!((sample_rate, samples.len()), (8_000, 3 * 65_535));
    let after_an_hour = |bytes: &'static [u8]| async move {
        let (sender, source) = stream();
        sender.send(Bytes::from_static(bytes)).await.expect("taken");
        drop(sender);
        let (source, mut measure) = source.opened(&mpsc::channel(1).0);
        measure.hear(3_600 * 8_000, 8_000).expect("an hour is free");
        let (pieces, mut decoded) = mpsc::channel(1_000);
        let (head, _begun) = oneshot::channel();
        let ended = tokio::task::spawn_blocking(move || decode(source, measure, &pieces, head));
        let ended = ended.await.expect("no panic");
        let mut count = 0;
        while decoded.recv().await.is_some() {
            count += 1;
        }
        (ended, count)
    };
    let (ended, count) = after_an_hour(bomb.leak()).await;
    let Err(Stop::Failed(error)) = ended else { panic!("it is decoded to its end") };
    assert_eq!(error.code, ErrorCode::SessionTooLong, "{error:?}");
    assert!(count < 10, "{count} pieces");
    assert!(after_an_hour(FLAC).await.0.is_ok(), "speech goes on");
}

#[tokio::test]
async fn whoever_wants_no_more_leaves_no_thread_behind() {
    let (sender, source) = stream();
    sender.send(Bytes::from_static(FLAC)).await.expect("taken");
    let decompressed = decompress(source).await.expect("begins");
    drop(decompressed);
    // The thread ends at its next piece, and with it the other end of this.
    let endless = async { while sender.send(Bytes::from_static(&FLAC[4_000..])).await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), endless).await.expect("ends");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn damage_is_an_error_or_less_sound_and_never_a_panic(
        which in 0usize..7, spoilt in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..40),
    ) {
        let mut bytes = [FLAC, MP3, OGG, AAC, M4A, OPUS, WEBM][which].to_vec();
        for (place, value) in spoilt {
            let place = usize::from(place) % bytes.len();
            bytes[place] = value;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let decoded = runtime.block_on(async {
            let work = async { if which == 4 { by_file(&bytes).await } else { by_stream(&bytes, 700).await } };
            tokio::time::timeout(std::time::Duration::from_secs(20), work).await
        });
        let decoded = decoded.map_err(|_| TestCaseError::fail("it hangs"))?;
        let fell_over = decoded.is_err_and(|error| error.code == ErrorCode::Internal);
        prop_assert!(!fell_over, "it panics");
    }
}
