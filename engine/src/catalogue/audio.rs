//! Brings sample recordings to the one form that tests and demos use: 16 kHz mono PCM16.

use std::f64::consts::PI;
use std::path::{Path, PathBuf};

/// Zero crossings of the filter on each side. 32 puts aliases far below PCM16's noise for speech, at a cost that only
/// a fetch pays.
const ZERO_CROSSINGS: usize = 32;

/// Where the pass band ends, as a part of the lower Nyquist rate: leaves the filter room to fall before it.
const PASS_BAND: f64 = 0.94;

/// Why a recording could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum WavError {
    /// It cannot be read or written, or is no WAV file.
    #[error("{}: {source}", path.display())]
    Wav {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: hound::Error,
    },
    /// It is of a form that is not converted.
    #[error("{}: {bits} bits {format:?}, but must be 16 bits PCM", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Bits for each sample.
        bits: u16,
        /// Integer or float.
        format: hound::SampleFormat,
    },
}

/// Writes the PCM16 WAV file `from` to `to` as mono at `rate_hz`: channels are averaged, and the same input always
/// gives the same output. `to` may be `from`.
pub fn convert_wav(from: &Path, to: &Path, rate_hz: u32) -> Result<(), WavError> {
    let wav = |path: &Path| {
        let path = path.to_owned();
        move |source| WavError::Wav { path, source }
    };
    let mut reader = hound::WavReader::open(from).map_err(wav(from))?;
    let spec = reader.spec();
    if (spec.bits_per_sample, spec.sample_format) != (16, hound::SampleFormat::Int) {
        let (bits, format) = (spec.bits_per_sample, spec.sample_format);
        return Err(WavError::Form { path: from.to_owned(), bits, format });
    }
    let samples: Vec<i16> = reader.samples().collect::<Result<_, _>>().map_err(wav(from))?;
    let from_hz = spec.sample_rate;
    let channels = usize::from(spec.channels.max(1));
    let mono: Vec<i16> = samples
        .chunks_exact(channels)
        .map(|frame| {
            let sum: i32 = frame.iter().copied().map(i32::from).sum();
            to_i16(f64::from(sum) / f64::from(spec.channels.max(1)))
        })
        .collect();
    drop(reader);

    let spec = hound::WavSpec { channels: 1, sample_rate: rate_hz, ..spec };
    let mut writer = hound::WavWriter::create(to, spec).map_err(wav(to))?;
    for sample in resample(&mono, from_hz, rate_hz) {
        writer.write_sample(sample).map_err(wav(to))?;
    }
    writer.finalize().map_err(wav(to))
}

/// Resamples by a windowed-sinc polyphase filter; equal rates give the input back unchanged. Rates are in Hz and above 0.
#[must_use]
pub fn resample(input: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz {
        return input.to_vec();
    }
    let common = gcd(from_hz, to_hz);
    let (step, phases) = ((from_hz / common) as usize, (to_hz / common) as usize);
    let cutoff = PASS_BAND * f64::from(to_hz.min(from_hz)) / f64::from(from_hz);
    let half = (ZERO_CROSSINGS as f64 / cutoff).ceil() as usize;
    let filters: Vec<Vec<f64>> =
        (0..phases).map(|phase| filter(phase as f64 / phases as f64, half, cutoff)).collect();

    let count = input.len() * phases / step;
    (0..count)
        .map(|index| {
            let (center, phase) = (index * step / phases, index * step % phases);
            let sum: f64 = filters[phase]
                .iter()
                .enumerate()
                .filter_map(|(tap, weight)| {
                    let sample = input.get((center + tap).checked_sub(half)?)?;
                    Some(weight * f64::from(*sample))
                })
                .sum();
            to_i16(sum)
        })
        .collect()
}

/// Weights of the input samples from `half` before to `half` after the one at or before an output sample that lies
/// `fraction` of an input step behind it; they sum to 1.
fn filter(fraction: f64, half: usize, cutoff: f64) -> Vec<f64> {
    let width = half as f64 + 1.0;
    let raw: Vec<f64> = (0..=2 * half)
        .map(|tap| {
            let distance = tap as f64 - half as f64 - fraction;
            let window = 0.5 + 0.5 * (PI * distance / width).cos();
            let x = PI * distance * cutoff;
            window * if x.abs() < 1e-9 { 1.0 } else { x.sin() / x }
        })
        .collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|weight| weight / sum).collect()
}

fn to_i16(value: f64) -> i16 {
    value.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate_hz: u32, tone_hz: f64) -> Vec<i16> {
        (0..rate_hz)
            .map(|i| to_i16(10_000.0 * (2.0 * PI * tone_hz * f64::from(i) / f64::from(rate_hz)).sin()))
            .collect()
    }

    fn rms(samples: &[i16]) -> f64 {
        let sum: f64 = samples.iter().map(|&s| f64::from(s) * f64::from(s)).sum();
        (sum / samples.len() as f64).sqrt()
    }

    #[test]
    fn a_tone_in_the_band_is_the_same_tone_at_the_other_rate() {
        for from in [48_000, 22_050, 8_000] {
            let got = resample(&tone(from, 1000.0), from, 16_000);
            let want = tone(16_000, 1000.0);
            assert_eq!(got.len(), want.len(), "{from}");
            let worst =
                got.iter().zip(&want).skip(200).take(15_600).map(|(a, b)| (a - b).abs()).max().unwrap();
            assert!(worst <= 40, "{from}: off by {worst}");
        }
    }

    #[test]
    fn a_tone_beyond_the_band_is_gone() {
        let got = resample(&tone(48_000, 11_000.0), 48_000, 16_000);
        assert!(rms(&got[500..15_500]) < 10.0, "{}", rms(&got[500..15_500]));
    }

    #[test]
    fn stereo_becomes_mono_and_the_result_never_varies() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("in.wav"), dir.path().join("out.wav"));
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 48_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&from, spec).unwrap();
        for sample in tone(48_000, 440.0) {
            writer.write_sample(sample).unwrap();
            writer.write_sample(0i16).unwrap();
        }
        writer.finalize().unwrap();
        convert_wav(&from, &to, 16_000).unwrap();
        let first = std::fs::read(&to).unwrap();
        convert_wav(&from, &to, 16_000).unwrap();
        assert_eq!(first, std::fs::read(&to).unwrap());

        let reader = hound::WavReader::open(&to).unwrap();
        assert_eq!((reader.spec().channels, reader.spec().sample_rate, reader.len()), (1, 16_000, 16_000));
        let level = rms(&reader.into_samples().map(Result::unwrap).collect::<Vec<i16>>());
        assert!((3400.0..3600.0).contains(&level), "{level}");
    }
}
