//! A session that nobody came back to: its owner is gone, and a node that had a copy tells of its end.

use std::sync::Arc;
use std::time::Duration;

use starling_core::Timestamp;
use starling_protocol::NodeName;
use starling_protocol::replica::CopyStart;

use super::{Begin, End, SessionTrace};
use crate::observe::OWNER_LOST;
use crate::trace::Tracer;

/// What a copy says of such a session.
pub(crate) struct Orphaned<'a> {
    pub(crate) start: &'a CopyStart,
    pub(crate) owner: &'a NodeName,
    /// When the owner's stream ended.
    pub(crate) lost: Timestamp,
    pub(crate) audio: Duration,
    /// Audio that is in no final.
    pub(crate) open: Duration,
}

impl SessionTrace {
    /// Tells what the owner would have told last, and that it was lost: a fault, so all of it is kept. Nothing where nobody has
    /// told of the session before.
    pub(crate) fn orphaned(tracer: Arc<dyn Tracer>, now: Timestamp, told: &Orphaned<'_>) {
        let Orphaned { start, owner, lost, audio, open } = *told;
        let facts = &start.facts;
        let Some(root) = facts.root else { return };
        let begin = Begin {
            session: facts.session,
            tenant: &facts.tenant,
            dialect: &facts.dialect,
            model: &facts.model,
            epoch: start.epoch,
            context: facts.trace.as_ref(),
            arrival: None,
        };
        let mut trace = Self::new(tracer, now, &begin, Some(root), lost);
        trace.sink.keep();
        trace.note(lost, "owner.lost", vec![("node", owner.into())]);
        trace.tell_recent(lost, start.recent.clone());
        // Whoever decoded it has told of what belongs below it.
        trace.heard = (!open.is_zero()).then_some(Timestamp(lost.0.saturating_sub(open)));
        trace.release_all(lost, start.next_segment.0);
        let error = Some(OWNER_LOST);
        let segments = start.next_segment.0;
        trace.put_root(now, &End { outcome: OWNER_LOST, error, audio, segments, elsewhere: false });
    }
}
