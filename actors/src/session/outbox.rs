//! What waits for one connection to be told.
//!
//! Bounded by what it is, not by a count: a newer partial, ack or progress takes the place of the older one, and finals are
//! bounded by the machine, which stops decoding for a client that does not confirm them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use starling_protocol::SourceOffset;
use starling_protocol::native::{Final, WarningCode};
use tokio::sync::Notify;

use super::api::SessionEvent;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    view: Option<SessionEvent>,
    finals: VecDeque<Final>,
    partial: Option<SessionEvent>,
    ack: Option<SourceOffset>,
    progress: Option<SessionEvent>,
    warning: Option<SessionEvent>,
    last: Option<SessionEvent>,
    closed: bool,
}

impl Outbox {
    pub(super) fn push_final(&self, last: Final) {
        self.change(|waiting| {
            // What is open now is another segment.
            waiting.partial = None;
            waiting.finals.push_back(last);
        });
    }

    pub(super) fn set_partial(&self, partial: SessionEvent) {
        self.change(|waiting| waiting.partial = Some(partial));
    }

    /// Goes out before any acknowledgement or final that is added later.
    pub(super) fn set_view(&self, view: SessionEvent) {
        self.change(|waiting| waiting.view = Some(view));
    }

    pub(super) fn set_ack(&self, until: SourceOffset) {
        self.change(|waiting| waiting.ack = Some(until));
    }

    pub(super) fn set_progress(&self, progress: SessionEvent) {
        self.change(|waiting| waiting.progress = Some(progress));
    }

    pub(super) fn set_warning(&self, code: WarningCode, message: String) {
        self.change(|waiting| waiting.warning = Some(SessionEvent::Warning(code, message)));
    }

    /// The last event; nothing is added after it.
    pub(super) fn finish(&self, event: SessionEvent) {
        self.change(|waiting| waiting.last = waiting.last.take().or(Some(event)));
    }

    /// Nothing will be added any more.
    pub(super) fn close(&self) {
        self.change(|waiting| waiting.closed = true);
    }

    /// The next event; `None` once everything was told and nothing will come.
    pub(super) async fn next(&self) -> Option<SessionEvent> {
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = self.lock();
                if let Some(event) = waiting.take() {
                    return Some(event);
                }
                if waiting.closed {
                    return None;
                }
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        change(&mut waiting);
        drop(waiting);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in here panics half way through a change.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take(&mut self) -> Option<SessionEvent> {
        if let Some(view) = self.view.take() {
            return Some(view);
        }
        if let Some(warning) = self.warning.take() {
            return Some(warning);
        }
        if let Some(last) = self.finals.pop_front() {
            return Some(SessionEvent::Final(last));
        }
        if let Some(partial) = self.partial.take() {
            return Some(partial);
        }
        if let Some(until) = self.ack.take() {
            return Some(SessionEvent::Ack(until));
        }
        if let Some(progress) = self.progress.take() {
            return Some(progress);
        }
        let last = self.last.take()?;
        self.closed = true;
        Some(last)
    }
}
