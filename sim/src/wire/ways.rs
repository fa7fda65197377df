//! What passes between hosts, put together from faults that may overlap.

use std::collections::BTreeMap;
use std::time::Duration;

use turmoil::Sim;

/// A host, by its number: first the nodes, then others.
pub type HostId = usize;

/// See the module. Faults are counted, so that the end of one does not end another.
pub struct Ways {
    names: Vec<String>,
    way: Duration,
    /// From one to another: what is lost for good.
    lost: BTreeMap<(HostId, HostId), u32>,
    /// Between two, the lower number first: what has to wait.
    held: BTreeMap<(HostId, HostId), u32>,
    /// Between two: by how much each fault slows it down.
    slowed: BTreeMap<(HostId, HostId), Vec<Duration>>,
}

impl Ways {
    /// Open ways between hosts of these names, each of which takes so long at most.
    #[must_use]
    pub fn new(names: Vec<String>, way: Duration) -> Self {
        Self { names, way, lost: BTreeMap::new(), held: BTreeMap::new(), slowed: BTreeMap::new() }
    }

    /// From now on, or no longer, all that is sent from one to the other is lost.
    pub fn lose(&mut self, sim: &mut Sim<'_>, from: HostId, to: HostId, begins: bool) {
        count(self.lost.entry((from, to)).or_default(), begins);
        self.apply(sim, from, to);
    }

    /// From now on, or no longer, all that is sent between two has to wait.
    pub fn hold(&mut self, sim: &mut Sim<'_>, one: HostId, other: HostId, begins: bool) {
        count(self.held.entry(ordered(one, other)).or_default(), begins);
        self.apply(sim, one, other);
    }

    /// From now on, or no longer, all that is sent between two takes longer by so much.
    pub fn slow(&mut self, sim: &mut Sim<'_>, one: HostId, other: HostId, by: Duration, begins: bool) {
        let slowed = self.slowed.entry(ordered(one, other)).or_default();
        if begins {
            slowed.push(by);
        } else if let Some(at) = slowed.iter().position(|slowed| *slowed == by) {
            slowed.remove(at);
        }
        let longest = slowed.iter().max().copied().unwrap_or_default();
        let (one, other) = (self.names[one].as_str(), self.names[other].as_str());
        // Sets the least and the most; the second call raises the most again.
        sim.set_link_latency(one, other, longest);
        sim.set_link_max_message_latency(one, other, longest + self.way);
    }

    /// A host can or can no longer reach anybody, or be reached.
    pub fn part(&mut self, sim: &mut Sim<'_>, host: HostId, begins: bool) {
        for other in (0..self.names.len()).filter(|other| *other != host) {
            self.lose(sim, host, other, begins);
            self.lose(sim, other, host, begins);
        }
    }

    fn apply(&self, sim: &Sim<'_>, one: HostId, other: HostId) {
        let is_lost = |from, to| self.lost.get(&(from, to)).is_some_and(|faults| *faults > 0);
        let is_held = self.held.get(&ordered(one, other)).is_some_and(|faults| *faults > 0);
        let name = |host: HostId| self.names[host].as_str();
        match (is_lost(one, other), is_lost(other, one)) {
            (true, true) => sim.partition(name(one), name(other)),
            (false, false) if is_held => sim.hold(name(one), name(other)),
            (there, back) => {
                // Lets what was held go on; what of it is lost now is thrown away by the next call.
                sim.release(name(one), name(other));
                if there {
                    sim.partition_oneway(name(one), name(other));
                }
                if back {
                    sim.partition_oneway(name(other), name(one));
                }
            }
        }
    }
}

fn count(faults: &mut u32, begins: bool) {
    *faults = if begins { *faults + 1 } else { faults.saturating_sub(1) };
}

const fn ordered(one: HostId, other: HostId) -> (HostId, HostId) {
    if one < other { (one, other) } else { (other, one) }
}
