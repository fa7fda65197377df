//! A session's trace, as its actor tells it and its supervisor, should the actor fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SessionTrace;

/// See the module. Nobody but the actor has hold of it while that lives.
#[derive(Clone)]
pub(crate) struct SharedTrace(Arc<Mutex<SessionTrace>>);

impl SharedTrace {
    pub(crate) fn new(trace: SessionTrace) -> Self {
        Self(Arc::new(Mutex::new(trace)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, SessionTrace> {
        // Of what a failed actor left half told, the rest is as true as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
