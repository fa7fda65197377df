//! `HCLr.fst`: from sounds (input) to words (output), with, for each state, the words that can come next. OpenFst's type
//! `olabel_lookahead` (`fst/matcher-fst.h`, `fst/add-on.h`, `fst/label-reachable.h`): a `const` FST and what it was
//! sorted by. Words have been renumbered so that what a state reaches is a few intervals.

use std::io::Read;
use std::ops::Range;

use super::openfst::{Arc, ConstFst, Header, NEVER, Source};
use super::{ComposeError, malformed};

const ADD_ON_MAGIC: i32 = 446_681_434;

/// A state reaches few intervals of words, or the renumbering would have been in vain.
const INTERVALS_MAX: u32 = 1_000_000;

/// The first half of a graph.
#[derive(Debug)]
pub(super) struct Lexicon {
    fst: ConstFst,
    /// The intervals of all states, one after the other, and where each state's begin.
    intervals: Vec<Range<u32>>,
    first_interval: Vec<u32>,
    /// For each state, whether it reaches the end without another word.
    ends: Vec<bool>,
}

impl Lexicon {
    pub(super) fn read<R: Read>(source: &mut Source<R>) -> Result<Self, ComposeError> {
        let outer = Header::read(source)?;
        if outer.kind != "olabel_lookahead" {
            return Err(malformed(format!("it is of type {:?}, not \"olabel_lookahead\"", outer.kind)));
        }
        if source.i32()? != ADD_ON_MAGIC {
            return Err(malformed("what it looks ahead by is missing"));
        }
        let inner = Header::read(source)?;
        if inner.kind != "const" {
            return Err(malformed(format!("it contains an FST of type {:?}, not \"const\"", inner.kind)));
        }
        let fst = ConstFst::read(source, &inner)?;
        if !source.flag()? {
            return Err(malformed("what it looks ahead by is missing"));
        }
        if source.flag()? {
            return Err(malformed("it looks ahead on its input side too"));
        }
        if !source.flag()? {
            return Err(malformed("what it looks ahead by on its output side is missing"));
        }
        let (by_input, has_numbers) = (source.flag()?, source.flag()?);
        if by_input {
            return Err(malformed("it looks ahead by its input labels"));
        }
        if has_numbers {
            for _ in 0..source.count()? {
                source.u64()?;
            }
        }
        let end = source.u32()?;
        let mut lexicon = Self { fst, intervals: Vec::new(), first_interval: Vec::new(), ends: Vec::new() };
        if source.count()? != lexicon.states() {
            return Err(malformed("it does not look ahead from each of its states"));
        }
        for _ in 0..lexicon.states() {
            let count = source.count()?;
            if count > INTERVALS_MAX {
                return Err(malformed(format!("a state reaches {count} intervals of words")));
            }
            let begin = lexicon.intervals.len();
            for _ in 0..count {
                let interval = source.u32()?..source.u32()?;
                lexicon.intervals.push(interval);
            }
            let _words = source.i32()?;
            let reaches_end = lexicon.intervals[begin..].iter().any(|interval| interval.contains(&end));
            lexicon.first_interval.push(begin as u32);
            lexicon.ends.push(reaches_end);
        }
        lexicon.first_interval.push(lexicon.intervals.len() as u32);
        Ok(lexicon)
    }

    pub(super) const fn start(&self) -> u32 {
        self.fst.start
    }

    pub(super) const fn states(&self) -> u32 {
        self.fst.finals.len() as u32
    }

    pub(super) fn arcs(&self, state: u32) -> &[Arc] {
        self.fst.arcs(state)
    }

    /// The final weight of a state, [`NEVER`] when it is none.
    pub(super) fn final_weight(&self, state: u32) -> f32 {
        self.fst.finals.get(state as usize).copied().unwrap_or(NEVER)
    }

    /// The words that can come next, in order.
    pub(super) fn reach(&self, state: u32) -> &[Range<u32>] {
        let state = state as usize;
        &self.intervals[self.first_interval[state] as usize..self.first_interval[state + 1] as usize]
    }

    /// Whether the end can come without another word.
    pub(super) fn reaches_end(&self, state: u32) -> bool {
        self.ends[state as usize]
    }

    /// Whether `word` can come next.
    pub(super) fn reaches(&self, state: u32, word: u32) -> bool {
        let intervals = self.reach(state);
        let after = intervals.partition_point(|interval| interval.end <= word);
        intervals.get(after).is_some_and(|interval| interval.start <= word)
    }
}
