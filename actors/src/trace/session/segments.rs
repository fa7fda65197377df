//! A session's segments: from their first audio to the final's way out.

use std::time::Duration;

use starling_core::Timestamp;
use starling_core::replica::RECENT_SEGMENTS;
use starling_protocol::trace::SegmentTimes;
use starling_protocol::{Attempt, CutCause, NodeName, Segment};

use super::SessionTrace;
use crate::trace::decode::cut_label;
use crate::trace::{Span, ids};

/// A segment that was cut.
pub(crate) struct Cut<'a> {
    pub(crate) segment: Segment,
    pub(crate) cause: CutCause,
    /// How much audio it has.
    pub(crate) audio: Duration,
    /// Since its last audio came in.
    pub(crate) latency: Duration,
    /// Whether audio that follows has come in already.
    pub(crate) more: bool,
    /// Who decoded it.
    pub(crate) node: &'a NodeName,
}

/// A segment whose final is not out yet.
pub(super) struct Pending {
    span: Span,
    segment: Segment,
    cut: Timestamp,
}

impl SessionTrace {
    /// Audio came in.
    pub(crate) fn heard(&mut self, now: Timestamp) {
        self.heard.get_or_insert(now);
    }

    /// A segment was cut.
    pub(crate) fn cut(&mut self, now: Timestamp, cut: &Cut<'_>) {
        let spoken = Timestamp(now.0.saturating_sub(cut.latency));
        let heard = self.heard.take().unwrap_or(spoken).min(now);
        self.heard = cut.more.then_some(spoken);
        let mut span = self.segment_span(cut.segment, heard, now).with("cause", cut_label(cut.cause));
        if cut.cause == CutCause::GivenUp {
            self.sink.keep();
            span = span.failed("given_up");
        }
        let span = span
            .with("audio_s", cut.audio)
            .with("final_latency_s", cut.latency)
            .with("decoder_node", cut.node);
        self.pending.push_back(Pending { span, segment: cut.segment, cut: now });
        if self.recent.len() >= RECENT_SEGMENTS {
            self.recent.pop_front();
        }
        let (heard_us, cut_us) = (self.wall.micros(heard), self.wall.micros(now));
        self.recent.push_back(SegmentTimes { segment: cut.segment, heard_us, cut_us });
    }

    /// Finals before this may go out.
    pub(crate) fn released(&mut self, now: Timestamp, until: Segment) {
        while self.pending.front().is_some_and(|pending| pending.segment < until) {
            self.release(now);
        }
    }

    /// What was heard is told of, whatever becomes of it: others have told of what they did for it.
    pub(super) fn release_all(&mut self, now: Timestamp, next: u64) {
        while !self.pending.is_empty() {
            self.release(now);
        }
        if let Some(heard) = self.heard.take() {
            let span = self.segment_span(Segment(next), heard, now);
            self.sink.put(span.with("cause", "session_ended"));
        }
    }

    /// Tells once more of segments whose spans may be lost with the owner that had them. One that was told of is told of alike,
    /// under the same id.
    pub(super) fn tell_recent(&mut self, lost: Timestamp, recent: Vec<SegmentTimes>) {
        let oldest = self.wall.of(lost).saturating_sub(GATHERED).as_micros() as u64;
        for times in &recent {
            if times.cut_us < oldest {
                continue;
            }
            let mut span = self.segment_span(times.segment, self.began, self.began);
            span.start = Duration::from_micros(times.heard_us.min(times.cut_us));
            span.end = Duration::from_micros(times.cut_us);
            self.sink.put(span.with("told_again", true));
        }
        self.recent = recent.into();
    }

    fn release(&mut self, now: Timestamp) {
        let Some(Pending { mut span, segment, cut }) = self.pending.pop_front() else { return };
        span.end = self.wall.of(now);
        let commit = self.span("commit", ids::fresh(), cut, now).within(span.id).with("segment", segment.0);
        self.sink.put(commit);
        self.sink.put(span);
    }

    fn segment_span(&self, segment: Segment, from: Timestamp, to: Timestamp) -> Span {
        let id = ids::segment_of(self.own.trace, self.own.span, segment);
        let span = self.span("segment", id, from, to).with("segment", segment.0);
        // Which decoder made one that is told again, another node knew.
        if self.attempt > Attempt(0) { span.with("attempt", u64::from(self.attempt.0)) } else { span }
    }
}

/// How long spans may wait to be sent: twice what the exporter waits for by default.
const GATHERED: Duration = Duration::from_secs(10);
