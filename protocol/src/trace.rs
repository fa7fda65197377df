//! Traces: which trace a session belongs to, as W3C Trace Context has it, and what nodes tell each other so that whoever owns a
//! session last can tell of all of it.
//!
//! Owns: the ids' forms, the reading of `traceparent`. Must never: make an id, or decide what is kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Segment;
use crate::lease::TraceContext;

/// A trace: all that is told of one session, and of what its client did around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A span within a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpanId(pub u64);

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A span that others can be children of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// Whether it is kept, as far as whoever says this knows.
    pub sampled: bool,
}

/// Length of a `traceparent` of version 00: four fields and the hyphens between them.
const LENGTH: usize = 55;

impl SpanContext {
    /// Reads a `traceparent` (W3C Trace Context, 3.2.2). `None` for what is none: it has to be ignored then.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        let bytes = traceparent.as_bytes();
        // A later version may say more after a hyphen; this much of it is read alike.
        let (head, rest) = (bytes.get(..LENGTH)?, &bytes[LENGTH..]);
        let hyphens = [2, 35, 52].into_iter().all(|at| head[at] == b'-');
        let version = hexadecimal(&head[..2])?;
        if !hyphens || version == 0xff || !(rest.is_empty() || (version > 0 && rest[0] == b'-')) {
            return None;
        }
        let (trace, span) = (hexadecimal(&head[3..35])?, hexadecimal(&head[36..52])?);
        let flags = hexadecimal(&head[53..55])?;
        if trace == 0 || span == 0 {
            return None;
        }
        let span = SpanId(u64::try_from(span).ok()?);
        Some(Self { trace: TraceId(trace), span, sampled: flags & 1 == 1 })
    }

    /// The context of a message, if it has one that can be read.
    #[must_use]
    pub fn of(context: &TraceContext) -> Option<Self> {
        Self::parse(&context.traceparent)
    }
}

impl fmt::Display for SpanContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

/// The digits of a `traceparent` are in lower case.
fn hexadecimal(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

/// What is known of a session's own span from its first moment: the last owner tells of it, whoever that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceRoot {
    /// The client's span that the session is a child of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SpanId>,
    /// When the session began, in microseconds since 1970.
    pub started_us: u64,
}

/// When a segment was heard and cut. What an owner tells of a segment is lost with it if it dies within the seconds that spans
/// are gathered for; who goes on tells of it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentTimes {
    /// Which.
    pub segment: Segment,
    /// When its first audio came, in microseconds since 1970.
    pub heard_us: u64,
    /// When it was cut.
    pub cut_us: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = SpanContext::parse(GOOD).expect("is one");
        assert!(context.sampled);
        assert_eq!(context.to_string(), GOOD);
        let other = SpanContext::parse(&GOOD.replace("-01", "-02")).expect("is one");
        assert!(!other.sampled, "of the flags one is known");
    }

    #[test]
    fn a_later_version_may_say_more() {
        for later in [GOOD.replacen("00", "01", 1), format!("{}-more", GOOD.replacen("00", "cc", 1))] {
            assert!(SpanContext::parse(&later).is_some(), "{later}");
        }
    }

    #[test]
    fn what_is_none_is_ignored() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        for bad in [
            "",
            "00-1-2-01",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD}0"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(SpanContext::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_ignored(text in ".{0,80}") {
            let _ = SpanContext::parse(&text);
        }

        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., sampled: bool) {
            let context = SpanContext { trace: TraceId(trace), span: SpanId(span), sampled };
            prop_assert_eq!(SpanContext::parse(&context.to_string()), Some(context));
        }
    }
}
