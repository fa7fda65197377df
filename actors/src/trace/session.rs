//! A session, as its owner tells of it.
//!
//! Owns: what has begun and is not over, the choice of what is kept. Must never: hold more than a bounded number of spans, or tell
//! of the root while another owner may.

mod faults;
mod orphan;
mod segments;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use starling_core::Timestamp;
use starling_core::replica::Tries;
use starling_protocol::lease::TraceContext;
use starling_protocol::trace::{SegmentTimes, SpanContext, SpanId, TraceRoot};
use starling_protocol::{Attempt, Epoch, NodeName, Segment, SessionId};

pub(crate) use self::faults::Lost;
use self::faults::{Failover, Moving};
pub(crate) use self::orphan::Orphaned;
pub(crate) use self::segments::Cut;
use self::segments::Pending;
use super::sink::Sink;
use super::{Span, SpanEvent, Tracer, Value, Wall, ids};

/// What happened to the session as a whole and is told with its root, which is the last to go. More is counted only.
const ROOT_EVENTS: usize = 32;

/// What is told of a session that begins here, or goes on here.
pub(crate) struct Begin<'a> {
    pub(crate) session: SessionId,
    pub(crate) tenant: &'a str,
    pub(crate) dialect: &'a str,
    pub(crate) model: &'a str,
    pub(crate) epoch: Epoch,
    /// The client's trace, or the session's where another node has told of it before.
    pub(crate) context: Option<&'a TraceContext>,
    pub(crate) arrival: Option<Arrival>,
}

/// How a session came here that lived elsewhere before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Arrival {
    /// `None` where nobody has told of the session before.
    pub(crate) root: Option<TraceRoot>,
    pub(crate) recent: Vec<SegmentTimes>,
    /// When its client came.
    pub(crate) since: Timestamp,
    /// Whose copy it goes on from.
    pub(crate) from: Option<NodeName>,
    pub(crate) parting: Parting,
}

/// How a session left its owner.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Parting {
    /// It gave the session away.
    HandedOver,
    /// It lives, and the session's client has gone on with a copy, of its own or because it was asked to.
    Left {
        /// Who it is.
        owner: NodeName,
    },
    /// It is gone, or nobody knows better.
    #[default]
    Lost,
}

/// How a session ended.
pub(crate) struct End {
    pub(crate) outcome: &'static str,
    pub(crate) error: Option<&'static str>,
    pub(crate) audio: Duration,
    pub(crate) segments: u64,
    /// Whether it goes on at another node, or may.
    pub(crate) elsewhere: bool,
}

/// See the module.
pub(crate) struct SessionTrace {
    sink: Sink,
    wall: Wall,
    /// The session's own span.
    own: SpanContext,
    root: TraceRoot,
    state: Arc<str>,
    subject: Vec<(&'static str, Value)>,
    dialect: Arc<str>,
    epoch: Epoch,
    attempt: Attempt,
    /// When it came to this node.
    began: Timestamp,
    events: VecDeque<SpanEvent>,
    /// When the open segment's first audio came.
    heard: Option<Timestamp>,
    pending: VecDeque<Pending>,
    recent: VecDeque<SegmentTimes>,
    /// When the decoder last said something.
    spoke: Option<Timestamp>,
    failover: Option<Failover>,
    moving: Option<Moving>,
    arrival: Option<Arrival>,
    copying: HashMap<Tries, (NodeName, Timestamp)>,
    durable: bool,
    /// All is told: it goes on elsewhere, or has ended.
    over: bool,
}

impl SessionTrace {
    /// Begins to tell of a session.
    pub(crate) fn begin(tracer: Arc<dyn Tracer>, now: Timestamp, mut begin: Begin<'_>) -> Box<Self> {
        let arrival = begin.arrival.take();
        let known = arrival.as_ref().and_then(|arrival| arrival.root);
        let since = arrival.as_ref().map_or(now, |arrival| arrival.since);
        let mut trace = Self::new(tracer, now, &begin, known, since);
        if let Some(arrival) = arrival {
            trace.arrived(now, arrival);
        }
        trace
    }

    /// `known` is what another node has told of the session's own span; without it, it begins at `since`.
    fn new(
        tracer: Arc<dyn Tracer>,
        now: Timestamp,
        begin: &Begin<'_>,
        known: Option<TraceRoot>,
        since: Timestamp,
    ) -> Box<Self> {
        let Begin { session, tenant, dialect, model, epoch, context, .. } = *begin;
        let told = context.and_then(SpanContext::of);
        let wall = Wall::read(now);
        let known = known.zip(told);
        let (own, root) = match known {
            Some((root, own)) => (own, root),
            None => {
                let trace = told.map_or_else(|| ids::trace_of(session), |parent| parent.trace);
                let sampled = tracer.samples(trace, told);
                let root =
                    TraceRoot { parent: told.map(|parent| parent.span), started_us: wall.micros(since) };
                (SpanContext { trace, span: ids::root_of(trace, session), sampled }, root)
            }
        };
        let mut subject = vec![("session.id", session.to_string().into()), ("model", model.into())];
        if !tenant.is_empty() {
            subject.push(("tenant", tenant.into()));
        }
        Box::new(Self {
            sink: Sink::new(tracer, own.sampled),
            wall,
            own,
            root,
            state: context.map_or("", |context| context.tracestate.as_str()).into(),
            subject,
            dialect: dialect.into(),
            epoch,
            attempt: Attempt(0),
            began: now,
            events: VecDeque::new(),
            heard: None,
            pending: VecDeque::new(),
            recent: VecDeque::new(),
            spoke: None,
            failover: None,
            moving: None,
            arrival: None,
            copying: HashMap::new(),
            durable: false,
            over: false,
        })
    }

    /// What others are told, for their spans to be children of the session's.
    pub(crate) fn context(&self) -> TraceContext {
        let own = SpanContext { sampled: self.sink.keeps(), ..self.own };
        TraceContext { traceparent: own.to_string(), tracestate: self.state.to_string() }
    }

    pub(crate) const fn root(&self) -> TraceRoot {
        self.root
    }

    /// The last segments that were cut.
    pub(crate) fn recent(&self) -> VecDeque<SegmentTimes> {
        self.recent.clone()
    }

    pub(crate) fn times_of(&self, segment: Segment) -> Option<SegmentTimes> {
        self.recent.iter().find(|times| times.segment == segment).copied()
    }

    /// A decoder was found for a session that begins.
    pub(crate) fn admitted(&mut self, now: Timestamp, waited: Duration) {
        let span = self.span("admission", ids::fresh(), self.began, now);
        self.sink.put(span.with("queue_wait_s", waited));
    }

    /// None was: the session is over before it began.
    pub(crate) fn refused(&mut self, now: Timestamp, error: &'static str) {
        let span = self.span("admission", ids::fresh(), self.began, now);
        self.sink.put(span.failed(error));
        let end = End {
            outcome: "refused",
            error: Some(error),
            audio: Duration::ZERO,
            segments: 0,
            elsewhere: false,
        };
        self.over = true;
        self.put_root(now, &end);
    }

    /// A connection speaks for the session; `resumed` when it is not the first.
    pub(crate) fn attached(&mut self, now: Timestamp, epoch: Epoch, resumed: bool) {
        self.epoch = epoch;
        if !resumed {
            return;
        }
        let arrival = self.arrival.take();
        let since = arrival.as_ref().map_or(now, |arrival| arrival.since);
        let mut span = self.span("resume", ids::fresh(), since, now).with("taken_over", arrival.is_some());
        if let Some(Arrival { from, parting, .. }) = arrival {
            span = span.with("handed_over", parting == Parting::HandedOver);
            if let Some(from) = from {
                span = span.with("from_node", &from);
            }
        }
        self.sink.put(span);
    }

    /// Another node asked for the session, and goes on with it.
    pub(crate) fn handed_over(&mut self, now: Timestamp, epoch: Epoch) {
        let span = self.span("hand_over", ids::fresh(), now, now);
        self.sink.put(span.with("to_epoch", epoch.0));
    }

    /// A node is asked to keep a copy.
    pub(crate) fn copying(&mut self, now: Timestamp, tries: Tries, node: NodeName) {
        self.copying.insert(tries, (node, now));
    }

    /// It does not, or not any more.
    pub(crate) fn copy_failed(&mut self, now: Timestamp, tries: Tries) {
        if let Some((node, since)) = self.copying.remove(&tries) {
            let span = self.replication(since, now, &node);
            self.sink.put(span.failed("no_copy"));
        }
    }

    /// These nodes have copies now.
    pub(crate) fn copied(&mut self, now: Timestamp, durable: bool, view: u64, keepers: &[NodeName]) {
        let (whole, copying) =
            self.copying.drain().partition(|(_, (node, _))| durable && keepers.contains(node));
        self.copying = copying;
        let whole: HashMap<Tries, (NodeName, Timestamp)> = whole;
        for (node, since) in whole.into_values() {
            let span = self.replication(since, now, &node);
            self.sink.put(span.with("view", view));
        }
        if self.durable && !durable {
            self.note(now, "left_alone", Vec::new());
            self.sink.keep();
        }
        self.durable = durable;
    }

    /// The session's actor failed: a fault, whatever becomes of the session.
    pub(crate) fn broke(&mut self) {
        if !self.over {
            self.sink.keep();
        }
    }

    /// The session is over, here at least. Nothing is told after that.
    pub(crate) fn ended(&mut self, now: Timestamp, end: &End) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.break_off(now, if end.elsewhere { "superseded" } else { "session_ended" });
        if end.elsewhere {
            // Whoever goes on with it tells the rest.
            return;
        }
        if end.error.is_some_and(|error| FAULTS.contains(&error)) {
            self.sink.keep();
        }
        self.release_all(now, end.segments);
        self.put_root(now, end);
    }

    fn put_root(&mut self, now: Timestamp, end: &End) {
        let mut root = self.span("session", self.own.span, self.began, now);
        root.parent = self.root.parent;
        root.parent_is_remote = root.parent.is_some();
        root.is_served = true;
        root.start = Duration::from_micros(self.root.started_us).min(root.end);
        root.events = std::mem::take(&mut self.events).into();
        let mut root = root
            .with("dialect", &*self.dialect)
            .with("outcome", end.outcome)
            .with("audio_s", end.audio)
            .with("segments", end.segments);
        if self.attempt > Attempt(0) {
            root = root.with("attempt", u64::from(self.attempt.0));
        }
        if self.sink.passed_over() > 0 {
            root = root.with("spans_passed_over", self.sink.passed_over());
        }
        self.sink.put(match end.error {
            Some(error) => root.failed(error),
            None => root,
        });
    }

    /// Keeps in mind what is told with the root.
    fn note(&mut self, now: Timestamp, name: &'static str, attributes: Vec<(&'static str, Value)>) {
        if self.events.len() < ROOT_EVENTS {
            self.events.push_back(SpanEvent { name, at: self.wall.of(now), attributes });
        }
    }

    fn replication(&self, since: Timestamp, now: Timestamp, node: &NodeName) -> Span {
        self.span("replication", ids::fresh(), since, now).with("keeper_node", node)
    }

    fn span(&self, name: &'static str, id: SpanId, from: Timestamp, to: Timestamp) -> Span {
        let mut attributes = self.subject.clone();
        attributes.push(("epoch", self.epoch.0.into()));
        Span {
            trace: self.own.trace,
            id,
            parent: Some(self.own.span),
            parent_is_remote: false,
            state: Arc::clone(&self.state),
            name,
            is_served: false,
            start: self.wall.of(from),
            end: self.wall.of(to.max(from)),
            attributes,
            events: Vec::new(),
            error: None,
        }
    }
}

/// Ends that are the cluster's fault and not the client's: such sessions are kept.
const FAULTS: [&str; 3] = ["shutting_down", "decoders_fail", "internal"];
