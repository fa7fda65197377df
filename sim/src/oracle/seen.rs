//! What one client was told, against what it has to be told.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_client::machine::Event;
use starling_core::invariants::FinalsLedger;
use starling_protocol::native::Final;
use starling_protocol::{CutCause, Segment, SessionId};

use crate::net::HostId;
use crate::speech::{Expected, Speech, unmarked};

/// What one client has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Its place on the network.
    pub(super) host: HostId,
    pub(super) expected: Vec<Expected>,
    /// Where it asks for finals.
    pub(super) requests: Vec<u64>,
    pub(super) frames: u64,
    pub(super) ledger: FinalsLedger,
    /// Empty finals for requests that were made twice: whether the first was heard was not known.
    pub(super) asked_twice: u64,
    pub(super) over: bool,
    /// Its session, and the one before it, if it was begun anew.
    pub(super) session: Option<SessionId>,
    pub(super) earlier: Option<SessionId>,
    /// Its session was opened, and it still speaks.
    pub(super) speaks: bool,
    /// When it last asked each node.
    pub(super) asked: BTreeMap<HostId, Duration>,
    /// Where a thin client's session lived, and whether it may have lost it.
    pub(super) thin: Option<(HostId, bool)>,
}

impl Seen {
    /// A client who says this.
    pub(super) fn of(host: HostId, speech: &Speech) -> Self {
        Self {
            host,
            expected: speech.transcript(),
            requests: speech.requests.clone(),
            frames: speech.samples.len() as u64,
            ..Self::default()
        }
    }

    /// It was welcomed to a session.
    pub(super) fn welcomed(&mut self, session: SessionId) {
        if self.session != Some(session) {
            self.earlier = self.session.replace(session);
        }
    }

    fn due(&self, segment: Segment) -> Option<&Expected> {
        self.expected.get(segment.0.checked_sub(self.asked_twice)? as usize)
    }

    /// A final is told.
    pub(super) fn take(&mut self, last: &Final) -> Option<String> {
        if let Err(violation) = self.ledger.record(last.segment, last.from, last.to) {
            return Some(violation.to_string());
        }
        let again = last.cause == CutCause::Finalize && last.from == last.to && last.text.is_empty();
        if again && self.requests.contains(&last.to.0) {
            self.asked_twice += 1;
            return None;
        }
        let Some(expected) = self.due(last.segment) else {
            return Some(format!("I11: segment {} is one too many", last.segment));
        };
        let got = Expected {
            from: last.from.0,
            to: last.to.0,
            cause: last.cause,
            text: unmarked(&last.text).to_owned(),
        };
        (got != *expected).then(|| format!("I11: segment {} is {got:?}, must be {expected:?}", last.segment))
    }

    /// All was told.
    pub(super) fn done(&mut self, segments: u64, frames: u64) -> Option<String> {
        self.over = true;
        let (all, heard) = (self.expected.len() as u64 + self.asked_twice, self.ledger.next().0);
        (segments != all || heard != all || frames != self.frames).then(|| {
            format!(
                "I1: done after {heard} finals, {segments} segments and {frames} frames; {all} and {} were due",
                self.frames
            )
        })
    }

    /// Something is told to a client that comes back: how to write that down, and what is wrong with it.
    pub(super) fn delivered(&mut self, event: &Event) -> (String, Option<String>) {
        match event {
            Event::Final(last) => (format!("gets final {}", last.segment), self.take(last)),
            Event::Partial { segment, text, .. } => {
                let of = self.due(*segment);
                let wrong =
                    of.is_some_and(|of| of.cause != CutCause::GivenUp && !of.text.starts_with(text.as_str()));
                let problem = wrong.then(|| format!("I11: a partial of segment {segment} says {text:?}"));
                (format!("gets partial {segment} {text:?}"), problem)
            }
            Event::Gap { from, to } => {
                (format!("gets gap {from} {to}"), Some(format!("audio from {from} to {to} was lost")))
            }
            Event::Done { segments, frames } => ("gets done".to_owned(), self.done(*segments, frames.0)),
            other => (format!("gets {other:?}"), None),
        }
    }
}
