//! What a pool machine is told and what it asks for.

use std::time::Duration;

use starling_protocol::control::ReservationId;
use starling_protocol::{LeaseId, SessionId};

use crate::admission::Others;
use crate::restart::RestartLimits;
use crate::session::{LeaseKind, LossCause};

/// A host of one pool, counted from its start. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct HostId(pub u64);

/// A request for a lease, named by whoever makes it. Never reused within a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Bounds on one model's decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolConfig {
    /// Hosts to keep, however few are needed.
    pub hosts: u16,
    /// Leases that new sessions may hold on each.
    pub slots_per_host: u16,
    /// Most new sessions that may wait for a slot.
    pub queue_length: usize,
    /// Longest such a wait.
    pub queue_wait: Duration,
    /// Longest such a wait where no host is ready, if that is more: one may have to load first.
    pub cold_wait: Duration,
    /// A host that is one too many is stopped when it has decoded nothing for so long ...
    pub idle_ttl: Duration,
    /// ... or for so long, if it never has.
    pub unused_ttl: Duration,
    /// The least that somebody who is refused is told to stay away.
    pub retry_after: Duration,
    /// Longest time from a host's start to its being ready.
    pub load_deadline: Duration,
    /// Hosts for suspect segments at once. Each loads the model anew, so that they are few.
    pub quarantine_hosts: u16,
    /// How often hosts are restarted.
    pub restarts: RestartLimits,
    /// A host that was ready for so long has proved itself.
    pub proved_after: Duration,
}

/// What a lease is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A session that is to be opened; may have to wait and may be refused.
    New,
    /// A session that has lost its decoder, or is moving; goes first, may use the reserve, is never refused.
    Continue(LeaseKind),
    /// A second decoder for a session that has one. Has what nobody else needs: it is refused at once where somebody waits, and
    /// asked to go when a session finds no slot.
    Standby {
        /// The session's decoder, if it is on this node: the standby must not share its host.
        avoid: Option<LeaseId>,
    },
}

/// A slot that was reserved and is to become a lease. One that is gone, or another session's, is no claim to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Its name. Names are not unique across runs of a node, hence the session.
    pub reservation: ReservationId,
    /// Whom it was kept for.
    pub session: SessionId,
}

/// How a host's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostEnd {
    /// By itself: a signal of its own making, or a fatal exit.
    Crashed,
    /// By a signal from outside, or after it was accused.
    Killed,
    /// It was accused of silence, and killed for it.
    Silent,
    /// It was accused of being stuck, and killed for it.
    Stuck,
    /// It said something that can't be, and was killed for it.
    Protocol,
    /// It could not load its model, or not in time.
    LoadFailed,
    /// It was told to.
    Stopped,
}

impl HostEnd {
    /// Every label there is, for series that begin at nothing.
    pub const LABELS: [&str; 7] =
        ["crashed", "killed", "silent", "stuck", "protocol", "load_failed", "stopped"];

    /// The name used as a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Killed => "killed",
            Self::Silent => "silent",
            Self::Stuck => "stuck",
            Self::Protocol => "protocol",
            Self::LoadFailed => "load_failed",
            Self::Stopped => "stopped",
        }
    }

    /// What this end is to a lease on the host.
    #[must_use]
    pub const fn loss(self, suspect: bool) -> LossCause {
        match self {
            Self::Crashed => LossCause::Crashed { suspect },
            Self::Stuck => LossCause::Stuck { suspect },
            Self::Silent => LossCause::Silent,
            Self::Protocol => LossCause::Protocol,
            Self::Killed | Self::LoadFailed | Self::Stopped => LossCause::Killed,
        }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PoolEvent {
    /// Somebody wants a lease.
    Requested {
        /// To be named in the answer.
        request: RequestId,
        /// What for.
        purpose: Purpose,
        /// What was kept for it before.
        claim: Option<Claim>,
    },
    /// Somebody wants a slot kept for a lease that is about to be asked for. Answered at once, with `Reserve` or `Refuse`.
    ReservationRequested {
        /// To be named in the answer.
        request: RequestId,
        /// What a new reservation is to be called; not used if there is one for the session.
        reservation: ReservationId,
        /// Who is going to use it. It has one reservation at most.
        session: SessionId,
        /// How long to keep it; no more than 5 s.
        ttl: Duration,
        /// Whether the session has lost a decoder, and may have the reserve.
        failover: bool,
    },
    /// A reservation won't be used. Has no effect on one that is gone.
    ReservationReleased {
        /// Which.
        reservation: ReservationId,
    },
    /// What the other nodes that decode this model have. Nobody, until it is told.
    OthersChanged {
        /// All of them.
        others: Others,
    },
    /// Whoever asked does not want it any more. Has no effect once it was answered.
    Withdrawn {
        /// Which request.
        request: RequestId,
    },
    /// Whoever asked waits no longer, and is to be told. Has no effect once it was answered.
    PatienceEnded {
        /// Which request.
        request: RequestId,
    },
    /// A lease is over.
    Released {
        /// Which.
        lease: LeaseId,
    },
    /// A host has loaded its model.
    HostReady {
        /// Which.
        host: HostId,
    },
    /// A host has spent a budget.
    HostRetiring {
        /// Which.
        host: HostId,
    },
    /// A host's process is gone.
    HostEnded {
        /// Which.
        host: HostId,
        /// How.
        end: HostEnd,
        /// The leases it was working on at that moment.
        suspects: Vec<LeaseId>,
    },
    /// So many hosts there should be from now on; no fewer than are configured. More are there at once, or start; one too many
    /// takes nothing new and goes when it is empty.
    Resized {
        /// How many.
        hosts: u16,
    },
    /// No new sessions from now on.
    Draining,
    /// `next_timeout` has come.
    TimedOut,
}

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Every slot is taken and so is every place in the queue.
    QueueFull,
    /// No slot came free in time.
    WaitedTooLong,
    /// The node is stopping.
    Draining,
}

/// Why a host is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StartCause {
    /// The pool starts with it.
    Start,
    /// Another died.
    Respawn,
    /// Another has used up its memory budget.
    Replacement,
    /// More are wanted.
    Scaling,
    /// There were none to be, and somebody waits for one.
    Wake,
    /// A segment is to be tried alone.
    Quarantine,
}

impl StartCause {
    /// The name that it is told by.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Respawn => "respawn",
            Self::Replacement => "replacement",
            Self::Scaling => "scaling",
            Self::Wake => "wake",
            Self::Quarantine => "quarantine",
        }
    }
}

/// There is no lease, and no slot was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// When it is worth asking again.
    pub retry_after: Duration,
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PoolAction {
    /// Start a host's process.
    StartHost {
        /// Its name.
        host: HostId,
        /// Whether it is for one suspect segment alone.
        quarantine: bool,
        /// Why.
        cause: StartCause,
    },
    /// Let a host finish and exit.
    StopHost {
        /// Which.
        host: HostId,
    },
    /// Kill a host: it did not load in time.
    KillHost {
        /// Which.
        host: HostId,
    },
    /// Here is the lease.
    Grant {
        /// For which request.
        request: RequestId,
        /// The lease.
        lease: LeaseId,
        /// Where it lies.
        host: HostId,
        /// How long the request waited.
        waited: Duration,
    },
    /// A slot is kept.
    Reserve {
        /// For which request.
        request: RequestId,
        /// Its name.
        reservation: ReservationId,
        /// How long it is kept from now on.
        ttl: Duration,
    },
    /// There is none.
    Refuse {
        /// For which request.
        request: RequestId,
        /// Why, and until when.
        refused: Refused,
    },
    /// A lease is gone with its host.
    Lose {
        /// Which.
        lease: LeaseId,
        /// Why.
        cause: LossCause,
    },
    /// A lease should leave its host at its next segment's border; a standby at once.
    Move {
        /// Which.
        lease: LeaseId,
    },
}

/// How full a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct PoolCounts {
    /// Hosts that are ready, quarantine hosts and those that are one too many left out.
    pub hosts_ready: usize,
    /// Hosts that are to be kept.
    pub hosts_wanted: usize,
    /// Hosts that are started and not ready, or about to be.
    pub hosts_loading: usize,
    /// Hosts that are one too many, and there still.
    pub hosts_parked: usize,
    /// Slots of ready hosts.
    pub slots: usize,
    /// Leases held, on any host.
    pub leases: usize,
    /// Slots that are kept for leases to come.
    pub reserved: usize,
    /// Slots that a new session could have now: those that are free, less what is kept for the streams of other nodes.
    pub idle: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Those among them that are of sessions which go on: streams that have to be decoded, and are not.
    pub continuing: usize,
    /// Hosts that ended without being told to.
    pub failures: u64,
}

impl PoolCounts {
    /// Streams that have to be decoded here, those that a slot is kept for among them: what admission counts with.
    #[must_use]
    pub const fn streams(&self) -> usize {
        self.leases + self.reserved + self.continuing
    }
}
