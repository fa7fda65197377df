//! Which part of a text that still changes will stay.

/// How far, in bytes, `now` will stay as it is: up to the last word that the text before it had in the same place, and that is
/// not its last one, which may still grow.
pub(super) fn settled(before: &str, now: &str) -> usize {
    let words: Vec<(&str, usize)> = words(now).collect();
    let same = words.iter().zip(self::words(before)).take_while(|((now, _), (before, _))| now == before);
    let staying = same.count().min(words.len().saturating_sub(1));
    staying.checked_sub(1).map_or(0, |last| words[last].1)
}

/// The words of a text, each with the byte after it.
fn words(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let pieces = text.split_inclusive(char::is_whitespace);
    let placed = pieces.scan(0, |at, piece| {
        let word = piece.trim_end();
        let end = *at + word.len();
        *at += piece.len();
        Some((word, end))
    });
    placed.filter(|(word, _)| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_texts_share_before_the_last_word_stays() {
        for (before, now, stays) in [
            ("", "one two", ""),
            ("one", "one two", "one"),
            ("one two", "one two", "one"),
            ("one two", "one two three", "one two"),
            ("one too", "one two three", "one"),
            ("on", "one two", ""),
            ("하나 둘", "하나 둘 셋", "하나 둘"),
            ("one  two", "one  two three", "one  two"),
            ("one two three", "one", ""),
            ("one", "", ""),
        ] {
            assert_eq!(&now[..settled(before, now)], stays, "{before:?}, {now:?}");
        }
    }
}
