//! What happens to a session: decoders and owners that are lost, and those that it leaves.

use std::time::Duration;

use starling_core::Timestamp;
use starling_protocol::{Attempt, NodeName};

use super::{Arrival, Parting, SessionTrace};
use crate::trace::{Span, SpanEvent, Value, ids};

/// A decoder that was lost.
pub(crate) struct Lost<'a> {
    pub(crate) attempt: Attempt,
    pub(crate) cause: &'static str,
    pub(crate) node: &'a NodeName,
    /// Audio that has to be heard again, or was never heard.
    pub(crate) buffered: Duration,
    /// Whether it owed an answer: then it is under suspicion since its last one.
    pub(crate) owed: bool,
}

/// A loss that is not made up for yet.
pub(super) struct Failover {
    since: Timestamp,
    cause: &'static str,
    lost: Vec<(&'static str, Value)>,
    buffered: Option<Duration>,
    events: Vec<SpanEvent>,
    losses: u64,
}

/// Something that goes elsewhere without a loss.
pub(super) struct Moving {
    since: Timestamp,
    what: &'static str,
    from: Option<NodeName>,
    /// Why, of a session.
    cause: Option<&'static str>,
}

impl SessionTrace {
    /// The session's decoder said something.
    pub(crate) const fn decoder_spoke(&mut self, now: Timestamp) {
        self.spoke = Some(now);
    }

    /// The session came from another node.
    pub(super) fn arrived(&mut self, now: Timestamp, arrival: Arrival) {
        let since = arrival.since;
        let moving = |from, cause| Some(Moving { since, what: "session", from, cause: Some(cause) });
        match &arrival.parting {
            Parting::HandedOver => self.moving = moving(arrival.from.clone(), "handed_over"),
            Parting::Left { owner } => {
                self.moving = moving(Some(owner.clone()), "client_moved");
                // Who is passed over tells of no segment whose final was not out.
                self.tell_recent(since, arrival.recent.clone());
            }
            Parting::Lost => self.owner_lost(now, &arrival),
        }
        self.arrival = Some(arrival);
    }

    fn owner_lost(&mut self, now: Timestamp, arrival: &Arrival) {
        self.sink.keep();
        let event = self.event(now, "session.taken_over", Vec::new());
        self.failover = Some(Failover {
            since: arrival.since,
            cause: "owner_lost",
            lost: Vec::new(),
            buffered: None,
            events: vec![event],
            losses: 1,
        });
        self.tell_recent(arrival.since, arrival.recent.clone());
    }

    /// How much audio the session came with that is not committed.
    pub(crate) fn came_with(&mut self, now: Timestamp, buffered: Duration) {
        // Live audio took as long to come as it is.
        self.heard = (!buffered.is_zero()).then_some(Timestamp(now.0.saturating_sub(buffered)));
        if let Some(failover) = &mut self.failover {
            failover.buffered.get_or_insert(buffered);
        }
    }

    /// The session lost its decoder.
    pub(crate) fn lost(&mut self, now: Timestamp, lost: &Lost<'_>) {
        self.sink.keep();
        let facts = vec![("lost_attempt", u64::from(lost.attempt.0).into()), ("lost_node", lost.node.into())];
        let mut told = facts.clone();
        told.push(("cause", lost.cause.into()));
        let event = self.event(now, "decoder.lost", told);
        let since = self.spoke.filter(|spoke| lost.owed && *spoke < now).unwrap_or(now);
        let failover = self.failover.get_or_insert_with(|| Failover {
            since,
            cause: lost.cause,
            lost: facts,
            buffered: Some(lost.buffered),
            events: Vec::new(),
            losses: 0,
        });
        failover.losses += 1;
        if failover.events.len() < MOST_EVENTS {
            failover.events.push(event);
        }
    }

    /// There is another decoder for the session.
    pub(crate) fn granted(&mut self, now: Timestamp, attempt: Attempt, node: &NodeName) {
        self.attempt = attempt;
        let event = self.event(now, "decoder.granted", vec![("node", node.into())]);
        if let Some(failover) = &mut self.failover
            && failover.events.len() < MOST_EVENTS
        {
            failover.events.push(event);
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.what == "decoder") {
            let span = self.moved(&moving, now).with("to_node", node);
            self.sink.put(span);
        }
    }

    /// It was one that stood by.
    pub(crate) fn promoted(&mut self, now: Timestamp, attempt: Attempt, node: &NodeName) {
        if let Some(failover) = &mut self.failover {
            failover.lost.push(("standby", true.into()));
        }
        self.granted(now, attempt, node);
    }

    /// The decoder is back where the lost one was.
    pub(crate) fn caught_up(&mut self, now: Timestamp, replayed: Duration) {
        if let Some(failover) = self.failover.take() {
            let span = self.made_up(failover, now).with("replayed_s", replayed);
            self.sink.put(span);
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.what == "session") {
            let span = self.moved(&moving, now).with("replayed_s", replayed);
            self.sink.put(span);
        }
    }

    /// The decoder is to be left at the next cut.
    pub(crate) fn leaving(&mut self, now: Timestamp, from: &NodeName) {
        self.moving.get_or_insert_with(|| Moving {
            since: now,
            what: "decoder",
            from: Some(from.clone()),
            cause: None,
        });
    }

    /// The session ends before what was lost is made up for.
    pub(super) fn break_off(&mut self, now: Timestamp, error: &'static str) {
        if let Some(failover) = self.failover.take() {
            let span = self.made_up(failover, now);
            self.sink.put(span.failed(error));
        }
        if let Some(moving) = self.moving.take() {
            let span = self.moved(&moving, now);
            self.sink.put(span.failed(error));
        }
    }

    fn made_up(&self, failover: Failover, now: Timestamp) -> Span {
        let Failover { since, cause, lost, buffered, events, losses } = failover;
        let mut span = self.span("failover", ids::fresh(), since, now);
        span.attributes.extend(lost);
        span.events = events;
        span.with("attempt", u64::from(self.attempt.0))
            .with("cause", cause)
            .with("losses", losses)
            .with("buffered_s", buffered.unwrap_or_default())
    }

    fn moved(&self, moving: &Moving, now: Timestamp) -> Span {
        let span = self.span("move", ids::fresh(), moving.since, now);
        let span = span.with("attempt", u64::from(self.attempt.0)).with("what", moving.what);
        let span = moving.cause.into_iter().fold(span, |span, cause| span.with("cause", cause));
        moving.from.iter().fold(span, |span, from| span.with("from_node", from))
    }

    fn event(&self, now: Timestamp, name: &'static str, attributes: Vec<(&'static str, Value)>) -> SpanEvent {
        SpanEvent { name, at: self.wall.of(now), attributes }
    }
}

/// Events of one failover that are told; of a segment that kills what decodes it there are more, one like the other.
const MOST_EVENTS: usize = 16;
