//! The policy for whoever can only count: how many are in use, and how many wait.

use super::flow::Flow;
use super::machine::ScalingMachine;
use super::messages::{Demand, Scale, ScalingConfig, ScalingEvent};
use crate::Timestamp;

/// One model's number of decoders, from counts alone.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedScaler {
    policy: ScalingMachine,
    flow: Flow,
}

impl CountedScaler {
    /// A model that nobody has asked for yet.
    #[must_use]
    pub fn new(now: Timestamp, config: ScalingConfig) -> Self {
        Self { policy: ScalingMachine::new(now, config), flow: Flow::default() }
    }

    /// What is asked for now: how many decoders there should be. To be told at every change, or every second at least.
    pub fn observe(&mut self, now: Timestamp, demand: Demand) -> Scale {
        // All that comes out is in what the policy says it wants now.
        let (policy, mut out) = (&mut self.policy, Vec::new());
        policy.handle(now, ScalingEvent::Demanded(demand), &mut out);
        self.flow.count(now, demand.busy, |event| policy.handle(now, event, &mut out));
        self.policy.current()
    }

    /// When to look again, whatever happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.policy.next_timeout()
    }

    /// How many decoders there should be.
    #[must_use]
    pub const fn current(&self) -> Scale {
        self.policy.current()
    }

    /// Decoders that callers are expected to need, if anything can be said of it.
    #[must_use]
    pub fn expected(&self) -> Option<u32> {
        self.policy.expected()
    }
}

/// Decoders that a cluster keeps beside those for `new` sessions, in use, waiting and idle ones together, so that any node of
/// at most `largest` decoders may be lost: the others decode twice what they admit.
#[must_use]
pub const fn node_reserve(new: u32, largest: u32) -> u32 {
    new.div_ceil(2).saturating_add(largest).saturating_sub(new)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_are_enough_for_the_forecast_too() {
        let config = ScalingConfig { predictive: true, idle_target: 1, ..ScalingConfig::default() };
        let mut scaler = CountedScaler::new(Timestamp::default(), config);
        for minute in 0..3 * 1_440 + 9 * 60 + 50 {
            // Each day 20 are there from ten to half past, five minutes each.
            let busy = if (600..630).contains(&(minute % 1_440)) && minute % 5 > 0 { 20 } else { 0 };
            scaler.observe(Timestamp(Duration::from_secs(minute * 60)), Demand { busy, ..Demand::default() });
        }
        let expected = scaler.expected();
        assert!(expected.is_some_and(|expected| expected >= 15), "{expected:?}");
        assert!(scaler.current().desired >= 15, "{:?}", scaler.current());
    }

    proptest! {
        #[test]
        fn with_the_reserve_any_node_may_be_lost(new in 0u32..10_000, largest in 0u32..500) {
            let total = new + node_reserve(new, largest);
            prop_assert!(2 * (u64::from(total) - u64::from(largest)) >= u64::from(new));
            prop_assert!(node_reserve(new, largest) <= largest);
        }
    }
}
