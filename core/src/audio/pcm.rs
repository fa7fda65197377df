//! From a client's samples, however they are encoded and on however many channels, to mono 16-bit PCM.
//!
//! Owns: the arithmetic of each encoding and of mixing down, and frames that came in part. Must never: depend on how the bytes
//! were cut into messages, or on the machine: a recording gives the same samples wherever it is decoded.

use starling_protocol::native::Encoding;

/// Turns the bytes of one stream into mono PCM16, little endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcmReader {
    encoding: Encoding,
    channels: u8,
    /// The beginning of a frame that has not come in full.
    partial: Vec<u8>,
}

impl PcmReader {
    /// For audio of this encoding, with its channels interleaved; zero channels are taken for one.
    #[must_use]
    pub fn new(encoding: Encoding, channels: u8) -> Self {
        Self { encoding, channels: channels.max(1), partial: Vec::new() }
    }

    /// Bytes of one frame: a sample of each channel.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        sample_bytes(self.encoding) * usize::from(self.channels)
    }

    /// Whether the bytes are mono PCM16 as they come, so that there is nothing to do.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.encoding == Encoding::PcmS16le && self.channels == 1
    }

    /// How many channels are interleaved.
    #[must_use]
    pub fn channels(&self) -> u8 {
        self.channels
    }

    /// Takes bytes, cut anywhere, and appends the mono PCM16 of all frames that are whole by now.
    pub fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let (encoding, channels) = (self.encoding, i32::from(self.channels));
        out.reserve(2 * (bytes.len() / self.frame_bytes()));
        self.frames(bytes, |frame| {
            let samples = frame.chunks_exact(sample_bytes(encoding));
            let sum: i32 = samples.map(|sample| i32::from(decoded(encoding, sample))).sum();
            // Halves go down on either side of zero, so that a constant offset stays one.
            let mean = sum.div_euclid(channels);
            // A mean lies between its samples.
            out.extend_from_slice(&(mean as i16).to_le_bytes());
        });
    }

    /// The same with the channels kept apart: appends each one's PCM16 to the buffer at its place. Channels without a buffer
    /// are left out.
    pub fn read_apart(&mut self, bytes: &[u8], out: &mut [Vec<u8>]) {
        let encoding = self.encoding;
        self.frames(bytes, |frame| {
            for (sample, out) in frame.chunks_exact(sample_bytes(encoding)).zip(out.iter_mut()) {
                out.extend_from_slice(&decoded(encoding, sample).to_le_bytes());
            }
        });
    }

    /// Hands on the frames that are whole by now.
    fn frames(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let frame = self.frame_bytes();
        let mut rest = bytes;
        if !self.partial.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(frame - self.partial.len()));
            self.partial.extend_from_slice(head);
            rest = tail;
            if self.partial.len() < frame {
                return;
            }
            each(&self.partial);
            self.partial.clear();
        }
        let frames = rest.chunks_exact(frame);
        self.partial.extend_from_slice(frames.remainder());
        frames.for_each(each);
    }
}

/// Bytes of one sample.
const fn sample_bytes(encoding: Encoding) -> usize {
    match encoding {
        Encoding::PcmU8 | Encoding::Mulaw | Encoding::Alaw => 1,
        Encoding::PcmS24le => 3,
        Encoding::PcmS32le | Encoding::PcmF32le => 4,
        Encoding::PcmF64le => 8,
        // 16 bit, and what a later protocol may add until it is added here.
        _ => 2,
    }
}

fn decoded(encoding: Encoding, sample: &[u8]) -> i16 {
    match (encoding, sample) {
        (Encoding::PcmU8, &[byte]) => (i16::from(byte) - 128) << 8,
        (Encoding::Mulaw, &[byte]) => mulaw(byte),
        (Encoding::Alaw, &[byte]) => alaw(byte),
        (Encoding::PcmS24le, &[_, low, high]) => i16::from_le_bytes([low, high]),
        (Encoding::PcmS32le, &[_, _, low, high]) => i16::from_le_bytes([low, high]),
        (Encoding::PcmF32le, &[a, b, c, d]) => float(f32::from_le_bytes([a, b, c, d]).into()),
        (Encoding::PcmF64le, sample) => {
            sample.try_into().map_or(0, |sample| float(f64::from_le_bytes(sample)))
        }
        (_, &[low, high]) => i16::from_le_bytes([low, high]),
        // Samples are cut to their size above.
        _ => 0,
    }
}

/// Full scale is 1; beyond it is clipped, and what is no number is silence.
fn float(sample: f64) -> i16 {
    // The conversion saturates, and takes NaN for 0.
    (sample * 32_768.0).round_ties_even() as i16
}

/// ITU-T G.711, table 2a: 14 bits, here in the upper bits of 16.
const fn mulaw(code: u8) -> i16 {
    let code = !code;
    let (exponent, mantissa) = ((code >> 4) & 7, (code & 15) as i16);
    let magnitude = (((mantissa << 3) + 0x84) << exponent) - 0x84;
    if code & 0x80 == 0 { magnitude } else { -magnitude }
}

/// ITU-T G.711, table 1a: 13 bits, here in the upper bits of 16.
const fn alaw(code: u8) -> i16 {
    let code = code ^ 0x55;
    let (exponent, mantissa) = ((code >> 4) & 7, ((code & 15) as i16) << 4);
    let magnitude = match exponent {
        0 => mantissa + 8,
        _ => (mantissa + 0x108) << (exponent - 1),
    };
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use starling_protocol::limits::MAX_CHANNELS;

    use super::*;

    fn read(encoding: Encoding, channels: u8, bytes: &[u8]) -> Vec<i16> {
        let mut out = Vec::new();
        PcmReader::new(encoding, channels).read(bytes, &mut out);
        out.chunks_exact(2).map(|sample| i16::from_le_bytes([sample[0], sample[1]])).collect()
    }

    #[test]
    fn the_encodings_of_g711_are_its_tables() {
        // The ends of each table, the smallest values of either sign, and two from the middle.
        let mulaw = [
            (0x00, -32_124),
            (0x80, 32_124),
            (0x7F, 0),
            (0xFF, 0),
            (0xFE, 8),
            (0x7E, -8),
            (0xA0, 7_932),
            (0xC0, 1_884),
        ];
        for (code, sample) in mulaw {
            assert_eq!(read(Encoding::Mulaw, 1, &[code]), [sample], "mu-law {code:#x}");
        }
        let alaw = [(0x2A, -32_256), (0xAA, 32_256), (0xD5, 8), (0x55, -8), (0x80, 5_504), (0xC5, 264)];
        for (code, sample) in alaw {
            assert_eq!(read(Encoding::Alaw, 1, &[code]), [sample], "A-law {code:#x}");
        }
    }

    #[test]
    fn linear_encodings_keep_their_upper_bits() {
        assert_eq!(read(Encoding::PcmU8, 1, &[0, 128, 255]), [-32_768, 0, 32_512]);
        assert_eq!(read(Encoding::PcmS16le, 1, &[1, 2, 255, 255]), [0x0201, -1]);
        assert_eq!(read(Encoding::PcmS24le, 1, &[9, 1, 2, 0, 0, 0x80]), [0x0201, -32_768]);
        assert_eq!(read(Encoding::PcmS32le, 1, &[9, 9, 1, 2]), [0x0201]);
    }

    #[test]
    fn floats_are_clipped_and_what_is_no_number_is_silence() {
        let floats = [0.0, 1.0, -1.0, 7.0, -7.0, 0.5, f32::NAN, f32::INFINITY];
        let bytes: Vec<u8> = floats.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let samples = [0, 32_767, -32_768, 32_767, -32_768, 16_384, 0, 32_767];
        assert_eq!(read(Encoding::PcmF32le, 1, &bytes), samples);
        let bytes: Vec<u8> = floats.iter().flat_map(|sample| f64::from(*sample).to_le_bytes()).collect();
        assert_eq!(read(Encoding::PcmF64le, 1, &bytes), samples);
    }

    #[test]
    fn channels_are_mixed_to_their_mean() {
        let bytes: Vec<u8> =
            [100i16, 200, -1, 0, i16::MIN, i16::MIN].iter().flat_map(|sample| sample.to_le_bytes()).collect();
        assert_eq!(read(Encoding::PcmS16le, 2, &bytes), [150, -1, i16::MIN]);
    }

    #[test]
    fn channels_without_a_buffer_are_left_out() {
        let mut out = [Vec::new()];
        PcmReader::new(Encoding::PcmU8, 3).read_apart(&[255, 0, 0, 128, 1, 2, 9], &mut out);
        assert_eq!(out, [vec![0, 127, 0, 0]]);
    }

    fn encodings() -> impl Strategy<Value = Encoding> {
        prop_oneof![
            Just(Encoding::PcmS16le),
            Just(Encoding::PcmU8),
            Just(Encoding::PcmS24le),
            Just(Encoding::PcmS32le),
            Just(Encoding::PcmF32le),
            Just(Encoding::PcmF64le),
            Just(Encoding::Mulaw),
            Just(Encoding::Alaw),
        ]
    }

    proptest! {
        #[test]
        fn where_bytes_are_cut_makes_no_difference(
            encoding in encodings(), channels in 1..=MAX_CHANNELS,
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cuts in proptest::collection::vec(0usize..60, 0..30),
        ) {
            let mut reader = PcmReader::new(encoding, channels);
            let (mut out, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                reader.read(piece, &mut out);
                rest = tail;
            }
            reader.read(rest, &mut out);
            let mut at_once = Vec::new();
            PcmReader::new(encoding, channels).read(&bytes, &mut at_once);
            prop_assert_eq!(out.len() / 2, bytes.len() / reader.frame_bytes());
            prop_assert_eq!(out, at_once);
        }

        #[test]
        fn channels_that_are_kept_apart_are_those_that_are_mixed(
            encoding in encodings(), channels in 1..=MAX_CHANNELS,
            bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400,
        ) {
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            let mut reader = PcmReader::new(encoding, channels);
            let mut apart = vec![Vec::new(); usize::from(channels)];
            reader.read_apart(first, &mut apart);
            reader.read_apart(rest, &mut apart);
            let sample = |out: &[u8], at: usize| i16::from_le_bytes([out[2 * at], out[2 * at + 1]]);
            let mixed = read(encoding, channels, &bytes);
            for (at, mean) in mixed.iter().enumerate() {
                let sum: i32 = apart.iter().map(|out| i32::from(sample(out, at))).sum();
                prop_assert_eq!(sum.div_euclid(i32::from(channels)), i32::from(*mean));
            }
            prop_assert!(apart.iter().all(|out| out.len() == 2 * mixed.len()));
        }
    }
}
