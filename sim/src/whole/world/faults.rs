//! What each fault is here.

use std::time::Duration;

use super::{End, SHOWN, Step, World};
use crate::net::HostId;
use crate::node::{DRAIN, RESTART};
use crate::plan::{Fault, Kind, Place};

impl World {
    pub(super) fn perform(&mut self, fault: &Fault, now: Duration) {
        let length = Duration::from_millis(fault.for_ms);
        match (fault.kind, fault.place, fault.other) {
            (Kind::Crash | Kind::PowerOff, Place::Node(node), _) => {
                let end = if fault.kind == Kind::Crash { End::Killed } else { End::Silent };
                self.kill(node, end, length, now);
            }
            (Kind::Restart, Place::Node(node), _) => self.begin_to_stop(node, RESTART, length),
            (Kind::Drain, Place::Node(node), _) => self.begin_to_stop(node, DRAIN, length),
            (Kind::Cut | Kind::OneWay | Kind::Slow, _, Some(_)) => self.disturb(fault, true),
            (Kind::Pause, Place::Node(node), _) if self.nodes[node].is_up => self.pause(node, true),
            (Kind::Jump, Place::Node(node), _) => {
                self.nodes[node].reins.clock.jump(Duration::from_millis(fault.amount));
            }
            (Kind::Stall, Place::Client(client), _) => drop(self.stalls[client].send_replace(true)),
            (Kind::Die | Kind::Abort | Kind::Hang | Kind::Freeze, Place::Node(node), _) => {
                let which = self.rng.next();
                let Some(hosts) = self.nodes[node].reins.hosts() else { return };
                hosts.harm(fault.kind, which);
            }
            // What is wrong from the start was built in.
            _ => {}
        }
    }

    pub(super) fn undo(&mut self, fault: &Fault) {
        match (fault.kind, fault.place) {
            (Kind::Cut | Kind::OneWay | Kind::Slow, _) => self.disturb(fault, false),
            (Kind::Pause, Place::Node(node)) if self.nodes[node].pauses > 0 => self.pause(node, false),
            (Kind::Stall, Place::Client(client)) => drop(self.stalls[client].send_replace(false)),
            _ => {}
        }
    }

    /// From here on nothing leaves it; it runs on for a moment, so that all it ever told somebody is shown before it ends.
    fn kill(&mut self, node: HostId, end: End, down_for: Duration, now: Duration) {
        if !self.nodes[node].is_up || self.nodes[node].falls {
            return;
        }
        self.oracle.excuse(node);
        self.nodes[node].falls = true;
        self.ways.part(&mut self.sim, node, true);
        self.due.push((now + SHOWN, Step::Fall(node, end, down_for)));
    }

    fn begin_to_stop(&mut self, node: HostId, within: Duration, down_for: Duration) {
        let stopping = &mut self.nodes[node];
        if !stopping.is_up || stopping.falls || stopping.back_after.is_some() {
            return;
        }
        stopping.back_after = Some(down_for);
        stopping.reins.stopping.send_replace(Some(within));
        self.oracle.unrest(node, 1);
        if within < DRAIN {
            self.oracle.excuse(node);
        }
    }

    /// Its own tick stands still, and nothing passes to it or from it.
    pub(super) fn pause(&mut self, node: HostId, begins: bool) {
        let paused = &mut self.nodes[node];
        paused.pauses = if begins { paused.pauses + 1 } else { paused.pauses.saturating_sub(1) };
        if begins {
            paused.reins.clock.stop(self.sim.elapsed());
        } else if paused.pauses == 0 {
            paused.reins.clock.go_on();
        }
        let all = self.nodes.len() + self.stalls.len();
        for other in (0..all).filter(|other| *other != node) {
            self.ways.hold(&mut self.sim, node, other, begins);
        }
        self.lines.shut_off(node, begins);
    }

    /// A connection of turmoil's has nobody who would send again what was lost: what a client says or hears is held up, both ways.
    fn disturb(&mut self, fault: &Fault, begins: bool) {
        let Some(other) = fault.other else { return };
        let (from, to) = (self.plan.host_of(fault.place), self.plan.host_of(other));
        let nodes = self.nodes.len();
        match fault.kind {
            Kind::Slow => {
                let by = Duration::from_millis(fault.amount);
                return self.ways.slow(&mut self.sim, from, to, by, begins);
            }
            Kind::OneWay if from < nodes && to < nodes => {
                return self.ways.lose(&mut self.sim, from, to, begins);
            }
            _ => self.ways.hold(&mut self.sim, from, to, begins),
        }
        if from >= nodes || to >= nodes {
            self.lines.shut(from, to, begins);
        }
    }
}
