//! The bounds on sessions, as the settings have them.

use std::time::Duration;

use starling_actors::{SessionLimits, StandbyPolicy};
use starling_protocol::lease::CutOptions;

use crate::config::{SessionSettings, Standby};

pub(super) fn limits(sessions: &SessionSettings) -> SessionLimits {
    let milliseconds = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    SessionLimits {
        journal_bytes: usize::try_from(sessions.journal).unwrap_or(usize::MAX),
        linger_max: sessions.linger,
        queue_wait: sessions.queue_wait,
        queue_length: sessions.queue_length as usize,
        retry_after: sessions.retry_after,
        slow_reader: sessions.slow_reader,
        idle: sessions.idle,
        standby: match sessions.standby {
            Standby::Off => StandbyPolicy::Off,
            Standby::Warm => StandbyPolicy::Warm,
            Standby::Idle => StandbyPolicy::Idle { keep: sessions.standby_idle_slots },
        },
        cuts: CutOptions {
            pause_after_ms: milliseconds(sessions.cuts.pause_after),
            pause_ms: milliseconds(sessions.cuts.pause),
            max_ms: milliseconds(sessions.cuts.max),
            no_speech_ms: milliseconds(sessions.cuts.no_speech),
            silence_ms: None,
        },
    }
}
