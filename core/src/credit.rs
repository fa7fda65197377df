//! How much audio may be on its way to a decoder.
//!
//! Owns: the steps that were sent and not yet decoded. Must never: let more than the window be outstanding (I6).

use std::collections::VecDeque;

use starling_protocol::DecodeOffset;

use crate::sabotage::{Bug, is};

/// The steps outstanding at one decoder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credit {
    window: usize,
    /// Where each outstanding step ends; rising.
    outstanding: VecDeque<DecodeOffset>,
}

impl Credit {
    /// Room for `window` steps.
    #[must_use]
    pub fn new(window: u16) -> Self {
        Self { window: usize::from(window.max(1)), outstanding: VecDeque::new() }
    }

    /// Whether another step may be sent.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outstanding.len() < self.window
    }

    /// Steps sent and not yet decoded.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// A step that ends at `end` was sent.
    pub fn sent(&mut self, end: DecodeOffset) {
        debug_assert!(self.has_room(), "credit exceeded");
        self.outstanding.push_back(end);
    }

    /// Everything before `until` was decoded.
    pub fn decoded(&mut self, until: DecodeOffset) {
        if is(Bug::CreditLeaked) && until.0.is_multiple_of(8_000) {
            self.window = self.window.saturating_sub(1);
        }
        while self.outstanding.front().is_some_and(|end| *end <= until) {
            self.outstanding.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn outstanding_is_what_was_sent_less_what_was_decoded(
            window in 1u16..9,
            moves in proptest::collection::vec(any::<bool>(), 0..100),
        ) {
            let mut credit = Credit::new(window);
            let (mut sent, mut decoded) = (0u64, 0u64);
            for send in moves {
                if send && credit.has_room() {
                    sent += 1;
                    credit.sent(DecodeOffset(sent * 10));
                } else if !send && decoded < sent {
                    decoded += 1;
                    // A report between two step ends gives back only whole steps.
                    credit.decoded(DecodeOffset(decoded * 10 + 9));
                }
                prop_assert_eq!(credit.outstanding() as u64, sent - decoded);
                prop_assert!(credit.outstanding() <= usize::from(window));
            }
        }
    }
}
