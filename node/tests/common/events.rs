//! What a session tells those who hear it.

use starling_actors::SessionEvent;
use starling_protocol::native::Final;
use starling_protocol::{CutCause, Segment, SourceOffset};

pub fn partial(text: &str) -> SessionEvent {
    SessionEvent::Partial {
        segment: Segment(0),
        from: SourceOffset(0),
        until: SourceOffset(0),
        text: text.to_owned(),
    }
}

pub fn progress(until: u64, recovering: bool) -> SessionEvent {
    SessionEvent::Progress { until: SourceOffset(until), recovering }
}

pub fn a_final(segment: u64, to: u64, text: &str, cause: CutCause) -> SessionEvent {
    SessionEvent::Final(Final {
        segment: Segment(segment),
        from: SourceOffset(0),
        to: SourceOffset(to),
        start: 0.0,
        end: 0.0,
        cause,
        text: text.to_owned(),
        words: Vec::new(),
        confidence: None,
        alternatives: Vec::new(),
        error: None,
    })
}

pub fn done(segments: u64, frames: u64) -> SessionEvent {
    SessionEvent::Done { segments, frames: SourceOffset(frames) }
}
