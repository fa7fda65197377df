//! Which copy a session goes on from when its owner is gone.

use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, Segment, SourceOffset};

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
    Gap,
    /// There is no copy that the session could go on from.
    Unknown,
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
    let Some((best, index)) = best.filter(|_| !is(Bug::ResumeUnknown)) else {
        return Choice::Unknown;
    };
    let has_through = wanted.last_final.map_or(Segment(0), Segment::next);
    let skip_to = if has_through <= best.next_segment {
        None
    } else {
        match wanted.final_to {
            Some(to) => Some((has_through, to)),
            None => return Choice::Unknown,
        }
    };
    let known_to = skip_to.map_or(best.audio_end, |(_, to)| best.audio_end.max(to));
    if wanted.have_from > known_to {
        return Choice::Gap;
    }
    Choice::GoOn { index, skip_to }
}
