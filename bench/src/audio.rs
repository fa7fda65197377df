//! The recordings that are measured with. Fetched and made by `cargo xtask setup`.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Rate of all recordings, and of the models.
pub(crate) const RATE: u32 = 16_000;

/// Samples of 100 ms.
pub(crate) const STEP: usize = 1_600;

/// Silence after each sentence of the long recording, as setup makes it; the first sentences are the clips.
const PAUSE: usize = 11_200;

pub(crate) struct Audio {
    /// Korean sentences of 3 to 4 seconds.
    pub(crate) korean: Vec<Vec<i16>>,
    /// A minute and more of Korean.
    pub(crate) korean_long: Vec<i16>,
    /// Korean that is in none of the clips.
    pub(crate) korean_other: Vec<i16>,
    /// 44 seconds of English, read from a book.
    pub(crate) english: Vec<i16>,
}

impl Audio {
    pub(crate) fn load(home: &Path) -> Result<Self> {
        let folder = home.join("audio");
        let korean = (1..=12).map(|n| read(&folder.join(format!("ko/ko-{n}.wav"))));
        let korean: Vec<Vec<i16>> = korean.collect::<Result<_>>()?;
        let korean_long = read(&folder.join("ko/ko-long.wav"))?;
        let clips: usize = korean.iter().map(|clip| clip.len() + PAUSE).sum();
        let korean_other = korean_long.get(clips..).unwrap_or_default().to_vec();
        if korean_other.len() < 10 * RATE as usize {
            bail!("ko-long.wav has nothing beyond the clips; run `cargo xtask setup` of this version");
        }
        Ok(Self { korean, korean_long, korean_other, english: read(&folder.join("two_cities.wav"))? })
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<i16>> {
    let wav = hound::WavReader::open(path);
    let mut wav = wav.with_context(|| format!("{}: run `cargo xtask setup`", path.display()))?;
    let spec = wav.spec();
    if spec.sample_rate != RATE || spec.channels != 1 || spec.bits_per_sample != 16 {
        bail!("{} is {spec:?}; it must be 16 kHz mono PCM16", path.display());
    }
    Ok(wav.samples::<i16>().collect::<Result<_, _>>()?)
}

pub(crate) fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

pub(crate) fn seconds(samples: usize) -> f64 {
    samples as f64 / f64::from(RATE)
}
