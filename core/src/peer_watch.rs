//! Whether another node still lives, judged by its answers to our heartbeats.
//!
//! Owns: how long it has been silent while we listened. Must never: count time in which this node itself stood still. A
//! false alarm costs every session that has a decoder or a copy there.
//!
//! Only answers count. A peer that we hear and that doesn't hear us is of as little use as one that is gone.

use std::time::Duration;

use crate::Timestamp;
pub use crate::round::LATE;
use crate::round::{Round, Rounds};
use crate::sabotage::{Bug, is};

/// A peer is sent a heartbeat this often.
pub const HEARTBEAT: Duration = Duration::from_millis(100);

/// Rounds are held this often: twice as often as heartbeats are sent, so that silence is noticed soon after it is long
/// enough.
pub const ROUND: Duration = Duration::from_millis(50);

/// A peer that was silent for so long may be lost: another copy may be prepared. Three heartbeats in a row.
pub const SUSPICION: Duration = Duration::from_millis(300);

/// A peer that was silent for so long is lost. Seven heartbeats in a row.
pub const SILENCE: Duration = Duration::from_millis(700);

/// What has become of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PeerVerdict {
    /// It is silent. Nothing is lost yet.
    Suspected,
    /// It was suspected, and has answered.
    Cleared,
    /// It is lost, and stays so: the link has to be made anew.
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Standing {
    Trusted,
    Suspected,
    Lost,
}

/// Watches one peer over one link, from the moment the link is up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerWatch {
    heard: Timestamp,
    rounds: Rounds,
    standing: Standing,
}

impl PeerWatch {
    /// A peer that was heard just now.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { heard: now, rounds: Rounds::new(now, ROUND), standing: Standing::Trusted }
    }

    /// It answered a heartbeat.
    pub fn heard(&mut self, now: Timestamp) -> Option<PeerVerdict> {
        self.heard = now;
        if self.standing != Standing::Suspected {
            return None;
        }
        self.standing = Standing::Trusted;
        Some(PeerVerdict::Cleared)
    }

    /// Holds a round. Call it every [`ROUND`].
    pub fn round(&mut self, now: Timestamp) -> Option<PeerVerdict> {
        match self.rounds.hold(now) {
            Round::Piled => return None,
            Round::Late(gap) => {
                // Its silence goes on from where it was when we stopped listening.
                self.heard = self.heard.plus(gap).min(now);
                return None;
            }
            Round::OnTime => {}
        }
        let silent = now.since(self.heard);
        let verdict = match self.standing {
            Standing::Trusted | Standing::Suspected if silent >= SILENCE && !is(Bug::LostPeerNeverTold) => {
                PeerVerdict::Lost
            }
            Standing::Trusted if silent >= SUSPICION => PeerVerdict::Suspected,
            _ => return None,
        };
        self.standing = if verdict == PeerVerdict::Lost { Standing::Lost } else { Standing::Suspected };
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(Duration::from_millis(ms))
    }

    fn verdicts(watch: &mut PeerWatch, rounds: impl IntoIterator<Item = u64>) -> Vec<(u64, PeerVerdict)> {
        rounds.into_iter().filter_map(|ms| watch.round(at(ms)).map(|verdict| (ms, verdict))).collect()
    }

    #[test]
    fn silence_is_suspicion_after_300_ms_and_loss_after_700_and_each_is_told_once() {
        let mut watch = PeerWatch::new(at(0));
        assert_eq!(
            verdicts(&mut watch, (50..3_000).step_by(50)),
            [(300, PeerVerdict::Suspected), (700, PeerVerdict::Lost)]
        );
        assert_eq!(watch.heard(at(3_000)), None, "what is lost is not found again on this link");
    }

    #[test]
    fn an_answer_clears_a_suspect() {
        let mut watch = PeerWatch::new(at(0));
        assert_eq!(verdicts(&mut watch, [100, 200, 300, 400]), [(300, PeerVerdict::Suspected)]);
        assert_eq!(watch.heard(at(450)), Some(PeerVerdict::Cleared));
        assert_eq!(watch.heard(at(460)), None);
        assert_eq!(verdicts(&mut watch, [500, 600, 700, 800]), [(800, PeerVerdict::Suspected)]);
    }

    #[test]
    fn a_pause_of_our_own_accuses_nobody_and_counts_for_nothing() {
        let mut watch = PeerWatch::new(at(0));
        let paused = [100, 200, 5_000, 5_000, 5_001, 5_100, 5_200, 5_300, 5_400, 5_500];
        assert_eq!(
            verdicts(&mut watch, paused),
            [(5_100, PeerVerdict::Suspected), (5_500, PeerVerdict::Lost)],
            "200 ms before the pause and the rest after it"
        );
    }

    proptest! {
        /// However late our own rounds come, a peer whose answers we read in every one is not accused.
        #[test]
        fn a_peer_that_is_heard_is_never_accused(gaps in proptest::collection::vec(1u64..5_000, 1..100)) {
            let mut watch = PeerWatch::new(at(0));
            let mut now = 0;
            for gap in gaps {
                now += gap;
                prop_assert_eq!(watch.round(at(now)), None);
                prop_assert_eq!(watch.heard(at(now)), None);
            }
        }

        /// A silent peer is lost after 700 ms of listening, and never before.
        #[test]
        fn loss_takes_as_long_as_it_should(gaps in proptest::collection::vec(25u64..500, 1..100)) {
            let mut watch = PeerWatch::new(at(0));
            let (mut now, mut listened) = (0, 0);
            for gap in gaps {
                now += gap;
                let on_time = gap <= 150;
                listened += if on_time { gap } else { 0 };
                let verdict = watch.round(at(now));
                if verdict == Some(PeerVerdict::Lost) {
                    prop_assert!(on_time && listened >= 700);
                    return Ok(());
                }
                prop_assert!(!on_time || listened < 700, "not told after {} ms", listened);
            }
        }
    }
}
