//! The properties that hold whatever happens, as checks that tests, simulation and debug builds share.
//!
//! Named as in ARCHITECTURE.md: I1 finals are contiguous, I2 one content per segment and delivered once, I3 in order. The others
//! are checked by the machines they are of (`check`), or where more than one session or node is driven.

use starling_protocol::{Segment, SourceOffset};
use thiserror::Error;

/// A property that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// I1: a hole or an overlap between two finals.
    #[error("I1: segment {segment} begins at {from}, the one before it ended at {expected}")]
    NotContiguous {
        /// The final that does not fit.
        segment: Segment,
        /// Where it begins.
        from: SourceOffset,
        /// Where it had to begin.
        expected: SourceOffset,
    },
    /// I1: a final that ends before it begins.
    #[error("I1: segment {segment} runs backwards, from {from} to {to}")]
    Backwards {
        /// The final.
        segment: Segment,
        /// Its start.
        from: SourceOffset,
        /// Its end.
        to: SourceOffset,
    },
    /// I2 or I3: a final came twice, or another was skipped.
    #[error("I2/I3: segment {segment} came where {expected} was due")]
    OutOfOrder {
        /// The final that came.
        segment: Segment,
        /// The one that was due.
        expected: Segment,
    },
}

/// Follows the finals of one session and says when one does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FinalsLedger {
    next: Segment,
    end: SourceOffset,
}

impl FinalsLedger {
    /// The number of the next final.
    #[must_use]
    pub const fn next(&self) -> Segment {
        self.next
    }

    /// Goes on where another left off.
    #[must_use]
    pub const fn resume(next: Segment, end: SourceOffset) -> Self {
        Self { next, end }
    }

    /// Where the next final has to begin.
    #[must_use]
    pub const fn end(&self) -> SourceOffset {
        self.end
    }

    /// Takes the next final.
    ///
    /// # Errors
    /// It breaks I1, I2 or I3; the ledger is then unchanged.
    pub fn record(
        &mut self,
        segment: Segment,
        from: SourceOffset,
        to: SourceOffset,
    ) -> Result<(), Violation> {
        if segment != self.next {
            return Err(Violation::OutOfOrder { segment, expected: self.next });
        }
        if from != self.end {
            return Err(Violation::NotContiguous { segment, from, expected: self.end });
        }
        if to < from {
            return Err(Violation::Backwards { segment, from, to });
        }
        self.next = segment.next();
        self.end = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_is_told_apart_and_changes_nothing() {
        let mut ledger = FinalsLedger::default();
        let at = SourceOffset;
        ledger.record(Segment(0), at(0), at(10)).expect("fits");
        let before = ledger.clone();
        assert!(matches!(ledger.record(Segment(0), at(0), at(10)), Err(Violation::OutOfOrder { .. })));
        assert!(matches!(ledger.record(Segment(2), at(10), at(20)), Err(Violation::OutOfOrder { .. })));
        assert!(matches!(ledger.record(Segment(1), at(11), at(20)), Err(Violation::NotContiguous { .. })));
        assert!(matches!(ledger.record(Segment(1), at(10), at(9)), Err(Violation::Backwards { .. })));
        assert_eq!(ledger, before);
        ledger.record(Segment(1), at(10), at(10)).expect("an empty final fits");
    }
}
