//! Who is in the cluster, and how loaded each is.
//!
//! Owns: the gossip socket, the SWIM protocol (`foca`), the view of the cluster and the stream of its changes. Must never:
//! decide what a change means for a session. Gossip is a hint: a node that is in the view may have died since, and one that
//! is not may be alive.
//!
//! A node is known by its name; each start of it has a higher generation, and within a run a renewal counts how often the
//! others had given it up before it came back. Load records travel as broadcasts beside the membership protocol and not in
//! the identities: a changed identity is a member that left and another that joined, and load changes every second.

mod actor;
mod arguments;
mod handle;
mod key;
mod peer;
mod probes;
mod pulse;
mod records;
mod refusal;
mod roster;
mod seal;
mod seeds;
pub(crate) mod swim;
mod timers;
mod view;

pub use arguments::{LoadReport, MembershipArguments, MembershipTimings, generation_at_start};
pub use handle::{MembershipError, MembershipHandle};
pub use key::{gossip_key, packet_key};
pub use pulse::{Pulse, ReadClock, Ticking, watch_pulse};
pub use refusal::GOSSIP_REFUSALS;
pub use view::{ClusterChange, ClusterView, Member, MemberState};
