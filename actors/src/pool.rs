//! One model's decoders: hosts and leases.
//!
//! Owns: the pool machine, the actors of its hosts and decoders. Must never: decide who gets what; the machine does.

mod actor;
mod messages;
mod scaling;

pub(crate) use actor::{ModelPoolActor, OthersKnown, PoolArguments};
pub(crate) use messages::{Grant, HostLoad, LeaseAnswer, PoolMessage, PoolSnapshot};
pub(crate) use scaling::PoolScaling;
