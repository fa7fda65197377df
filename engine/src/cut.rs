//! Where a segment ends: a pure function of its audio, so that a replay on another decoder cuts at the same sample.
//!
//! Owns: the cut rule and the interface to whatever hears voices. Must never: keep state across a cut, or know time of
//! day. All lengths count from the segment's first sample.

use starling_protocol::CutCause;
use starling_protocol::lease::CutOptions;

/// Hears whether somebody speaks. All its state resets at a segment's first sample.
pub trait VoiceActivity: Send {
    /// What can go wrong in it.
    type Error;

    /// Takes one step of samples.
    ///
    /// # Errors
    /// The detector failed.
    fn step(&mut self, samples: &[i16]) -> Result<Activity, Self::Error>;

    /// Forgets everything: the next sample is a segment's first.
    fn reset(&mut self);
}

/// What was heard up to the end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// Somebody has spoken since the segment's first sample.
    pub spoke: bool,
    /// Samples of silence since the last speech, or since the segment's first sample if there was none.
    pub silence: u32,
}

/// The rule for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutRule {
    pause_after: u64,
    pause: u64,
    max: u64,
    no_speech: u64,
    endpoint_silence: Option<u64>,
    length: u64,
}

impl CutRule {
    /// A rule at a segment's first sample. `endpoint_silence_ms` is for engines with no endpoint of their own: this much
    /// silence after speech ends the segment, unless the options want another length.
    #[must_use]
    pub fn new(options: &CutOptions, sample_rate: u32, endpoint_silence_ms: Option<u32>) -> Self {
        let samples = |ms: u32| u64::from(ms) * u64::from(sample_rate) / 1_000;
        Self {
            pause_after: samples(options.pause_after_ms),
            pause: samples(options.pause_ms),
            max: samples(options.max_ms),
            no_speech: samples(options.no_speech_ms),
            endpoint_silence: options.silence_ms.or(endpoint_silence_ms).map(samples),
            length: 0,
        }
    }

    /// Counts one step and says whether the segment ends with it. `endpoint` is the engine's own verdict.
    pub fn step(&mut self, samples: usize, activity: Activity, endpoint: bool) -> Option<CutCause> {
        self.length += samples as u64;
        let silence = u64::from(activity.silence);
        if endpoint {
            return Some(CutCause::Endpoint);
        }
        if activity.spoke && self.endpoint_silence.is_some_and(|enough| silence >= enough) {
            return Some(CutCause::Endpoint);
        }
        if activity.spoke && self.length >= self.pause_after && silence >= self.pause {
            return Some(CutCause::Pause);
        }
        if !activity.spoke && self.length >= self.no_speech {
            return Some(CutCause::NoSpeech);
        }
        (self.length >= self.max).then_some(CutCause::Length)
    }

    /// Samples since the segment's first.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The next sample is a segment's first.
    pub const fn reset(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests;
