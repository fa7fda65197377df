//! A pool's number of hosts, as its scaler has it.

use starling_core::Timestamp;
use starling_core::pool::{PoolCounts, PoolMachine};
use starling_core::scaling::{HostScaler, HostsConfig, Room};

use crate::node::{MemoryKnown, PoolScale};

/// What a pool is scaled by.
pub(crate) struct PoolScaling {
    pub(crate) hosts: HostsConfig,
    pub(crate) memory: MemoryKnown,
}

/// The scaler with what it looks at.
pub(super) struct Scaler {
    machine: HostScaler,
    memory: MemoryKnown,
    on_demand: bool,
    /// The most that a host of this pool was seen to take.
    host_bytes: u64,
}

impl Scaler {
    pub(super) fn new(now: Timestamp, scaling: &PoolScaling) -> Self {
        Self {
            machine: HostScaler::new(now, scaling.hosts),
            memory: scaling.memory.clone(),
            on_demand: scaling.hosts.static_hosts == 0,
            host_bytes: 0,
        }
    }

    /// Takes note of what a host takes.
    pub(super) fn note(&mut self, resident_bytes: u64) {
        self.host_bytes = self.host_bytes.max(resident_bytes);
    }

    /// How many hosts there should be, if that is not what the pool wants already.
    pub(super) fn hosts(&mut self, now: Timestamp, pool: &PoolMachine, running: usize) -> Option<u16> {
        let PoolCounts { hosts_wanted, hosts_loading, .. } = pool.counts();
        let room = Room {
            running: count(running),
            loading: count(hosts_loading),
            available_bytes: (self.memory.0)(),
            host_bytes: self.host_bytes,
        };
        let hosts = self.machine.observe(now, pool.demand(self.machine.idle_target()), room);
        (usize::from(hosts) != hosts_wanted).then_some(hosts)
    }

    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        self.machine.next_timeout()
    }

    pub(super) fn scale(&self) -> PoolScale {
        PoolScale {
            scale: self.machine.scale(),
            expected: self.machine.expected(),
            on_demand: self.on_demand,
        }
    }
}

fn count(number: usize) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}
