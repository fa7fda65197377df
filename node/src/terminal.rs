//! What others say, as it is shown on a terminal.
//!
//! Owns: which characters of it are shown. Must never: let one through that moves the cursor, changes colours, or asks the terminal
//! for an answer (ECMA-48's control functions all begin with a control character).

use std::borrow::Cow;

/// What is shown of an answer that was not what was wanted: a refusal of a node's is shorter, a page of a proxy's is longer.
const MOST_SHOWN: usize = 2_000;

/// The beginning of a text that may be of any length.
pub(crate) fn shortened(text: &str) -> &str {
    text.char_indices().nth(MOST_SHOWN).map_or(text, |(end, _)| &text[..end])
}

/// A text of others, its lines as they are.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    replaced(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// A text of others that has one line for itself, or a part of one.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    // Two more characters end a line by Unicode's rules (UAX 14).
    replaced(text, |c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

fn replaced(text: &str, is_unfit: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unfit) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| match c {
        '\n' | '\t' if is_unfit(c) => ' ',
        c if is_unfit(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.chars().map(shown).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        assert_eq!(plain("a\x1b[2Jb\nc\td\u{9b}31m\x7f"), "a\u{fffd}[2Jb\nc\td\u{fffd}31m\u{fffd}");
        assert_eq!(one_line("a\nb\r\n\tc\u{2028}"), "a b\u{fffd}  c\u{fffd}");
        for fit in ["", "it was", "지금은 들립니다", "━ ● ✕"] {
            assert!(matches!(one_line(fit), Cow::Borrowed(shown) if shown == fit));
        }
    }
}
