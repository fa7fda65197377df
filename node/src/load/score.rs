//! Words that are missing from a transcript, and those that are too many.
//!
//! Owns: the comparison. Must never: forgive a spelling: what was heard once is heard alike ever after.

/// How one text differs from another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Words of the expected text that were not heard in their place.
    pub(crate) lost: u64,
    /// Words that were heard and are not of the expected text, or not a second time.
    pub(crate) added: u64,
}

/// Compares word by word: what is left when the longest sequence that both have in common is taken away.
pub(crate) fn difference(expected: &str, heard: &str) -> Difference {
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let heard: Vec<&str> = heard.split_whitespace().collect();
    // Texts differ in one place, if at all: what is around it needs no table.
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = expected.iter().zip(&heard).take_while(same).count();
    let (expected, heard) = (&expected[before..], &heard[before..]);
    let after = expected.iter().rev().zip(heard.iter().rev()).take_while(same).count();
    let (expected, heard) = (&expected[..expected.len() - after], &heard[..heard.len() - after]);
    let common = common(expected, heard);
    Difference { lost: (expected.len() - common) as u64, added: (heard.len() - common) as u64 }
}

/// Length of the longest common sequence.
fn common(expected: &[&str], heard: &[&str]) -> usize {
    let mut row = vec![0; heard.len() + 1];
    for said in expected {
        let mut diagonal = 0;
        for (index, word) in heard.iter().enumerate() {
            let above = row[index + 1];
            row[index + 1] = if said == word { diagonal + 1 } else { above.max(row[index]) };
            diagonal = above;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_repeated_words_are_counted() {
        for (expected, heard, lost, added) in [
            ("a b c d", "a b c d", 0, 0),
            ("a b c d", "a  b\nc d ", 0, 0),
            ("a b c d", "a c d", 1, 0),
            ("a b c d", "a b b c d", 0, 1),
            ("a b c d", "a b c d c d", 0, 2),
            ("a b c d", "a x c d", 1, 1),
            ("a b c d", "", 4, 0),
            ("", "a b", 0, 2),
            ("a b c d e", "b a c e d", 2, 2),
        ] {
            assert_eq!(difference(expected, heard), Difference { lost, added }, "{expected:?} {heard:?}");
        }
    }
}
