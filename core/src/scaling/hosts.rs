//! From decoders to the hosts of one machine.
//!
//! A host has a fixed number of slots, and it takes memory. What the policy asks for is rounded up to hosts, and no host is added that
//! the machine has no room for; those that are there are never given up for want of room.

use std::time::Duration;

use super::counted::CountedScaler;
use super::messages::{Demand, Scale, ScalingConfig, ScalingReason};
use crate::Timestamp;

/// When to look for room again while there is none.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a pool's hosts are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostsConfig {
    /// The policy, in decoders.
    pub policy: ScalingConfig,
    /// Decoders of each host.
    pub slots_per_host: u16,
    /// Hosts that are kept, however few are needed.
    pub static_hosts: u16,
}

/// The hosts there are, and what the machine has left for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Room {
    /// Hosts whose processes are there, whatever they do.
    pub running: u16,
    /// Of those, the ones that have not taken their memory yet.
    pub loading: u16,
    /// Memory that could be had; `None` where nobody knows.
    pub available_bytes: Option<u64>,
    /// What one more takes; 0 if nobody knows.
    pub host_bytes: u64,
}

impl Room {
    /// The most hosts that there is room for.
    #[must_use]
    pub fn most(&self) -> u16 {
        let Some(available) = self.available_bytes.filter(|_| self.host_bytes > 0) else { return u16::MAX };
        let promised = self.host_bytes.saturating_mul(self.loading.into());
        let more = available.saturating_sub(promised) / self.host_bytes;
        self.running.saturating_add(u16::try_from(more).unwrap_or(u16::MAX))
    }
}

/// One pool's number of hosts.
#[derive(Debug, Clone, PartialEq)]
pub struct HostScaler {
    config: HostsConfig,
    policy: CountedScaler,
    hosts: u16,
    /// Since when there has been no room.
    cramped: Option<Timestamp>,
}

impl HostScaler {
    /// A pool that begins with its static hosts.
    #[must_use]
    pub fn new(now: Timestamp, config: HostsConfig) -> Self {
        let least = u32::from(config.static_hosts) * u32::from(config.slots_per_host);
        let policy = ScalingConfig { min: config.policy.min.max(least), ..config.policy };
        let policy = ScalingConfig { max: policy.max.max(least), ..policy };
        Self { config, policy: CountedScaler::new(now, policy), hosts: config.static_hosts, cramped: None }
    }

    /// Decoders that are to be idle.
    #[must_use]
    pub const fn idle_target(&self) -> u32 {
        self.config.policy.idle_target
    }

    /// What is asked for now, and what room there is: how many hosts there should be. To be told at every change, and when
    /// `next_timeout` has come.
    pub fn observe(&mut self, now: Timestamp, demand: Demand, room: Room) -> u16 {
        let desired = self.policy.observe(now, demand).desired;
        let slots = u32::from(self.config.slots_per_host.max(1));
        let wanted = u16::try_from(desired.div_ceil(slots)).unwrap_or(u16::MAX);
        let most = room.most().max(self.hosts).max(self.config.static_hosts);
        self.cramped = (wanted > most).then_some(now);
        self.hosts = wanted.min(most).max(self.config.static_hosts);
        self.hosts
    }

    /// When to look again.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let again = self.cramped.map(|at| at.plus(LOOK_AGAIN));
        self.policy.next_timeout().into_iter().chain(again).min()
    }

    /// How many decoders there should be, in whole hosts, and why.
    #[must_use]
    pub fn scale(&self) -> Scale {
        let Scale { reason, .. } = self.policy.current();
        let reason = if self.cramped.is_some() { ScalingReason::Maximum } else { reason };
        Scale { desired: u32::from(self.hosts) * u32::from(self.config.slots_per_host), reason }
    }

    /// Decoders that callers are expected to need, if anything can be said of it.
    #[must_use]
    pub fn expected(&self) -> Option<u32> {
        self.policy.expected()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: HostsConfig = HostsConfig {
        policy: ScalingConfig {
            idle_target: 5,
            min: 0,
            max: 40,
            cooldown: Duration::from_secs(100),
            check_interval: Duration::from_secs(60),
            predictive: false,
        },
        slots_per_host: 4,
        static_hosts: 1,
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp(Duration::from_secs(seconds))
    }

    fn busy(busy: u32) -> Demand {
        Demand { busy, ..Demand::default() }
    }

    #[test]
    fn decoders_are_rounded_up_to_hosts_within_the_bounds() {
        let mut scaler = HostScaler::new(at(0), CONFIG);
        let steps = [(0, 0, 2), (1, 3, 2), (2, 4, 3), (3, 100, 10), (10, 0, 10), (60, 0, 10), (180, 0, 2)];
        for (second, callers, hosts) in steps {
            assert_eq!(scaler.observe(at(second), busy(callers), Room::default()), hosts, "at {second} s");
        }
        assert_eq!(scaler.scale(), Scale { desired: 8, reason: ScalingReason::Demand });
        let narrow =
            HostsConfig { policy: ScalingConfig { max: 2, ..CONFIG.policy }, static_hosts: 3, ..CONFIG };
        assert_eq!(HostScaler::new(at(0), narrow).observe(at(0), busy(9), Room::default()), 3);
    }

    #[test]
    fn no_host_is_added_that_there_is_no_room_for_and_none_given_up_for_it() {
        let mut scaler = HostScaler::new(at(0), CONFIG);
        let room = |running, loading, available| Room {
            running,
            loading,
            available_bytes: Some(available),
            host_bytes: 500,
        };
        assert_eq!(scaler.observe(at(0), busy(20), room(1, 0, 1_100)), 3);
        assert_eq!(scaler.scale().reason, ScalingReason::Maximum);
        assert_eq!(scaler.observe(at(0), busy(20), room(3, 2, 1_100)), 3, "two have not taken theirs yet");
        assert_eq!(scaler.next_timeout(), Some(at(1)));
        assert_eq!(scaler.observe(at(1), busy(20), room(3, 0, 0)), 3);
        assert_eq!(scaler.observe(at(2), busy(20), room(3, 0, 9_000)), 7);
        assert_eq!(scaler.scale().reason, ScalingReason::Demand);
    }

    proptest! {
        /// Whatever comes: within its bounds, never fewer than those in use and waiting need if there is room, and fewer than
        /// before only by what the policy says.
        #[test]
        fn hosts_are_what_is_needed_and_there_is_room_for(
            steps in proptest::collection::vec((0u64..90, 0u32..60, 0u32..6, 0u16..12, 0u64..4_000), 1..80),
        ) {
            let (mut scaler, mut now, mut hosts) = (HostScaler::new(at(0), CONFIG), at(0), 1);
            for (wait, busy, waiting, loading, available) in steps {
                now = now.plus(Duration::from_secs(wait));
                let loading = loading.min(hosts);
                let room = Room { running: hosts, loading, available_bytes: Some(available), host_bytes: 500 };
                let before = hosts;
                hosts = scaler.observe(now, Demand { busy, waiting, reserve: 0 }, room);
                prop_assert!((1..=10).contains(&hosts));
                let needed = u16::try_from((busy + waiting + 5).div_ceil(4)).expect("few").min(10);
                prop_assert!(hosts >= needed || hosts >= room.most().max(before), "{hosts} of {needed}");
                prop_assert!(hosts <= before || hosts <= room.most());
                prop_assert_eq!(scaler.scale().desired, u32::from(hosts) * 4);
            }
        }
    }
}
