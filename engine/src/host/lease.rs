//! Leases as the parent sees them: what it asked for, in order, until a decode thread takes it.
//!
//! Owns: the host's state and the reader's side of every message. Must never: make a native call.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use starling_protocol::lease::{DecodeOptions, FromHost, HostSpec, Priority, ToHost};
use starling_protocol::limits::STEP_MS;
use starling_protocol::trace::{SpanContext, TraceId};
use starling_protocol::{CutCause, DecodeOffset, LeaseId, Segment};

use super::pool::{Pool, Pooled};
use super::queue::{DueTimes, FairQueue, PartialBudget};
use super::told::Told;
use super::{Loaded, Shared};
use crate::recognizer::check_options;

/// Everything behind the host's one lock.
pub(super) struct State {
    pub(super) leases: HashMap<LeaseId, Lease>,
    /// Leases with work whose recognizer no thread has.
    pub(super) ready: FairQueue,
    /// Leases that could do with a partial.
    pub(super) partials: FairQueue,
    pub(super) partials_running: usize,
    pub(super) partial_budget: PartialBudget,
    pub(super) pool: Pool,
    /// Threads in a native call or about to be.
    pub(super) decoding: usize,
    pub(super) stopping: bool,
    slots: usize,
}

impl State {
    pub(super) fn new(spec: &HostSpec) -> Self {
        Self {
            leases: HashMap::new(),
            ready: FairQueue::default(),
            partials: FairQueue::default(),
            partials_running: 0,
            partial_budget: PartialBudget::new(spec.threads),
            pool: Pool::new(spec),
            decoding: 0,
            stopping: false,
            slots: usize::from(spec.slots),
        }
    }
}

/// One lease.
pub(super) struct Lease {
    pub(super) work: VecDeque<(u64, Work)>,
    /// The decoding side; away while a thread works on it.
    pub(super) seat: Option<Box<Seat>>,
    pub(super) partial_interval_ms: u32,
    /// Most audio that is decoded before the parent is told.
    decoded_interval_ms: Arc<AtomicU32>,
    priority: Priority,
    window: usize,
    undecoded: Arc<AtomicUsize>,
    due: DueTimes,
    fed: DecodeOffset,
    /// It fails or closes: nothing more is taken for it.
    ending: bool,
}

/// What a decode thread does next for a lease.
pub(super) enum Work {
    Open,
    Step(Vec<i16>),
    Flush(CutCause),
    Fail(String),
    Close,
}

/// What a decode thread needs of a lease, without the lock.
pub(super) struct Seat {
    pub(super) recognizer: Option<Pooled>,
    pub(super) options: DecodeOptions,
    pub(super) segment: Segment,
    pub(super) from: DecodeOffset,
    pub(super) decoded: DecodeOffset,
    /// How far the last partial reached.
    pub(super) partial_until: DecodeOffset,
    /// Steps that were fed and are not decoded.
    pub(super) undecoded: Arc<AtomicUsize>,
    pub(super) told: Told,
    /// CPU time that native calls spent on the open segment.
    pub(super) busy_us: u64,
    /// The session's trace, for the log.
    pub(super) trace_id: Option<TraceId>,
}

impl Lease {
    /// Whether the text has grown by a partial's interval and nothing else is to be done first.
    pub(super) fn wants_partial(&self, seat: &Seat, sample_rate: u32) -> bool {
        let interval = u64::from(self.partial_interval_ms) * u64::from(sample_rate) / 1_000;
        self.partial_interval_ms > 0
            && self.work.is_empty()
            && !self.ending
            && seat.recognizer.is_some()
            && seat.decoded.since(seat.partial_until) >= interval
    }
}

/// Takes one message about a lease.
pub(super) fn handle(shared: &Shared, message: ToHost) {
    match message {
        ToHost::Open { .. } => open(shared, message),
        ToHost::Feed { lease, at, pcm } => feed(shared, lease, at, &pcm),
        ToHost::Flush { lease, at, cause } => with_lease(shared, lease, |entry| {
            if at == entry.fed {
                Ok(Some(Work::Flush(cause)))
            } else {
                Err(format!("Flush.at is {at}; the last step ended at {}", entry.fed))
            }
        }),
        ToHost::Partials { lease, interval_ms, decoded_interval_ms } => with_lease(shared, lease, |entry| {
            entry.partial_interval_ms = interval_ms;
            entry.decoded_interval_ms.store(decoded_interval_ms, Ordering::Relaxed);
            Ok(None)
        }),
        ToHost::Close { lease } => with_lease(shared, lease, |entry| {
            entry.ending = true;
            // Nobody waits for steps after the last flush.
            while matches!(entry.work.back(), Some((_, Work::Step(_)))) {
                entry.work.pop_back();
            }
            Ok(Some(Work::Close))
        }),
        ToHost::Start(_) | ToHost::Shutdown => {
            tracing::error!("a message of the link came as one of a lease");
        }
        other => tracing::warn!(?other, "a message this host does not know is ignored"),
    }
}

fn open(shared: &Shared, message: ToHost) {
    let ToHost::Open {
        lease,
        attempt,
        options,
        segment,
        from,
        priority,
        window,
        partial_interval_ms,
        trace,
        decoded_interval_ms,
    } = message
    else {
        return;
    };
    let trace_id = trace.as_ref().and_then(SpanContext::of).map(|context| context.trace);
    tracing::debug!(%lease, %attempt, %segment, %from, trace_id = trace_id.map(display), "open");
    let refuse = |message: String| shared.outbox.send(FromHost::Refused { lease, message });
    let Some(loaded) = shared.loaded.get() else { return refuse("the model is not loaded yet".to_owned()) };
    if let Err(error) = check_options(&options, loaded.engine.describe()) {
        return refuse(error.to_string());
    }
    let undecoded = Arc::new(AtomicUsize::new(0));
    let decoded_interval_ms = Arc::new(AtomicU32::new(decoded_interval_ms));
    let told = Told::new(from, window, Arc::clone(&decoded_interval_ms));
    let mut seat = Box::new(Seat {
        recognizer: None,
        options,
        segment,
        from,
        decoded: from,
        partial_until: from,
        undecoded: Arc::clone(&undecoded),
        told,
        busy_us: 0,
        trace_id,
    });
    let mut state = shared.lock();
    if state.leases.contains_key(&lease) {
        drop(state);
        return fail(shared, lease, format!("lease {lease} was opened twice"));
    }
    let open = state.leases.values().filter(|entry| !entry.ending).count();
    if open >= state.slots {
        let message = format!("all {} slots are taken", state.slots);
        drop(state);
        return refuse(message);
    }
    seat.recognizer = state.pool.take(&seat.options);
    let warm = seat.recognizer.is_some();
    let mut entry = Lease {
        work: VecDeque::new(),
        seat: Some(seat),
        partial_interval_ms,
        decoded_interval_ms,
        priority,
        window: usize::from(window),
        undecoded,
        due: DueTimes::default(),
        fed: from,
        ending: false,
    };
    if !warm {
        entry.work.push_back((shared.clock.micros(), Work::Open));
        state.ready.push(shared.clock.micros(), lease);
    }
    state.leases.insert(lease, entry);
    drop(state);
    if warm {
        shared.outbox.send(FromHost::Opened { lease, warm });
    } else {
        shared.work.notify_one();
    }
}

fn feed(shared: &Shared, lease: LeaseId, at: DecodeOffset, pcm: &[u8]) {
    let Some(Loaded { spec, .. }) = shared.loaded.get() else { return };
    let longest = u64::from(spec.sample_rate) * STEP_MS / 1_000;
    with_lease(shared, lease, |entry| {
        if at != entry.fed {
            return Err(format!("Feed.at is {at}; the last step ended at {}", entry.fed));
        }
        if !pcm.len().is_multiple_of(2) {
            return Err(format!("Feed.pcm has {} bytes; samples have two", pcm.len()));
        }
        let samples: Vec<i16> =
            pcm.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect();
        if samples.len() as u64 > longest {
            return Err(format!("Feed.pcm has {} samples; a step has at most {longest}", samples.len()));
        }
        if entry.undecoded.fetch_add(1, Ordering::AcqRel) >= entry.window {
            return Err(format!("more than Open.window = {} steps are undecoded", entry.window));
        }
        entry.fed = entry.fed.plus(samples.len() as u64);
        Ok(Some(Work::Step(samples)))
    });
}

fn fail(shared: &Shared, lease: LeaseId, message: String) {
    with_lease(shared, lease, |_| Err(message));
}

/// Adds what `decide` gives to the lease's work; an error becomes the lease's last work. Messages about a lease that is over
/// cross the host's own on their way: they are normal, and ignored.
fn with_lease(
    shared: &Shared,
    lease: LeaseId,
    decide: impl FnOnce(&mut Lease) -> Result<Option<Work>, String>,
) {
    let mut state = shared.lock();
    let state = &mut *state;
    let Some(entry) = state.leases.get_mut(&lease).filter(|entry| !entry.ending) else {
        tracing::debug!(%lease, "a message for a lease that is over is ignored");
        return;
    };
    let queued = !entry.work.is_empty();
    let work = match decide(entry) {
        Ok(None) => return,
        Ok(Some(work)) => work,
        Err(message) => {
            entry.ending = true;
            entry.work.clear();
            Work::Fail(message)
        }
    };
    let due = entry.due.next(shared.clock.micros(), entry.priority);
    entry.work.push_back((due, work));
    let Some((due, _)) = entry.work.front() else { return };
    if entry.seat.is_some() {
        if queued {
            state.ready.remove(lease);
        }
        state.ready.push(*due, lease);
        shared.work.notify_one();
    }
}
