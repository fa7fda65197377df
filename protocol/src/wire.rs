//! What the readers of protocols over bare TCP have in common: bytes come cut anywhere, frames go out whole.
//!
//! Owns: the bytes of a frame that is not whole yet. Must never: hold more than the longest frame and what came with its end.

use crate::native::ErrorBody;

/// Reads one protocol's frames out of a stream of bytes.
pub trait WireReader {
    /// What comes out.
    type Frame;

    /// Takes bytes as they came.
    fn push(&mut self, bytes: &[u8]);

    /// The next frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// The bytes are none of the protocol. Where the next frame would begin is not known: the stream has to end.
    fn next_frame(&mut self) -> Result<Option<Self::Frame>, ErrorBody>;
}

/// Bytes that came and were not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Takes as many bytes, or all if there are fewer.
    pub(crate) fn take(&mut self, count: usize) -> &[u8] {
        let from = self.taken;
        self.taken = from.saturating_add(count).min(self.bytes.len());
        &self.bytes[from..self.taken]
    }
}

/// A value in an error message: its beginning, for it may be of any length.
pub(crate) fn shown(text: &str) -> String {
    const MOST_CHARS: usize = 60;
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// All frames of a stream that is cut into pieces of these lengths, and in the end the error if there is one.
    pub(crate) fn read_in_pieces<R: WireReader>(
        mut reader: R,
        bytes: &[u8],
        cuts: &[usize],
    ) -> (Vec<R::Frame>, Option<ErrorBody>) {
        let (mut frames, mut rest) = (Vec::new(), bytes);
        let mut cuts = cuts.iter().copied();
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(cuts.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            rest = tail;
            reader.push(piece);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    #[test]
    fn what_is_taken_is_let_go_of() {
        let mut pending = Pending::default();
        pending.push(b"abc");
        assert_eq!(pending.take(2), b"ab");
        pending.push(b"d");
        assert_eq!((pending.rest(), pending.bytes.len()), (&b"cd"[..], 2));
        assert_eq!(pending.take(9), b"cd");
        assert!(pending.rest().is_empty());
    }

    #[test]
    fn a_long_value_is_shown_by_its_beginning() {
        assert_eq!(shown("short"), "short");
        assert_eq!(shown(&"모".repeat(70)), format!("{}…", "모".repeat(60)));
    }
}
