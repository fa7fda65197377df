//! Starling's decisions, as synchronous state machines.
//!
//! Owns: what a session does next ([`session`]), which models there are and in which pools ([`lineup`]), who gets a decoder
//! ([`pool`]) and on which node ([`placement`]), how many sessions a cluster takes ([`admission`]) and how many decoders it should have ([`scaling`]), when a decoder host
//! counts as lost ([`host_watch`]), how often it may be restarted ([`restart`]), which links to other nodes there are
//! ([`peer_links`]), when such a node counts as lost ([`peer_watch`]) and is dialled again ([`redial`]), how a client's
//! samples become the decoder's ([`audio`]), which gossip was heard before ([`replay`]), when what a session has is safe with
//! others and who goes on with it ([`replica`]), what a tenant may take ([`tenant`]), which of several
//! nodes acts for all ([`leadership`]), whether this process stood still ([`tick`]), and the properties that must
//! hold whatever happens ([`invariants`]).
//!
//! Must never: do I/O, read a clock, draw a random number, take a lock. Time comes in as an argument.
//!
//! A machine is driven by `handle(now, event, &mut actions)` and asked `next_timeout()`; whoever owns it carries out the
//! actions and calls again at the timeout. A timeout that comes too early or twice changes nothing.

#![deny(missing_docs)]

pub mod admission;
pub mod audio;
pub mod credit;
pub mod host_watch;
pub mod invariants;
pub mod journal;
pub mod leadership;
pub mod lineup;
pub mod peer_links;
pub mod peer_watch;
pub mod placement;
pub mod pool;
pub mod redial;
pub mod replay;
pub mod replica;
pub mod restart;
mod round;
#[doc(hidden)]
pub mod sabotage;
pub mod scaling;
pub mod session;
pub mod tenant;
pub mod tick;
mod time;

pub use time::Timestamp;
