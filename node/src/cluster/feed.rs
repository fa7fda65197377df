//! What has happened on this node lately, for whoever looks at the cluster.
//!
//! Owns: the last events and the last sessions that ended. Must never: hold up whoever tells it, or grow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use starling_actors::{Observation, Observer, SessionNews, unix_now};
use starling_protocol::control::{EndedSession, MAX_RECENT_ENDED, MAX_RECENT_EVENTS, NodeEvent, NodeRecent};

/// Whoever looks asks twice a second: it takes more than this many events between two looks for one to be missed.
const KEPT_EVENTS: usize = MAX_RECENT_EVENTS;

/// What a person scrolls through.
const KEPT_ENDED: usize = MAX_RECENT_ENDED;

/// See the module.
#[derive(Debug, Default)]
pub struct Feed {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the last event.
    sequence: u64,
    events: VecDeque<NodeEvent>,
    ended: VecDeque<EndedSession>,
}

impl Feed {
    /// The events after the one with this number, and the sessions that ended.
    #[must_use]
    pub fn recent(&self, after: u64) -> NodeRecent {
        let kept = self.kept();
        let events = kept.events.iter().filter(|event| event.sequence > after).cloned().collect();
        NodeRecent { events, ended: kept.ended.iter().cloned().collect() }
    }

    fn add(&self, event: NodeEvent) {
        let mut kept = self.kept();
        kept.sequence += 1;
        let sequence = kept.sequence;
        if kept.events.len() >= KEPT_EVENTS {
            kept.events.pop_front();
        }
        kept.events.push_back(NodeEvent { sequence, ..event });
    }

    fn end(&self, ended: EndedSession) {
        let mut kept = self.kept();
        if kept.ended.len() >= KEPT_ENDED {
            kept.ended.pop_front();
        }
        kept.ended.push_back(ended);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Feed {
    fn observe(&self, observation: &Observation<'_>) {
        let at_ms = milliseconds(unix_now());
        match *observation {
            Observation::SessionNews { session, model, news } => {
                let event = NodeEvent {
                    at_ms,
                    model: model.to_owned(),
                    session: Some(session),
                    ..NodeEvent::default()
                };
                self.add(of_session(&event, news));
                // One that was superseded goes on elsewhere.
                if let SessionNews::Over { outcome, report } = news
                    && outcome != "superseded"
                {
                    self.end(EndedSession { at_ms, outcome: outcome.to_owned(), report: report.clone() });
                }
            }
            Observation::HostStarted { model, load, prewarm } => self.add(NodeEvent {
                at_ms,
                kind: "host_ready".to_owned(),
                model: model.to_owned(),
                took_ms: Some(milliseconds(load + prewarm)),
                ..NodeEvent::default()
            }),
            Observation::HostExited { model, end } => self.add(NodeEvent {
                at_ms,
                kind: "host_gone".to_owned(),
                model: model.to_owned(),
                cause: end.label().to_owned(),
                ..NodeEvent::default()
            }),
            _ => {}
        }
    }
}

fn of_session(event: &NodeEvent, news: SessionNews<'_>) -> NodeEvent {
    let of_kind = |kind: &str| NodeEvent { kind: kind.to_owned(), ..event.clone() };
    match news {
        SessionNews::Began => of_kind("session_began"),
        SessionNews::TakenOver => of_kind("taken_over"),
        SessionNews::DecoderLost { decoder, cause } => NodeEvent {
            decoder: decoder.cloned(),
            cause: cause.label().to_owned(),
            ..of_kind("decoder_lost")
        },
        SessionNews::CaughtUp { decoder, audio, took } => NodeEvent {
            decoder: decoder.cloned(),
            audio_ms: Some(milliseconds(audio)),
            took_ms: Some(milliseconds(took)),
            ..of_kind("caught_up")
        },
        SessionNews::Over { outcome, report } => NodeEvent {
            cause: outcome.to_owned(),
            audio_ms: Some(report.audio_ms),
            ..of_kind("session_ended")
        },
    }
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Tells several.
pub struct Observers(pub Vec<Arc<dyn Observer>>);

impl Observer for Observers {
    fn observe(&self, observation: &Observation<'_>) {
        self.0.iter().for_each(|one| one.observe(observation));
    }
}

#[cfg(test)]
mod tests {
    use starling_core::session::LossCause;
    use starling_protocol::SessionId;
    use starling_protocol::control::SessionReport;

    use super::*;

    fn tell(feed: &Feed, news: SessionNews<'_>) {
        feed.observe(&Observation::SessionNews { session: SessionId::random(), model: "m", news });
    }

    fn report() -> SessionReport {
        serde_json::from_value(serde_json::json!({
            "session": SessionId::random(), "replicas": [], "decoder": null, "attempt": 1, "lag_ms": 0, "audio_ms": 900,
        }))
        .expect("a report")
    }

    #[test]
    fn only_what_is_new_is_told_and_only_so_much_is_kept() {
        let feed = Feed::default();
        for _ in 0..KEPT_EVENTS + 5 {
            tell(&feed, SessionNews::Began);
        }
        let all = feed.recent(0).events;
        assert_eq!((all.len(), all[0].sequence), (KEPT_EVENTS, 6));
        let last = all[KEPT_EVENTS - 1].sequence;
        assert!(feed.recent(last).events.is_empty());
        tell(&feed, SessionNews::DecoderLost { decoder: None, cause: LossCause::Killed });
        let new = feed.recent(last).events;
        assert_eq!(new.len(), 1);
        assert_eq!((new[0].kind.as_str(), new[0].cause.as_str()), ("decoder_lost", "killed"));
    }

    #[test]
    fn a_session_that_goes_on_elsewhere_has_not_ended() {
        let feed = Feed::default();
        let report = report();
        tell(&feed, SessionNews::Over { outcome: "superseded", report: &report });
        tell(&feed, SessionNews::Over { outcome: "done", report: &report });
        let recent = feed.recent(0);
        assert_eq!((recent.events.len(), recent.ended.len()), (2, 1));
        assert_eq!((recent.ended[0].outcome.as_str(), recent.events[1].audio_ms), ("done", Some(900)));
    }
}
