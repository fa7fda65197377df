//! The standby: a second decoder that hears what the first hears, so that the loss of the first costs no replay.
//!
//! Owns: when one is asked for, and when it is let go. Must never: let the session wait for it. What it says counts where it
//! comes first: text is a pure function of the audio, so that it does not matter who is asked.

use starling_protocol::Attempt;

use super::decoder::Decoder;
use super::machine::SessionMachine;
use super::messages::{LeaseKind, LossCause, SessionAction};
use super::stream::Stream;

/// The session's second decoder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Standby {
    /// There is none.
    Absent,
    /// There is none while this segment is open: it may kill what decodes it.
    Barred,
    /// One was asked for.
    Requested(Attempt),
    /// One is at work.
    Leased(Attempt, Stream),
}

impl Standby {
    /// Whether it is this attempt, wanted or at work.
    pub(super) fn is(&self, attempt: Attempt) -> bool {
        matches!(self, Self::Requested(standby) | Self::Leased(standby, _) if *standby == attempt)
    }

    /// The segment that it was kept away from is over.
    pub(super) fn admit(&mut self) {
        if *self == Self::Barred {
            *self = Self::Absent;
        }
    }

    pub(super) const fn at_work(&mut self) -> Option<(Attempt, &mut Stream)> {
        match self {
            Self::Leased(attempt, stream) => Some((*attempt, stream)),
            _ => None,
        }
    }
}

impl SessionMachine {
    /// The standby's attempt, while one is at work.
    #[must_use]
    pub const fn standby(&self) -> Option<Attempt> {
        match self.standby {
            Standby::Leased(attempt, _) => Some(attempt),
            _ => None,
        }
    }

    /// Asks for a standby, if there should be one.
    pub(super) fn seek_standby(&mut self, out: &mut Vec<SessionAction>) {
        let alone = matches!(&self.decoder, Decoder::Leased(stream) if stream.kind == LeaseKind::Shared);
        // What is left once the audio has ended is decoded before a second decoder would have caught up.
        if self.config.standby && alone && self.standby == Standby::Absent && !self.journal.ended() {
            let attempt = self.next_attempt();
            self.standby = Standby::Requested(attempt);
            out.push(SessionAction::RequestStandby { attempt });
        }
    }

    pub(super) fn standby_granted(&mut self, attempt: Attempt, out: &mut Vec<SessionAction>) {
        if self.standby != Standby::Requested(attempt) {
            return;
        }
        let (segment, from, window) = (self.open_segment(), self.journal.committed(), self.config.window);
        self.standby = Standby::Leased(attempt, Stream::new(LeaseKind::Shared, from, window));
        out.push(SessionAction::OpenStream {
            attempt,
            segment,
            from,
            window,
            partial_interval_ms: 0,
            // How close it is counts at the moment in which it takes over.
            decoded_interval_ms: 0,
        });
    }

    /// Gives the standby back, or withdraws the request for it.
    pub(super) fn drop_standby(&mut self, out: &mut Vec<SessionAction>) {
        if let Standby::Requested(attempt) | Standby::Leased(attempt, _) = self.standby {
            self.standby = Standby::Absent;
            out.push(SessionAction::ReleaseLease { attempt });
        }
    }

    /// It is no suspicion: whatever the cause, the first decoder has heard the same and lives. But a segment that may have
    /// killed one standby is not given to the next.
    pub(super) fn standby_lost(&mut self, cause: LossCause, out: &mut Vec<SessionAction>) {
        self.drop_standby(out);
        let suspect = matches!(
            cause,
            LossCause::Crashed { suspect: true }
                | LossCause::Stuck { suspect: true }
                | LossCause::EngineFailed
        );
        if suspect {
            self.standby = Standby::Barred;
        }
    }

    /// Makes the standby the session's decoder, if it is at work. There must be no other.
    pub(super) fn promote_standby(&mut self, out: &mut Vec<SessionAction>) -> bool {
        if self.standby().is_none() {
            return false;
        }
        if let Standby::Leased(attempt, mut stream) = std::mem::replace(&mut self.standby, Standby::Absent) {
            stream.take_over(self.reached);
            self.attempt = attempt;
            self.decoder = Decoder::Leased(stream);
            out.push(SessionAction::PromoteStandby { attempt });
            self.note_caught_up(out);
        }
        true
    }
}
