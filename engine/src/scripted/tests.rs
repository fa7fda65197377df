use proptest::prelude::*;
use starling_protocol::CutCause;

use super::*;

fn decode(audio: &[i16]) -> Vec<(CutCause, String)> {
    let engine = Scripted::new();
    let mut recognizer = engine.open(&DecodeOptions::default()).expect("opens");
    let mut said = Vec::new();
    for step in audio.chunks(BLOCK_SAMPLES) {
        if let Step::Endpoint(cause) = recognizer.accept(step).expect("decodes") {
            said.push((cause, recognizer.finish().expect("finishes").text));
        }
    }
    said.push((CutCause::End, recognizer.finish().expect("finishes").text));
    said
}

fn one(audio: &[i16]) -> String {
    let said = decode(audio);
    assert_eq!(said.len(), 1, "{said:?}");
    said[0].1.clone()
}

#[test]
fn silence_after_words_is_the_endpoint() {
    let mut audio = encode(&["a", "b"]);
    audio.extend(silence(5));
    audio.extend(encode_from(2, &["c"]));
    assert_eq!(decode(&audio), [(CutCause::Endpoint, "0:a 1:b".into()), (CutCause::End, "2:c".into())]);
}

#[test]
fn times_are_exact() {
    let mut audio = silence(2);
    audio.extend(encode(&["a", "b"]));
    let engine = Scripted::new();
    let mut recognizer = engine.open(&DecodeOptions::default()).expect("opens");
    for step in audio.chunks(BLOCK_SAMPLES) {
        assert_eq!(recognizer.accept(step).expect("decodes"), Step::Speech);
    }
    let times: Vec<_> =
        recognizer.finish().expect("finishes").words.iter().map(|word| (word.start, word.end)).collect();
    assert_eq!(times, [(3_200, 4_800), (4_800, 6_400)]);
}

#[test]
fn a_failing_block_is_an_error_and_a_survived_one_a_word() {
    let engine = Scripted::new();
    let mut recognizer = engine.open(&DecodeOptions::default()).expect("opens");
    assert!(recognizer.accept(&harm(0, Harm::Fail, None)).is_err());
    let folder = tempfile::tempdir().expect("folder");
    let marker = folder.path().join("once");
    std::fs::write(&marker, "").expect("marker");
    assert_eq!(one(&harm(4, Harm::Abort, marker.to_str())), "4:survived");
}

#[test]
fn a_block_cut_in_two_shows() {
    let audio = encode(&["a", "b", "c"]);
    assert_eq!(one(&audio[..4_000]), "0:a 1:b -");
    assert_eq!(one(&audio[1_000..]), "- 1:b 2:c");
}

proptest! {
    #[test]
    fn words_come_back_in_any_chunking(
        words in proptest::collection::vec("[a-z가-힣]{1,9}", 1..20), chunk in 1usize..5_000,
    ) {
        let engine = Scripted::new();
        let mut recognizer = engine.open(&DecodeOptions::default()).expect("opens");
        for step in encode(&words).chunks(chunk) {
            recognizer.accept(step).expect("decodes");
        }
        let expected: Vec<String> = words.iter().enumerate().map(|(n, word)| format!("{n}:{word}")).collect();
        prop_assert_eq!(recognizer.finish().expect("finishes").text, expected.join(" "));
    }

    #[test]
    fn any_changed_sample_shows(place in 0usize..4_800, change in 1i16..1_000) {
        let mut audio = encode(&["one", "two", "three"]);
        audio[place] = audio[place].wrapping_add(change);
        prop_assert_ne!(one(&audio), "0:one 1:two 2:three");
    }

    #[test]
    fn any_lost_or_repeated_run_shows(from in 0usize..4_700, length in 1usize..1_600, repeat in any::<bool>()) {
        let audio = encode(&["one", "two", "three"]);
        let to = (from + length).min(audio.len());
        let tail = if repeat { &audio[from..] } else { &audio[to..] };
        let head = if repeat { &audio[..to] } else { &audio[..from] };
        prop_assert_ne!(one(&[head, tail].concat()), "0:one 1:two 2:three");
    }
}
