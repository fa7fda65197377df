//! Speech engines, and the process they run in.
//!
//! Owns: the traits every engine implements ([`recognizer`]); the rule where segments are cut ([`cut`]); Vosk, Moonshine
//! and the scripted test engine; the decoder host ([`host`], binary `starling-decoder`).
//!
//! Must never: know of sessions, tenants or clusters. It is the only crate that may use `unsafe`, and only where a
//! foreign library or the kernel is called.

pub mod catalogue;
pub mod cut;
pub mod energy;
pub mod host;
pub mod load;
#[cfg(feature = "moonshine")]
pub mod moonshine;
pub mod pin;
pub mod recognizer;
pub mod scripted;
#[cfg(feature = "vosk")]
pub mod vosk;
pub mod warmup;

pub use recognizer::{
    Capabilities, DecodeError, Description, Engine, LoadError, OpenError, Recognizer, Step,
};
