//! How far a transcript is from what was said.
//!
//! Owns: what of a text counts, and the count of errors. Must never: know where a text comes from.

use std::ops::AddAssign;

/// Words that count: lower case, no punctuation, digits spelled out one by one. "Oh" and "zero" are one word: who reads a
/// number out says either.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for letter in text.chars().flat_map(char::to_lowercase) {
        if let Some(digit) = letter.to_digit(10) {
            words.extend([DIGITS[digit as usize].to_owned(), String::new()]);
        } else if letter.is_alphabetic() {
            words.last_mut().into_iter().for_each(|word| word.push(letter));
        } else if !matches!(letter, '\'' | '\u{2019}') {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words.into_iter().map(|word| if word == "oh" { DIGITS[0].to_owned() } else { word }).collect()
}

const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// Letters that count, without the spaces: where words are divided is a matter of taste in Korean.
pub(crate) fn letters(text: &str) -> Vec<String> {
    words(text).iter().flat_map(|word| word.chars()).map(String::from).collect()
}

/// The least changes that make one text of another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Of the reference, and not heard.
    pub(crate) lost: usize,
    /// Heard, and not of the reference.
    pub(crate) added: usize,
    /// Heard as another.
    pub(crate) changed: usize,
    /// Length of the reference.
    pub(crate) of: usize,
}

impl Errors {
    /// Compares by words or letters, as they were taken from the texts.
    pub(crate) fn between(reference: &[String], heard: &[String]) -> Self {
        // What it takes to make the first `n` words heard of the reference's words so far.
        let mut row: Vec<Self> = (0..=heard.len()).map(|added| Self { added, ..Self::default() }).collect();
        for said in reference {
            let mut diagonal = row[0];
            row[0].lost += 1;
            for (index, word) in heard.iter().enumerate() {
                let above = row[index + 1];
                let changed = usize::from(said != word);
                let choices = [
                    Self { changed: diagonal.changed + changed, ..diagonal },
                    Self { lost: above.lost + 1, ..above },
                    Self { added: row[index].added + 1, ..row[index] },
                ];
                diagonal = above;
                row[index + 1] = choices.into_iter().min_by_key(Self::count).unwrap_or(above);
            }
        }
        Self { of: reference.len(), ..row.last().copied().unwrap_or_default() }
    }

    pub(crate) const fn count(&self) -> usize {
        self.lost + self.added + self.changed
    }

    pub(crate) fn percent(&self) -> f64 {
        self.count() as f64 / self.of as f64 * 100.0
    }
}

impl AddAssign for Errors {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.added += other.added;
        self.changed += other.changed;
        self.of += other.of;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_differently_and_said_alike_is_alike() {
        for (one, other) in [
            ("It was the best of times,", "it was THE best-of times"),
            ("one oh three", "1-0-3"),
            ("One, zero 3.", "103"),
            ("don\u{2019}t", "Don't"),
        ] {
            assert_eq!(words(one), words(other));
        }
        assert_eq!(words(" - "), Vec::<String>::new());
        assert_eq!(letters("책을 세 권"), ["책", "을", "세", "권"]);
    }

    #[test]
    fn errors_are_the_fewest_that_explain_it() {
        let between = |reference: &str, heard: &str| Errors::between(&words(reference), &words(heard));
        let all = |lost, added, changed, of| Errors { lost, added, changed, of };
        assert_eq!(between("a b c d", "a b c d"), all(0, 0, 0, 4));
        assert_eq!(between("a b c d", "a c d"), all(1, 0, 0, 4));
        assert_eq!(between("a b c d", "a b b c d"), all(0, 1, 0, 4));
        assert_eq!(between("a b c d", "a x c d"), all(0, 0, 1, 4));
        assert_eq!(between("a b", ""), all(2, 0, 0, 2));
        assert_eq!(between("", "a b"), all(0, 2, 0, 0));
        assert_eq!(between("a b c d", "b c x d e").count(), 3);
    }
}
