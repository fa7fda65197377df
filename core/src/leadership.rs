//! Which of several processes acts, by a lease that a server keeps for all of them.
//!
//! Owns: when the lease is taken, renewed and given back, and until when this process may act. Must never: compare its clock with
//! another's. A lease has run out when it has not changed for its duration by this process's own clock, as it saw it; what times stand in
//! it is for people. Who wrote it last wins: a write names the version that it changes, and the server refuses it if there is a newer one.
//!
//! The holder stops acting `renew_within` after it began its last write that went through. That is shorter than the duration by as much as a
//! call may take, so that what it does has ended when another may take the lease.

use std::time::Duration;

use crate::Timestamp;

/// How a lease is kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeadershipConfig {
    /// This process, unlike any other run of any other.
    pub me: String,
    /// For so long the others wait for a holder that says nothing more.
    pub duration: Duration,
    /// A holder that has not renewed the lease for so long does not act any more.
    pub renew_within: Duration,
    /// How often the lease is looked at.
    pub look_every: Duration,
}

/// The lease as the server has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeaseRecord {
    /// What the server calls this state of it.
    pub version: String,
    /// Who has it; empty if nobody.
    pub holder: String,
    /// For how long, without a change; zero where it does not say.
    pub duration: Duration,
    /// How often it went from one to another.
    pub transitions: u32,
    /// When the holder got it, on the holder's clock, in microseconds since 1970.
    pub acquired_us: i64,
    /// When the holder renewed it, on the holder's clock, in microseconds since 1970.
    pub renewed_us: i64,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LeadershipEvent {
    /// `next_timeout` has come.
    TimedOut,
    /// The server said how the lease is; `None` if there is none.
    Looked(Option<LeaseRecord>),
    /// The server took what was written: it is so now.
    Written(LeaseRecord),
    /// Somebody else wrote first.
    Conflicted,
    /// The server could not be asked, or did not say whether it took what was written.
    Failed,
    /// This process is about to end.
    Stopping,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LeadershipAction {
    /// Ask the server how the lease is; one of `Looked` and `Failed` is the answer.
    Look,
    /// Make the lease, held by this process. `Written`, `Conflicted` or `Failed` is the answer.
    Create,
    /// Write the lease, held by this process, over this version of it. As `Create`.
    Take {
        /// What is replaced.
        version: String,
        /// How often it went from one to another.
        transitions: u32,
        /// When it was acquired; `None` for now.
        acquired_us: Option<i64>,
    },
    /// Write that nobody holds it. Nothing waits for the answer.
    Release {
        /// What is replaced.
        version: String,
        /// How often it went from one to another.
        transitions: u32,
    },
    /// This process leads, until `leads_until`.
    Lead,
    /// It does not any more.
    Follow,
}

/// One process's part.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LeadershipMachine {
    config: LeadershipConfig,
    /// The lease, and when it was first seen like this.
    seen: Option<(LeaseRecord, Timestamp)>,
    next_look: Timestamp,
    /// When the write was begun that is not answered yet.
    writing: Option<Timestamp>,
    until: Option<Timestamp>,
    stopping: bool,
}

impl LeadershipMachine {
    /// One who follows, and looks at once.
    #[must_use]
    pub const fn new(now: Timestamp, config: LeadershipConfig) -> Self {
        Self { config, seen: None, next_look: now, writing: None, until: None, stopping: false }
    }

    /// Takes an event; says what is to be done.
    pub fn handle(&mut self, now: Timestamp, event: LeadershipEvent, out: &mut Vec<LeadershipAction>) {
        if self.until.is_some_and(|until| now >= until) {
            self.follow(out);
        }
        match event {
            LeadershipEvent::TimedOut if now >= self.next_look && !self.stopping => {
                self.next_look = now.plus(self.config.look_every);
                out.push(LeadershipAction::Look);
            }
            LeadershipEvent::Looked(found) if !self.stopping => self.looked(now, found, out),
            LeadershipEvent::Written(record) => self.written(now, record, out),
            // Whoever wrote was not this process, so that this one does not hold it.
            LeadershipEvent::Conflicted => {
                self.writing = None;
                self.follow(out);
            }
            LeadershipEvent::Failed => self.writing = None,
            LeadershipEvent::Stopping => self.stop(out),
            LeadershipEvent::TimedOut | LeadershipEvent::Looked(_) => {}
        }
    }

    /// When to send `TimedOut` next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let look = (!self.stopping).then_some(self.next_look);
        look.into_iter().chain(self.until).min()
    }

    /// Until when this process may act; `None` if it may not.
    #[must_use]
    pub const fn leads_until(&self) -> Option<Timestamp> {
        self.until
    }

    /// Who holds the lease, as it was seen last; empty if nobody.
    #[must_use]
    pub fn holder(&self) -> &str {
        self.seen.as_ref().map_or("", |(record, _)| &record.holder)
    }

    fn looked(&mut self, now: Timestamp, found: Option<LeaseRecord>, out: &mut Vec<LeadershipAction>) {
        let Some(record) = found else {
            // Somebody has removed it. Whoever makes it first has it.
            self.seen = None;
            self.follow(out);
            self.writing = Some(now);
            out.push(LeadershipAction::Create);
            return;
        };
        let since = match &self.seen {
            Some((seen, since)) if same(seen, &record) => *since,
            _ => now,
        };
        let mine = record.holder == self.config.me;
        if !mine {
            self.follow(out);
        }
        let duration = if record.duration.is_zero() { self.config.duration } else { record.duration };
        if mine || record.holder.is_empty() || now.since(since) >= duration {
            self.writing = Some(now);
            out.push(LeadershipAction::Take {
                version: record.version.clone(),
                transitions: record.transitions.saturating_add(u32::from(!mine)),
                acquired_us: mine.then_some(record.acquired_us),
            });
        }
        self.seen = Some((record, since));
    }

    fn written(&mut self, now: Timestamp, record: LeaseRecord, out: &mut Vec<LeadershipAction>) {
        let Some(began) = self.writing.take().filter(|_| record.holder == self.config.me) else { return };
        self.seen = Some((record, now));
        let until = began.plus(self.config.renew_within);
        if now >= until || self.stopping {
            return;
        }
        if self.until.replace(until).is_none() {
            out.push(LeadershipAction::Lead);
        }
    }

    fn stop(&mut self, out: &mut Vec<LeadershipAction>) {
        self.stopping = true;
        self.follow(out);
        if let Some((record, _)) = self.seen.as_ref().filter(|(record, _)| record.holder == self.config.me) {
            let (version, transitions) = (record.version.clone(), record.transitions);
            out.push(LeadershipAction::Release { version, transitions });
        }
    }

    fn follow(&mut self, out: &mut Vec<LeadershipAction>) {
        if self.until.take().is_some() {
            out.push(LeadershipAction::Follow);
        }
    }
}

/// Whether the holder has done nothing between the two: a label that somebody else puts on the lease is no sign of its life.
fn same(one: &LeaseRecord, other: &LeaseRecord) -> bool {
    LeaseRecord { version: String::new(), ..one.clone() }
        == LeaseRecord { version: String::new(), ..other.clone() }
}

#[cfg(test)]
#[path = "leadership/tests.rs"]
mod tests;
