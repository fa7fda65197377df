//! How much audio may come out of how many bytes.
//!
//! Owns: the count of both and the rule between them, without which a few megabytes of coded silence would keep a decoder busy for
//! years. Must never: refuse what an encoder makes of speech.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use starling_protocol::native::{ErrorBody, ErrorCode};

/// Audio that any recording may hold, however few its bytes are: silence costs an encoder nearly nothing, and an hour of it costs a
/// decoder minutes.
const FREE_SECONDS: u64 = 3_600;

/// Audio beyond that for each KiB. Opus at its lowest rate, 6 kbit/s (RFC 6716, section 2.1.1), has 1.4 s in one; in packets of 60 ms
/// of which nothing is left but their heads, in Ogg, some 15 s. A frame of FLAC that holds one value has hundreds.
const SECONDS_A_KIB: u64 = 16;

/// The audio of one recording against its bytes.
#[derive(Debug)]
pub(super) struct Measure {
    arrived: Arc<AtomicU64>,
    frames: u64,
}

impl Measure {
    /// Against the bytes that are counted there.
    pub(super) const fn new(arrived: Arc<AtomicU64>) -> Self {
        Self { arrived, frames: 0 }
    }

    /// So many frames more came out, at this rate.
    ///
    /// # Errors
    /// That is more than any recording holds in its bytes; the error says how much of each there was.
    pub(super) fn hear(&mut self, frames: usize, sample_rate: u32) -> Result<(), ErrorBody> {
        self.frames = self.frames.saturating_add(frames as u64);
        let seconds = self.frames / u64::from(sample_rate.max(1));
        if seconds <= FREE_SECONDS {
            return Ok(());
        }
        let bytes = self.arrived.load(Ordering::Relaxed);
        let most = FREE_SECONDS.saturating_add(bytes.saturating_mul(SECONDS_A_KIB) / 1_024);
        if seconds <= most {
            return Ok(());
        }
        let value = format!("over {:.2} h of audio in {bytes} bytes", most as f64 / 3_600.0);
        let allowed = format!("at most an hour, and {SECONDS_A_KIB} s more for each KiB");
        Err(ErrorBody { code: ErrorCode::SessionTooLong, ..ErrorBody::field("body", value, allowed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8_000;

    fn measure(bytes: u64) -> Measure {
        Measure::new(Arc::new(AtomicU64::new(bytes)))
    }

    fn hours(hours: usize) -> usize {
        hours * 3_600 * RATE as usize
    }

    #[test]
    fn an_hour_is_free_and_more_has_its_bytes() {
        assert!(measure(0).hear(hours(1), RATE).is_ok());
        // The lowest rates that there are: Opus' 6 kbit/s, and heads of packets of 60 ms alone.
        for bytes_a_second in [750, 70] {
            assert!(measure(100 * 3_600 * bytes_a_second).hear(hours(100), RATE).is_ok(), "{bytes_a_second}");
        }
    }

    #[test]
    fn what_no_encoder_makes_of_speech_is_refused_with_both_figures() {
        let mut measure = measure(6_144);
        assert!(measure.hear(hours(1), RATE).is_ok());
        assert!(measure.hear(96 * RATE as usize, RATE).is_ok(), "six KiB have 96 s");
        let error = measure.hear(RATE as usize, RATE).expect_err("a second too much");
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::SessionTooLong, Some("body")));
        assert_eq!(
            error.message,
            "body is over 1.03 h of audio in 6144 bytes; it must be at most an hour, and 16 s more for each KiB"
        );
    }

    #[test]
    fn bytes_that_come_later_count() {
        let measure = measure(0);
        let arrived = Arc::clone(&measure.arrived);
        let mut measure = measure;
        assert!(measure.hear(hours(1), RATE).is_ok());
        arrived.store(1 << 20, Ordering::Relaxed);
        assert!(measure.hear(hours(1), RATE).is_ok());
    }

    #[test]
    fn no_numbers_make_it_panic() {
        let mut measure = measure(u64::MAX);
        for sample_rate in [0, 1, u32::MAX] {
            let _ = measure.hear(usize::MAX, sample_rate);
        }
    }
}
