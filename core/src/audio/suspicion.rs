//! Audio that is not what it is said to be: a recording sent as bare samples, noise, a rate that is another one's.
//!
//! Owns: the guess. Must never: change a sample, or say anything about speech that merely sounds bad. What it says is a warning;
//! nothing depends on it.

use std::fmt;
use std::time::Duration;

use crate::Timestamp;

/// Bytes that tell a recording's kind.
const HEAD_BYTES: usize = 12;

/// How long a block is that is looked at for noise, as a part of a second: long enough that a fricative is not all of it.
const BLOCKS_A_SECOND: u32 = 10;

/// A block is loud from this root mean square on: -21 dB of full scale, which bytes at random exceed and silence doesn't.
const LOUD: f64 = 3_000.0;

/// Correlation of neighbouring samples below which a block is noise. No loud block of recorded speech was seen below 0.5; of the same
/// speech with its bytes swapped a third was, and all of what is compressed.
const UNRELATED: f64 = 0.25;

/// Loud blocks that are looked at: two seconds of them.
const LOUD_BLOCKS: u32 = 20;

/// Blocks that are looked at in all, loud or not: half a minute. Wrong bytes are loud from their first second on, and every further
/// sample of a long call would be looked at for nothing.
const BLOCKS: u32 = 30 * BLOCKS_A_SECOND;

/// Of the loud ones, how many may be noise: a caller may hiss, or be connected with a crack.
const MOST_UNRELATED: u32 = 4;

/// What comes before is a client that catches up with itself.
const SETTLING: Duration = Duration::from_secs(2);

/// Over so long the arriving frames are counted, twice.
const WINDOW: Duration = Duration::from_secs(5);

/// How near a rate is to the one that is meant, as a part of it: clocks are better by far, messages come in lumps.
const NEAR: f64 = 0.025;

/// Rates that audio has.
const RATES: [u32; 8] = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// What is wrong, most likely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// It begins like a recording.
    Recording {
        /// Of which kind.
        kind: &'static str,
    },
    /// It is loud, and no sample has to do with the next.
    Noise,
    /// It arrives at another rate than it has.
    Rate {
        /// Frames a second as they were said.
        said: u32,
        /// As they arrive.
        arriving: u32,
    },
}

impl Suspicion {
    /// What can be suspected, by the name that it is counted under.
    pub const LABELS: [&'static str; 3] = ["recording", "noise", "rate"];

    /// See [`LABELS`](Self::LABELS).
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Recording { .. } => Self::LABELS[0],
            Self::Noise => Self::LABELS[1],
            Self::Rate { .. } => Self::LABELS[2],
        }
    }
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording { kind } => write!(
                f,
                "the audio begins like a recording ({kind}), and is taken for bare samples: is the encoding wrong?"
            ),
            Self::Noise => f.write_str(
                "the audio is loud noise without any speech: is its encoding, the order of its bytes or its number of channels wrong?",
            ),
            Self::Rate { said, arriving } => write!(
                f,
                "the audio arrives at {arriving} frames a second, and was said to have {said}: is the sample rate or the number \
                 of channels wrong?"
            ),
        }
    }
}

/// Looks at one session's audio, as mono PCM16, until it has said something or there is nothing more to be told from it.
#[derive(Debug, Clone)]
pub struct AudioCheck {
    sample_rate: u32,
    /// The first bytes; `None` once they were looked at.
    head: Option<Vec<u8>>,
    noise: Option<Noise>,
    arrival: Option<Arrival>,
}

#[derive(Debug, Clone, Default)]
struct Noise {
    samples: u32,
    energy: f64,
    /// Of neighbours.
    product: f64,
    last: f64,
    /// A sample whose second byte is to come.
    half: Option<u8>,
    blocks: u32,
    loud: u32,
    unrelated: u32,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    begun: Option<Timestamp>,
    window: Option<Timestamp>,
    bytes: u64,
    before: Option<u32>,
}

impl AudioCheck {
    /// For audio of so many frames a second. What is not `live` arrives as fast as it may.
    #[must_use]
    pub fn new(sample_rate: u32, live: bool) -> Self {
        let arrival = Arrival { begun: None, window: None, bytes: 0, before: None };
        Self {
            sample_rate: sample_rate.max(1),
            head: Some(Vec::new()),
            noise: Some(Noise::default()),
            arrival: live.then_some(arrival),
        }
    }

    /// Takes bytes as they come, and says at most once of each kind what seems to be wrong.
    pub fn hear(&mut self, pcm: &[u8], now: Timestamp) -> Option<Suspicion> {
        let found = self.head(pcm).or_else(|| self.noise(pcm));
        if found.is_some() {
            (self.head, self.noise) = (None, None);
        }
        found.or_else(|| self.arrival(pcm, now))
    }

    fn head(&mut self, pcm: &[u8]) -> Option<Suspicion> {
        let head = self.head.as_mut()?;
        head.extend(pcm.iter().take(HEAD_BYTES - head.len()));
        if head.len() < HEAD_BYTES {
            return None;
        }
        let kind = kind_of(head);
        self.head = None;
        kind.map(|kind| Suspicion::Recording { kind })
    }

    fn noise(&mut self, pcm: &[u8]) -> Option<Suspicion> {
        let block = self.sample_rate / BLOCKS_A_SECOND;
        let noise = self.noise.as_mut()?;
        for byte in pcm {
            let Some(low) = noise.half.take() else {
                noise.half = Some(*byte);
                continue;
            };
            noise.sample(f64::from(i16::from_le_bytes([low, *byte])));
            if noise.samples >= block {
                noise.end_block();
                if noise.loud >= LOUD_BLOCKS || noise.blocks >= BLOCKS {
                    let found = noise.loud >= LOUD_BLOCKS && noise.unrelated > MOST_UNRELATED;
                    self.noise = None;
                    return found.then_some(Suspicion::Noise);
                }
            }
        }
        None
    }

    fn arrival(&mut self, pcm: &[u8], now: Timestamp) -> Option<Suspicion> {
        let arrival = self.arrival.as_mut()?;
        let begun = *arrival.begun.get_or_insert(now);
        let since = |from: Timestamp| now.0.saturating_sub(from.0);
        let Some(window) = arrival.window else {
            if since(begun) >= SETTLING {
                arrival.window = Some(now);
            }
            return None;
        };
        arrival.bytes += pcm.len() as u64;
        if since(window) < WINDOW {
            return None;
        }
        let rate = arrival.bytes as f64 / 2.0 / since(window).as_secs_f64();
        let near = |wanted: u32| (rate / f64::from(wanted) - 1.0).abs() < NEAR;
        let found = RATES.into_iter().find(|known| near(*known)).filter(|found| *found != self.sample_rate);
        (arrival.window, arrival.bytes) = (Some(now), 0);
        match (found, arrival.before.replace(found.unwrap_or_default())) {
            (Some(found), Some(before)) if found == before => {
                self.arrival = None;
                Some(Suspicion::Rate { said: self.sample_rate, arriving: found })
            }
            // Two windows of something else: it is as it was said, or nothing can be told.
            (None, Some(_)) => {
                self.arrival = None;
                None
            }
            _ => None,
        }
    }
}

impl Noise {
    fn sample(&mut self, sample: f64) {
        self.energy += sample * sample;
        self.product += sample * self.last;
        self.last = sample;
        self.samples += 1;
    }

    fn end_block(&mut self) {
        self.blocks += 1;
        if (self.energy / f64::from(self.samples.max(1))).sqrt() >= LOUD {
            self.loud += 1;
            self.unrelated += u32::from((self.product / self.energy).abs() < UNRELATED);
        }
        (self.samples, self.energy, self.product) = (0, 0.0, 0.0);
    }
}

/// What a recording begins with. Marks that samples could begin with by chance are left out: two bytes of ones, as MP3 has, are silence
/// in some encodings.
fn kind_of(head: &[u8]) -> Option<&'static str> {
    match head {
        [b'R', b'I', b'F', b'F' | b'X', _, _, _, _, b'W', b'A', b'V', b'E', ..]
        | [b'R', b'F', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..]
        | [b'B', b'W', b'6', b'4', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some("WAV"),
        [b'O', b'g', b'g', b'S', ..] => Some("Ogg"),
        [b'f', b'L', b'a', b'C', ..] => Some("FLAC"),
        [b'I', b'D', b'3', 2..=4, ..] => Some("MP3"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("MP4"),
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Some("WebM"),
        [b'F', b'O', b'R', b'M', ..] => Some("AIFF"),
        [b'#', b'!', b'A', b'M', b'R', ..] => Some("AMR"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is said of audio that comes in pieces of 100 ms, each after so long.
    fn said(sample_rate: u32, live: bool, pcm: &[u8], piece: usize, every: Duration) -> Vec<Suspicion> {
        let mut check = AudioCheck::new(sample_rate, live);
        let pieces = pcm.chunks(piece).zip(0u32..);
        pieces.filter_map(|(piece, index)| check.hear(piece, Timestamp(every * index))).collect()
    }

    fn bytes(samples: impl Iterator<Item = i16>) -> Vec<u8> {
        samples.flat_map(i16::to_le_bytes).collect()
    }

    /// Something like a voice: 150 Hz and its overtones, louder and softer.
    fn voice(sample_rate: u32, seconds: u32) -> Vec<u8> {
        let sample = |index: u32| {
            let time = f64::from(index) / f64::from(sample_rate);
            let tone =
                |overtone: f64| (2.0 * std::f64::consts::PI * 150.0 * overtone * time).sin() / overtone;
            let loudness = 1.0 + (2.0 * std::f64::consts::PI * 3.0 * time).sin();
            (6_000.0 * loudness * (1..8).map(f64::from).map(tone).sum::<f64>()) as i16
        };
        bytes((0..sample_rate * seconds).map(sample))
    }

    /// Bytes as compression leaves them: a multiplicative generator's upper bits.
    fn random(count: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn speech_is_not_suspected() {
        for rate in [8_000, 16_000, 48_000] {
            let pcm = voice(rate, 20);
            assert_eq!(said(rate, true, &pcm, rate as usize / 5, TENTH), [], "{rate}");
        }
        assert_eq!(said(16_000, true, &vec![0; 640_000], 3_200, TENTH), []);
    }

    #[test]
    fn a_recording_is_told_by_its_first_bytes_however_they_are_cut() {
        for (mark, kind) in [
            (&b"RIFF\0\0\0\0WAVE"[..], "WAV"),
            (b"RF64\xFF\xFF\xFF\xFFWAVE", "WAV"),
            (b"OggS\0\x02\0\0\0\0\0\0", "Ogg"),
            (b"fLaC\0\0\0\x22\0\0\0\0", "FLAC"),
        ] {
            let pcm = [mark, &voice(16_000, 1)].concat();
            for piece in [1, 5, 3_200] {
                assert_eq!(said(16_000, false, &pcm, piece, TENTH), [Suspicion::Recording { kind }]);
            }
        }
    }

    #[test]
    fn what_is_compressed_or_has_its_bytes_swapped_is_noise() {
        assert_eq!(said(16_000, false, &random(200_000), 3_200, TENTH), [Suspicion::Noise]);
        let swapped: Vec<u8> =
            voice(16_000, 6).chunks_exact(2).flat_map(|sample| [sample[1], sample[0]]).collect();
        assert_eq!(said(16_000, false, &swapped, 3_200, TENTH), [Suspicion::Noise]);
    }

    #[test]
    fn noise_is_looked_for_in_the_first_half_minute() {
        let quiet_for = |seconds: usize| [vec![0; seconds * 32_000], random(200_000)].concat();
        assert_eq!(said(16_000, false, &quiet_for(27), 3_200, TENTH), [Suspicion::Noise]);
        assert_eq!(said(16_000, false, &quiet_for(29), 3_200, TENTH), []);
        let mut check = AudioCheck::new(16_000, false);
        check.hear(&quiet_for(29), Timestamp(TENTH));
        assert!(check.noise.is_none(), "no sample is looked at any more");
    }

    #[test]
    fn a_rate_is_told_by_what_arrives() {
        // Audio of 8 kHz that is said to have 16 kHz, and the other way round; the second is stereo taken for mono, too.
        let slow = said(16_000, true, &voice(16_000, 20), 1_600, TENTH);
        assert_eq!(slow, [Suspicion::Rate { said: 16_000, arriving: 8_000 }]);
        let fast = said(8_000, true, &voice(8_000, 60), 3_200, TENTH);
        assert_eq!(fast, [Suspicion::Rate { said: 8_000, arriving: 16_000 }]);
    }

    #[test]
    fn a_recording_may_come_at_any_pace_and_a_caller_who_pauses_has_none() {
        assert_eq!(said(8_000, false, &voice(8_000, 60), 3_200, TENTH), []);
        assert_eq!(said(16_000, true, &voice(16_000, 20), 3_200, TENTH * 3 / 2), []);
    }

    proptest! {
        /// What is heard of a recording depends on its bytes, not on how they are cut; and each thing is said once.
        #[test]
        fn any_bytes_in_any_pieces_are_told_alike_and_once(
            head in prop::sample::select(vec![&b""[..], b"RIFF\0\0\0\0WAVE", b"OggS", b"\x1aE\xdf\xa3"]),
            noise: bool,
            body in proptest::collection::vec(any::<u8>(), 0..200),
            pieces in proptest::collection::vec(1usize..2_000, 1..20),
            every_ms in 0u32..400,
        ) {
            let rest = if noise { random(40_000) } else { voice(8_000, 3) };
            let pcm = [head, &body, &rest].concat();
            let whole = said(8_000, false, &pcm, pcm.len(), TENTH);
            for live in [false, true] {
                let mut check = AudioCheck::new(8_000, live);
                let (mut rest, mut found, mut now) = (&pcm[..], Vec::new(), Duration::ZERO);
                for size in pieces.iter().cycle() {
                    let (piece, tail) = rest.split_at((*size).min(rest.len()));
                    found.extend(check.hear(piece, Timestamp(now)));
                    now += Duration::from_millis(every_ms.into());
                    rest = tail;
                    if rest.is_empty() {
                        break;
                    }
                }
                let (rates, others): (Vec<_>, Vec<_>) =
                    found.into_iter().partition(|found| matches!(found, Suspicion::Rate { .. }));
                prop_assert_eq!(&others, &whole);
                prop_assert!(rates.len() <= usize::from(live));
            }
        }
    }
}
