//! What a client is told of the session's events, and of its own.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::config::{Config, TurnDetection};
use super::{MIN_COMMIT_MS, words};
use crate::native::{ErrorBody, ErrorCode, Final};
use crate::openai::error_object;
use crate::{CutCause, SourceOffset};

/// A place in the audio at which the client ended or dropped what it had appended. The session is asked for a final there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Frames that came before it.
    pub at: SourceOffset,
    /// Where a segment that ends here ends: a little earlier, when samples are made of frames on both sides of them.
    pub cut: SourceOffset,
}

/// A session as this dialect's clients hear it.
///
/// Each final that was asked for at a [`Mark`] ends what was appended before it: an item, or what was cleared. With
/// [`TurnDetection::Off`] nothing else does; otherwise each segment with words is an item of its own.
///
/// Times and positions count frames from the first that came.
#[derive(Debug, Clone, PartialEq)]
pub struct Teller {
    /// Makes the ids of this connection its own.
    seed: String,
    /// Whether the client speaks the older shape.
    beta: bool,
    config: Config,
    events: u64,
    items: u64,
    /// The item that was committed last.
    previous: Option<String>,
    /// Where what was appended and belongs to no item begins.
    buffered_from: u64,
    /// The item that grows.
    open: Option<Item>,
    /// Marks whose finals are still to come, with their items; those without drop what is before them.
    marks: VecDeque<(Mark, Option<Item>)>,
    segment: OpenSegment,
}

#[derive(Debug, Clone, PartialEq)]
struct Item {
    id: String,
    from: u64,
    /// Whether the client was told that somebody speaks.
    speaking: bool,
    /// What its segments said.
    text: String,
    /// Why a part of it has no text.
    error: Option<ErrorBody>,
}

/// The text of the segment that is still open.
#[derive(Debug, Clone, PartialEq, Default)]
struct OpenSegment {
    /// As it was last heard.
    heard: String,
    /// What was told of it, which can't be taken back.
    told: String,
}

impl Teller {
    /// For a connection whose ids are made with `seed`.
    #[must_use]
    pub fn new(seed: impl Into<String>, config: Config, beta: bool) -> Self {
        Self {
            seed: seed.into(),
            beta,
            config,
            events: 0,
            items: 0,
            previous: None,
            buffered_from: 0,
            open: None,
            marks: VecDeque::new(),
            segment: OpenSegment::default(),
        }
    }

    /// What the session is.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The first event of all.
    pub fn created(&mut self, out: &mut Vec<String>) {
        let kind = if self.beta { "transcription_session.created" } else { "session.created" };
        let session = self.config.shown(&format!("sess_{}", self.seed), self.beta);
        self.event(kind, json!({ "session": session }), out);
    }

    /// The session is another from here on; `beta` is the shape in which the client asked for it.
    pub fn updated(&mut self, config: Config, beta: bool, out: &mut Vec<String>) {
        self.config = config;
        let kind = if beta { "transcription_session.updated" } else { "session.updated" };
        let session = self.config.shown(&format!("sess_{}", self.seed), beta);
        self.event(kind, json!({ "session": session }), out);
    }

    /// What was appended up to here is an item. Returns whether the session is to be asked for a final; if not, the client was told
    /// why.
    pub fn commit(&mut self, mark: Mark, event_id: Option<&str>, out: &mut Vec<String>) -> bool {
        let frames = mark.at.0.saturating_sub(self.buffered_from);
        if frames * 1_000 < MIN_COMMIT_MS * self.rate() {
            let there = frames as f64 * 1_000.0 / self.rate() as f64;
            let message =
                format!("{there:.2} ms of audio were appended; it takes {MIN_COMMIT_MS} ms to commit them");
            let error = ErrorBody::new(ErrorCode::BadRequest, message);
            self.error(&error, Some("input_audio_buffer_commit_empty"), event_id, out);
            return false;
        }
        let item = self.open.take().unwrap_or_else(|| self.item(self.buffered_from));
        self.committed(&item, out);
        self.marks.push_back((mark, Some(item)));
        self.buffered_from = mark.at.0;
        true
    }

    /// What was appended up to here is not wanted. Returns whether the session is to be asked for a final.
    pub fn clear(&mut self, mark: Mark, out: &mut Vec<String>) -> bool {
        let grew = self.open.take().is_some();
        self.event("input_audio_buffer.cleared", json!({}), out);
        if !grew && mark.at.0 <= self.buffered_from {
            return false;
        }
        self.marks.push_back((mark, None));
        self.buffered_from = mark.at.0;
        true
    }

    /// The text so far of the open segment.
    pub fn partial(&mut self, from: SourceOffset, text: &str, out: &mut Vec<String>) {
        let text = text.trim();
        let before = std::mem::replace(&mut self.segment.heard, text.to_owned());
        if text.is_empty() || matches!(self.marks.front(), Some((_, None))) {
            return;
        }
        if self.marks.is_empty() {
            self.note_speech(from.0, out);
        }
        self.tell(&text[..words::settled(&before, text)], out);
    }

    /// A final.
    pub fn last(&mut self, last: &Final, out: &mut Vec<String>) {
        let answer = last.cause == CutCause::Finalize;
        match self.marks.front() {
            None => self.by_itself(last, out),
            Some((mark, item)) => {
                // A segment that could not be decoded answers for the final that was asked for at its end.
                let answer = answer || (last.cause == CutCause::GivenUp && last.to >= mark.cut);
                if item.is_some() {
                    self.gather(last, out);
                }
                if answer && let Some((mark, Some(item))) = self.marks.pop_front() {
                    self.complete(item, mark.at.0, out);
                }
            }
        }
        self.segment = OpenSegment::default();
    }

    /// Something is wrong with what the client said; it goes on.
    pub fn complain(&mut self, error: &ErrorBody, event_id: Option<&str>, out: &mut Vec<String>) {
        let code = match error.code {
            ErrorCode::BadMessage | ErrorCode::BadRequest => Some("invalid_value"),
            ErrorCode::IdleTimeout => Some("session_expired"),
            _ => None,
        };
        self.error(error, code, event_id, out);
    }

    /// The connection is over, maybe because of what the client said: nobody is to wait for the rest.
    pub fn over(&mut self, error: &ErrorBody, event_id: Option<&str>, out: &mut Vec<String>) {
        for (mark, item) in std::mem::take(&mut self.marks) {
            if let Some(item) = item {
                self.complete(Item { error: Some(error.clone()), ..item }, mark.at.0, out);
            }
        }
        self.complain(error, event_id, out);
    }

    /// A final that nobody asked for.
    fn by_itself(&mut self, last: &Final, out: &mut Vec<String>) {
        let nothing = last.text.trim().is_empty() && last.error.is_none();
        if self.config.turn_detection == TurnDetection::Off {
            if !nothing && self.open.is_none() {
                self.open = Some(self.item(self.buffered_from));
            }
            return self.gather(last, out);
        }
        self.buffered_from = self.buffered_from.max(last.to.0);
        if nothing && self.open.is_none() {
            return;
        }
        self.note_speech(last.from.0, out);
        let Some(mut item) = self.open.take() else { return };
        let stopped = json!({ "audio_end_ms": self.millis(last.to.0), "item_id": item.id });
        self.event("input_audio_buffer.speech_stopped", stopped, out);
        self.committed(&item, out);
        self.take_in(&mut item, last, out);
        self.complete(item, last.to.0, out);
    }

    /// There are words in the open segment.
    fn note_speech(&mut self, from: u64, out: &mut Vec<String>) {
        let detects = self.config.turn_detection != TurnDetection::Off;
        let mut item = match self.open.take() {
            Some(item) => item,
            None => self.item(if detects { from } else { self.buffered_from }),
        };
        if detects && !item.speaking {
            item.speaking = true;
            let started = json!({ "audio_start_ms": self.millis(item.from), "item_id": item.id });
            self.event("input_audio_buffer.speech_started", started, out);
        }
        self.open = Some(item);
    }

    /// A segment of the item whose turn it is.
    fn gather(&mut self, last: &Final, out: &mut Vec<String>) {
        let place = |teller: &mut Self| match teller.marks.front_mut() {
            Some((_, item)) => item.take(),
            None => teller.open.take(),
        };
        let Some(mut item) = place(self) else { return };
        self.take_in(&mut item, last, out);
        match self.marks.front_mut() {
            Some((_, place)) => *place = Some(item),
            None => self.open = Some(item),
        }
    }

    fn take_in(&mut self, item: &mut Item, last: &Final, out: &mut Vec<String>) {
        let text = last.text.trim();
        self.delta(&item.id, !item.text.is_empty(), text, out);
        if !text.is_empty() {
            if !item.text.is_empty() {
                item.text.push(' ');
            }
            item.text.push_str(text);
        }
        if let Some(error) = &last.error {
            let message = format!("a part of the audio could not be decoded: {error}");
            item.error = Some(ErrorBody::new(ErrorCode::Internal, message));
        }
    }

    /// The open segment's text is certain up to here.
    fn tell(&mut self, text: &str, out: &mut Vec<String>) {
        let item = match self.marks.front() {
            Some((_, item)) => item,
            None => &self.open,
        };
        if let Some((id, goes_on)) = item.as_ref().map(|item| (item.id.clone(), !item.text.is_empty())) {
            self.delta(&id, goes_on, text, out);
        }
    }

    /// Tells what is new in the open segment's text; nothing, if what was told of it is no longer true. With `goes_on`, another
    /// segment of the item came before it.
    fn delta(&mut self, item: &str, goes_on: bool, text: &str, out: &mut Vec<String>) {
        let Some(new) = text.strip_prefix(self.segment.told.as_str()).filter(|new| !new.is_empty()) else {
            return;
        };
        let joint = if goes_on && self.segment.told.is_empty() { " " } else { "" };
        let delta = json!({
            "item_id": item,
            "content_index": 0,
            "delta": format!("{joint}{new}"),
            "logprobs": null,
        });
        text.clone_into(&mut self.segment.told);
        self.event("conversation.item.input_audio_transcription.delta", delta, out);
    }

    fn committed(&mut self, item: &Item, out: &mut Vec<String>) {
        let previous = self.previous.replace(item.id.clone());
        let committed = json!({ "previous_item_id": previous, "item_id": item.id });
        self.event("input_audio_buffer.committed", committed, out);
        let shown = json!({
            "previous_item_id": previous,
            "item": {
                "id": item.id,
                "object": "realtime.item",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{ "type": "input_audio", "transcript": null }],
            },
        });
        if self.beta {
            return self.event("conversation.item.created", shown, out);
        }
        self.event("conversation.item.added", shown.clone(), out);
        self.event("conversation.item.done", shown, out);
    }

    /// Nothing more comes of an item that was committed.
    fn complete(&mut self, item: Item, to: u64, out: &mut Vec<String>) {
        let Item { id, from, text, error, .. } = item;
        if let Some(error) = error {
            let failed = json!({ "item_id": id, "content_index": 0, "error": error_object(&error) });
            return self.event("conversation.item.input_audio_transcription.failed", failed, out);
        }
        let seconds = self.millis(to.saturating_sub(from)) as f64 / 1_000.0;
        let completed = json!({
            "item_id": id,
            "content_index": 0,
            "transcript": text,
            "logprobs": null,
            "usage": { "type": "duration", "seconds": seconds },
        });
        self.event("conversation.item.input_audio_transcription.completed", completed, out);
    }

    fn item(&mut self, from: u64) -> Item {
        self.items += 1;
        let id = format!("item_{}_{}", self.seed, self.items);
        Item { id, from, speaking: false, text: String::new(), error: None }
    }

    fn error(
        &mut self,
        error: &ErrorBody,
        code: Option<&str>,
        event_id: Option<&str>,
        out: &mut Vec<String>,
    ) {
        let mut object = error_object(error);
        if let Some(code) = code {
            object["code"] = code.into();
        }
        object["event_id"] = event_id.into();
        self.event("error", json!({ "error": object }), out);
    }

    fn event(&mut self, kind: &str, mut event: Value, out: &mut Vec<String>) {
        self.events += 1;
        event["type"] = kind.into();
        event["event_id"] = format!("event_{}_{}", self.seed, self.events).into();
        out.push(event.to_string());
    }

    fn millis(&self, frames: u64) -> u64 {
        frames * 1_000 / self.rate()
    }

    fn rate(&self) -> u64 {
        u64::from(self.config.format.sample_rate.max(1))
    }
}
