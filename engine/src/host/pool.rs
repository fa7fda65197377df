//! Recognizers that wait for a lease, already past the work of their first use.
//!
//! Owns: how many there are, when one is too old, and the thread that replaces it. Must never: keep one whose options can't
//! be changed (a phrase list), or hold the host's lock while one is opened, warmed or closed.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use starling_protocol::lease::{DecodeOptions, HostSpec};
use thiserror::Error;

use super::{Loaded, Shared};
use crate::warmup::warm;
use crate::{DecodeError, OpenError, Recognizer, load};

/// Wait before another try when no recognizer could be opened in the background.
const RETRY: Duration = Duration::from_secs(1);

/// A recognizer and what is known of it.
pub(super) struct Pooled {
    pub(super) recognizer: Box<dyn Recognizer>,
    /// Samples it has heard since it was opened, its warm-up too.
    pub(super) heard: u64,
    /// It has finished an utterance: its caches are filled, and call lengths mean something.
    pub(super) warm: bool,
    /// It can serve another lease afterwards.
    reusable: bool,
}

/// The idle ones, and the counts that say how many are missing.
pub(super) struct Pool {
    idle: Vec<Pooled>,
    target: usize,
    /// Reusable recognizers with leases.
    out: usize,
    opening: usize,
    spare_wanted: bool,
    most_idle: usize,
    budget: u64,
}

impl Pool {
    pub(super) fn new(spec: &HostSpec) -> Self {
        Self {
            idle: Vec::new(),
            target: usize::from(spec.prewarm),
            out: 0,
            opening: 0,
            spare_wanted: false,
            most_idle: usize::from(spec.slots.max(spec.prewarm)),
            budget: u64::from(spec.recognizer_audio_budget_s) * u64::from(spec.sample_rate),
        }
    }

    /// A warm recognizer for a lease with these options, if there is one.
    pub(super) fn take(&mut self, options: &DecodeOptions) -> Option<Pooled> {
        if !options.phrases.is_empty() {
            return None;
        }
        let last = self.idle.last_mut()?;
        if !last.recognizer.adopt(options) {
            return None;
        }
        self.out += 1;
        self.idle.pop()
    }

    /// Counts a recognizer that was opened for a lease, cold.
    pub(super) fn opened(&mut self, recognizer: Box<dyn Recognizer>, options: &DecodeOptions) -> Pooled {
        let reusable = options.phrases.is_empty();
        self.out += usize::from(reusable);
        Pooled { recognizer, heard: 0, warm: false, reusable }
    }

    /// Takes one back after its reset; gives it out again to be closed when it is not to be kept.
    pub(super) fn give_back(&mut self, pooled: Pooled) -> Option<Pooled> {
        self.lost(&pooled);
        if !pooled.reusable || !pooled.warm || self.spent(&pooled) || self.idle.len() >= self.most_idle {
            return Some(pooled);
        }
        self.idle.push(pooled);
        None
    }

    /// Counts one that is about to be closed.
    pub(super) fn lost(&mut self, pooled: &Pooled) {
        self.out -= usize::from(pooled.reusable);
    }

    /// Whether it has heard so much that its caches are worth more than its warmth.
    pub(super) fn spent(&self, pooled: &Pooled) -> bool {
        self.budget > 0 && pooled.heard >= self.budget
    }

    /// Changes a spent recognizer for a fresh one between two segments, where it holds nothing. Gives the old one out to be
    /// closed; without a fresh one nothing changes, and one is made.
    pub(super) fn exchange(&mut self, old: &mut Pooled, options: &DecodeOptions) -> Option<Pooled> {
        if !old.reusable || !self.spent(old) {
            return None;
        }
        let Some(fresh) = self.take(options) else {
            self.spare_wanted = true;
            return None;
        };
        self.out -= 1;
        Some(std::mem::replace(old, fresh))
    }

    fn missing(&self) -> bool {
        let all = self.idle.len() + self.out + self.opening;
        all < self.target || (self.spare_wanted && self.idle.is_empty() && self.opening == 0)
    }
}

/// No recognizer could be made warm.
#[derive(Debug, Error)]
pub(super) enum WarmError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

fn open_warm(loaded: &Loaded) -> Result<Pooled, WarmError> {
    let options = DecodeOptions::default();
    let mut recognizer = loaded.engine.open(&options)?;
    let length_ms = load::warmup_ms(loaded.spec.engine);
    warm(recognizer.as_mut(), loaded.spec.sample_rate, length_ms)?;
    let heard = u64::from(length_ms) * u64::from(loaded.spec.sample_rate) / 1_000;
    Ok(Pooled { recognizer, heard, warm: true, reusable: true })
}

/// Fills the pool before the first lease, on as many threads as will decode.
pub(super) fn prewarm(shared: &Shared, loaded: &Loaded) -> Result<(), WarmError> {
    let left = AtomicUsize::new(usize::from(loaded.spec.prewarm));
    let threads = loaded.spec.threads.max(1).min(loaded.spec.prewarm);
    std::thread::scope(|scope| {
        let fill = || -> Result<(), WarmError> {
            while left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok() {
                let pooled = open_warm(loaded)?;
                shared.lock().pool.idle.push(pooled);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(fill)).collect();
        // A panic has ended the process by now, in the hook.
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Ok(())))
    })
}

/// Replaces what leases and budgets have used up. Ends with the host.
pub(super) fn keep_warm(shared: &Shared) {
    let Some(loaded) = shared.loaded.get() else { return };
    let mut state = shared.lock();
    while !state.stopping {
        if !state.pool.missing() {
            state = shared.warming.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        state.pool.opening += 1;
        drop(state);
        let opened = open_warm(loaded);
        state = shared.lock();
        state.pool.opening -= 1;
        state.pool.spare_wanted = false;
        match opened {
            Ok(pooled) => state.pool.idle.push(pooled),
            Err(error) => {
                tracing::error!(%error, "no recognizer can be warmed");
                let wait = shared.warming.wait_timeout(state, RETRY);
                state = wait.map(|(state, _)| state).unwrap_or_else(|poison| poison.into_inner().0);
            }
        }
    }
}
