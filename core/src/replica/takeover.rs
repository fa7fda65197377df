//! Which copy a session goes on from when its owner is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};

use crate::Timestamp;
use crate::sabotage::{Bug, is};

/// What a node said when it was asked to obey a new owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// It obeys, and has this much.
    Held(CopySummary),
    /// It has no copy.
    NotHeld,
    /// It obeys a higher epoch.
    Fenced {
        /// Which.
        epoch: Epoch,
    },
    /// It lives and has something of the session, but could not hand it over in time.
    Busy,
    /// It did not answer in time.
    Silent,
}

/// What the client still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The last final that it got.
    pub last_final: Option<Segment>,
    /// Where that one ended.
    pub final_to: Option<SourceOffset>,
    /// The earliest frame that it can send again.
    pub have_from: SourceOffset,
    /// Whether nothing is known of it but the session's id: then it can send nothing again.
    pub by_id: bool,
}

impl Wanted {
    /// Whether the client has all that comes after its last final, so that a new session says all that this one would have said.
    #[must_use]
    pub fn can_begin_anew(&self) -> bool {
        !self.by_id && self.have_from <= self.final_to.unwrap_or_default()
    }
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Go on from the copy of the n-th that answered.
    GoOn {
        /// Which.
        index: usize,
        /// The client has finals that the copy lacks, up to the one before this: they count, and the copy's open segment
        /// does not. `None` when the copy is no older than the client.
        skip_to: Option<(Segment, SourceOffset)>,
    },
    /// Another owner came first.
    Superseded {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The client can't send what comes after the best copy's end.
    Gap {
        /// Somebody who may have more has not said so yet, and the client would lose by not waiting for it.
        unanswered: bool,
    },
    /// There is no copy that the session could go on from.
    Unknown {
        /// As above.
        unanswered: bool,
    },
}

/// Whether nothing that others could answer would be needed beyond this: a copy of the newest set has all that its owner let
/// the client hear, and the client can send the rest.
#[must_use]
pub fn suffices(answer: &Answer, newest: View, wanted: &Wanted) -> bool {
    let current = matches!(answer, Answer::Held(held) if held.view >= newest.0 && newest > View::default());
    current && matches!(choose(&[*answer], wanted), Choice::GoOn { skip_to: None, .. })
}

/// Chooses the copy to go on from. Copies rank by epoch, set, commits and audio, in that order: never by length alone, for
/// an owner that nobody obeys any more may have gone on for a while.
///
/// Who did not answer may be gone, cut off or slow. A client that can begin anew without a loss is not kept waiting for it: it would be
/// silent for as long, and in the end say the same. One that would lose words had better ask again.
#[must_use]
pub fn choose(answers: &[Answer], wanted: &Wanted) -> Choice {
    let fences = answers.iter().filter_map(|answer| match answer {
        Answer::Fenced { epoch } => Some(*epoch),
        _ => None,
    });
    if let Some(epoch) = fences.max() {
        return Choice::Superseded { epoch };
    }
    let held = answers.iter().enumerate().filter_map(|(index, answer)| match answer {
        Answer::Held(summary) => Some((*summary, index)),
        _ => None,
    });
    // Of two alike, the first that was named.
    let rank = |(summary, index): &(CopySummary, usize)| (*summary, std::cmp::Reverse(*index));
    let best = if is(Bug::WorstCopyChosen) { held.min_by_key(rank) } else { held.max_by_key(rank) };
    let unanswered = answers.iter().any(|answer| match answer {
        Answer::Busy => true,
        Answer::Silent => !wanted.can_begin_anew(),
        _ => false,
    });
    let Some((best, index)) = best.filter(|_| !is(Bug::ResumeUnknown)) else {
        return Choice::Unknown { unanswered };
    };
    let has_through = wanted.last_final.map_or(Segment(0), Segment::next);
    let skip_to = if has_through <= best.next_segment {
        None
    } else {
        match wanted.final_to {
            Some(to) => Some((has_through, to)),
            None => return Choice::Unknown { unanswered },
        }
    };
    let known_to = skip_to.map_or(best.audio_end, |(_, to)| best.audio_end.max(to));
    if wanted.have_from > known_to {
        return Choice::Gap { unanswered };
    }
    Choice::GoOn { index, skip_to }
}

/// How long a client is told to ask again for somebody who has not answered: longer than a node that stands still, starts or is cut off for
/// a moment takes to be heard again; short of the minute that clients and copies wait.
const ASK_AGAIN_FOR: Duration = Duration::from_secs(10);

/// By then its client has gone on or given up, at whichever node.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Sessions that are remembered: more than come back to one node in a minute to find nobody. Of further ones nobody is waited for.
const MOST: usize = 4_096;

/// Which clients were told to ask again, and since when: everything ends, waiting for those who never answer too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct AskedAgain {
    since: BTreeMap<SessionId, Timestamp>,
}

impl AskedAgain {
    /// Whether a client may be told to ask again.
    pub fn may(&mut self, now: Timestamp, session: SessionId) -> bool {
        self.since.retain(|_, since| now < since.plus(FORGOTTEN_AFTER));
        if self.since.len() >= MOST && !self.since.contains_key(&session) {
            return false;
        }
        let since = self.since.entry(session).or_insert(now);
        now < since.plus(ASK_AGAIN_FOR)
    }

    /// The session goes on.
    pub fn settled(&mut self, session: SessionId) {
        self.since.remove(&session);
    }
}
