//! What was told of calls, for whoever asks: while they go on and for a while after.
//!
//! Owns: the events of each call, in order, within bounds. Must never: let one who reads slowly hold up a call, or show one
//! tenant's calls to another.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_protocol::SessionId;
use starling_protocol::audiosocket::CallEvent;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// Text that is kept of one call: with the times of its words an hour and a half of speech without a pause. The oldest goes first.
const MOST_BYTES_OF_CALL: usize = 1 << 20;

/// Text that is kept of all calls that are over. The oldest call goes first.
const MOST_BYTES_OF_ENDED: usize = 16 << 20;

/// Calls that are over and kept: as many as may end in a minute on a node with a thousand lines.
const MOST_ENDED: usize = 1_000;

/// Events that a reader takes at once.
const MOST_AT_ONCE: usize = 16;

type Key = (String, SessionId);

/// The calls of a node.
#[derive(Debug)]
pub struct Calls {
    /// How long a call is kept after its end, and how long one is waited for before its beginning.
    linger: Duration,
    directory: Mutex<Directory>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct Directory {
    calls: HashMap<Key, Arc<Call>>,
    ended: VecDeque<(Instant, Key, Arc<Call>)>,
    ended_bytes: usize,
}

impl Calls {
    /// None yet; each is kept for so long after its end.
    #[must_use]
    pub fn new(linger: Duration) -> Arc<Self> {
        Arc::new(Self { linger, directory: Mutex::default(), begun: Notify::new() })
    }

    /// How long a call may be waited for.
    pub(super) const fn patience(&self) -> Duration {
        self.linger
    }

    /// A call begins. `None` where one with this id goes on.
    pub(super) fn begin(self: &Arc<Self>, tenant: &str, id: SessionId) -> Option<Line> {
        let key = (tenant.to_owned(), id);
        let call = Arc::new(Call::new());
        {
            let mut directory = self.directory();
            directory.forget(Instant::now(), self.linger);
            if directory.calls.get(&key).is_some_and(|call| !call.is_over()) {
                return None;
            }
            directory.calls.insert(key.clone(), Arc::clone(&call));
        }
        self.begun.notify_waiters();
        Some(Line { calls: Arc::clone(self), key, call, over: false })
    }

    /// The call of this id that goes on, or the last one that is kept.
    pub(super) fn find(&self, tenant: &str, id: SessionId) -> Option<Arc<Call>> {
        let mut directory = self.directory();
        directory.forget(Instant::now(), self.linger);
        directory.calls.get(&(tenant.to_owned(), id)).cloned()
    }

    /// The call of this id; one that has not begun yet is waited for.
    pub(super) async fn wait(&self, tenant: &str, id: SessionId, until: Instant) -> Option<Arc<Call>> {
        loop {
            // Listened for before it is looked for, so that one that begins in between is not missed.
            let begun = self.begun.notified();
            let found = self.find(tenant, id);
            if found.is_some() {
                return found;
            }
            if timeout_at(until, begun).await.is_err() {
                return None;
            }
        }
    }

    fn end(&self, key: Key, call: Arc<Call>) {
        let now = Instant::now();
        let mut directory = self.directory();
        directory.ended_bytes += call.bytes();
        directory.ended.push_back((now, key, call));
        directory.forget(now, self.linger);
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    fn forget(&mut self, now: Instant, linger: Duration) {
        while let Some((ended, ..)) = self.ended.front() {
            let much = self.ended.len() > MOST_ENDED || self.ended_bytes > MOST_BYTES_OF_ENDED;
            if !much && now < *ended + linger {
                return;
            }
            let Some((_, key, call)) = self.ended.pop_front() else { return };
            self.ended_bytes -= call.bytes();
            // Another call may have the id by now.
            if self.calls.get(&key).is_some_and(|kept| Arc::ptr_eq(kept, &call)) {
                self.calls.remove(&key);
            }
        }
    }
}

/// The telling side of a call. When it is dropped, the call is over.
#[derive(Debug)]
pub(super) struct Line {
    calls: Arc<Calls>,
    key: Key,
    call: Arc<Call>,
    over: bool,
}

impl Line {
    /// Nothing is told after the last event.
    pub(super) fn tell(&mut self, event: &CallEvent<'_>) {
        if !self.over {
            self.over = event.is_last();
            self.call.tell(event.to_json().into(), self.over);
        }
    }

    /// Whether the last event was told.
    pub(super) const fn is_over(&self) -> bool {
        self.over
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Whatever ended it, nobody is left waiting.
        let error = ErrorBody::new(ErrorCode::ShuttingDown, "the call was broken off");
        self.tell(&CallEvent::Error(&error));
        let key = std::mem::take(&mut self.key.0);
        self.call.close();
        self.calls.end((key, self.key.1), Arc::clone(&self.call));
    }
}

/// What was told of one call.
#[derive(Debug)]
pub(super) struct Call {
    /// Tells its events' ids from those of another call with the same UUID.
    run: u32,
    told: Mutex<Told>,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct Told {
    events: VecDeque<Arc<str>>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    last: bool,
}

/// How far a call is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    told: u64,
    /// Whether another call may have the id.
    over: bool,
}

/// What a reader gets next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// Events that were let go of before.
    pub(super) missed: u64,
    /// The number of the first of the events.
    pub(super) first: u64,
    pub(super) events: Vec<Arc<str>>,
    /// Whether nothing follows.
    pub(super) last: bool,
}

impl Call {
    fn new() -> Self {
        Self { run: rand::random(), told: Mutex::default(), state: watch::Sender::default() }
    }

    pub(super) const fn run(&self) -> u32 {
        self.run
    }

    /// To be told of changes.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What was told from this number on, a few at once.
    pub(super) fn read(&self, from: u64) -> Heard {
        let told = self.told();
        let first = from.max(told.first);
        let skip = usize::try_from(first - told.first).unwrap_or(usize::MAX);
        let events: Vec<Arc<str>> = told.events.iter().skip(skip).take(MOST_AT_ONCE).cloned().collect();
        let last = told.last && skip.saturating_add(events.len()) >= told.events.len();
        Heard { missed: first - from, first, events, last }
    }

    fn tell(&self, event: Arc<str>, last: bool) {
        {
            let mut told = self.told();
            told.bytes += event.len();
            told.events.push_back(event);
            told.last = last;
            while told.bytes > MOST_BYTES_OF_CALL && told.events.len() > 1 {
                let oldest = told.events.pop_front().map_or(0, |event| event.len());
                told.bytes -= oldest;
                told.first += 1;
            }
        }
        self.state.send_modify(|state| state.told += 1);
    }

    fn close(&self) {
        self.state.send_modify(|state| state.over = true);
    }

    fn is_over(&self) -> bool {
        self.state.borrow().over
    }

    fn bytes(&self) -> usize {
        self.told().bytes
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
