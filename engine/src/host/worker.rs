//! A decode thread: takes the lease that is due, does one piece of its work, says what came of it.
//!
//! Owns: every native call made for a lease. Must never: hold the host's lock across one, or answer for a lease in another
//! order than its work came in.

use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use starling_protocol::lease::FromHost;
use starling_protocol::{CutCause, LeaseId};

use super::calls::{Call, CallKind, native};
use super::lease::{Seat, State, Work};
use super::pool::Pooled;
use super::{Loaded, Shared};
use crate::{DecodeError, Step};

/// What a thread has taken out of the state.
enum Job {
    Work(LeaseId, Box<Seat>, Work),
    Partial(LeaseId, Box<Seat>),
}

/// Decodes until the host stops.
pub(super) fn decode(shared: &Shared, index: usize) {
    let Some(loaded) = shared.loaded.get() else { return };
    let worker = Worker { shared, loaded, index };
    let mut state = shared.lock();
    while !state.stopping {
        match next_job(shared, &mut state) {
            Next::Job(job) => {
                state.decoding += 1;
                drop(state);
                let partial = matches!(job, Job::Partial(..));
                worker.run(job);
                state = shared.lock();
                state.decoding -= 1;
                state.partials_running -= usize::from(partial);
                if state.stopping || partial {
                    shared.work.notify_all();
                }
            }
            Next::Wait(None) => state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Next::Wait(Some(us)) => {
                let wait = shared.work.wait_timeout(state, Duration::from_micros(us));
                state = wait.map(|(state, _)| state).unwrap_or_else(|poison| poison.into_inner().0);
            }
        }
    }
}

enum Next {
    Job(Job),
    Wait(Option<u64>),
}

/// Steps first; a partial only when no step waits, a thread stays free for the next one, and the budget has time for it.
fn next_job(shared: &Shared, state: &mut MutexGuard<'_, State>) -> Next {
    let state = &mut **state;
    while let Some(id) = state.ready.pop() {
        let Some(lease) = state.leases.get_mut(&id) else { continue };
        let Some(seat) = lease.seat.take() else { continue };
        let Some((_, work)) = lease.work.pop_front() else {
            lease.seat = Some(seat);
            continue;
        };
        state.partials.remove(id);
        return Next::Job(Job::Work(id, seat, work));
    }
    let most = shared.calls.threads().saturating_sub(1).max(1);
    if state.partials.is_empty() || state.partials_running >= most {
        return Next::Wait(None);
    }
    let wait_us = state.partial_budget.wait_us(shared.clock.micros());
    if wait_us > 0 {
        return Next::Wait(Some(wait_us));
    }
    while let Some(id) = state.partials.pop() {
        let Some(lease) = state.leases.get_mut(&id) else { continue };
        let Some(seat) = lease.seat.take() else { continue };
        state.partials_running += 1;
        return Next::Job(Job::Partial(id, seat));
    }
    Next::Wait(None)
}

/// Whether a lease goes on after a piece of work.
enum After {
    Goes(Box<Seat>),
    Over(FromHost),
}

struct Worker<'a> {
    shared: &'a Shared,
    loaded: &'a Loaded,
    index: usize,
}

impl Worker<'_> {
    fn run(&self, job: Job) {
        let (id, after) = match job {
            Job::Work(id, seat, work) => (id, self.work(id, seat, work)),
            Job::Partial(id, seat) => (id, self.partial(id, seat)),
        };
        match after {
            After::Goes(seat) => self.put_back(id, seat),
            After::Over(message) => {
                // Forgotten before the parent knows, so that its next lease finds the slot free.
                self.shared.lock().leases.remove(&id);
                self.shared.warming.notify_one();
                self.shared.outbox.send(message);
            }
        }
    }

    fn work(&self, id: LeaseId, mut seat: Box<Seat>, work: Work) -> After {
        let done = match work {
            Work::Open => return self.open(id, seat),
            Work::Close => return self.close(id, &mut seat),
            Work::Fail(message) => {
                tracing::warn!(lease = %id, trace_id = seat.trace_id.map(display), %message, "a lease fails");
                self.close(id, &mut seat);
                return After::Over(FromHost::Failed { lease: id, message });
            }
            Work::Step(samples) => self.step(id, &mut seat, &samples),
            Work::Flush(cause) => {
                let cut = self.cut(id, &mut seat, cause);
                self.tell(id, &mut seat);
                cut
            }
        };
        match done {
            Ok(()) => After::Goes(seat),
            Err(error) => self.failed(id, &mut seat, &error),
        }
    }

    fn open(&self, id: LeaseId, mut seat: Box<Seat>) -> After {
        let call =
            Call { lease: id, until: seat.decoded, kind: CallKind::Open, segment_ms: 0, first_use: true };
        let (opened, _) = native(self.shared, self.index, call, || self.loaded.engine.open(&seat.options));
        match opened {
            Ok(recognizer) => {
                seat.recognizer = Some(self.shared.lock().pool.opened(recognizer, &seat.options));
                self.shared.outbox.send(FromHost::Opened { lease: id, warm: false });
                After::Goes(seat)
            }
            Err(error) => After::Over(FromHost::Refused { lease: id, message: error.to_string() }),
        }
    }

    fn step(&self, id: LeaseId, seat: &mut Seat, samples: &[i16]) -> Result<(), DecodeError> {
        let until = seat.decoded.plus(samples.len() as u64);
        let mut cut = false;
        if let Some(pooled) = seat.recognizer.as_mut().filter(|_| !samples.is_empty()) {
            let call =
                Call { lease: id, until, kind: CallKind::Accept, segment_ms: 0, first_use: !pooled.warm };
            let (step, took) = native(self.shared, self.index, call, || pooled.recognizer.accept(samples));
            seat.busy_us += took.cpu_us;
            pooled.heard += samples.len() as u64;
            self.shared.calls.add_audio(samples.len(), self.loaded.spec.sample_rate);
            seat.decoded = until;
            if let Step::Endpoint(cause) = step? {
                self.cut(id, seat, cause)?;
                cut = true;
            }
        }
        // Before the parent knows: its next step must not find the window full.
        seat.undecoded.fetch_sub(1, Ordering::AcqRel);
        if seat.told.step(until, self.loaded.spec.sample_rate) || cut {
            self.tell(id, seat);
        }
        Ok(())
    }

    /// Tells what is decoded, unless that is known.
    fn tell(&self, id: LeaseId, seat: &mut Seat) {
        let until = seat.decoded;
        if seat.told.tell(until) {
            self.shared.outbox.send(FromHost::Decoded { lease: id, until });
        }
    }

    fn cut(&self, id: LeaseId, seat: &mut Seat, cause: CutCause) -> Result<(), DecodeError> {
        let segment_ms = self.segment_ms(seat);
        let Some(pooled) = seat.recognizer.as_mut() else { return Ok(()) };
        let (kind, first_use) = (CallKind::Finish, !pooled.warm);
        let call = Call { lease: id, until: seat.decoded, kind, segment_ms, first_use };
        let (utterance, took) = native(self.shared, self.index, call, || pooled.recognizer.finish());
        let utterance = utterance?;
        let busy_us = std::mem::take(&mut seat.busy_us) + took.cpu_us;
        pooled.warm |= seat.decoded > seat.from;
        let (segment, from, to) = (seat.segment, seat.from, seat.decoded);
        self.shared.outbox.send(FromHost::Cut { lease: id, segment, from, to, cause, utterance, busy_us });
        seat.segment = segment.next();
        seat.from = to;
        seat.partial_until = to;
        let spent = self.shared.lock().pool.exchange(pooled, &seat.options);
        self.shared.warming.notify_one();
        drop(spent);
        Ok(())
    }

    fn partial(&self, id: LeaseId, mut seat: Box<Seat>) -> After {
        let segment_ms = self.segment_ms(&seat);
        let Some(pooled) = seat.recognizer.as_mut() else { return After::Goes(seat) };
        let (segment, until) = (seat.segment, seat.decoded);
        let call = Call { lease: id, until, kind: CallKind::Partial, segment_ms, first_use: !pooled.warm };
        let (text, took) = native(self.shared, self.index, call, || pooled.recognizer.partial());
        self.shared.lock().partial_budget.spend(took.wall_us);
        seat.busy_us += took.cpu_us;
        seat.partial_until = until;
        match text {
            Ok(text) => {
                // Whoever goes on with the segment elsewhere goes on from what is known, which no partial may be ahead of.
                self.tell(id, &mut seat);
                self.shared.outbox.send(FromHost::Partial { lease: id, segment, until, text });
                After::Goes(seat)
            }
            Err(error) => self.failed(id, &mut seat, &error),
        }
    }

    fn close(&self, id: LeaseId, seat: &mut Seat) -> After {
        if let Some(mut pooled) = seat.recognizer.take() {
            let (kind, first_use) = (CallKind::Finish, !pooled.warm);
            let call = Call { lease: id, until: seat.decoded, kind, segment_ms: 0, first_use };
            let (reset, _) = native(self.shared, self.index, call, || pooled.recognizer.reset());
            let closed = match reset {
                Ok(()) => self.shared.lock().pool.give_back(pooled),
                Err(error) => {
                    tracing::warn!(lease = %id, trace_id = seat.trace_id.map(display), %error, "a recognizer cannot be reset");
                    self.lost(pooled)
                }
            };
            drop(closed);
        }
        After::Over(FromHost::Closed { lease: id })
    }

    /// Audio in the open segment.
    fn segment_ms(&self, seat: &Seat) -> u32 {
        let rate = u64::from(self.loaded.spec.sample_rate.max(1));
        u32::try_from(seat.decoded.since(seat.from) * 1_000 / rate).unwrap_or(u32::MAX)
    }

    fn failed(&self, id: LeaseId, seat: &mut Seat, error: &DecodeError) -> After {
        tracing::warn!(lease = %id, trace_id = seat.trace_id.map(display), %error, "a recognizer failed");
        drop(seat.recognizer.take().and_then(|pooled| self.lost(pooled)));
        After::Over(FromHost::Failed { lease: id, message: error.to_string() })
    }

    /// Counts a recognizer as gone, and hands it on to be closed without the lock.
    fn lost(&self, pooled: Pooled) -> Option<Pooled> {
        self.shared.lock().pool.lost(&pooled);
        Some(pooled)
    }

    fn put_back(&self, id: LeaseId, seat: Box<Seat>) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(lease) = state.leases.get_mut(&id) else { return };
        if let Some((due, _)) = lease.work.front() {
            state.ready.push(*due, id);
        } else if lease.wants_partial(&seat, self.loaded.spec.sample_rate) {
            state.partials.push(self.shared.clock.micros(), id);
        }
        lease.seat = Some(seat);
    }
}
