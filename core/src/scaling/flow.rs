//! Who came and who went, told from how many are there.
//!
//! Where sessions are only counted, one more is an arrival and one less an end. Which of them ended can't be told; as if it were the
//! one that came first, the mean of their lengths comes out right all the same.

use std::collections::VecDeque;

use super::messages::ScalingEvent;
use crate::Timestamp;

/// Sessions that are there, by when they came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Flow {
    came: VecDeque<Timestamp>,
}

/// More are never there at once; beyond it nothing is learnt.
const MOST: usize = 1_000_000;

impl Flow {
    /// From now on so many are there.
    pub(super) fn count(&mut self, now: Timestamp, busy: u32, mut tell: impl FnMut(ScalingEvent)) {
        let busy = usize::try_from(busy).unwrap_or(MOST).min(MOST);
        while self.came.len() < busy {
            self.came.push_back(now);
            tell(ScalingEvent::Arrived);
        }
        while self.came.len() > busy {
            let lasted = self.came.pop_front().map_or_else(Default::default, |since| now.since(since));
            tell(ScalingEvent::Ended { lasted });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However they overlap: as many come and go, and together they last as long, as those who did.
        #[test]
        fn arrivals_and_the_sum_of_lengths_are_those_of_the_sessions(
            sessions in proptest::collection::vec((0u64..500, 1u64..300), 0..40),
        ) {
            let (mut flow, mut came, mut ended) = (Flow::default(), 0, Vec::new());
            for second in 0..1_000 {
                let there = |(began, lasts): &&(u64, u64)| (*began..began + lasts).contains(&second);
                let busy = u32::try_from(sessions.iter().filter(there).count()).expect("few");
                flow.count(Timestamp(Duration::from_secs(second)), busy, |event| match event {
                    ScalingEvent::Ended { lasted } => ended.push(lasted.as_secs()),
                    _ => came += 1,
                });
            }
            prop_assert_eq!(came, ended.len());
            let lasted: u64 = sessions.iter().map(|(_, lasts)| lasts).sum();
            // Of those who come in the second in which as many go, neither is seen; their time is.
            prop_assert!(came <= sessions.len());
            prop_assert_eq!(ended.iter().sum::<u64>(), lasted);
        }
    }
}
