//! Judges a run by what its clients were told and what keepers stored, and by nothing that a node says of itself.
//!
//! I1 to I3 and I11: each client's finals are those of its audio, in order, each once. I2: whatever is told again of a segment
//! is the same, and so is what keepers have of it. I4: what was acknowledged or published while the session was durable lay in
//! a copy on another node by then, and no session is begun anew while a node that was left in peace has a copy of it. I5: no keeper obeys an epoch lower than one that it obeyed. I7, I9, I10: [`crate::world`] asks
//! for them at the end.

mod kept;
mod seen;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_actors::KeptCopy;
use starling_client::machine::Event;
use starling_protocol::native::{Final, ServerMessage};
use starling_protocol::{Epoch, Segment, SessionId};

use self::kept::{Claim, Forsaken, Held, Stored};
use self::seen::Seen;
use crate::net::HostId;
use crate::plan::{Fault, Plan};
use crate::speech::Speech;

/// The oracle, as those who see something hold it.
#[derive(Clone)]
pub struct SharedOracle(Arc<Mutex<Oracle>>, ReadTime);

/// Says how long the run goes on.
pub type ReadTime = Arc<dyn Fn() -> Duration + Send + Sync>;

struct Oracle {
    echo: bool,
    /// What a keeper had when something was told is seen this much later at most.
    late: Duration,
    hash: DefaultHasher,
    violations: Vec<String>,
    clients: Vec<Seen>,
    stored: BTreeMap<(HostId, SessionId), Stored>,
    claims: Vec<Claim>,
    /// Sessions that a client just began anew, for want of a node that goes on with them.
    forsaken: Vec<Forsaken>,
    /// What is done to each node and client now that could keep one from the other, and when that last changed.
    unrest: BTreeMap<HostId, (u32, Duration)>,
    /// Finals as they were told on the wire, and by which epoch.
    told: BTreeMap<(SessionId, Segment), (Final, Epoch)>,
    /// The last connection of a session, and what was acknowledged on it.
    welcomed: BTreeMap<SessionId, (Epoch, u64)>,
    /// When something was last done to a node that thin clients may lose their sessions by.
    troubled: BTreeMap<HostId, Duration>,
    /// When the last two sessions were admitted.
    admitted: [Duration; 2],
    /// When a decoder host was last lost, and whether the last session was admitted before all knew of that.
    host_lost: Option<Duration>,
    unsettled: bool,
}

/// A change of what a node decodes is known to all after that, and a session that was admitted meanwhile to its client.
const SETTLED: Duration = Duration::from_millis(1_700);

/// What a node says takes so long to its client at most, on the slowest way.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

impl SharedOracle {
    /// Watches clients who say this to so many nodes, of which it may see so late what they keep. `echo`: the log is printed.
    #[must_use]
    pub fn new(now: ReadTime, nodes: usize, speeches: &[Speech], late: Duration, echo: bool) -> Self {
        let oracle = Oracle {
            echo,
            late,
            hash: DefaultHasher::new(),
            violations: Vec::new(),
            clients: (0..).zip(speeches).map(|(index, speech)| Seen::of(nodes + index, speech)).collect(),
            stored: BTreeMap::new(),
            claims: Vec::new(),
            forsaken: Vec::new(),
            unrest: BTreeMap::new(),
            told: BTreeMap::new(),
            welcomed: BTreeMap::new(),
            troubled: BTreeMap::new(),
            admitted: [Duration::ZERO; 2],
            host_lost: None,
            unsettled: false,
        };
        Self(Arc::new(Mutex::new(oracle)), now)
    }

    fn now(&self) -> Duration {
        (self.1)()
    }

    fn lock(&self) -> MutexGuard<'_, Oracle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is written to the log.
    pub fn log(&self, line: &str) {
        let now = self.now();
        self.lock().log(now, line);
    }

    /// Something happened to a client.
    pub fn note(&self, client: usize, line: &str) {
        self.log(&format!("c{client} {line}"));
    }

    /// Something does not hold.
    pub fn violation(&self, what: String) {
        self.log(&format!("VIOLATION {what}"));
        self.lock().violations.push(what);
    }

    /// What does not hold so far.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A number that stands for the whole log.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash.finish()
    }

    /// Whether a client's session is over, in whatever way.
    #[must_use]
    pub fn is_over(&self, client: usize) -> bool {
        self.lock().clients[client].over
    }

    /// Whether keepers have to be looked at now.
    #[must_use]
    pub fn has_claims(&self) -> bool {
        let oracle = self.lock();
        !oracle.claims.is_empty() || !oracle.forsaken.is_empty()
    }

    /// A client that comes back was told this, before its machine judges it.
    pub fn said(
        &self,
        client: usize,
        node: HostId,
        facts: Option<(SessionId, Epoch, bool)>,
        message: &ServerMessage,
    ) {
        self.note(client, &format!("hears from n{node}: {}", brief(message)));
        let now = self.now();
        let problem = self.lock().said(client, node, facts, message, now);
        problem.into_iter().for_each(|problem| self.violation(problem));
    }

    /// A client that comes back has a session.
    pub fn opened(&self, client: usize) {
        self.note(client, "open");
        let now = self.now();
        self.lock().admit(client, now);
    }

    /// A decoder host is gone. Its sessions have a decoder again, or wait for one, a little later, and what nodes tell each other of
    /// them comes later still.
    pub fn host_lost(&self) {
        let now = self.now();
        self.lock().host_lost = Some(now);
    }

    /// A client has said all it has to say.
    pub fn spoke(&self, client: usize) {
        self.lock().clients[client].speaks = false;
    }

    /// How many clients speak to a session of theirs, and how far apart the last two of them were admitted; nothing if the last was
    /// while nodes could not know better.
    #[must_use]
    pub fn speaking(&self) -> (usize, Duration) {
        let oracle = self.lock();
        let speaking = oracle.clients.iter().filter(|seen| seen.speaks && !seen.over).count();
        let apart = oracle.admitted[1].saturating_sub(oracle.admitted[0]);
        (speaking, if oracle.unsettled { Duration::ZERO } else { apart })
    }

    /// A client asks a node for its session, to go on with it or to begin it.
    pub fn asks(&self, client: usize, node: HostId) {
        let now = self.now();
        let mut oracle = self.lock();
        oracle.clients[client].asked.insert(node, now);
    }

    /// Audio is sent from here on; what was let go can't be.
    pub fn resent(&self, client: usize, from: u64, kept_from: u64) {
        if from < kept_from {
            self.violation(format!(
                "client {client} sends audio from {from}, and kept none before {kept_from}"
            ));
        }
    }

    /// A client's consumer was told this.
    pub fn delivered(&self, client: usize, event: &Event) {
        let now = self.now();
        let mut oracle = self.lock();
        let (line, problem) = oracle.clients[client].delivered(event);
        if let (Event::Reconnected { restarted: true, .. }, Some(earlier)) =
            (event, oracle.clients[client].earlier)
        {
            oracle.forsaken.push(Forsaken { client, session: earlier, at: now });
        }
        drop(oracle);
        self.note(client, &line);
        problem.into_iter().for_each(|problem| self.violation(format!("client {client}: {problem}")));
    }

    /// A client's session failed. It must not.
    pub fn failed(&self, client: usize, error: &str) {
        self.lock().clients[client].over = true;
        self.violation(format!("I7/I9: the session of client {client} failed: {error}"));
    }

    /// A thin client has a session on a node.
    pub fn thin_opened(&self, client: usize, node: HostId) {
        self.note(client, &format!("open at n{node}"));
        let now = self.now();
        let mut oracle = self.lock();
        // What it hears may have been said just before the node was lost.
        let excused = oracle.troubled.get(&node).is_some_and(|at| now.saturating_sub(*at) < ON_ITS_WAY);
        oracle.clients[client].thin = Some((node, excused));
        oracle.admit(client, now);
    }

    /// A thin client was told this; true for the last.
    pub fn thin_said(&self, client: usize, message: &ServerMessage) -> bool {
        self.note(client, &format!("hears {}", brief(message)));
        let mut oracle = self.lock();
        let seen = &mut oracle.clients[client];
        let (problem, done) = match message {
            ServerMessage::Final(last) => (seen.take(last), false),
            ServerMessage::Done { segments, frames } => (seen.done(*segments, frames.0), true),
            _ => (None, false),
        };
        drop(oracle);
        problem.into_iter().for_each(|problem| self.violation(format!("client {client}: {problem}")));
        done
    }

    /// A thin client's connection is over; `done` when all was said.
    pub fn thin_over(&self, client: usize, done: bool) {
        self.note(client, &format!("over, all said: {done}"));
        let mut oracle = self.lock();
        let seen = &mut oracle.clients[client];
        seen.over = true;
        let excused = seen.thin.is_some_and(|(_, excused)| excused);
        drop(oracle);
        if !done && !excused {
            self.violation(format!("client {client}: a session was broken whose node was never lost"));
        }
    }

    /// Something was done to a node that thin clients may lose their sessions by.
    pub fn excuse(&self, node: HostId) {
        let now = self.now();
        let mut oracle = self.lock();
        oracle.troubled.insert(node, now);
        for (home, excused) in oracle.clients.iter_mut().filter_map(|seen| seen.thin.as_mut()) {
            *excused |= *home == node;
        }
    }

    /// Something begins or ends that may keep others from a node or a client: `lasts` says how many such things there are more now.
    pub fn unrest(&self, host: HostId, lasts: i32) {
        let now = self.now();
        let mut oracle = self.lock();
        let (count, changed) = oracle.unrest.entry(host).or_default();
        (*count, *changed) = (count.saturating_add_signed(lasts), now);
    }

    /// A fault begins or ends. What keeps others from a node or a client is known here; what befalls decoder hosts is not.
    pub fn unrest_by(&self, plan: &Plan, fault: &Fault, lasts: i32) {
        if fault.kind.is_to_nodes() || lasts != 0 {
            let places = std::iter::once(fault.place).chain(fault.other);
            places.for_each(|place| self.unrest(plan.host_of(place), lasts));
        }
    }

    /// What a keeper has now.
    pub fn sampled(&self, node: HostId, kept: &[KeptCopy]) {
        let now = self.now();
        let problems = self.lock().sampled(node, kept, now);
        problems.into_iter().for_each(|problem| self.violation(problem));
    }

    /// A keeper is gone, with all it had.
    pub fn node_lost(&self, node: HostId) {
        let now = self.now();
        let mut oracle = self.lock();
        for ((_, _), stored) in oracle.stored.iter_mut().filter(|((at, _), _)| *at == node) {
            stored.epoch = Epoch(0);
            stored.copy = None;
            stored.lost_at = Some(now);
        }
    }

    /// Judges what clients were told, once all keepers were looked at.
    pub fn judge(&self) {
        let now = self.now();
        let problems = self.lock().judge(now);
        problems.into_iter().for_each(|problem| self.violation(problem));
    }
}

impl Oracle {
    fn admit(&mut self, client: usize, now: Duration) {
        self.clients[client].speaks = true;
        self.admitted = [self.admitted[1], now];
        self.unsettled = self.host_lost.is_some_and(|at| now.saturating_sub(at) < SETTLED);
    }

    fn log(&mut self, now: Duration, line: &str) {
        let mut text = String::new();
        let _ = write!(text, "{:>7} {line}", now.as_millis());
        self.hash.write(text.as_bytes());
        self.hash.write_u8(b'\n');
        if self.echo {
            println!("{text}");
        }
    }

    fn said(
        &mut self,
        client: usize,
        node: HostId,
        facts: Option<(SessionId, Epoch, bool)>,
        message: &ServerMessage,
        now: Duration,
    ) -> Option<String> {
        let (session, epoch, durable) = facts?;
        let mut problem = None;
        let what = match message {
            ServerMessage::Ready { .. } => {
                self.welcomed.insert(session, (epoch, 0));
                self.clients[client].welcomed(session);
                return None;
            }
            ServerMessage::Ack { until } => {
                if let Some((of, acked)) = self.welcomed.get_mut(&session)
                    && *of == epoch
                {
                    if until.0 < *acked {
                        problem =
                            Some(format!("client {client}: acknowledgements fall from {acked} to {until}"));
                    }
                    *acked = until.0;
                }
                Held::AudioBefore(until.0)
            }
            ServerMessage::Final(last) => {
                let key = (session, last.segment);
                match self.told.get(&key) {
                    Some((before, _)) if before != last => {
                        problem = Some(format!(
                            "I2: client {client} is told segment {} of {session} as {:?} and as {:?}",
                            last.segment, before.text, last.text
                        ));
                    }
                    Some(_) => {}
                    None => drop(self.told.insert(key, (last.clone(), epoch))),
                }
                Held::Final(last.segment.0)
            }
            _ => return None,
        };
        if durable {
            self.claims.push(Claim { client, session, owner: node, what, at: now });
        }
        problem
    }
}

/// A message in few words; tokens are nobody's business.
fn brief(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Ready { epoch, have_until, next_segment, resumed, durable, .. } => format!(
            "ready epoch {epoch} have {have_until} next {next_segment} resumed {resumed} durable {durable}"
        ),
        ServerMessage::View { view, durable, resume_at, .. } => {
            format!("view {view} durable {durable} {resume_at:?}")
        }
        ServerMessage::Final(last) => {
            format!("final {} {}..{} {:?} {:?}", last.segment, last.from, last.to, last.cause, last.text)
        }
        other => format!("{other:?}"),
    }
}
