//! Who gets a decoder: one model's hosts, their slots, and the queue for them.
//!
//! Owns: which host is in which state, which lease lies on which host, which slots are kept for leases to come, who waits.
//! Must never: start a process or know what a lease decodes.
//!
//! Every host has `slots` for new sessions and as many again in reserve, which only sessions that lost a decoder may use:
//! when one of two full hosts dies, its callers go on at once on the other, crowded but not waiting for a start.
//! With other nodes about, new sessions are also kept out of what is needed to take over any one of those
//! ([`admission`](crate::admission)).
//! A host that is to be replaced gets no new leases; its successor is started first, then its leases are told to move at
//! their next segment's border, then it is stopped. A segment that may kill its host gets one of its own.
//! How many hosts there are may change: more start at once, or are taken back; one too many is parked, which leaves what it
//! decodes alone, and goes when it is empty.
//! A standby has what nobody else needs: it never waits, and goes when a session finds no slot.

mod admission;
mod hosts;
mod machine;
mod messages;
mod retry;

pub use machine::PoolMachine;
pub use messages::{
    Claim, HostEnd, HostId, PoolAction, PoolConfig, PoolCounts, PoolEvent, Purpose, Refusal, Refused,
    RequestId, StartCause,
};

#[cfg(test)]
mod tests;
