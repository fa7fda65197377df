//! A resampler whose every output sample depends on its own index and a fixed window of the source, and on nothing else.
//!
//! Streaming resamplers keep state from where they were started, so a replay that starts elsewhere hears other samples.
//! This one is a windowed sinc evaluated at the exact rational position of each output sample (J. O. Smith, "Digital Audio
//! Resampling Home Page", CCRMA): restarted anywhere, it gives the same bits.

use std::f64::consts::PI;

use starling_protocol::{DecodeOffset, SourceOffset};

use super::rates::RateMap;

/// Shape of the Kaiser window; 8 puts the side lobes near -80 dB.
const KAISER_BETA: f64 = 8.0;

/// Pass band as a part of the lower rate's half. Leaves room for the filter's slope, so that little folds back.
const PASS_BAND: f64 = 0.94;

/// Makes decoder samples out of source samples.
#[derive(Debug, Clone)]
pub struct Resampler {
    rates: RateMap,
    /// One filter per fraction of a source frame that occurs.
    phases: Vec<Box<[f32]>>,
    /// Numerator of the step from one phase to the next, in `phases.len()`ths.
    divisor: u64,
}

impl Resampler {
    /// Works out the filters. Costs up to tens of milliseconds for rates without a common divisor.
    #[must_use]
    pub fn new(rates: RateMap) -> Self {
        let divisor = gcd(rates.source_hz(), rates.decode_hz());
        let phases = if rates.is_identity() {
            Vec::new()
        } else {
            let count = rates.decode_hz() / divisor;
            (0..count).map(|phase| filter(&rates, phase as f64 / count as f64)).collect()
        };
        Self { rates, phases, divisor }
    }

    /// The rates this was made for.
    #[must_use]
    pub const fn rates(&self) -> &RateMap {
        &self.rates
    }

    /// Appends decoder samples `from..to` to `out`. `source` gives the sample of any frame; frames outside the recording
    /// are silence.
    pub fn render(
        &self,
        from: DecodeOffset,
        to: DecodeOffset,
        source: impl Fn(SourceOffset) -> i16,
        out: &mut Vec<i16>,
    ) {
        if self.rates.is_identity() {
            out.extend((from.0..to.0).map(|at| source(SourceOffset(at))));
            return;
        }
        let half = self.rates.half_width();
        for at in from.0..to.0 {
            let scaled = at * self.rates.source_hz();
            let centre = scaled / self.rates.decode_hz();
            let phase = (scaled % self.rates.decode_hz()) / self.divisor;
            let taps = &self.phases[phase as usize];
            let mut sum = 0.0f32;
            for (index, tap) in taps.iter().enumerate() {
                // Taps run from `half - 1` frames before the centre to `half` after; before frame 0 there is silence.
                let frame = (centre + 1 + index as u64).checked_sub(half);
                sum += tap * frame.map_or(0.0, |frame| f32::from(source(SourceOffset(frame))));
            }
            out.push(sum.round().clamp(f32::from(i16::MIN), f32::from(i16::MAX)) as i16);
        }
    }
}

fn filter(rates: &RateMap, fraction: f64) -> Box<[f32]> {
    let half = rates.half_width() as f64;
    let cutoff = PASS_BAND * (rates.decode_hz() as f64 / rates.source_hz() as f64).min(1.0);
    let taps: Vec<f64> = (0..2 * rates.half_width())
        .map(|index| {
            let distance = index as f64 + 1.0 - half - fraction;
            cutoff * sinc(cutoff * distance) * kaiser(distance / half)
        })
        .collect();
    // Each phase passes a constant unchanged; without this the phases' small differences would be heard as a tone.
    let gain: f64 = taps.iter().sum();
    taps.iter().map(|tap| (tap / gain) as f32).collect()
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

fn kaiser(x: f64) -> f64 {
    let inside = 1.0 - x * x;
    // Not divided by its value at 0: each phase is scaled to pass a constant unchanged anyway.
    if inside <= 0.0 { 0.0 } else { bessel_i0(KAISER_BETA * inside.sqrt()) }
}

/// Modified Bessel function of the first kind, order 0, by its power series (Abramowitz and Stegun, 9.6.12).
fn bessel_i0(x: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for k in 1..64 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
        if term < sum * 1e-16 {
            break;
        }
    }
    sum
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
