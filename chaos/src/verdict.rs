//! Whether a caller was told all that it said, once, in order, and cut as without a fault.
//!
//! Owns: the judgement of one caller by what it was told. Must never: believe a node.

use starling_client::{CutCause, Final};

use crate::callers::Told;
use crate::score::difference;
use crate::script::Script;

/// Where segments end when nothing happens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape(Vec<(u64, u64, u64, CutCause)>);

impl Shape {
    pub(crate) fn of(finals: &[Final]) -> Self {
        Self(finals.iter().map(|last| (last.segment.0, last.from.0, last.to.0, last.cause)).collect())
    }
}

/// What was wrong with one session.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Judged {
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    /// In sentences; none is well.
    pub(crate) faults: Vec<String>,
}

pub(crate) fn text(finals: &[Final]) -> String {
    let texts: Vec<&str> = finals.iter().map(|last| &*last.text).filter(|text| !text.is_empty()).collect();
    texts.join(" ")
}

/// `calm` is what the same audio gave undisturbed: its text, where the script does not know it, and its shape.
pub(crate) fn judge(told: &Told, script: &Script, calm: (&str, &Shape)) -> Judged {
    let mut judged = Judged::default();
    if let Some(error) = &told.error {
        judged.faults.push(error.clone());
    }
    if told.gap_frames > 0 {
        judged.faults.push(format!("{} frames were lost for good", told.gap_frames));
    }
    contiguous(told, script, &mut judged);
    let heard = text(&told.finals);
    let expected = script.words.as_ref().map_or_else(|| calm.0.to_owned(), |words| words.join(" "));
    if script.poisoned.is_empty() {
        let difference = difference(&expected, &heard);
        (judged.lost, judged.twice) = (difference.lost, difference.added);
        if heard != expected {
            judged.faults.push(format!("{} words lost, {} twice or wrong", judged.lost, judged.twice));
        } else if told.error.is_none() && Shape::of(&told.finals) != *calm.1 {
            judged.faults.push("segments are cut elsewhere than without a fault".to_owned());
        }
        if told.finals.iter().any(|last| last.error.is_some()) {
            judged.faults.push("a segment was given up that does no harm".to_owned());
        }
        return judged;
    }
    // Of the deadly segment anything may be missing, and nothing may come twice.
    let poisoned = |word: &&str| script.poisoned.iter().any(|other| other == word);
    let outside: Vec<&str> = heard.split_whitespace().filter(|word| !poisoned(word)).collect();
    let inside: Vec<&str> = heard.split_whitespace().filter(poisoned).collect();
    let difference_outside = difference(&expected, &outside.join(" "));
    let repeated = difference(&script.poisoned.join(" "), &inside.join(" ")).added;
    (judged.lost, judged.twice) = (difference_outside.lost, difference_outside.added + repeated);
    if judged.lost + judged.twice > 0 {
        judged.faults.push(format!("{} words lost, {} twice or wrong", judged.lost, judged.twice));
    }
    let given_up = told.finals.iter().filter(|last| last.error.is_some()).count();
    if given_up != 1 {
        judged.faults.push(format!("{given_up} segments were given up where one is deadly"));
    }
    judged
}

/// Finals adjoin, from the first frame to the last.
fn contiguous(told: &Told, script: &Script, judged: &mut Judged) {
    let mut due = (0, 0);
    for last in &told.finals {
        if (last.segment.0, last.from.0) != due && told.gap_frames == 0 {
            judged
                .faults
                .push(format!("segment {} from {} came where {due:?} was due", last.segment, last.from));
        }
        due = (last.segment.0 + 1, last.to.0);
    }
    match told.done {
        Some((segments, frames)) if (segments, frames) != due || frames != script.frames() => {
            judged.faults.push(format!(
                "done with {segments} segments of {frames} frames; {due:?} and {} were due",
                script.frames()
            ));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use starling_client::{Segment, SourceOffset};

    use super::*;
    use crate::scenario::Load;

    fn load(poisoned: usize) -> Load {
        let text = format!("callers = 3\nseconds = 0.6\nphrase_s = 0.2\npoisoned = {poisoned}\n");
        toml::from_str(&text).expect("right")
    }

    /// Three segments of two words each, told as they should be.
    fn right(script: &Script) -> Told {
        let all: Vec<String> = (0..6).map(|place| format!("{place}:1.{place}")).collect();
        let frames = script.frames() / 3;
        let last = |(number, words): (u64, &[String])| Final {
            segment: Segment(number),
            from: SourceOffset(number * frames),
            to: SourceOffset((number + 1) * frames),
            start: 0.0,
            end: 0.0,
            cause: CutCause::Endpoint,
            text: words.join(" "),
            words: Vec::new(),
            confidence: None,
            alternatives: Vec::new(),
            error: None,
        };
        let finals: Vec<Final> = (0..).zip(all.chunks(2)).map(last).collect();
        Told { finals, done: Some((3, script.frames())), ..Told::default() }
    }

    fn judged(script: &Script, change: impl FnOnce(&mut Told)) -> Judged {
        let calm = right(script);
        let shape = Shape::of(&calm.finals);
        let mut told = calm;
        change(&mut told);
        judge(&told, script, ("", &shape))
    }

    #[test]
    fn what_is_right_is_let_pass() {
        let script = Script::scripted(1, &load(0));
        assert_eq!(judged(&script, |_| {}), Judged::default());
    }

    #[test]
    fn every_way_to_be_wrong_is_found() {
        let script = Script::scripted(1, &load(0));
        let lost = judged(&script, |told| told.finals[1].text = "2:1.2".to_owned());
        assert_eq!((lost.lost, lost.twice, lost.faults.len()), (1, 0, 1));
        let twice = judged(&script, |told| told.finals[2].text.insert_str(0, "3:1.3 "));
        assert_eq!((twice.lost, twice.twice, twice.faults.len()), (0, 1, 1));
        let changes: [fn(&mut Told); 8] = [
            |told| told.finals[1].from.0 += 1,
            |told| told.finals[0].cause = CutCause::Pause,
            |told| told.finals[0].error = Some("given up".to_owned()),
            |told| drop(told.finals.remove(1)),
            |told| told.finals.swap(0, 1),
            |told| told.done = Some((3, 1)),
            |told| told.gap_frames = 5,
            |told| told.error = Some("it broke".to_owned()),
        ];
        for change in changes {
            assert!(!judged(&script, change).faults.is_empty());
        }
    }

    #[test]
    fn a_deadly_segment_may_lose_its_own_words_and_no_others() {
        let script = Script::scripted(1, &load(2));
        assert_eq!(script.poisoned, ["2:1.2"]);
        let given_up = |told: &mut Told| {
            told.finals[1].text.clear();
            told.finals[1].error = Some("three deaths".to_owned());
        };
        assert_eq!(judged(&script, given_up), Judged::default());
        let more = judged(&script, |told| {
            given_up(told);
            told.finals[2].text = "4:1.4".to_owned();
        });
        assert_eq!(more.lost, 1);
        // The word in place of the deadly one can't be heard by anybody; and none was given up.
        assert!(!judged(&script, |_| {}).faults.is_empty());
    }
}
