//! What of a session is counted while it lasts, kept right in whichever way it ends.
//!
//! Owns: what was last told of the session. Must never: decide anything.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use starling_protocol::Attempt;
use starling_protocol::control::CopySummary;

use super::actor::SessionState;
use super::api::Dialect;
use crate::observe::{CRASHED, Observation, Observer, SessionPhase, SessionStanding};

/// How a session stood after its last message, for whoever tells of its end if its actor fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LastSeen {
    /// As a copy that is as good as any, whichever set that belongs to.
    pub(crate) reached: CopySummary,
    pub(crate) attempt: Attempt,
    pub(crate) audio: Duration,
    pub(crate) has_copies: bool,
}

/// `None` of a session that is not admitted, or has ended.
pub(crate) type Sighting = Arc<Mutex<Option<LastSeen>>>;

/// Tells when the session stands otherwise, and when it is gone, be it by a panic.
pub(super) struct Census {
    observer: Arc<dyn Observer>,
    dialect: Dialect,
    model: Arc<str>,
    told: Option<SessionStanding>,
    /// It was admitted and has not ended.
    open: bool,
    seen: Sighting,
}

impl Census {
    pub(super) fn new(
        observer: Arc<dyn Observer>,
        dialect: Dialect,
        model: Arc<str>,
        seen: Sighting,
    ) -> Self {
        Self { observer, dialect, model, told: None, open: false, seen }
    }

    /// The session is admitted, or came from elsewhere.
    pub(super) const fn opened(&mut self) {
        self.open = true;
    }

    /// The session's end is counted.
    pub(super) fn ended(&mut self) {
        self.open = false;
        self.see(None);
    }

    fn see(&self, seen: Option<LastSeen>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    fn tell(&mut self, is: Option<SessionStanding>) {
        let was = std::mem::replace(&mut self.told, is);
        if was != is {
            self.observer.observe(&Observation::SessionChanged { dialect: self.dialect, was, is });
        }
    }
}

impl Drop for Census {
    fn drop(&mut self) {
        self.tell(None);
        if self.open {
            let (dialect, model) = (self.dialect, &*self.model);
            self.observer.observe(&Observation::SessionEnded { dialect, model, outcome: CRASHED });
        }
    }
}

impl SessionState {
    /// Takes stock after a message.
    pub(super) fn take_census(&mut self) {
        let phase = if !self.admitted {
            SessionPhase::Opening
        } else if self.times.lost.is_some() && !self.machine.is_finished() {
            SessionPhase::Recovering
        } else if self.machine.attached().is_none() {
            SessionPhase::Away
        } else {
            SessionPhase::Connected
        };
        let standing = SessionStanding { phase, lacks_copy: self.lacks_copy() };
        self.census.tell(Some(standing));
        if self.census.open {
            let hz = self.arguments.config.rates.source_hz() as f64;
            let reached = CopySummary {
                epoch: self.machine.last_epoch(),
                view: u64::MAX,
                next_segment: self.machine.open_segment(),
                audio_end: self.machine.journal().received(),
            };
            self.census.see(Some(LastSeen {
                reached,
                attempt: self.machine.attempt(),
                audio: Duration::from_secs_f64(reached.audio_end.0 as f64 / hz),
                has_copies: self.has_copies(),
            }));
        }
    }
}
