//! What of a session is counted while it lasts, kept right in whichever way it ends.
//!
//! Owns: what was last told of the session. Must never: decide anything.

use std::sync::Arc;

use super::actor::SessionState;
use super::api::Dialect;
use crate::observe::{Observation, Observer, SessionPhase, SessionStanding};

/// Tells when the session stands otherwise, and when it is gone, be it by a panic.
pub(super) struct Census {
    observer: Arc<dyn Observer>,
    dialect: Dialect,
    model: Arc<str>,
    told: Option<SessionStanding>,
    /// It was admitted and has not ended.
    open: bool,
}

impl Census {
    pub(super) fn new(observer: Arc<dyn Observer>, dialect: Dialect, model: Arc<str>) -> Self {
        Self { observer, dialect, model, told: None, open: false }
    }

    /// The session is admitted, or came from elsewhere.
    pub(super) const fn opened(&mut self) {
        self.open = true;
    }

    /// The session's end is counted.
    pub(super) const fn ended(&mut self) {
        self.open = false;
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
            self.observer.observe(&Observation::SessionEnded { dialect, model, outcome: "crashed" });
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
    }
}
