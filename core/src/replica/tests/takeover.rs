//! Which copy is gone on from.

use std::time::Duration;

use proptest::prelude::*;
use starling_protocol::control::CopySummary;
use starling_protocol::replica::View;
use starling_protocol::{Epoch, Segment, SessionId, SourceOffset};

use crate::Timestamp;
use crate::replica::{Answer, AskedAgain, Choice, Wanted, choose, suffices};

const UNKNOWN: Choice = Choice::Unknown { unanswered: false };

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
        by_id: false,
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
    assert_eq!(choose(&[Answer::NotHeld, Answer::NotHeld], &wanted(None, None, 0)), UNKNOWN);
}

#[test]
fn who_would_lose_by_it_is_not_told_that_all_is_lost_while_somebody_has_not_answered() {
    let all = [wanted(None, None, 0), wanted(Some(3), Some(500), 500)];
    let by_id = Wanted { by_id: true, ..wanted(None, None, 0) };
    let part = [wanted(None, None, 1), wanted(Some(3), Some(500), 501), wanted(Some(3), None, 500), by_id];
    let unknown = |unanswered| Choice::Unknown { unanswered };
    for (answers, by_all, by_part) in [
        (vec![Answer::NotHeld], false, false),
        (vec![Answer::Silent, Answer::NotHeld], false, true),
        (vec![Answer::Silent, Answer::Silent], false, true),
        // It is there, and says so.
        (vec![Answer::NotHeld, Answer::Busy], true, true),
    ] {
        for wanted in all {
            assert_eq!(choose(&answers, &wanted), unknown(by_all), "{answers:?}, {wanted:?}");
        }
        for wanted in part {
            assert_eq!(choose(&answers, &wanted), unknown(by_part), "{answers:?}, {wanted:?}");
        }
    }
    let gap = |answers: &[Answer]| choose(answers, &wanted(None, None, 1_001));
    assert_eq!(gap(&[held(1, 1, 0, 1_000), Answer::NotHeld]), Choice::Gap { unanswered: false });
    assert_eq!(gap(&[held(1, 1, 0, 1_000), Answer::Silent]), Choice::Gap { unanswered: true });
}

#[test]
fn nobody_is_told_to_ask_again_for_ever() {
    let id = |number| SessionId::parse(&format!("00000000-0000-4000-8000-{number:012}"));
    let (mut asked, session) = (AskedAgain::default(), |number: u32| id(number).expect("an id"));
    let at = |seconds: f64| Timestamp(Duration::from_secs_f64(seconds));
    for (seconds, may) in [(100.0, true), (109.9, true), (110.0, false), (159.0, false), (160.0, true)] {
        assert_eq!(asked.may(at(seconds), session(1)), may, "at {seconds}");
    }
    assert!(asked.may(at(165.0), session(2)), "each for itself");
    asked.settled(session(1));
    assert!(asked.may(at(171.0), session(1)), "it went on meanwhile");
    for number in 10..6_000 {
        let _ = asked.may(at(172.0), session(number));
    }
    assert!(!asked.may(at(172.0), session(6_000)), "there is a bound");
    assert!(asked.may(at(173.0), session(1)), "who was told so before may go on asking");
}

#[test]
fn what_the_client_has_overrides_the_copy() {
    let answers = [held(1, 1, 2, 1_000)];
    assert_eq!(choose(&answers, &wanted(Some(1), None, 900)), Choice::GoOn { index: 0, skip_to: None });
    assert_eq!(choose(&answers, &wanted(Some(3), None, 900)), UNKNOWN);
    let skip_to = Some((Segment(4), SourceOffset(1_500)));
    assert_eq!(choose(&answers, &wanted(Some(3), Some(1_500), 1_500)), Choice::GoOn { index: 0, skip_to });
    assert_eq!(choose(&answers, &wanted(Some(u64::MAX), None, 900)), UNKNOWN);
}

#[test]
fn audio_that_nobody_has_is_a_gap() {
    let answers = [held(1, 1, 0, 1_000)];
    let gap = Choice::Gap { unanswered: false };
    assert_eq!(choose(&answers, &wanted(None, None, 1_001)), gap);
    assert_eq!(choose(&answers, &wanted(Some(0), Some(1_200), 1_201)), gap);
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

fn any_answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        6 => (0u64..3, 0u64..3, 0u64..4, 0u64..4).prop_map(|(epoch, view, segment, audio)| held(epoch, view, segment, audio * 100)),
        1 => Just(Answer::NotHeld),
        1 => Just(Answer::Silent),
        1 => Just(Answer::Busy),
        1 => (1u64..5).prop_map(|epoch| Answer::Fenced { epoch: Epoch(epoch) }),
    ]
}

proptest! {
    /// Against a sort of all that was answered.
    #[test]
    fn the_choice_is_the_first_of_the_best_and_never_passes_a_fence(
        answers in proptest::collection::vec(any_answer(), 0..5),
        last_final in proptest::option::of(0u64..5),
        knows_where: bool,
        final_to in 0u64..500,
        have_from in 0u64..500,
        newest in 0u64..3,
    ) {
        let wanted = wanted(last_final, (last_final.is_some() && knows_where).then_some(final_to), have_from);
        let mut copies: Vec<(CopySummary, usize)> = answers
            .iter()
            .enumerate()
            .filter_map(|(index, answer)| match answer {
                Answer::Held(summary) => Some((*summary, index)),
                _ => None,
            })
            .collect();
        copies.sort_by_key(|(held, index)| {
            (std::cmp::Reverse((held.epoch, held.view, held.next_segment, held.audio_end)), *index)
        });
        let fence = answers.iter().filter_map(|answer| match answer {
            Answer::Fenced { epoch } => Some(*epoch),
            _ => None,
        });
        let choice = choose(&answers, &wanted);
        let has = |which| answers.contains(&which);
        let all = have_from <= wanted.final_to.map_or(0, |to| to.0);
        let waits = has(Answer::Busy) || (has(Answer::Silent) && !all);
        if let Choice::Gap { unanswered } | Choice::Unknown { unanswered } = choice {
            prop_assert_eq!(unanswered, waits, "nobody waits for nothing, or loses words without having waited");
        }
        match (fence.max(), copies.first()) {
            (Some(epoch), _) => prop_assert_eq!(choice, Choice::Superseded { epoch }),
            (None, None) => prop_assert_eq!(choice, Choice::Unknown { unanswered: waits }),
            (None, Some((best, first))) => {
                let ahead = last_final.is_some_and(|last| last >= best.next_segment.0);
                let known_to = if ahead { best.audio_end.0.max(final_to) } else { best.audio_end.0 };
                match choice {
                    Choice::GoOn { index, skip_to } => {
                        prop_assert_eq!(index, *first);
                        prop_assert_eq!(skip_to.is_some(), ahead);
                        prop_assert!(have_from <= known_to, "no hole between what there is and what can be sent");
                    }
                    Choice::Gap { .. } => prop_assert!(have_from > known_to),
                    Choice::Unknown { .. } => prop_assert!(ahead && !knows_where),
                    Choice::Superseded { .. } => prop_assert!(false, "nobody said so"),
                }
            }
        }
        // Who is enough alone is gone on from alone, with nothing left out.
        for answer in answers.iter().filter(|answer| suffices(answer, View(newest), &wanted)) {
            prop_assert_eq!(choose(&[*answer], &wanted), Choice::GoOn { index: 0, skip_to: None });
            prop_assert!(newest > 0);
        }
    }
}
