//! The halves of small decoding graphs, as OpenFst writes them.

use super::Seeds;

/// Stands for no end.
const NEVER: f32 = f32::INFINITY;

/// Input, output, weight, next.
type Arc = (u32, u32, f32, u32);

/// A final weight and arcs.
type State<'a> = (f32, &'a [Arc]);

pub(super) fn graphs(seeds: &mut Seeds) {
    // Two words: the first is one sound, the second two.
    let lexicon: [State<'_>; 2] = [
        (0.0, &[(1, 1, 0.5, 0), (2, 0, 0.1, 1), (9, 0, 0.3, 0)]),
        (NEVER, &[(2, 0, 0.1, 1), (1, 2, 0.0, 0)]),
    ];
    let grammar: [State<'_>; 2] =
        [(1.5, &[(1, 1, 1.0, 1), (2, 2, 1.1, 0)]), (NEVER, &[(0, 0, 0.3, 0), (1, 1, 0.2, 1)])];
    let lexicon = looking_ahead(&lexicon, &[&[(1, 4)], &[(2, 3)]]);
    for (name, grammar) in [("seed-const", constant(&grammar)), ("seed-ngram", ngram())] {
        let length = u16::try_from(lexicon.len()).expect("is short");
        seeds.push(("graph", name.into(), [&length.to_le_bytes(), lexicon.as_slice(), &grammar].concat()));
    }
}

/// A header: type, version, flags and properties, the first state, how many states and arcs.
fn header(kind: &str, version: i32, flags: i32, counts: [i64; 3]) -> Vec<u8> {
    let mut bytes = 2_125_659_606_i32.to_le_bytes().to_vec();
    for text in [kind, "standard"] {
        bytes.extend((text.len() as i32).to_le_bytes());
        bytes.extend(text.as_bytes());
    }
    bytes.extend([version.to_le_bytes(), flags.to_le_bytes()].concat());
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(counts.into_iter().flat_map(i64::to_le_bytes));
    bytes
}

fn constant(states: &[State<'_>]) -> Vec<u8> {
    let arcs: usize = states.iter().map(|(_, arcs)| arcs.len()).sum();
    let mut bytes = header("const", 2, 0, [0, states.len() as i64, arcs as i64]);
    let mut position = 0_u32;
    for (weight, arcs) in states {
        bytes.extend(weight.to_le_bytes());
        bytes.extend([position, arcs.len() as u32, 0, 0].into_iter().flat_map(u32::to_le_bytes));
        position += arcs.len() as u32;
    }
    for (input, output, weight, next) in states.iter().flat_map(|(_, arcs)| *arcs) {
        bytes.extend(
            [input.to_le_bytes(), output.to_le_bytes(), weight.to_le_bytes(), next.to_le_bytes()].concat(),
        );
    }
    bytes
}

/// With the intervals of words that each state reaches; the end is one past the last word.
fn looking_ahead(states: &[State<'_>], reach: &[&[(u32, u32)]]) -> Vec<u8> {
    let mut bytes = header("olabel_lookahead", 0, 0, [0; 3]);
    bytes.extend(446_681_434_i32.to_le_bytes());
    bytes.extend(constant(states));
    bytes.extend([1, 0, 1, 0, 0]);
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((reach.len() as i64).to_le_bytes());
    for intervals in reach {
        bytes.extend((intervals.len() as i64).to_le_bytes());
        bytes.extend(
            intervals.iter().flat_map(|(begin, end)| [begin.to_le_bytes(), end.to_le_bytes()].concat()),
        );
        bytes.extend(0_i32.to_le_bytes());
    }
    bytes
}

/// After word 1 follows 2, and only then falls the context back. Three states in the trie's order: nothing, 1, 2.
fn ngram() -> Vec<u8> {
    let mut bytes = header("ngram", 4, 0, [1, 0, 0]);
    bytes.extend([3_i64, 3, 1].into_iter().flat_map(i64::to_le_bytes));
    // Of each state its children, its followers, and whether it is final: runs of ones, each ended by a zero.
    bytes.extend([0b000_1101_u64, 0b001_0110, 0b001].into_iter().flat_map(u64::to_le_bytes));
    bytes.extend([u32::MAX, 1, 2, 0, 1, 2, 2].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([NEVER, 0.25, 0.5, 0.0, 3.0, 1.0, 2.0, 0.125].into_iter().flat_map(f32::to_le_bytes));
    bytes
}
