//! What every engine promises, checked on every engine with its real model.
//!
//! A failure here means that a failover could change a transcript. Models come from the home folder; without them these tests
//! fail and say how to get them.

#![cfg(all(feature = "vosk", feature = "moonshine"))]

mod support;

use starling_engine::{Engine, Recognizer, Step, warmup};
use starling_protocol::lease::DecodeOptions;
use starling_protocol::{CutCause, Utterance};
use support::{Case, STEP, moonshine, scripted, vosk};

/// One segment as a caller sees it.
#[derive(Debug, Clone, PartialEq)]
struct Segment {
    from: usize,
    to: usize,
    cause: CutCause,
    utterance: Utterance,
}

/// Runs audio through a recognizer in steps; `partial_every` steps a partial is asked for, 0 for never.
fn run(recognizer: &mut dyn Recognizer, audio: &[i16], partial_every: usize) -> Vec<Segment> {
    let mut segments = Vec::new();
    let (mut from, mut at) = (0, 0);
    // The grid starts over at every cut that falls off it; all cuts here are on it.
    for (index, step) in audio.chunks(STEP).enumerate() {
        at += step.len();
        let end = recognizer.accept(step).expect("decodes");
        if let Step::Endpoint(cause) = end {
            let utterance = recognizer.finish().expect("finishes");
            segments.push(Segment { from, to: at, cause, utterance });
            from = at;
        }
        if partial_every > 0 && index % partial_every == 0 {
            recognizer.partial().expect("partial");
        }
    }
    let utterance = recognizer.finish().expect("finishes");
    segments.push(Segment { from, to: at, cause: CutCause::End, utterance });
    segments
}

fn open(engine: &dyn Engine) -> Box<dyn Recognizer> {
    engine.open(&DecodeOptions::default()).expect("opens")
}

/// The audio alone decides: not the recognizer's past, not partials.
fn replays(case: &Case) {
    let mut reused = open(case.engine.as_ref());
    for (name, clip) in &case.clips {
        let fresh = run(open(case.engine.as_ref()).as_mut(), clip, 0);
        assert!(fresh.iter().any(|segment| !segment.utterance.text.is_empty()), "{name}: no text at all");
        for every in [1, 7] {
            assert_eq!(
                run(reused.as_mut(), clip, every),
                fresh,
                "{name}: reused, a partial every {every} steps"
            );
        }
        assert_eq!(run(open(case.engine.as_ref()).as_mut(), clip, 2), fresh, "{name}: fresh, with partials");
    }
    for (name, clip) in case.clips.iter().rev() {
        let again = run(reused.as_mut(), clip, 0);
        assert_eq!(again, run(reused.as_mut(), clip, 5), "{name}: in reverse order");
    }
}

/// A replay from any segment's first sample cuts and says the same as the undisturbed run did from there.
fn replays_from_every_cut(case: &Case) {
    let mut recognizer = open(case.engine.as_ref());
    let whole = run(recognizer.as_mut(), &case.long, 0);
    assert!(whole.len() > 3, "the long recording has {} segments", whole.len());
    assert!(whole.iter().all(|segment| segment.to - segment.from <= 15 * 16_000));
    assert!(whole.windows(2).all(|pair| pair[0].to == pair[1].from));
    for first in 1..whole.len() - 1 {
        let from = whole[first].from;
        // As after a crash: a recognizer that was in the middle of something else.
        recognizer.accept(&warmup::babble(16_000, 100)).expect("decodes");
        recognizer.reset().expect("resets");
        let upto = whole[first + 1].to;
        let again = run(recognizer.as_mut(), &case.long[from..upto], 0);
        let shifted: Vec<_> = again
            .into_iter()
            .map(|segment| Segment { from: segment.from + from, to: segment.to + from, ..segment })
            .collect();
        assert_eq!(shifted[..2], whole[first..first + 2], "from segment {first}");
    }
}

/// Sound that is no speech is survived, and silence is empty.
fn survives_odd_audio(case: &Case) {
    let mut recognizer = open(case.engine.as_ref());
    let nothing = recognizer.finish().expect("finishes");
    assert_eq!(nothing, Utterance::default(), "an utterance of no samples");
    assert_eq!(recognizer.partial().expect("partial"), "");
    recognizer.accept(&[]).expect("no samples");
    recognizer.accept(&[1]).expect("one sample");
    recognizer.finish().expect("finishes");

    let silent = run(recognizer.as_mut(), &vec![0; 12 * 16_000], 4);
    assert_eq!(silent.len(), 3, "{silent:?}");
    for segment in &silent[..2] {
        assert_eq!((segment.cause, segment.to - segment.from), (CutCause::NoSpeech, 80_000));
    }
    assert!(silent.iter().all(|segment| segment.utterance == Utterance::default()), "{silent:?}");

    let mut seed = 1_u32;
    let noise: Vec<i16> = (0..6 * 16_000)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 19) as i16
        })
        .collect();
    let clipped: Vec<i16> =
        case.clips[0].1.iter().map(|sample| if *sample > 0 { i16::MAX } else { i16::MIN }).collect();
    for (name, audio) in [("noise", &noise), ("clipped", &clipped)] {
        let once = run(recognizer.as_mut(), audio, 0);
        assert_eq!(run(recognizer.as_mut(), audio, 3), once, "{name}");
    }
    // Odd lengths before a flush, each a segment of its own, and speech afterwards as ever.
    for length in [1, 7, 159, 161, 511, 513, 1_599] {
        let piece = &case.clips[0].1[4_000..4_000 + length];
        recognizer.accept(piece).expect("decodes");
        let first = recognizer.finish().expect("finishes");
        recognizer.accept(piece).expect("decodes");
        assert_eq!(recognizer.finish().expect("finishes"), first, "{length} samples");
    }
    let speech = run(open(case.engine.as_ref()).as_mut(), &case.clips[0].1, 0);
    assert_eq!(run(recognizer.as_mut(), &case.clips[0].1, 0), speech);
}

/// A reset in the middle leaves nothing behind, and options can change on a pooled recognizer.
fn resets_and_adopts(case: &Case) {
    let clip = &case.clips[0].1;
    let mut recognizer = open(case.engine.as_ref());
    let expected = run(recognizer.as_mut(), clip, 0);
    recognizer.accept(&clip[..STEP]).expect("decodes");
    recognizer.partial().expect("partial");
    recognizer.reset().expect("resets");
    assert_eq!(run(recognizer.as_mut(), clip, 0), expected);
    let plain = DecodeOptions { words: false, ..DecodeOptions::default() };
    assert!(recognizer.adopt(&plain));
    let adopted = run(recognizer.as_mut(), clip, 0);
    assert_eq!(adopted, run(case.engine.open(&plain).expect("opens").as_mut(), clip, 0));
    assert!(recognizer.adopt(&DecodeOptions::default()));
    assert_eq!(run(recognizer.as_mut(), clip, 0), expected);
}

/// Opening and closing leaves no memory behind.
fn does_not_grow(case: &Case) {
    let sound = warmup::babble(16_000, 10);
    let cycle = |turn: usize| {
        let mut recognizer = open(case.engine.as_ref());
        // Not every time: Vosk composes part of its graph for each recognizer that decodes.
        if turn.is_multiple_of(5) {
            recognizer.accept(&sound).expect("decodes");
            recognizer.reset().expect("resets");
        }
    };
    (0..50).for_each(cycle);
    let settled = support::resident_bytes();
    (50..200).for_each(cycle);
    let grown = support::resident_bytes().saturating_sub(settled);
    // A recognizer that leaked would cost megabytes each; an allocator's own slack stays far below.
    assert!(grown < 24 << 20, "150 recognizers left {grown} bytes behind");
}

/// Refused options name themselves, and the engine goes on.
fn refuses_options(case: &Case) {
    let long = DecodeOptions { phrases: vec!["x".repeat(201)], ..DecodeOptions::default() };
    let many = DecodeOptions { alternatives: 11, ..DecodeOptions::default() };
    let mut cuts = DecodeOptions::default();
    cuts.cuts.max_ms = 0;
    for options in [long, many, cuts] {
        assert!(case.engine.open(&options).is_err(), "{options:?}");
    }
    open(case.engine.as_ref());
}

macro_rules! conformance {
    ($engine:ident: $($property:ident),*) => {
        mod $engine {
            $(#[test]
            fn $property() {
                super::$property(&super::support::$engine());
            })*
        }
    };
}

conformance!(scripted: replays, replays_from_every_cut, resets_and_adopts, does_not_grow, refuses_options);
conformance!(moonshine: replays, replays_from_every_cut, survives_odd_audio, resets_and_adopts, does_not_grow, refuses_options);
conformance!(vosk: replays, replays_from_every_cut, survives_odd_audio, resets_and_adopts, does_not_grow, refuses_options);

#[test]
fn a_second_thread_decodes_the_same() {
    for case in [scripted(), moonshine(), vosk()] {
        let clip = &case.clips[0].1;
        let expected = run(open(case.engine.as_ref()).as_mut(), clip, 0);
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..2).map(|_| scope.spawn(|| run(open(case.engine.as_ref()).as_mut(), clip, 3))).collect();
            for thread in threads {
                assert_eq!(thread.join().expect("joins"), expected);
            }
        });
    }
}

#[test]
fn moonshine_makes_no_more_errors_than_its_reference() {
    let case = moonshine();
    let mut recognizer = open(case.engine.as_ref());
    for (name, most) in [("two_cities", 6.7), ("beckett", 16.7)] {
        let audio = support::recording(&format!("{name}.wav"));
        let segments = run(recognizer.as_mut(), &audio, 0);
        let text: Vec<&str> = segments.iter().map(|segment| segment.utterance.text.as_str()).collect();
        let rate = support::word_error_percent(support::reference(name), &text.join(" "));
        assert!(rate <= most + 0.05, "{name}: {rate:.1} % word errors, {most} % are allowed: {text:?}");
    }
}

mod vosk_only {
    use super::*;

    #[test]
    fn words_have_times_in_their_segment_and_alternatives_are_ranked() {
        let case = vosk();
        let options = DecodeOptions { alternatives: 3, ..DecodeOptions::default() };
        let clip = &case.clips[0].1;
        for segment in run(open(case.engine.as_ref()).as_mut(), clip, 0) {
            let words = &segment.utterance.words;
            assert_eq!(
                words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" "),
                segment.utterance.text
            );
            assert!(words.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(words.iter().all(|word| word.end as usize <= segment.to - segment.from));
            assert!(words.iter().all(|word| word.confidence.is_some_and(|sure| (0.0..=1.0).contains(&sure))));
        }
        let mut recognizer = case.engine.open(&options).expect("opens");
        let said = run(recognizer.as_mut(), clip, 0).remove(0).utterance;
        assert!(said.alternatives.len() > 1, "{said:?}");
        assert_eq!(said.alternatives[0].text, said.text);
    }

    #[test]
    fn phrases_restrict_the_words_and_unknown_ones_are_refused() {
        let case = vosk();
        let clip = &case.clips[0].1;
        let word = run(open(case.engine.as_ref()).as_mut(), clip, 0)[0].utterance.words[0].text.clone();
        let options =
            DecodeOptions { phrases: vec![word.clone(), "[unk]".into()], ..DecodeOptions::default() };
        let mut recognizer = case.engine.open(&options).expect("opens");
        let said = run(recognizer.as_mut(), clip, 0);
        for segment in &said {
            let mut words = segment.utterance.text.split_whitespace();
            assert!(words.all(|heard| heard == word || heard == "[unk]"), "{}", segment.utterance.text);
        }
        assert_eq!(run(case.engine.open(&options).expect("opens").as_mut(), clip, 2), said);
        assert!(!recognizer.adopt(&DecodeOptions::default()), "a phrase list can't be taken away");
        for phrases in [vec!["qqqq".to_owned()], vec![String::new()], vec!["\u{0}".to_owned()]] {
            let options = DecodeOptions { phrases: phrases.clone(), ..DecodeOptions::default() };
            assert!(case.engine.open(&options).is_err(), "{phrases:?}");
        }
    }

    #[test]
    fn rates_and_models_that_end_the_process_are_refused_first() {
        for rate in [0, 1, 7_999, 48_001, u32::MAX] {
            assert!(support::load_vosk(&support::model("vosk-ko-small"), rate).is_err(), "{rate}");
        }
        let broken = [
            ("conf/model.conf", ""),
            ("conf/mfcc.conf", "--num-ceps=40\n"),
            ("ivector/splice.conf", "nonsense"),
            ("phrases/graph/disambig_tid.int", "x"),
        ];
        for (name, text) in broken {
            let copy = support::linked_copy(&support::model("vosk-ko-small"));
            support::replace(copy.path(), name, text);
            let error = support::load_vosk(copy.path(), 16_000).err().expect("is refused").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}

mod moonshine_only {
    use super::*;

    #[test]
    fn broken_files_and_another_rate_are_refused() {
        assert!(support::load_moonshine(&support::model("moonshine-tiny-en"), 8_000).is_err());
        for name in starling_engine::moonshine::MODEL_FILES {
            let copy = support::linked_copy(&support::model("moonshine-tiny-en"));
            support::replace(copy.path(), name, "no model");
            let error = support::load_moonshine(copy.path(), 16_000).err().expect("is refused").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
