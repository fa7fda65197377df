//! Moonshine's vocabulary file: a token's length, then its bytes, for every token.
//!
//! Owns: reading it, and tokens back to text. Must never: panic on a broken file.

use thiserror::Error;

/// The file is no vocabulary.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum TokenizerError {
    #[error("the file ends within token {0}")]
    Truncated(usize),
    #[error("the file has {found} tokens; the model's vocabulary has {wanted}")]
    Count { found: usize, wanted: usize },
}

/// The vocabulary.
#[derive(Debug)]
pub(super) struct Tokenizer {
    tokens: Vec<Vec<u8>>,
}

/// SentencePiece's mark of a word's beginning, U+2581.
const SPACE: &str = "\u{2581}";

impl Tokenizer {
    /// Reads a vocabulary of `wanted` tokens. A length of 128 or more takes two bytes: `second * 128 + first - 128`.
    pub(super) fn read(bytes: &[u8], wanted: usize) -> Result<Self, TokenizerError> {
        let mut tokens = Vec::with_capacity(wanted);
        let mut rest = bytes;
        while let Some((first, after)) = rest.split_first() {
            let cut = TokenizerError::Truncated(tokens.len());
            let (length, after) = if *first < 128 {
                (usize::from(*first), after)
            } else {
                let Some((second, after)) = after.split_first() else { return Err(cut) };
                (usize::from(*second) * 128 + usize::from(*first) - 128, after)
            };
            let Some((token, after)) = after.split_at_checked(length) else { return Err(cut) };
            tokens.push(token.to_vec());
            rest = after;
        }
        if tokens.len() == wanted {
            return Ok(Self { tokens });
        }
        Err(TokenizerError::Count { found: tokens.len(), wanted })
    }

    /// The text of a sequence. Control tokens, written `<...>`, say nothing; single bytes are joined to characters.
    pub(super) fn text(&self, sequence: &[i64]) -> String {
        let known = sequence.iter().filter_map(|id| self.tokens.get(usize::try_from(*id).ok()?));
        let spoken =
            known.filter(|token| !(token.len() > 2 && token.starts_with(b"<") && token.ends_with(b">")));
        let bytes: Vec<u8> = spoken.flatten().copied().collect();
        let text = String::from_utf8_lossy(&bytes).replace(SPACE, " ");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(tokens: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for token in tokens {
            if token.len() < 128 {
                bytes.push(token.len() as u8);
            } else {
                bytes.extend([(token.len() % 128 + 128) as u8, (token.len() / 128) as u8]);
            }
            bytes.extend_from_slice(token);
        }
        bytes
    }

    #[test]
    fn tokens_become_text() {
        let long = [b'x'; 300];
        let bytes = file(&[
            b"<s>",
            "\u{2581}it".as_bytes(),
            b"'s",
            "\u{2581}a".as_bytes(),
            &long,
            b"\xec",
            b"\x95\x88",
        ]);
        let tokenizer = Tokenizer::read(&bytes, 7).expect("reads");
        assert_eq!(tokenizer.text(&[0, 1, 2, 3]), "it's a");
        assert_eq!(tokenizer.text(&[4]).len(), 300);
        assert_eq!(tokenizer.text(&[5, 6, 99, -1]), "안");
    }

    #[test]
    fn a_broken_file_is_an_error() {
        assert_eq!(Tokenizer::read(&[3, b'a'], 1).expect_err("cut"), TokenizerError::Truncated(0));
        assert_eq!(Tokenizer::read(&[200], 1).expect_err("cut"), TokenizerError::Truncated(0));
        assert!(Tokenizer::read(&[1, b'a'], 2).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Tokenizer::read(&bytes, 3);
        }
    }
}
