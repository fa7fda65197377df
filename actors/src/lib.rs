//! Thin actors around the machines of `starling-core`: they own processes, sockets, timers and memory, hand events to a
//! machine and carry out what it asks for.
//!
//! ```text
//! NodeSupervisor ─┬─ ModelPoolActor (one per model) ─┬─ HostSupervisor    (one per decoder process)
//!                 │                                  └─ DecoderActor (one per lease on this node)
//!                 ├─ SessionActor   (one per session) ── DecoderActor (for a lease on a peer)
//!                 ├─ RelayActor     (one per lease of a peer's session)
//!                 └─ KeeperActor    (copies of peers' sessions)
//! MembershipActor (one per node that is in a cluster)
//! ```
//!
//! A model that is being replaced has a pool for each of the two.
//!
//! Must never: decide policy, decode audio, or know a dialect. Actors are unnamed; whoever may talk to one holds a handle.

mod claim;
mod clock;
pub mod cluster;
pub mod control;
mod data;
mod decoder;
mod decoders;
mod frames;
pub mod fuzzing;
mod host;
mod membership;
mod network;
mod node;
mod observe;
mod pool;
mod replica;
mod reservations;
mod session;
mod task;
mod trace;
pub mod trust;

pub use clock::{Clock, unix_now};
pub use data::{
    AddressOf, IncomingStream, IncomingStreams, LinkError, LinkedPeers, PeerLink, PeerName, PeerStream,
    Peers, QuinnLink, QuinnLinkArguments, QuinnLinkError, QuinnSocket, QuinnTrust,
};
pub use host::{HostLaunch, HostLauncher, LaunchError, LaunchedHost, ProcessEnd, ProcessLauncher};
pub use membership::{
    ClusterChange, ClusterView, GOSSIP_REFUSALS, LoadReport, Member, MemberState, MembershipArguments,
    MembershipError, MembershipHandle, MembershipTimings, Pulse, ReadClock, Ticking, generation_at_start,
    gossip_key, packet_key, watch_pulse,
};
pub use network::{Datagrams, Streams};
pub use node::{
    Capabilities, Keep, MemoryKnown, ModelArguments, ModelChange, ModelScaling, ModelStatus, NodeArguments,
    NodeHandle, NodeStatus, PoolScale, ServeError, SessionLimits, StandbyPolicy, StartError,
};
pub use observe::{
    Observation, Observer, SESSION_OUTCOMES, SessionNews, SessionPhase, SessionStanding, SilentObserver,
    TAKEN_OVER,
};
pub use replica::{CopyArguments, CopyPeers, KeptCopy, TokenSealer};
pub use reservations::{NoAnswer, Reservations};
pub use session::{
    Attachment, Dialect, OpenRequest, Ready, ResumeRequest, SessionClosed, SessionEvent, SessionInput,
    SessionOutput,
};
pub use trace::{SPANS, Span, SpanEvent, Tracer, Tracing, Value};
