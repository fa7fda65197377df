//! `GET /v1/audiosocket/{uuid}/events`: what is said in a call, as server-sent events.
//!
//! Each reader has its own place in what was told; nobody waits for it. It may come before the call, and after it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use starling_protocol::SessionId;
use starling_protocol::audiosocket::CallEvent;
use starling_protocol::native::{ErrorBody, ErrorCode};
use tokio::time::Instant;

use super::calls::{Call, Heard};
use crate::gateway::GatewayState;
use crate::gateway::access::Admitted;
use crate::gateway::reply::HttpError;

pub(in crate::gateway) async fn events(
    Admitted(state): Admitted,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let id = SessionId::parse(&id)
        .map_err(|_| ErrorBody::field("uuid", format!("{id:?}"), "the UUID that the call was begun with"))?;
    if !state.takes_calls {
        let message = "this node takes no AudioSocket calls: listen.audiosocket is off";
        return Err(ErrorBody::new(ErrorCode::UnknownSession, message).into());
    }
    let after = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(parse_id);
    if after.is_some()
        && let Some(call) = state.calls.find(state.tenant_name(), id)
        && call.read(next(&call, after)).is_empty_end()
    {
        // A browser's reader comes back until it is told that there is nothing more (HTML standard, server-sent events).
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let pause = state.settings.ping_interval;
    let reader =
        Reader { until: Instant::now() + state.calls.patience(), state, id, after, place: Place::Before };
    Ok(Sse::new(told(reader)).keep_alive(KeepAlive::new().interval(pause)).into_response())
}

impl Heard {
    fn is_empty_end(&self) -> bool {
        self.last && self.events.is_empty()
    }
}

/// Where a reader is.
enum Place {
    /// The call has not begun, for all that is known.
    Before,
    /// Events from this number on are still to be read.
    At(Arc<Call>, u64),
    /// All was told.
    End,
}

struct Reader {
    state: GatewayState,
    id: SessionId,
    /// The run and number of the last event that it has.
    after: Option<(u32, u64)>,
    /// How long it waits for the call to begin.
    until: Instant,
    place: Place,
}

fn told(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold((reader, Vec::new().into_iter()), |(mut reader, mut ready)| async move {
        loop {
            if let Some(event) = ready.next() {
                return Some((Ok(event), (reader, ready)));
            }
            ready = reader.next().await?.into_iter();
        }
    })
}

impl Reader {
    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<Vec<Event>> {
        loop {
            match &mut self.place {
                Place::End => return None,
                Place::Before => {
                    let found = tokio::select! {
                        // A call that goes on is told of to its end, by a node that stops too.
                        biased;
                        found = self.state.calls.wait(self.state.tenant_name(), self.id, self.until) => found,
                        () = self.state.stopping.cancelled() => None,
                    };
                    let Some(call) = found else {
                        self.place = Place::End;
                        return Some(vec![self.absent()]);
                    };
                    let from = next(&call, self.after);
                    self.place = Place::At(call, from);
                }
                Place::At(call, from) => {
                    let mut changes = call.watch();
                    let heard = call.read(*from);
                    let events = shown(call, *from, &heard);
                    *from = heard.first + heard.events.len() as u64;
                    if heard.last {
                        self.place = Place::End;
                    } else if events.is_empty() {
                        // The call tells its end before it is let go of.
                        let _ = changes.changed().await;
                        continue;
                    }
                    return Some(events);
                }
            }
        }
    }

    fn absent(&self) -> Event {
        let error = if self.state.stopping.is_cancelled() {
            ErrorBody::new(ErrorCode::ShuttingDown, "the node is stopping")
        } else {
            let waited = self.state.calls.patience().as_secs_f64();
            let message = format!("no call {} has begun on this node within {waited} s", self.id);
            ErrorBody::new(ErrorCode::UnknownSession, message)
        };
        Event::default().data(CallEvent::Error(&error).to_json())
    }
}

/// The first event that a reader lacks who has all up to `after`. An id of another call says nothing of this one.
pub(super) fn next(call: &Call, after: Option<(u32, u64)>) -> u64 {
    after.filter(|(run, _)| *run == call.run()).map_or(0, |(_, number)| number.saturating_add(1))
}

fn shown(call: &Call, from: u64, heard: &Heard) -> Vec<Event> {
    let mut events = Vec::with_capacity(heard.events.len() + 1);
    if heard.missed > 0 {
        // As the last of those, so that who comes back after it goes on behind them.
        let id = written(call.run(), from + heard.missed - 1);
        events.push(Event::default().id(id).data(CallEvent::Missed { events: heard.missed }.to_json()));
    }
    for (number, event) in (heard.first..).zip(&heard.events) {
        events.push(Event::default().id(written(call.run(), number)).data(event));
    }
    events
}

/// The id of an event of one call, which that of another call's can't be.
pub(super) fn written(run: u32, number: u64) -> String {
    format!("{run:08x}-{number}")
}

pub(super) fn parse_id(text: &str) -> Option<(u32, u64)> {
    let (run, number) = text.split_once('-')?;
    Some((u32::from_str_radix(run, 16).ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        assert_eq!(parse_id("0000002a-7"), Some((42, 7)));
        for other in ["", "7", "x-7", "2a-", "2a--1", "100000000-1"] {
            assert_eq!(parse_id(other), None, "{other}");
        }
    }
}
