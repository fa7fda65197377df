//! `Gr.fst`: which word follows which. OpenFst's types `ngram` (`fst/extensions/ngram/ngram-fst.h`, a trie of contexts in
//! bit vectors) and `const`.

use std::io::Read;

use super::openfst::{ConstFst, Header, NEVER, Source};
use super::{ComposeError, malformed};

/// A word that may follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Follower {
    pub(super) word: u32,
    pub(super) weight: f32,
    pub(super) next: u32,
}

/// The second half of a graph.
#[derive(Debug, Default)]
pub(super) struct Grammar {
    pub(super) start: u32,
    /// The words and their numbers.
    pub(super) words: Option<Vec<(String, i64)>>,
    finals: Vec<f32>,
    /// The shorter context of each state, and what it costs to fall back to it.
    backoff: Vec<Option<(u32, f32)>>,
    /// The followers of all states, by word, and where each state's begin.
    followers: Vec<Follower>,
    first_follower: Vec<u32>,
    /// For each follower, the sum of the probabilities of its state's followers up to it, itself included.
    summed: Vec<f64>,
}

impl Grammar {
    pub(super) fn read<R: Read>(source: &mut Source<R>) -> Result<Self, ComposeError> {
        let mut header = Header::read(source)?;
        let words = header.symbols.take();
        let mut grammar = match header.kind.as_str() {
            "ngram" => Self::from_ngram(source, &header)?,
            "const" => Self::from_const(&ConstFst::read(source, &header)?)?,
            other => {
                return Err(malformed(format!("it is of type {other:?}, not \"ngram\" or \"const\"")));
            }
        };
        grammar.words = words;
        let mut summed = Vec::new();
        for state in 0..grammar.states() {
            let mut sum = 0.0;
            let mut last = 0;
            for follower in grammar.followers(state) {
                if follower.word <= last {
                    return Err(malformed("the words that follow a context are not in order"));
                }
                last = follower.word;
                sum += f64::from(-follower.weight).exp();
                summed.push(sum);
            }
        }
        grammar.summed = summed;
        Ok(grammar)
    }

    pub(super) const fn states(&self) -> u32 {
        self.finals.len() as u32
    }

    pub(super) fn final_weight(&self, state: u32) -> f32 {
        self.finals.get(state as usize).copied().unwrap_or(NEVER)
    }

    pub(super) fn backoff(&self, state: u32) -> Option<(u32, f32)> {
        self.backoff.get(state as usize).copied().flatten()
    }

    /// The words that follow a context without falling back, in order.
    pub(super) fn followers(&self, state: u32) -> &[Follower] {
        &self.followers[self.range(state)]
    }

    /// The sum of the probabilities of the followers from `begin` to `end` of a state.
    pub(super) fn mass(&self, state: u32, begin: usize, end: usize) -> f64 {
        // Far down a long list the difference of two sums has lost the digits that a small mass consists of.
        const FEW: usize = 16;
        let range = self.range(state);
        if end - begin <= FEW {
            let few = &self.followers[range][begin..end];
            return few.iter().map(|follower| f64::from(-follower.weight).exp()).sum();
        }
        let summed = &self.summed[range];
        summed[end - 1] - if begin == 0 { 0.0 } else { summed[begin - 1] }
    }

    fn range(&self, state: u32) -> std::ops::Range<usize> {
        let state = state as usize;
        self.first_follower[state] as usize..self.first_follower[state + 1] as usize
    }

    fn from_const(fst: &ConstFst) -> Result<Self, ComposeError> {
        let mut grammar = Self { start: fst.start, finals: fst.finals.clone(), ..Self::default() };
        for state in 0..grammar.states() {
            grammar.first_follower.push(grammar.followers.len() as u32);
            let mut backoff = None;
            let mut own = Vec::new();
            for arc in fst.arcs(state) {
                if arc.input != arc.output {
                    return Err(malformed("an arc changes a word into another"));
                }
                if arc.input != 0 {
                    own.push(Follower { word: arc.input, weight: arc.weight, next: arc.next });
                } else if backoff.replace((arc.next, arc.weight)).is_some() {
                    return Err(malformed("a context falls back in two ways"));
                }
            }
            own.sort_by_key(|follower| follower.word);
            grammar.followers.extend(own);
            grammar.backoff.push(backoff);
        }
        grammar.first_follower.push(grammar.followers.len() as u32);
        Ok(grammar)
    }

    /// The file holds the states of a trie in breadth-first order: three vectors of bits, then labels, then weights.
    fn from_ngram<R: Read>(source: &mut Source<R>, header: &Header) -> Result<Self, ComposeError> {
        let (states, futures, finals) = (source.count()?, source.count()?, source.count()?);
        let bits = |count: u64, source: &mut Source<R>| -> Result<Vec<u64>, ComposeError> {
            Ok((0..count.div_ceil(64)).map(|_| source.u64()).collect::<Result<_, _>>()?)
        };
        let (all, future_count) = (u64::from(states), u64::from(futures));
        let context_bits = bits(all * 2 + 1, source)?;
        let future_bits = bits(all + future_count + 1, source)?;
        let final_bits = bits(all, source)?;
        let list = |count: u32, source: &mut Source<R>| -> Result<Vec<u32>, ComposeError> {
            Ok((0..count).map(|_| source.u32()).collect::<Result<_, _>>()?)
        };
        let weights = |count: u32, source: &mut Source<R>| -> Result<Vec<f32>, ComposeError> {
            Ok((0..count).map(|_| source.f32()).collect::<Result<_, _>>()?)
        };
        let context_words = list(states + 1, source)?;
        let future_words = list(futures, source)?;
        let backoff_weights = weights(states + 1, source)?;
        let final_weights = weights(finals, source)?;
        let future_weights = weights(futures, source)?;

        let trie = Trie::new(&context_bits, states, context_words)?;
        let per_state = runs(&future_bits, 1, states)?;
        if per_state.last() != Some(&futures) {
            return Err(malformed("its words and contexts do not add up"));
        }
        let mut grammar = Self { start: header.start as u32, ..Self::default() };
        let mut final_weights = final_weights.into_iter();
        let mut begin = 0;
        for state in 0..states {
            grammar.first_follower.push(begin);
            let end = per_state[state as usize];
            let context = trie.context(state);
            for index in begin..end {
                let word = future_words[index as usize];
                let next = trie.after(&context, word);
                grammar.followers.push(Follower { word, weight: future_weights[index as usize], next });
            }
            begin = end;
            let parent = trie.parent[state as usize];
            grammar.backoff.push(parent.map(|parent| (parent, backoff_weights[state as usize])));
            let is_final = bit(&final_bits, u64::from(state));
            let weight = if is_final { final_weights.next() } else { Some(NEVER) };
            grammar.finals.push(weight.ok_or_else(|| malformed("its final weights do not add up"))?);
        }
        grammar.first_follower.push(begin);
        if grammar.start >= states {
            return Err(malformed("it has no state to start in"));
        }
        Ok(grammar)
    }
}

fn bit(bits: &[u64], index: u64) -> bool {
    let word = bits.get((index / 64) as usize).copied().unwrap_or(0);
    word >> (index % 64) & 1 == 1
}

/// Reads, from bit `at` on, one run of ones for each state, each ended by a zero. Returns how many ones there were up to
/// the end of each run.
fn runs(bits: &[u64], mut at: u64, states: u32) -> Result<Vec<u32>, ComposeError> {
    let end = bits.len() as u64 * 64;
    let mut ones = 0;
    let mut ends = Vec::new();
    for _ in 0..states {
        while bit(bits, at) {
            ones += 1;
            at += 1;
        }
        if at >= end {
            return Err(malformed("its bits end too early"));
        }
        at += 1;
        ends.push(ones);
    }
    Ok(ends)
}

/// The contexts: a state's children are the contexts that are one older word longer.
struct Trie {
    parent: Vec<Option<u32>>,
    /// The word by which a state is longer than its parent.
    word: Vec<u32>,
    /// Where each state's children begin: they follow one another.
    first_child: Vec<u32>,
}

impl Trie {
    fn new(bits: &[u64], states: u32, word: Vec<u32>) -> Result<Self, ComposeError> {
        // A pseudo-root's two bits come first. Children are numbered as they are met, from 1.
        let ends = runs(bits, 2, states)?;
        if states == 0 || ends.last() != Some(&(states - 1)) {
            return Err(malformed("its contexts do not add up"));
        }
        let mut trie = Self { parent: vec![None; states as usize], word, first_child: Vec::new() };
        let mut begin = 0;
        for (state, end) in ends.into_iter().enumerate() {
            trie.first_child.push(begin + 1);
            for child in begin..end {
                if child < state as u32 {
                    return Err(malformed("a context is its own ancestor"));
                }
                trie.parent[child as usize + 1] = Some(state as u32);
            }
            begin = end;
        }
        trie.first_child.push(begin + 1);
        Ok(trie)
    }

    /// The words of a context, the latest first.
    fn context(&self, state: u32) -> Vec<u32> {
        let mut words = Vec::new();
        let mut at = state;
        while let Some(parent) = self.parent[at as usize] {
            words.push(self.word[at as usize]);
            at = parent;
        }
        words.reverse();
        words
    }

    /// The longest context there is once `word` has followed `context`.
    fn after(&self, context: &[u32], word: u32) -> u32 {
        let mut state = 0;
        for word in std::iter::once(&word).chain(context) {
            let Some(child) = self.child(state, *word) else { break };
            state = child;
        }
        state
    }

    fn child(&self, state: u32, word: u32) -> Option<u32> {
        let begin = self.first_child[state as usize];
        let end = self.first_child[state as usize + 1];
        let words = &self.word[begin as usize..end as usize];
        words.binary_search(&word).ok().map(|index| begin + index as u32)
    }
}
