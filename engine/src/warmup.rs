//! Sound that makes an engine do all its first-use work before a caller does.
//!
//! Owns: the sound and the drill. Must never: be random, or last longer than the model needs.

use starling_protocol::limits::STEP_MS;

use crate::{DecodeError, Recognizer, Step};

/// Feeds a recognizer `length_ms` of speech-like sound and leaves it at an utterance's first sample.
///
/// # Errors
/// The engine failed on it.
pub fn warm(recognizer: &mut dyn Recognizer, sample_rate: u32, length_ms: u32) -> Result<(), DecodeError> {
    let step = (u64::from(sample_rate) * STEP_MS / 1_000) as usize;
    for samples in babble(sample_rate, length_ms).chunks(step) {
        if let Step::Endpoint(_) = recognizer.accept(samples)? {
            recognizer.finish()?;
        }
    }
    recognizer.partial()?;
    recognizer.finish()?;
    Ok(())
}

/// Vowel-like sound: a pulse train through two moving resonances, with noise bursts between. Unlike plain noise it leads a
/// decoder through many phones, which is what fills its caches.
#[must_use]
pub fn babble(sample_rate: u32, length_ms: u32) -> Vec<i16> {
    let rate = f64::from(sample_rate);
    let length = u64::from(sample_rate) * u64::from(length_ms) / 1_000;
    let mut noise: u32 = 0x2545_f491;
    let mut phase = 0.0_f64;
    let mut formants = [[0.0_f64; 2]; 3];
    let mut out = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    for index in 0..length {
        let time = index as f64 / rate;
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        let white = f64::from(noise) / f64::from(u32::MAX) - 0.5;
        let pitch = 120.0 + 25.0 * (time * 2.1).sin();
        phase += pitch / rate;
        let pulse = if phase >= 1.0 {
            phase -= 1.0;
            1.0
        } else {
            0.0
        };
        // About five syllables a second, each beginning with a burst of noise, as consonants do.
        let syllable = (time * 5.0).fract();
        let (source, loudness) =
            if syllable < 0.2 { (white * 0.5, 0.5) } else { (pulse, 1.0 - syllable * 0.5) };
        let vowel = (time * 5.0).floor();
        let targets = [
            300.0 + 500.0 * (vowel * 1.7).sin().abs(),
            900.0 + 1_300.0 * (vowel * 2.3).cos().abs(),
            2_500.0 + 400.0 * (vowel * 0.9).sin(),
        ];
        let mut sample = 0.0;
        for (state, frequency) in formants.iter_mut().zip(targets) {
            let radius = (-std::f64::consts::PI * 90.0 / rate).exp();
            let angle = 2.0 * std::f64::consts::PI * frequency / rate;
            let value = source + 2.0 * radius * angle.cos() * state[0] - radius * radius * state[1];
            state[1] = state[0];
            state[0] = value;
            sample += value;
        }
        out.push((sample * loudness * 1_500.0 + white * 60.0).clamp(-30_000.0, 30_000.0) as i16);
    }
    out
}
