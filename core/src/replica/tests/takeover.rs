//! Which copy is gone on from.

use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, Segment, SourceOffset};

use crate::replica::{Answer, Choice, Wanted, choose, suffices};

fn held(epoch: u64, view: u64, next_segment: u64, audio_end: u64) -> Answer {
    Answer::Held(CopySummary {
        epoch: Epoch(epoch),
        view,
        next_segment: Segment(next_segment),
        audio_end: SourceOffset(audio_end),
    })
}

fn wanted(last_final: Option<u64>, final_to: Option<u64>, have_from: u64) -> Wanted {
    Wanted {
        last_final: last_final.map(Segment),
        final_to: final_to.map(SourceOffset),
        have_from: SourceOffset(have_from),
    }
}

#[test]
fn copies_rank_by_epoch_set_commits_and_audio() {
    let go_on = |index| Choice::GoOn { index, skip_to: None };
    let nothing = wanted(None, None, 0);
    for (answers, best) in [
        (vec![held(1, 9, 9, 900), held(2, 1, 1, 100)], 1),
        (vec![held(2, 1, 9, 900), held(2, 2, 1, 100)], 1),
        (vec![held(2, 2, 2, 100), held(2, 2, 1, 900)], 0),
        (vec![held(2, 2, 2, 100), Answer::Silent, held(2, 2, 2, 101)], 2),
        (vec![held(2, 2, 2, 100), held(2, 2, 2, 100)], 0),
    ] {
        assert_eq!(choose(&answers, &nothing), go_on(best), "{answers:?}");
    }
}

#[test]
fn one_that_obeys_a_higher_epoch_ends_it() {
    let answers = [held(1, 1, 1, 100), Answer::Fenced { epoch: Epoch(7) }];
    assert_eq!(choose(&answers, &wanted(None, None, 0)), Choice::Superseded { epoch: Epoch(7) });
}

#[test]
fn without_a_copy_there_is_nothing_to_go_on_from() {
    assert_eq!(choose(&[Answer::Silent, Answer::NotHeld], &wanted(None, None, 0)), Choice::Unknown);
}

#[test]
fn what_the_client_has_overrides_the_copy() {
    let answers = [held(1, 1, 2, 1_000)];
    assert_eq!(choose(&answers, &wanted(Some(1), None, 900)), Choice::GoOn { index: 0, skip_to: None });
    assert_eq!(choose(&answers, &wanted(Some(3), None, 900)), Choice::Unknown);
    let skip_to = Some((Segment(4), SourceOffset(1_500)));
    assert_eq!(choose(&answers, &wanted(Some(3), Some(1_500), 1_500)), Choice::GoOn { index: 0, skip_to });
    assert_eq!(choose(&answers, &wanted(Some(u64::MAX), None, 900)), Choice::Unknown);
}

#[test]
fn audio_that_nobody_has_is_a_gap() {
    let answers = [held(1, 1, 0, 1_000)];
    assert_eq!(choose(&answers, &wanted(None, None, 1_001)), Choice::Gap);
    assert_eq!(choose(&answers, &wanted(Some(0), Some(1_200), 1_201)), Choice::Gap);
}

#[test]
fn a_copy_of_the_newest_set_needs_no_other() {
    let wanted = wanted(Some(0), Some(100), 100);
    assert!(suffices(&held(1, 2, 1, 1_000), View(2), &wanted));
    for answer in
        [held(1, 1, 1, 1_000), held(1, 2, 0, 1_000), held(1, 2, 1, 50), Answer::NotHeld, Answer::Silent]
    {
        assert!(!suffices(&answer, View(2), &wanted), "{answer:?}");
    }
    assert!(!suffices(&held(1, 0, 1, 1_000), View(0), &wanted), "its owner alone had it all");
}
