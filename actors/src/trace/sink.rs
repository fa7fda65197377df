//! Where spans wait until it is known whether they are kept.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Span, Tracer};

/// Spans of a session that is not sampled, until a fault or its end. Three for each segment: the last minutes of a call. The
/// first to come is the first to go.
const WAITING: usize = 64;

/// Hands spans on at once, or once the first fault has shown that they are wanted.
pub(super) struct Sink {
    tracer: Arc<dyn Tracer>,
    kept: bool,
    waiting: VecDeque<Span>,
    passed_over: u64,
}

impl Sink {
    pub(super) fn new(tracer: Arc<dyn Tracer>, kept: bool) -> Self {
        Self { tracer, kept, waiting: VecDeque::new(), passed_over: 0 }
    }

    /// Whether what comes is kept.
    pub(super) const fn keeps(&self) -> bool {
        self.kept
    }

    /// Spans that had no room until it was known that they are wanted.
    pub(super) const fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// From now on all is kept, and what waits.
    pub(super) fn keep(&mut self) {
        self.kept = true;
        self.waiting.drain(..).for_each(|span| self.tracer.export(span));
    }

    pub(super) fn put(&mut self, span: Span) {
        if self.kept {
            return self.tracer.export(span);
        }
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
            self.passed_over += 1;
        }
        self.waiting.push_back(span);
    }
}
