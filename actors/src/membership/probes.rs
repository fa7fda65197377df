//! How long other nodes take to answer a probe of the membership protocol.
//!
//! Owns: the probe that is on its way. Must never: change anything of the protocol, which keeps its probes to itself: what it sends
//! and hears is looked at where it is written and read.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foca::{Message, ProbeNumber};
use starling_core::Timestamp;

/// What was sent and heard since the last look. The protocol's library owns the codec that fills it, so both hold it; both work in
/// one actor, one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Probes(Arc<Mutex<Seen>>);

/// The library has one probe on its way at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    sent: Option<ProbeNumber>,
    answered: Option<ProbeNumber>,
}

impl Probes {
    pub(super) fn sends<T>(&self, message: &Message<T>) {
        if let Message::Ping(number) = message {
            self.seen().sent = Some(*number);
        }
    }

    pub(super) fn hears<T>(&self, message: &Message<T>) {
        if let Message::Ack(number) = message {
            self.seen().answered = Some(*number);
        }
    }

    pub(super) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen())
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the last probe went out.
#[derive(Debug, Default)]
pub(super) struct ProbeClock(Option<(ProbeNumber, Timestamp)>);

impl ProbeClock {
    /// How long an answer took, if what was seen is the first to the last probe.
    pub(super) fn take(&mut self, now: Timestamp, seen: Seen) -> Option<Duration> {
        let took = self
            .0
            .take_if(|(number, _)| seen.answered == Some(*number))
            .map(|(_, sent_at)| now.since(sent_at));
        if let Some(number) = seen.sent {
            self.0 = Some((number, now));
        }
        took
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_answer_to_the_last_probe_is_timed_and_no_other() {
        let (probes, mut clock) = (Probes::default(), ProbeClock::default());
        let mut at = |ms, message: Option<(bool, ProbeNumber)>| {
            match message {
                Some((true, number)) => probes.sends(&Message::<()>::Ping(number)),
                Some((false, number)) => probes.hears(&Message::<()>::Ack(number)),
                None => probes.hears(&Message::<()>::Gossip),
            }
            let took = clock.take(Timestamp(Duration::from_millis(ms)), probes.take());
            took.map(|took| took.as_millis())
        };
        let (ping, ack) = (|number| Some((true, number)), |number| Some((false, number)));
        assert_eq!(at(0, ack(1)), None, "nothing was asked");
        assert_eq!(at(10, ping(1)), None);
        assert_eq!(at(11, None), None);
        assert_eq!(at(13, ack(1)), Some(3));
        assert_eq!(at(14, ack(1)), None, "it comes twice");
        assert_eq!(at(20, ping(2)), None);
        assert_eq!(at(220, ping(3)), None);
        assert_eq!(at(221, ack(2)), None, "it is late");
        assert_eq!(at(222, ack(3)), Some(2));
    }
}
