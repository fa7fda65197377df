//! The source samples a session still needs, by position.
//!
//! Owns: memory for audio between what was trimmed and what was received. Must never: decide what may be trimmed.

use std::collections::VecDeque;

use starling_protocol::SourceOffset;

/// Mono PCM16 from `start` to `end`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceStore {
    samples: VecDeque<i16>,
    start: SourceOffset,
    /// First half of a sample whose second half has not come yet.
    odd_byte: Option<u8>,
}

impl SourceStore {
    /// An empty store at frame 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store at any frame.
    #[must_use]
    pub fn starting_at(start: SourceOffset) -> Self {
        Self { start, ..Self::default() }
    }

    /// First frame that is held.
    #[must_use]
    pub const fn start(&self) -> SourceOffset {
        self.start
    }

    /// Frame after the last that is held.
    #[must_use]
    pub fn end(&self) -> SourceOffset {
        self.start.plus(self.samples.len() as u64)
    }

    /// Bytes of audio held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.samples.len() * size_of::<i16>()
    }

    /// Appends little endian bytes as they came; an odd one waits for its other half. Returns the frames added.
    pub fn append(&mut self, bytes: &[u8]) -> u64 {
        let before = self.samples.len();
        let mut rest = bytes;
        if let (Some(low), [high, tail @ ..]) = (self.odd_byte, rest) {
            self.samples.push_back(i16::from_le_bytes([low, *high]));
            self.odd_byte = None;
            rest = tail;
        }
        let pairs = rest.chunks_exact(2);
        if let [odd] = pairs.remainder() {
            self.odd_byte = Some(*odd);
        }
        self.samples.extend(pairs.map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
        (self.samples.len() - before) as u64
    }

    /// The frames from `from` to `to`, as the bytes they came in; less where they are not held.
    #[must_use]
    pub fn read(&self, from: SourceOffset, to: SourceOffset) -> Vec<u8> {
        let index = |at: SourceOffset| {
            let at = at.0.saturating_sub(self.start.0).min(self.samples.len() as u64);
            usize::try_from(at).unwrap_or(self.samples.len())
        };
        let (from, to) = (index(from), index(to.max(from)));
        self.samples.range(from..to).flat_map(|sample| sample.to_le_bytes()).collect()
    }

    /// Forgets half a sample: a new connection begins at a whole one.
    pub fn forget_odd_byte(&mut self) {
        self.odd_byte = None;
    }

    /// Drops everything before `until`. Returns the bytes freed.
    pub fn trim(&mut self, until: SourceOffset) -> usize {
        let frames = until.0.saturating_sub(self.start.0).min(self.samples.len() as u64) as usize;
        self.samples.drain(..frames);
        self.start = self.start.plus(frames as u64);
        // Sessions that fall silent must not keep the memory of their loudest minute.
        if self.samples.capacity() > 4 * self.samples.len().max(4_096) {
            self.samples.shrink_to(2 * self.samples.len().max(2_048));
        }
        frames * size_of::<i16>()
    }

    /// The sample of a frame; silence outside what is held.
    #[must_use]
    pub fn sample(&self, at: SourceOffset) -> i16 {
        let index = at.0.checked_sub(self.start.0);
        index.and_then(|index| self.samples.get(usize::try_from(index).ok()?)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
