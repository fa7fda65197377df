//! The source audio that may have to be sent again, by absolute frame. Decides nothing: what goes is the machine's word.

use std::collections::VecDeque;
use std::ops::Range;

/// Bytes of one source frame: PCM16, one channel.
pub(crate) const FRAME_BYTES: usize = 2;

#[derive(Debug, Default)]
pub(crate) struct Ring {
    bytes: VecDeque<u8>,
    start: u64,
}

impl Ring {
    /// Appends whole frames.
    pub(crate) fn push(&mut self, audio: &[u8]) {
        debug_assert_eq!(audio.len() % FRAME_BYTES, 0, "whole frames");
        self.bytes.extend(audio);
    }

    /// Forgets every frame before `start`.
    pub(crate) fn trim(&mut self, start: u64) {
        let gone = byte_count(start.saturating_sub(self.start)).min(self.bytes.len());
        self.bytes.drain(..gone);
        self.start += (gone / FRAME_BYTES) as u64;
    }

    /// The bytes of `frames`; `None` when not all of them are held.
    pub(crate) fn read(&self, frames: Range<u64>) -> Option<Vec<u8>> {
        let from = byte_count(frames.start.checked_sub(self.start)?);
        let to = byte_count(frames.end.checked_sub(self.start)?);
        if to > self.bytes.len() || from > to {
            return None;
        }
        Some(self.bytes.range(from..to).copied().collect())
    }
}

fn byte_count(frames: u64) -> usize {
    usize::try_from(frames).unwrap_or(usize::MAX).saturating_mul(FRAME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_by_absolute_position() {
        let mut ring = Ring::default();
        ring.push(&[0, 0, 1, 1, 2, 2]);
        ring.trim(1);
        ring.push(&[3, 3]);
        assert_eq!(ring.read(1..3), Some(vec![1, 1, 2, 2]));
        assert_eq!(ring.read(2..4), Some(vec![2, 2, 3, 3]));
        assert_eq!(ring.read(0..2), None);
        assert_eq!(ring.read(3..5), None);
        ring.trim(4);
        assert_eq!(ring.read(4..4), Some(Vec::new()));
    }
}
