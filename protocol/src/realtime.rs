//! `OpenAI`'s Realtime interface for transcription, `/v1/realtime?intent=transcription`: what a client's events ask for, and what
//! it is told.
//!
//! Owns: the translation between that dialect's events and a session's terms. Must never: hold audio beyond the event it came
//! in, or decide when a segment ends.
//!
//! Source: `OpenAI`'s API reference, "Realtime client events" and "Realtime server events", its guide "Realtime transcription",
//! and the types of its Python library.

mod config;
mod event;
mod told;
mod words;

pub use config::{Config, TurnDetection, Update};
pub use event::{ClientEvent, Said, parse_event};
pub use told::{Mark, Teller};

/// Most bytes of audio in one event.
pub const MAX_AUDIO_BYTES: usize = 15 << 20;

/// Longest message of a client: as much audio in base64, and the event around it.
pub const MAX_MESSAGE_BYTES: usize = MAX_AUDIO_BYTES / 3 * 4 + (64 << 10);

/// The least that is committed. The original refuses less, and its clients know the error.
pub const MIN_COMMIT_MS: u64 = 100;

#[cfg(test)]
mod tests;
