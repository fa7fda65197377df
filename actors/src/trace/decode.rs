//! What one decoder does for one session, as the node tells of it that has the decoder: a span for each segment.
//!
//! A lease may last for hours; what is told of it waits for no more than a segment.

use std::sync::Arc;

use starling_core::Timestamp;
use starling_core::session::LossCause;
use starling_protocol::lease::{FromHost, ToHost, TraceContext};
use starling_protocol::trace::SpanContext;
use starling_protocol::{Attempt, CutCause, DecodeOffset, Epoch, LeaseId, Segment, SessionId};

use super::sink::Sink;
use super::{Span, Tracer, Wall, ids};
use crate::clock::Clock;

/// Whose lease it is.
#[derive(Debug, Clone)]
pub(crate) struct LeaseTrace {
    pub(crate) session: SessionId,
    pub(crate) epoch: Epoch,
    pub(crate) standby: bool,
}

/// See the module.
pub(crate) struct DecodeTrace {
    tracer: Arc<dyn Tracer>,
    clock: Clock,
    of: LeaseTrace,
    model: Arc<str>,
    sample_rate: u32,
    at_work: Option<AtWork>,
}

/// An attempt from its opening on.
struct AtWork {
    sink: Sink,
    wall: Wall,
    context: SpanContext,
    state: Arc<str>,
    attempt: Attempt,
    lease: LeaseId,
    warm: Option<bool>,
    segment: Segment,
    from: DecodeOffset,
    fed: DecodeOffset,
    decoded: DecodeOffset,
    partials: u64,
    /// When the open segment's first audio was fed; before any, when the last one ended.
    since: Timestamp,
}

impl DecodeTrace {
    pub(crate) fn new(
        tracer: Arc<dyn Tracer>,
        clock: Clock,
        of: LeaseTrace,
        model: Arc<str>,
        sample_rate: u32,
    ) -> Self {
        Self { tracer, clock, of, model, sample_rate, at_work: None }
    }

    /// The decoder was told something.
    pub(crate) fn told(&mut self, command: &ToHost) {
        match command {
            ToHost::Open { lease, attempt, segment, from, trace: Some(trace), .. } => {
                self.open(*lease, *attempt, *segment, *from, trace);
            }
            ToHost::Feed { at, pcm, .. } => {
                if let Some(work) = &mut self.at_work {
                    if work.fed == work.from {
                        work.since = self.clock.now();
                    }
                    work.fed = at.plus(pcm.len() as u64 / 2);
                }
            }
            _ => {}
        }
    }

    fn open(
        &mut self,
        lease: LeaseId,
        attempt: Attempt,
        segment: Segment,
        from: DecodeOffset,
        trace: &TraceContext,
    ) {
        let Some(context) = SpanContext::of(trace) else { return };
        let now = self.clock.now();
        self.at_work = Some(AtWork {
            sink: Sink::new(Arc::clone(&self.tracer), context.sampled),
            wall: Wall::read(now),
            context,
            state: trace.tracestate.as_str().into(),
            attempt,
            lease,
            warm: None,
            segment,
            from,
            fed: from,
            decoded: from,
            partials: 0,
            since: now,
        });
    }

    /// The decoder said something.
    pub(crate) fn heard(&mut self, frame: &FromHost) {
        let Some(work) = &mut self.at_work else { return };
        match frame {
            FromHost::Opened { warm, .. } => work.warm = Some(*warm),
            FromHost::Decoded { until, .. } => work.decoded = *until,
            FromHost::Partial { .. } => work.partials += 1,
            FromHost::Cut { segment, from, to, cause, busy_us, .. } => {
                self.cut(*segment, (*from, *to), *cause, *busy_us);
            }
            FromHost::Failed { .. } => self.fail("engine_failed"),
            FromHost::Refused { .. } => self.fail("options_refused"),
            _ => {}
        }
    }

    /// The host is gone, and the lease with it.
    pub(crate) fn lost(&mut self, cause: LossCause) {
        self.fail(cause.label());
    }

    /// The lease is given back.
    pub(crate) fn closed(&mut self) {
        if self.at_work.as_ref().is_some_and(|work| work.fed > work.from)
            && let Some(span) = self.span()
        {
            self.put(span.with("cause", "released"));
        }
        self.at_work = None;
    }

    fn cut(
        &mut self,
        segment: Segment,
        (from, to): (DecodeOffset, DecodeOffset),
        cause: CutCause,
        busy_us: u64,
    ) {
        if let Some(work) = &mut self.at_work {
            (work.segment, work.from, work.decoded) = (segment, from, to);
        }
        // Where nothing is left before the end, no final is made either.
        if to > from
            && let Some(mut span) = self.span()
        {
            let audio = self.seconds(to.since(from));
            if busy_us > 0 && audio > 0.0 {
                span = span.with("rtf", busy_us as f64 / 1e6 / audio);
            }
            self.put(span.with("cause", cut_label(cause)));
        }
        let now = self.clock.now();
        if let Some(work) = &mut self.at_work {
            (work.segment, work.from, work.partials, work.since) = (segment.next(), to, 0, now);
            work.fed = work.fed.max(to);
        }
    }

    fn fail(&mut self, error: &'static str) {
        if let Some(span) = self.span() {
            self.put(span.failed(error));
        }
        if let Some(mut work) = self.at_work.take() {
            work.sink.keep();
        }
    }

    fn put(&mut self, span: Span) {
        if let Some(work) = &mut self.at_work {
            work.sink.put(span);
        }
    }

    fn seconds(&self, samples: u64) -> f64 {
        samples as f64 / f64::from(self.sample_rate.max(1))
    }

    /// The open segment's span, as it is now.
    fn span(&self) -> Option<Span> {
        let work = self.at_work.as_ref()?;
        let SpanContext { trace, span, .. } = work.context;
        // An owner that makes no spans hands its client's on, which has no segments.
        let is_session = span == ids::root_of(trace, self.of.session);
        let parent = if is_session { ids::segment_of(trace, span, work.segment) } else { span };
        let made = Span {
            trace,
            id: ids::fresh(),
            parent: Some(parent),
            parent_is_remote: true,
            state: Arc::clone(&work.state),
            name: "decode",
            is_served: false,
            start: work.wall.of(work.since),
            end: work.wall.of(self.clock.now()),
            attributes: vec![
                ("session.id", self.of.session.to_string().into()),
                ("epoch", self.of.epoch.0.into()),
                ("attempt", u64::from(work.attempt.0).into()),
                ("model", (*self.model).into()),
                ("segment", work.segment.0.into()),
                ("lease", work.lease.0.into()),
                ("audio_s", self.seconds(work.decoded.since(work.from)).into()),
                ("partials", work.partials.into()),
            ],
            events: Vec::new(),
            error: None,
        };
        let made = if self.of.standby { made.with("standby", true) } else { made };
        Some(match work.warm {
            Some(warm) => made.with("warm", warm),
            None => made,
        })
    }
}

/// Why a segment ended, in the words of the protocol.
pub(super) const fn cut_label(cause: CutCause) -> &'static str {
    match cause {
        CutCause::Endpoint => "endpoint",
        CutCause::Pause => "pause",
        CutCause::Length => "length",
        CutCause::NoSpeech => "no_speech",
        CutCause::Finalize => "finalize",
        CutCause::End => "end",
        CutCause::GivenUp => "given_up",
        _ => "other",
    }
}
