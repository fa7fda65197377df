//! A narrow door for tests that feed the readers of calls' events arbitrary ids. No part of what a node does.

use std::time::Duration;

use starling_protocol::audiosocket::CallEvent;
use starling_protocol::{SessionId, SourceOffset};

use super::calls::Calls;
use super::events::{next, parse_id, written};

/// What a reader gets of a call's events who says what he has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallEvents {
    /// What he says, as it is written.
    pub after: String,
    /// The number of the first event that he gets.
    pub first: u64,
    /// How many he gets at once.
    pub events: usize,
    /// Whether nothing follows.
    pub last: bool,
}

/// What a reader gets of a call in which `told` events were told and its end; nothing for one who says nothing that can be read.
/// The id is taken for one of that call.
#[must_use]
pub fn call_events(told: usize, id: &str) -> Option<CallEvents> {
    let (run, number) = parse_id(id)?;
    let calls = Calls::new(Duration::from_secs(60));
    let session = SessionId::of_digest([7; 16]);
    let mut line = calls.begin("", session)?;
    (0..told).for_each(|_| line.tell(&CallEvent::Dtmf { digit: '1' }));
    line.tell(&CallEvent::Done { segments: 0, frames: SourceOffset(0) });
    let call = calls.find("", session)?;
    let heard = call.read(next(&call, Some((call.run(), number))));
    Some(CallEvents {
        after: written(run, number),
        first: heard.first,
        events: heard.events.len(),
        last: heard.last,
    })
}
