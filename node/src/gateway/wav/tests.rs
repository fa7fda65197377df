use proptest::prelude::*;

use super::*;

fn recording(channels: u16, sample_rate: u32, bits: u16, samples: usize) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels,
        sample_rate,
        bits_per_sample: bits,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut file, spec).expect("begins");
    for sample in 0..samples * usize::from(channels) {
        writer.write_sample((sample % 100) as i16).expect("writes");
    }
    writer.finalize().expect("ends");
    file.into_inner()
}

fn field(bytes: &[u8]) -> (Option<String>, Option<String>) {
    let error = parse_head(bytes).expect_err("must be refused");
    (error.field, error.value)
}

#[test]
fn what_another_library_wrote_is_read_byte_for_byte() {
    let bytes = recording(1, 44_100, 16, 500);
    let head = parse_head(&bytes).expect("is fine").expect("is whole");
    assert_eq!((head.format.sample_rate, head.data_bytes), (44_100, Some(1_000)));
    assert_eq!(bytes.len() - head.data_at, 1_000);
}

#[test]
fn other_kinds_are_named() {
    let named = |field: &str, value: &str| (Some(field.to_owned()), Some(value.to_owned()));
    assert_eq!(field(b"RIFX\0\0\0\x24WAVE"), named("body", "a RIFX file, whose samples are big endian"));
    assert_eq!(field(&recording(9, 16_000, 16, 5)), named("wav.channels", "9"));
    assert_eq!(field(&recording(1, 96_000, 16, 5)), named("wav.sample_rate", "96000"));
    let mut odd = recording(1, 16_000, 16, 5);
    odd[34] = 12;
    assert_eq!(field(&odd), named("wav.bits_per_sample", "12"));
    assert_eq!(field(b"OggS\0\x02"), named("body", "no WAV recording"));
    assert_eq!(field(b"RIFF\0\0\0\0AVI "), named("body", "no WAV recording"));
    let mut adpcm = recording(1, 16_000, 16, 5);
    adpcm[20] = 2;
    assert_eq!(field(&adpcm), named("wav.encoding", "format 2"));
}

#[test]
fn every_encoding_that_is_taken_is_known_by_its_tag_and_size() {
    let encoding = |tag: u8, bits: u8| {
        let mut bytes = recording(2, 8_000, 16, 5);
        (bytes[20], bytes[34]) = (tag, bits);
        parse_head(&bytes).expect("is fine").expect("is whole").format
    };
    for (tag, bits, expected) in [
        (1, 8, Encoding::PcmU8),
        (1, 16, Encoding::PcmS16le),
        (1, 24, Encoding::PcmS24le),
        (1, 32, Encoding::PcmS32le),
        (3, 32, Encoding::PcmF32le),
        (3, 64, Encoding::PcmF64le),
        (6, 8, Encoding::Alaw),
        (7, 8, Encoding::Mulaw),
    ] {
        let format = AudioFormat { encoding: expected, sample_rate: 8_000, channels: 2 };
        assert_eq!(encoding(tag, bits), format, "{tag} {bits}");
    }
}

#[test]
fn what_another_library_wrote_in_other_encodings_gives_its_samples() {
    for (bits, channels) in [(8, 1), (24, 1), (24, 2), (32, 3)] {
        let bytes = recording(channels, 16_000, bits, 50);
        let head = parse_head(&bytes).expect("is fine").expect("is whole");
        let mut samples = Vec::new();
        head.reader().read(&bytes[head.data_at..], &mut samples);
        assert_eq!(samples.len(), 100, "{bits} bits, {channels} channels");
    }
}

#[test]
fn a_length_that_the_writer_did_not_know_is_none() {
    for length in [0, u32::MAX] {
        let mut bytes = recording(1, 8_000, 16, 5);
        bytes[40..44].copy_from_slice(&length.to_le_bytes());
        assert_eq!(parse_head(&bytes).expect("fine").expect("whole").data_bytes, None);
    }
}

/// A recording whose lengths are in a chunk of their own, as writers have it that do not know how long it will be.
fn with_long_lengths(kind: &[u8; 4], data_length: u64) -> Vec<u8> {
    let mut bytes = recording(1, 8_000, 16, 5);
    bytes[..4].copy_from_slice(kind);
    bytes[4..8].copy_from_slice(&[0xFF; 4]);
    bytes[40..44].copy_from_slice(&[0xFF; 4]);
    let mut chunk = b"ds64\x1C\0\0\0".to_vec();
    chunk.extend([(data_length.wrapping_add(72)).to_le_bytes(), data_length.to_le_bytes()].concat());
    chunk.extend([0; 12]);
    bytes.splice(12..12, chunk);
    bytes
}

#[test]
fn a_recording_of_over_4_gib_says_its_length_elsewhere() {
    for kind in [b"RF64", b"BW64"] {
        assert!(is_wav(kind));
        for length in [10, 5 << 32] {
            let bytes = with_long_lengths(kind, length);
            let head = parse_head(&bytes).expect("fine").expect("whole");
            assert_eq!((head.data_at, head.data_bytes), (80, Some(length)));
            for cut in 0..80 {
                assert_eq!(parse_head(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
        for unknown in [0, u64::MAX] {
            let bytes = with_long_lengths(kind, unknown);
            assert_eq!(parse_head(&bytes).expect("fine").expect("whole").data_bytes, None);
        }
    }
    let mut short = with_long_lengths(b"RF64", 10);
    short[16] = 8;
    assert_eq!(field(&short).1.as_deref(), Some("no WAV recording"));
}

#[test]
fn chunks_before_the_samples_are_passed_over_and_a_head_without_end_is_refused() {
    let bytes = recording(1, 8_000, 16, 5);
    let with_chunk = |length: u32| {
        let mut longer = bytes[..36].to_vec();
        longer.extend_from_slice(b"LIST");
        longer.extend_from_slice(&length.to_le_bytes());
        longer.resize(longer.len() + (length + length % 2) as usize, 7);
        longer.extend_from_slice(&bytes[36..]);
        longer
    };
    let head = parse_head(&with_chunk(11)).expect("fine").expect("whole");
    assert_eq!(head.data_at, 44 + 8 + 12);
    assert!(parse_head(&with_chunk(MAX_HEAD_BYTES as u32)).is_err());
}

proptest! {
    #[test]
    fn any_beginning_of_a_recording_wants_more_and_no_bytes_make_it_panic(
        cut in 0usize..44, garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = recording(1, 16_000, 16, 5);
        prop_assert_eq!(parse_head(&bytes[..cut]).expect("so far fine"), None);
        let _ = parse_head(&garbage);
        let mut spoilt = bytes;
        for (at, byte) in garbage.iter().enumerate().take(32) {
            let place = 12 + at;
            spoilt[place] = *byte;
        }
        let _ = parse_head(&spoilt);
    }
}
