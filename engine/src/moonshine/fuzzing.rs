//! A narrow door for tests that feed the reader of vocabularies arbitrary bytes from outside this crate. No part of what an engine
//! does.

use super::tokenizer::Tokenizer;

/// The text of all tokens of a vocabulary of `wanted`, in their order.
///
/// # Errors
/// The bytes are none; in words.
pub fn vocabulary(bytes: &[u8], wanted: usize) -> Result<String, String> {
    let tokenizer = Tokenizer::read(bytes, wanted).map_err(|error| error.to_string())?;
    // Ids before and behind those that there are say nothing.
    let all: Vec<i64> = (-1..=wanted as i64).collect();
    Ok(tokenizer.text(&all))
}
