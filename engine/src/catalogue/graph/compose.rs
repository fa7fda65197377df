//! The composition itself: from where each state of the two halves leads, breadth first.

use hashbrown::HashTable;

use super::grammar::{Follower, Grammar};
use super::lexicon::Lexicon;
use super::openfst::{Arc, ConstFstWriter, NEVER};
use super::{ComposeError, Composed};
use crate::catalogue::progress::Progress;

/// How many states are expanded between two looks at the limit.
const BATCH: u64 = 100_000;

/// A place in the composed graph: states of both halves, and what is between words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    lexicon: u32,
    grammar: u32,
    phase: Phase,
}

/// Where a place is in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// At a border: the next word is open, and the context may be shortened.
    Border,
    /// On the way to one of several words; the path has paid for their sum already.
    Among,
    /// On the way to this very word, which has been said and paid for; the context is already the one after it.
    Towards(u32),
}

/// What lies beyond a silent arc of the lexicon.
enum Ahead<'a> {
    /// No word that may follow.
    Nothing,
    /// One word and no end.
    Only(&'a Follower),
    /// Words, an end or both, with what they weigh together.
    Several(f32),
}

/// Composes two halves.
pub(super) struct Composer<'a> {
    lexicon: &'a Lexicon,
    grammar: &'a Grammar,
    /// Input labels that stand for no sound: they only kept the halves apart.
    silent: Vec<u32>,
    places: Vec<Place>,
    numbers: HashTable<u32>,
}

impl<'a> Composer<'a> {
    pub(super) fn new(lexicon: &'a Lexicon, grammar: &'a Grammar, mut silent: Vec<u32>) -> Self {
        silent.sort_unstable();
        Self { lexicon, grammar, silent, places: Vec::new(), numbers: HashTable::new() }
    }

    /// Writes every place that can be reached, in the order in which it is met, and stops past `max_arcs`.
    pub(super) fn run(
        mut self,
        writer: &mut ConstFstWriter,
        max_arcs: u64,
        progress: &mut dyn Progress,
    ) -> Result<Composed, ComposeError> {
        progress.step("compose the graph", None);
        let start =
            Place { lexicon: self.lexicon.start(), grammar: self.grammar.start, phase: Phase::Border };
        self.number(start);
        let mut arcs = Vec::new();
        let mut at = 0;
        while let Some(&place) = self.places.get(at) {
            arcs.clear();
            let paid = self.paid(place);
            self.expand(place, paid, &mut arcs);
            writer.state(self.final_weight(place, paid), &arcs)?;
            at += 1;
            if writer.state_count().is_multiple_of(BATCH) {
                progress.at(writer.state_count());
                if writer.arc_count() > max_arcs {
                    return Err(ComposeError::TooLarge);
                }
            }
        }
        if writer.arc_count() > max_arcs {
            return Err(ComposeError::TooLarge);
        }
        Ok(Composed { states: writer.state_count(), arcs: writer.arc_count() })
    }

    /// What a path to this place has paid in advance for the words ahead of it.
    fn paid(&self, place: Place) -> f32 {
        match place.phase {
            Phase::Border | Phase::Towards(_) => 0.0,
            Phase::Among => match self.ahead(place.lexicon, place.grammar) {
                Ahead::Several(weight) => weight,
                // Cannot be: it was entered because there are several, and nothing has changed since.
                Ahead::Nothing | Ahead::Only(_) => 0.0,
            },
        }
    }

    fn final_weight(&self, place: Place, paid: f32) -> f32 {
        if matches!(place.phase, Phase::Towards(_)) {
            return NEVER;
        }
        self.lexicon.final_weight(place.lexicon) + self.grammar.final_weight(place.grammar) - paid
    }

    fn expand(&mut self, place: Place, paid: f32, out: &mut Vec<Arc>) {
        let (lexicon, grammar) = (self.lexicon, self.grammar);
        if place.phase == Phase::Border
            && let Some((shorter, weight)) = grammar.backoff(place.grammar)
        {
            let next = self.number(Place { grammar: shorter, ..place });
            out.push(Arc { input: 0, output: 0, weight, next });
        }
        for arc in lexicon.arcs(place.lexicon) {
            let input = if self.silent.binary_search(&arc.input).is_ok() { 0 } else { arc.input };
            let onward = |grammar, phase| Place { lexicon: arc.next, grammar, phase };
            let (weight, output, next) = match (place.phase, arc.output) {
                (Phase::Towards(word), 0) if lexicon.reaches(arc.next, word) => {
                    (0.0, 0, onward(place.grammar, place.phase))
                }
                (Phase::Towards(word), output) if output == word => {
                    (0.0, 0, onward(place.grammar, Phase::Border))
                }
                (Phase::Towards(_), _) => continue,
                (_, 0) => match self.ahead(arc.next, place.grammar) {
                    Ahead::Nothing => continue,
                    Ahead::Only(word) => {
                        (word.weight - paid, word.word, onward(word.next, Phase::Towards(word.word)))
                    }
                    Ahead::Several(weight) => (weight - paid, 0, onward(place.grammar, Phase::Among)),
                },
                (_, output) => {
                    let followers = grammar.followers(place.grammar);
                    let Ok(index) = followers.binary_search_by_key(&output, |follower| follower.word) else {
                        continue;
                    };
                    let word = followers[index];
                    (word.weight - paid, word.word, onward(word.next, Phase::Border))
                }
            };
            let next = self.number(next);
            out.push(Arc { input, output, weight: arc.weight + weight, next });
        }
    }

    fn ahead(&self, lexicon: u32, grammar: u32) -> Ahead<'a> {
        let followers = self.grammar.followers(grammar);
        let end_weight = self.grammar.final_weight(grammar);
        let ends = end_weight != NEVER && self.lexicon.reaches_end(lexicon);
        let mut mass = 0.0;
        let mut count = 0;
        let mut first = 0;
        let mut from = 0;
        let intervals = self.lexicon.reach(lexicon);
        // Of many intervals and few words, or the other way round, the fewer are walked through.
        if followers.len() < intervals.len() {
            for (index, follower) in followers.iter().enumerate() {
                if self.lexicon.reaches(lexicon, follower.word) {
                    first = if count == 0 { index } else { first };
                    count += 1;
                    mass += f64::from(-follower.weight).exp();
                }
            }
        } else {
            for interval in intervals {
                let begin = from + followers[from..].partition_point(|word| word.word < interval.start);
                let end = begin + followers[begin..].partition_point(|word| word.word < interval.end);
                if end > begin {
                    first = if count == 0 { begin } else { first };
                    count += end - begin;
                    mass += self.grammar.mass(grammar, begin, end);
                }
                from = end;
            }
        }
        match (count, ends) {
            (0, false) => Ahead::Nothing,
            (1, false) => Ahead::Only(&followers[first]),
            (_, false) => Ahead::Several(-mass.ln() as f32),
            (_, true) => Ahead::Several(-(mass + f64::from(-end_weight).exp()).ln() as f32),
        }
    }

    fn number(&mut self, place: Place) -> u32 {
        let places = &mut self.places;
        let entry = self.numbers.entry(
            hash(place),
            |number| places[*number as usize] == place,
            |number| hash(places[*number as usize]),
        );
        match entry {
            hashbrown::hash_table::Entry::Occupied(number) => *number.get(),
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let number = places.len() as u32;
                vacant.insert(number);
                places.push(place);
                number
            }
        }
    }
}

/// Fibonacci hashing (Knuth, volume 3, 6.4) of the three parts: the table is large, and nobody chooses its keys.
fn hash(place: Place) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let phase = match place.phase {
        Phase::Border => 0,
        Phase::Among => 1,
        Phase::Towards(word) => 2 + u64::from(word),
    };
    let both = u64::from(place.lexicon) << 32 | u64::from(place.grammar);
    let mixed = both.wrapping_mul(GOLDEN) ^ phase.wrapping_mul(GOLDEN).rotate_left(29);
    (mixed ^ mixed >> 32).wrapping_mul(GOLDEN)
}
