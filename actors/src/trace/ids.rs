//! The ids of traces and spans: those that every node can work out, and fresh ones.

use sha2::{Digest, Sha256};
use starling_protocol::trace::{SpanId, TraceId};
use starling_protocol::{Segment, SessionId};

use crate::decoders::random;

/// The trace of a session whose client has none. It follows from the session's id: one that is begun again, its copies all
/// gone, is told of in the same trace. An id that a client comes back by is used again for other sessions, which need others.
pub(super) fn trace_of(session: SessionId) -> TraceId {
    if session.is_of_digest() {
        return TraceId(u128::from(fresh().0) << 64 | u128::from(fresh().0));
    }
    let digest = digest(b"trace", &[&session.0.into_bytes()]);
    TraceId(u128::from_be_bytes(first(&digest)).max(1))
}

/// A session's own span.
pub(super) fn root_of(trace: TraceId, session: SessionId) -> SpanId {
    span_of(b"session", &[&trace.0.to_be_bytes(), &session.0.into_bytes()])
}

/// The span of a segment, whoever is to tell of it.
pub(super) fn segment_of(trace: TraceId, root: SpanId, segment: Segment) -> SpanId {
    span_of(b"segment", &[&trace.0.to_be_bytes(), &root.0.to_be_bytes(), &segment.0.to_be_bytes()])
}

/// A span that nobody else has to know.
pub(super) fn fresh() -> SpanId {
    SpanId(random().max(1))
}

fn span_of(what: &[u8], of: &[&[u8]]) -> SpanId {
    SpanId(u64::from_be_bytes(first(&digest(what, of))).max(1))
}

/// Each part has a length that follows from `what`.
fn digest(what: &[u8], of: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(what);
    of.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn first<const N: usize>(digest: &[u8; 32]) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&digest[..N]);
    taken
}
