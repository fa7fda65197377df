//! What callers say: words and pauses that the scripted engine reads, numbered by their steps.

use bytes::Bytes;
use starling_engine::scripted::{encode_from, silence};

use crate::audio::{STEP, bytes};

/// Steps of 100 ms with a word in each, and steps of silence after them: the scripted engine's endpoint, so that a segment ends
/// with the last of them.
pub(super) const WORDS: usize = 10;
pub(super) const SILENT: usize = 5;

/// A segment's steps.
pub(super) const SEGMENT: usize = WORDS + SILENT;

/// Audio in the pieces in which it is sent. The word of a step has the step's number.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) pieces: Vec<Bytes>,
    pub(super) pieces_of_step: usize,
}

impl Script {
    pub(super) fn new(segments: usize, pieces_of_step: usize) -> Self {
        let mut pieces = Vec::new();
        for step in 0..segments * SEGMENT {
            let samples = samples(step);
            pieces.extend(samples.chunks(STEP / pieces_of_step).map(|piece| Bytes::from(bytes(piece))));
        }
        Self { pieces, pieces_of_step }
    }

    pub(super) const fn steps(&self) -> usize {
        self.pieces.len() / self.pieces_of_step
    }

    pub(super) const fn segments(&self) -> usize {
        self.steps() / SEGMENT
    }

    /// The step that this piece is the last of.
    pub(super) const fn completes(&self, piece: usize) -> Option<usize> {
        if (piece + 1).is_multiple_of(self.pieces_of_step) { Some(piece / self.pieces_of_step) } else { None }
    }
}

/// The audio of a step.
pub(super) fn samples(step: usize) -> Vec<i16> {
    if has_word(step) { encode_from(step as u32, &[""]) } else { silence(1) }
}

pub(super) const fn has_word(step: usize) -> bool {
    step % SEGMENT < WORDS
}

/// The step that ends the segment whose last word is that of this step; `None` for a word that no segment ends with.
pub(super) const fn end_of_segment(last_word: usize) -> Option<usize> {
    if last_word % SEGMENT == WORDS - 1 { Some(last_word + SILENT) } else { None }
}

#[cfg(test)]
mod tests {
    use starling_engine::scripted::Scripted;
    use starling_engine::{Engine, Step};
    use starling_protocol::lease::DecodeOptions;

    use super::super::said::last_word;
    use super::*;

    #[test]
    fn the_engine_ends_segments_where_they_are_expected_to_end() {
        let mut recognizer = Scripted::new().open(&DecodeOptions::default()).unwrap();
        let mut ends = Vec::new();
        for step in 0..3 * SEGMENT {
            if let Step::Endpoint(_) = recognizer.accept(&samples(step)).unwrap() {
                let text = recognizer.finish().unwrap().text;
                let last = last_word(&text).unwrap() as usize;
                ends.push((step, end_of_segment(last)));
            }
        }
        assert_eq!(ends, [14, 29, 44].map(|step| (step, Some(step))));
        assert_eq!(end_of_segment(8), None);
    }

    #[test]
    fn a_step_is_complete_with_its_last_piece() {
        let script = Script::new(1, 5);
        assert_eq!((script.steps(), script.segments(), script.pieces.len()), (15, 1, 75));
        assert_eq!([3, 4, 9].map(|piece| script.completes(piece)), [None, Some(0), Some(1)]);
        let whole: Vec<u8> = script.pieces[5..10].concat();
        assert_eq!(whole, bytes(&samples(1)));
    }
}
