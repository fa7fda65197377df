//! What nodes gossip over UDP: who they are, how loaded they are ([`LoadRecord`]), and the sealed packets it travels in
//! ([`packet`]).
//!
//! Owns: the record's form and limit, the packet's layout and its sealing. Must never: choose a key, draw a random number,
//! or judge whether a packet was heard before (that is `starling_core::replay`).

mod load;
pub mod packet;

pub use load::{
    Addresses, LoadDecodeError, LoadEncodeError, LoadRecord, MAX_RECORD_BYTES, ModelLoad, RECORD_FORMAT,
    Roles,
};
