//! Everything Starling says to anybody: ids, messages, their codecs and their limits.
//!
//! Owns: the identifiers of sessions, segments and leases; the native client messages ([`native`]); the messages
//! between a node and a decoder host ([`lease`]); what nodes ask each other ([`control`]), the streams between them ([`data`]),
//! the copies of sessions on those ([`replica`]) and what they gossip ([`gossip`]); the tokens by which clients go on with
//! sessions ([`token`]); which trace a session belongs to ([`trace`]); the JSON shapes of other dialects ([`vosk`], [`gstreamer`], [`deepgram`], [`openai`], [`realtime`]) and the frames
//! of those over bare TCP ([`wire`]); the framing of binary links ([`frame`]); the limits all of them respect ([`limits`]).
//!
//! Must never: do I/O, know an async runtime, or decide anything about a session.

#![deny(missing_docs)]

pub mod audiosocket;
pub mod control;
pub mod data;
pub mod deepgram;
pub mod frame;
pub mod gossip;
pub mod gstreamer;
pub mod ids;
pub mod lease;
pub mod limits;
pub mod native;
mod number;
pub mod openai;
pub mod realtime;
pub mod replica;
pub mod token;
pub mod trace;
pub mod transcript;
pub mod vosk;
pub mod wire;
pub mod wyoming;

pub use ids::{
    Attempt, DecodeOffset, Epoch, Generation, LeaseId, NodeId, NodeName, Segment, SessionId, SourceOffset,
};
pub use transcript::{Alternative, CutCause, Utterance, Word};
