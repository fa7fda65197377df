//! Small halves, written as OpenFst writes them, composed, and compared with a composition that looks ahead at nothing.

use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;

use super::openfst::{Arc, ConstFst, Header, NEVER};
use super::*;
use crate::catalogue::progress::Quiet;

/// Stands for no sound, as the symbols do that keep words with one pronunciation apart.
const SILENT: u32 = 9;
/// The sound of a pause between words.
const PAUSE: u32 = 8;
/// What is compared: all that can be said with so many sounds.
const SOUNDS_MAX: usize = 5;

#[derive(Debug, Clone, Default)]
struct Plain {
    finals: Vec<f32>,
    arcs: Vec<Vec<Arc>>,
}

impl Plain {
    fn state(&mut self, final_weight: f32) -> u32 {
        self.finals.push(final_weight);
        self.arcs.push(Vec::new());
        self.finals.len() as u32 - 1
    }

    fn arc(&mut self, from: u32, input: u32, output: u32, weight: f32, next: u32) {
        self.arcs[from as usize].push(Arc { input, output, weight, next });
    }

    fn write(&self, path: &Path) {
        let scratch = tempfile::tempdir().expect("folder");
        let mut writer = ConstFstWriter::new(scratch.path()).expect("files");
        for (weight, arcs) in self.finals.iter().zip(&self.arcs) {
            writer.state(*weight, arcs).expect("written");
        }
        writer.finish(path).expect("written");
    }
}

/// Words of up to three sounds as a tree of shared beginnings, with a pause that may come before any word, and each
/// sound as long as one likes. The last word is one that ends in a symbol without a sound.
fn lexicon(words: &[Vec<u32>]) -> Plain {
    let mut lexicon = Plain::default();
    let border = lexicon.state(0.0);
    let pause = lexicon.state(NEVER);
    lexicon.arc(border, PAUSE, 0, 0.7, pause);
    lexicon.arc(pause, PAUSE, 0, 0.1, pause);
    lexicon.arc(pause, SILENT, 0, 0.3, border);
    let mut tree = BTreeMap::from([(Vec::new(), border)]);
    for (index, sounds) in words.iter().enumerate() {
        let word = index as u32 + 1;
        let (last, begin) = sounds.split_last().expect("a word has sounds");
        let mut at = border;
        for length in 1..=begin.len() {
            let known = tree.get(&begin[..length]).copied();
            at = known.unwrap_or_else(|| {
                let next = lexicon.state(NEVER);
                lexicon.arc(at, begin[length - 1], 0, 0.2, next);
                lexicon.arc(next, begin[length - 1], 0, 0.4, next);
                tree.insert(begin[..length].to_vec(), next);
                next
            });
        }
        if word as usize == words.len() {
            let end = lexicon.state(NEVER);
            lexicon.arc(at, *last, 0, 0.2, end);
            lexicon.arc(end, SILENT, word, 0.0, border);
        } else {
            lexicon.arc(at, *last, word, 0.5, border);
        }
    }
    lexicon
}

/// The words, and the end (as `end`), that each state reaches without saying another.
fn reach(lexicon: &Plain, end: u32) -> Vec<Vec<u32>> {
    let reach_from = |state: u32| {
        let (mut found, mut seen, mut pending) = (Vec::new(), vec![state], vec![state]);
        while let Some(state) = pending.pop() {
            if lexicon.finals[state as usize] != NEVER {
                found.push(end);
            }
            for arc in &lexicon.arcs[state as usize] {
                if arc.output != 0 {
                    found.push(arc.output);
                } else if !seen.contains(&arc.next) {
                    seen.push(arc.next);
                    pending.push(arc.next);
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    };
    (0..lexicon.finals.len() as u32).map(reach_from).collect()
}

/// The file of the first half: the FST between the header and the intervals that OpenFst adds.
fn write_lexicon(lexicon: &Plain, words: u32, path: &Path) {
    let mut bytes = Vec::new();
    bytes.extend(2_125_659_606_i32.to_le_bytes());
    for text in ["olabel_lookahead", "standard"] {
        bytes.extend((text.len() as i32).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend([0; 4 + 4 + 8 + 3 * 8]);
    bytes.extend(446_681_434_i32.to_le_bytes());
    lexicon.write(path);
    bytes.extend(std::fs::read(path).expect("written"));
    // There is an addition, none for the input side, one for the output side, by output labels, without numbers.
    bytes.extend([1, 0, 1, 0, 0]);
    let end = words + 1;
    bytes.extend(end.to_le_bytes());
    let reach = reach(lexicon, end);
    bytes.extend((reach.len() as i64).to_le_bytes());
    for words in reach {
        let mut intervals: Vec<(u32, u32)> = Vec::new();
        for word in &words {
            match intervals.last_mut() {
                Some(last) if last.1 == *word => last.1 += 1,
                _ => intervals.push((*word, word + 1)),
            }
        }
        bytes.extend((intervals.len() as i64).to_le_bytes());
        intervals.iter().for_each(|(begin, end)| {
            bytes.extend(begin.to_le_bytes());
            bytes.extend(end.to_le_bytes());
        });
        bytes.extend((words.len() as i32).to_le_bytes());
    }
    std::fs::write(path, bytes).expect("written");
}

/// A context for nothing (the start, 0) and one for each word; `pairs` are the words that follow one another.
fn grammar(words: u32, pairs: &[(u32, u32, f32)]) -> Plain {
    let mut grammar = Plain::default();
    for context in 0..=words {
        let state = grammar.state(if context == 0 { 1.5 } else { NEVER });
        if context != 0 {
            grammar.arc(state, 0, 0, 0.3 * context as f32, 0);
        }
    }
    for word in 1..=words {
        grammar.arc(0, word, word, 1.0 + 0.1 * word as f32, word);
    }
    for (before, word, weight) in pairs {
        let known = grammar.arcs[*before as usize].iter().any(|arc| arc.input == *word);
        if !known {
            grammar.arc(*before, *word, *word, *weight, *word);
        }
    }
    for arcs in &mut grammar.arcs {
        arcs.sort_by_key(|arc| arc.input);
    }
    grammar
}

type Said = BTreeMap<(Vec<u32>, Vec<u32>), f32>;

/// The least weight of everything that a graph accepts with at most [`SOUNDS_MAX`] sounds.
fn said(start: u32, finals: &dyn Fn(u32) -> f32, arcs: &dyn Fn(u32) -> Vec<Arc>) -> Said {
    let mut said = Said::new();
    let mut pending = vec![(start, 0.0_f32, Vec::new(), Vec::new())];
    while let Some((state, weight, sounds, words)) = pending.pop() {
        let total = weight + finals(state);
        if total < NEVER {
            let least = said.entry((sounds.clone(), words.clone())).or_insert(NEVER);
            *least = least.min(total);
        }
        for arc in arcs(state) {
            let (mut sounds, mut words) = (sounds.clone(), words.clone());
            sounds.extend((arc.input != 0).then_some(arc.input));
            words.extend((arc.output != 0).then_some(arc.output));
            if sounds.len() <= SOUNDS_MAX {
                pending.push((arc.next, weight + arc.weight, sounds, words));
            }
        }
    }
    said
}

fn naive(lexicon: &Plain, grammar: &Plain) -> Said {
    let wide = grammar.finals.len() as u32;
    let finals =
        |state: u32| lexicon.finals[(state / wide) as usize] + grammar.finals[(state % wide) as usize];
    let arcs = |state: u32| {
        let (first, second) = (state / wide, state % wide);
        let mut found = Vec::new();
        for arc in &grammar.arcs[second as usize] {
            if arc.input == 0 {
                found.push(Arc { next: first * wide + arc.next, ..*arc });
            }
        }
        for arc in &lexicon.arcs[first as usize] {
            let input = if arc.input == SILENT { 0 } else { arc.input };
            if arc.output == 0 {
                found.push(Arc { input, next: arc.next * wide + second, ..*arc });
            }
            for word in grammar.arcs[second as usize].iter().filter(|word| word.input == arc.output) {
                if word.input != 0 {
                    let (weight, next) = (arc.weight + word.weight, arc.next * wide + word.next);
                    found.push(Arc { input, output: arc.output, weight, next });
                }
            }
        }
        found
    };
    said(0, &finals, &arcs)
}

struct Halves {
    folder: tempfile::TempDir,
    lexicon: Plain,
    grammar: Plain,
}

fn halves(words: &[Vec<u32>], pairs: &[(u32, u32, f32)]) -> Halves {
    let folder = tempfile::tempdir().expect("folder");
    let (lexicon, grammar) = (lexicon(words), grammar(words.len() as u32, pairs));
    write_lexicon(&lexicon, words.len() as u32, &folder.path().join("HCLr.fst"));
    grammar.write(&folder.path().join("Gr.fst"));
    std::fs::write(folder.path().join("disambig_tid.int"), format!("{SILENT}\n")).expect("written");
    std::fs::write(folder.path().join("words.txt"), "").expect("written");
    Halves { folder, lexicon, grammar }
}

fn composed(folder: &Path) -> ConstFst {
    compose(folder, &mut Quiet).expect("composes");
    let mut source = Source::new(Cursor::new(std::fs::read(folder.join("HCLG.fst")).expect("is there")));
    let header = Header::read(&mut source).expect("a header");
    ConstFst::read(&mut source, &header).expect("an FST")
}

fn same(one: &Said, other: &Said) {
    assert!(one.keys().eq(other.keys()), "not the same can be said: {one:?}\n{other:?}");
    for ((said, one), other) in one.iter().zip(other.values()) {
        assert!((one - other).abs() < 1e-4, "{said:?} weighs {one}, but {other} without looking ahead");
    }
}

proptest! {
    #[test]
    fn looking_ahead_changes_no_weight(
        words in prop::collection::vec(prop::collection::vec(1_u32..4, 1..4), 1..5),
        pairs in prop::collection::vec((1_u32..5, 1_u32..5, 0.1_f32..3.0), 0..8),
    ) {
        let count = words.len() as u32;
        let pairs: Vec<_> =
            pairs.into_iter().filter(|(before, word, _)| *before <= count && *word <= count).collect();
        let halves = halves(&words, &pairs);
        let graph = composed(halves.folder.path());
        let whole = said(graph.start, &|state| graph.finals[state as usize], &|state| graph.arcs(state).to_vec());
        same(&whole, &naive(&halves.lexicon, &halves.grammar));
    }
}

#[test]
fn a_word_is_said_as_soon_as_no_other_can_come() {
    let halves = halves(&[vec![1, 2, 2], vec![3, 1, 1], vec![3, 2, 1]], &[]);
    let graph = composed(halves.folder.path());
    let arc = |state: u32, sound| *graph.arcs(state).iter().find(|arc| arc.input == sound).expect("an arc");
    assert_eq!(arc(graph.start, 1).output, 1, "only one word begins so");
    let three = arc(graph.start, 3);
    assert_eq!(three.output, 0, "two words begin so");
    assert_eq!(arc(three.next, 1).output, 2);
    assert!(three.weight > 0.2 && arc(three.next, 1).weight < 0.3 + 1.2, "what they share is paid first");
}

#[test]
fn composing_twice_gives_the_same_bytes() {
    let halves = halves(&[vec![1], vec![1, 2], vec![2, 2]], &[(1, 2, 0.5), (2, 2, 0.5)]);
    composed(halves.folder.path());
    let read = || std::fs::read(halves.folder.path().join("HCLG.fst")).expect("is there");
    let first = read();
    composed(halves.folder.path());
    assert_eq!(first, read());
}

#[test]
fn a_half_that_is_cut_off_or_something_else_is_named_and_nothing_is_left() {
    let halves = halves(&[vec![1], vec![1, 2]], &[]);
    for file in ["HCLr.fst", "Gr.fst"] {
        let path = halves.folder.path().join(file);
        let whole = std::fs::read(&path).expect("is there");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("written");
            let error = compose(halves.folder.path(), &mut Quiet).expect_err("is refused");
            assert!(error.to_string().contains(file), "{error}");
        }
        std::fs::write(&path, whole).expect("written");
    }
    let mut left: Vec<_> = std::fs::read_dir(halves.folder.path()).expect("folder").collect();
    left.retain(|item| item.as_ref().is_ok_and(|item| item.file_name().to_string_lossy().contains("graph-")));
    assert!(left.is_empty() && !halves.folder.path().join("HCLG.fst").exists());
}

/// Two words: after `1` follows `2` and only then falls the context back. The states, in the trie's order: nothing, 1, 2.
#[test]
fn an_ngram_is_read_as_openfst_reads_it() {
    let mut bytes = Vec::new();
    bytes.extend(2_125_659_606_i32.to_le_bytes());
    for text in ["ngram", "standard"] {
        bytes.extend((text.len() as i32).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend(4_i32.to_le_bytes());
    bytes.extend([0; 4 + 8]);
    for count in [1_i64, 0, 0, 3, 3, 1] {
        bytes.extend(count.to_le_bytes());
    }
    // Pseudo-root 10, the root's two children 110, no children 0 0; futures 0, 110, 10, 0; finals 100.
    for bits in [0b000_1101_u64, 0b001_0110, 0b001] {
        bytes.extend(bits.to_le_bytes());
    }
    for word in [u32::MAX, 1, 2, 0, 1, 2, 2] {
        bytes.extend(word.to_le_bytes());
    }
    for weight in [NEVER, 0.25, 0.5, 0.0, 3.0, 1.0, 2.0, 0.125] {
        bytes.extend(weight.to_le_bytes());
    }
    let grammar = Grammar::read(&mut Source::new(Cursor::new(bytes))).expect("reads");
    let followers = |state| -> Vec<(u32, f32, u32)> {
        grammar.followers(state).iter().map(|word| (word.word, word.weight, word.next)).collect()
    };
    assert_eq!((grammar.states(), grammar.start), (3, 1));
    assert_eq!(followers(0), [(1, 1.0, 1), (2, 2.0, 2)]);
    assert_eq!(followers(1), [(2, 0.125, 2)]);
    assert_eq!(followers(2), []);
    assert_eq!([0, 1, 2].map(|state| grammar.backoff(state)), [None, Some((0, 0.25)), Some((0, 0.5))]);
    assert_eq!([0, 1, 2].map(|state| grammar.final_weight(state)), [3.0, NEVER, NEVER]);
}
