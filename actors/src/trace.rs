//! Traces: what is told of each session, as spans, so that one caller can be followed through every node.
//!
//! Owns: spans as plain data, and the observers that make them of what happens. Must never: decide anything for a session, block,
//! or know where spans go.
//!
//! A session's own span is the root of its tree. Its id and its segments' follow from the session's (see [`ids`]), so that whoever
//! owns the session last tells of the same span that the first owner's are children of, and a node that decodes knows whose child
//! its spans are. Nothing but the root waits for the end of a call.

mod copy;
mod decode;
mod ids;
mod session;
mod shared;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use starling_core::Timestamp;
use starling_protocol::lease::TraceContext;
use starling_protocol::trace::{SpanContext, SpanId, TraceId};
use starling_protocol::{NodeName, SessionId};

pub(crate) use self::copy::CopyTrace;
pub(crate) use self::decode::{DecodeTrace, LeaseTrace};
pub(crate) use self::session::{Arrival, Begin, Cut, End, Lost, Orphaned, Parting, SessionTrace};
pub(crate) use self::shared::SharedTrace;
use crate::clock::unix_now;

/// The target of spans that a node makes of what it does by itself, where that work lives: as `tracing` spans, unlike those of
/// sessions. Nothing else has it, so that whoever exports them can leave out all others, of libraries above all.
pub const SPANS: &str = "starling::span";

/// Takes spans. Called on the hot path: it must not block.
pub trait Tracer: Send + Sync + 'static {
    /// Whether a trace that begins here is kept from its first span on. One that is not is kept from a fault on.
    fn samples(&self, trace: TraceId, parent: Option<SpanContext>) -> bool;

    /// Takes a span that is over.
    fn export(&self, span: Span);
}

/// Where spans go; `None` where nobody wants them, which costs nothing.
pub type Tracing = Option<Arc<dyn Tracer>>;

/// Something that took time. Times are since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// What it is a part of.
    pub parent: Option<SpanId>,
    /// Whether another node, or a client, tells of that.
    pub parent_is_remote: bool,
    /// What others say of the trace (`tracestate`).
    pub state: Arc<str>,
    /// What it is.
    pub name: &'static str,
    /// Whether somebody outside asked for it.
    pub is_served: bool,
    /// When it began.
    pub start: Duration,
    /// When it was over.
    pub end: Duration,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened meanwhile.
    pub events: Vec<SpanEvent>,
    /// Why it failed, if it did.
    pub error: Option<&'static str>,
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanEvent {
    /// What.
    pub name: &'static str,
    /// When, since 1970.
    pub at: Duration,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
}

/// What is known of something.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Count(u64),
    /// Any number.
    Number(f64),
    /// Whether it is so.
    Flag(bool),
}

impl Span {
    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    const fn within(mut self, parent: SpanId) -> Self {
        self.parent = Some(parent);
        self
    }

    /// `error.type` is what the conventions for traces call it.
    fn failed(mut self, error: &'static str) -> Self {
        self.error = Some(error);
        self.with("error.type", error)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&NodeName> for Value {
    fn from(node: &NodeName) -> Self {
        Self::Text(node.to_string())
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Duration> for Value {
    /// In seconds.
    fn from(duration: Duration) -> Self {
        Self::Number(duration.as_secs_f64())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// The trace's id, in 32 hexadecimal digits; `None` where that is none.
pub(crate) fn trace_id(context: &TraceContext) -> Option<String> {
    SpanContext::of(context).map(|context| context.trace.to_string())
}

/// The same, if what is told of it is kept.
pub(crate) fn kept_id(context: &TraceContext) -> Option<String> {
    SpanContext::of(context).filter(|context| context.sampled).and_then(|_| trace_id(context))
}

/// What each line of the log says that is about a session, whoever writes it. In force whatever is logged, so that errors have it too.
pub(crate) fn log_span(session: SessionId, context: Option<&TraceContext>) -> tracing::Span {
    let trace = context.and_then(SpanContext::of).map(|context| tracing::field::display(context.trace));
    tracing::error_span!(parent: None, "session", id = %session, trace_id = trace)
}

/// Turns a node's own time into that since 1970, which is read once: a clock that is set meanwhile bends no span.
#[derive(Debug, Clone, Copy)]
struct Wall {
    at: Timestamp,
    unix: Duration,
}

impl Wall {
    fn read(at: Timestamp) -> Self {
        Self { at, unix: unix_now() }
    }

    fn of(&self, time: Timestamp) -> Duration {
        self.unix.saturating_add(time.since(self.at)).saturating_sub(self.at.since(time))
    }

    fn micros(&self, time: Timestamp) -> u64 {
        u64::try_from(self.of(time).as_micros()).unwrap_or(u64::MAX)
    }
}
