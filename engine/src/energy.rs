//! Voice activity by loudness: for engines that find their own endpoints and need only pauses and long silence.
//!
//! Owns: the level of 10 ms frames against the segment's own quiet and loud ones. Must never: use floating point (two
//! machines' logarithms may differ in the last bit) or anything from before the segment.
//!
//! Levels are eighths of an octave of power: 240 is full scale, 8 is 3 dB.

use std::convert::Infallible;

use crate::cut::{Activity, VoiceActivity};

/// Levels there are: mean squares of i16 reach 2^30.
const LEVELS: usize = 256;

/// Frames quieter than this are silence in any room: 60 dB under full scale.
const ALWAYS_SILENT: usize = 80;

/// In a segment's first second its quiet frames may all be speech; the floor is then taken to be 45 dB under full scale at
/// most.
const EARLY_FLOOR: usize = 120;

/// Frames of that first second.
const EARLY_FRAMES: usize = 100;

/// Speech is this far above the floor: a third of the way to the loud frames, 6 to 15 dB.
const LEAST_RISE: usize = 16;
const MOST_RISE: usize = 40;

/// Clicks are shorter than this many frames, syllables longer.
const SPEECH_FRAMES: usize = 3;

/// The detector.
#[derive(Debug, Clone)]
pub struct EnergyActivity {
    frame_samples: usize,
    open: (u64, usize),
    counts: [u32; LEVELS],
    frames: usize,
    run: usize,
    spoke: bool,
    silence: usize,
}

impl EnergyActivity {
    /// A detector at a segment's first sample.
    #[must_use]
    pub fn new(sample_rate: u32) -> Self {
        Self {
            frame_samples: (sample_rate as usize / 100).max(1),
            open: (0, 0),
            counts: [0; LEVELS],
            frames: 0,
            run: 0,
            spoke: false,
            silence: 0,
        }
    }

    fn frame(&mut self, mean_square: u64) {
        let level = level(mean_square);
        self.counts[level] += 1;
        self.frames += 1;
        let mut floor = self.percentile(10);
        if self.frames < EARLY_FRAMES {
            floor = floor.min(EARLY_FLOOR);
        }
        let rise = (self.percentile(95).saturating_sub(floor) / 3).clamp(LEAST_RISE, MOST_RISE);
        self.silence += self.frame_samples;
        if level > (floor + rise).max(ALWAYS_SILENT) {
            self.run += 1;
            if self.run >= SPEECH_FRAMES {
                self.spoke = true;
                self.silence = 0;
            }
        } else {
            self.run = 0;
        }
    }

    fn percentile(&self, percent: usize) -> usize {
        let wanted = (self.frames * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += *count as usize;
            seen >= wanted
        });
        found.unwrap_or(LEVELS - 1)
    }
}

impl VoiceActivity for EnergyActivity {
    type Error = Infallible;

    fn step(&mut self, samples: &[i16]) -> Result<Activity, Infallible> {
        for sample in samples {
            self.open.0 += u64::from(sample.unsigned_abs()).pow(2);
            self.open.1 += 1;
            if self.open.1 == self.frame_samples {
                let mean_square = self.open.0 / self.frame_samples as u64;
                self.open = (0, 0);
                self.frame(mean_square);
            }
        }
        // A segment has at most 30 s.
        let silence = u32::try_from(self.silence).unwrap_or(u32::MAX);
        Ok(Activity { spoke: self.spoke, silence })
    }

    fn reset(&mut self) {
        let rate = u32::try_from(self.frame_samples * 100).unwrap_or(u32::MAX);
        *self = Self::new(rate);
    }
}

/// Eight times the logarithm to base two, its fraction linear.
const fn level(mean_square: u64) -> usize {
    if mean_square == 0 {
        return 0;
    }
    let octave = mean_square.ilog2();
    let fraction = ((mean_square << 3) >> octave) & 7;
    octave as usize * 8 + fraction as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::warmup::babble;

    fn hear(detector: &mut EnergyActivity, samples: &[i16]) -> Activity {
        let mut last = Activity { spoke: false, silence: 0 };
        for step in samples.chunks(1_600) {
            last = detector.step(step).expect("infallible");
        }
        last
    }

    fn hum(amplitude: i16, samples: usize) -> Vec<i16> {
        (0..samples).map(|index| if index % 2 == 0 { amplitude } else { -amplitude }).collect()
    }

    #[test]
    fn levels_rise_with_power() {
        assert_eq!(level(1 << 30), 240);
        assert!((1..100_000u64).all(|power| level(power) <= level(power + 1)));
    }

    #[test]
    fn silence_and_a_steady_hum_are_no_speech() {
        assert!(!hear(&mut EnergyActivity::new(16_000), &[0; 80_000]).spoke);
        assert!(!hear(&mut EnergyActivity::new(16_000), &hum(60, 80_000)).spoke);
    }

    #[test]
    fn speech_is_heard_and_the_silence_after_it_measured() {
        let mut audio = hum(20, 8_000);
        audio.extend(babble(16_000, 2_000));
        audio.extend(hum(20, 16_000));
        let heard = hear(&mut EnergyActivity::new(16_000), &audio);
        assert!(heard.spoke);
        assert!((14_000..=18_000).contains(&heard.silence), "{}", heard.silence);
    }

    #[test]
    fn the_grid_of_calls_does_not_matter_and_reset_forgets() {
        let audio = [hum(40, 5_000), babble(16_000, 1_500), hum(40, 5_000)].concat();
        let whole = hear(&mut EnergyActivity::new(16_000), &audio);
        let mut detector = EnergyActivity::new(16_000);
        hear(&mut detector, &babble(16_000, 700));
        detector.reset();
        let mut last = whole;
        for chunk in audio.chunks(77) {
            last = detector.step(chunk).expect("infallible");
        }
        assert_eq!(last, whole);
    }
}
