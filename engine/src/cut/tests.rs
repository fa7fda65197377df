use proptest::prelude::*;

use super::*;

const RATE: u32 = 16_000;
const STEP: usize = 1_600;

fn cuts(rule: &mut CutRule, voiced: &[bool]) -> Vec<(u64, CutCause)> {
    let (mut spoke, mut silence) = (false, 0);
    let mut found = Vec::new();
    for (index, voice) in voiced.iter().enumerate() {
        spoke |= voice;
        silence = if *voice { 0 } else { silence + STEP as u32 };
        if let Some(cause) = rule.step(STEP, Activity { spoke, silence }, false) {
            found.push(((index as u64 + 1) * STEP as u64, cause));
            rule.reset();
            (spoke, silence) = (false, 0);
        }
    }
    found
}

#[test]
fn nothing_is_over_the_hard_cut() {
    let mut rule = CutRule::new(&CutOptions::default(), RATE, Some(600));
    assert_eq!(cuts(&mut rule, &[true; 320]), [(240_000, CutCause::Length), (480_000, CutCause::Length)]);
}

#[test]
fn silence_alone_ends_empty_after_five_seconds() {
    let mut rule = CutRule::new(&CutOptions::default(), RATE, Some(600));
    assert_eq!(cuts(&mut rule, &[false; 50]), [(80_000, CutCause::NoSpeech)]);
}

#[test]
fn a_short_pause_cuts_only_a_long_segment() {
    let mut voiced = vec![true; 20];
    voiced.extend([false; 3]);
    voiced.extend([true; 40]);
    voiced.extend([false; 3]);
    let mut rule = CutRule::new(&CutOptions::default(), RATE, Some(600));
    assert_eq!(cuts(&mut rule, &voiced), [(66 * STEP as u64, CutCause::Pause)]);
}

#[test]
fn the_endpoint_needs_speech_first() {
    let mut voiced = vec![false; 10];
    voiced.extend([true; 5]);
    voiced.extend([false; 6]);
    let mut rule = CutRule::new(&CutOptions::default(), RATE, Some(600));
    assert_eq!(cuts(&mut rule, &voiced), [(21 * STEP as u64, CutCause::Endpoint)]);
}

#[test]
fn another_silence_than_the_engines_own_can_be_asked_for() {
    let mut voiced = vec![true; 5];
    voiced.extend([false; 20]);
    for (silence_ms, steps) in [(None, 11), (Some(300), 8), (Some(1_500), 20)] {
        // With and without an endpoint of the engine's own.
        for own in [Some(600), None].into_iter().filter(|own| own.is_some() || silence_ms.is_some()) {
            let options = CutOptions { silence_ms, ..CutOptions::default() };
            let mut rule = CutRule::new(&options, RATE, own);
            assert_eq!(
                cuts(&mut rule, &voiced),
                [(steps * STEP as u64, CutCause::Endpoint)],
                "{silence_ms:?}"
            );
        }
    }
}

proptest! {
    /// What follows a cut is cut as if it stood alone: replay from a segment's first sample needs nothing before it.
    #[test]
    fn cuts_after_a_cut_do_not_depend_on_what_was_before(
        runs in proptest::collection::vec((any::<bool>(), 1usize..90), 1..12),
    ) {
        let voiced: Vec<bool> =
            runs.iter().flat_map(|(voice, steps)| std::iter::repeat_n(*voice, *steps)).collect();
        let whole = cuts(&mut CutRule::new(&CutOptions::default(), RATE, Some(600)), &voiced);
        for (index, (at, _)) in whole.iter().enumerate() {
            let rest = &voiced[usize::try_from(*at).expect("small") / STEP..];
            let again = cuts(&mut CutRule::new(&CutOptions::default(), RATE, Some(600)), rest);
            let shifted: Vec<_> = again.iter().map(|(rest_at, cause)| (at + rest_at, *cause)).collect();
            prop_assert_eq!(&whole[index + 1..], &shifted[..]);
        }
    }

    #[test]
    fn no_segment_is_longer_than_the_hard_cut_rounded_up_to_a_step(
        voiced in proptest::collection::vec(any::<bool>(), 0..600),
    ) {
        let mut last = 0;
        for (at, _) in cuts(&mut CutRule::new(&CutOptions::default(), RATE, None), &voiced) {
            prop_assert!(at - last <= 240_000);
            last = at;
        }
    }
}
