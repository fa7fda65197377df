//! The model as the checker sees it: where it begins, what follows from what, what must hold.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use starling_client::machine::{Input, Machine, Settings};
use starling_core::invariants::FinalsLedger;
use starling_core::replica::{KeeperConfig, KeeperMachine};
use starling_protocol::SessionId;
use starling_protocol::native::Hello;
use stateright::{Model, Property};
use uuid::Uuid;

use crate::client::servers;
use crate::parts::{ALL, RATE};
use crate::state::{AskId, Client, ConnId, Faults, Invariant, LinkId, NODES, Net, Node, Peer, Seen, State};

/// What is done wrong on purpose, so that it shows that the check can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// Audio is acknowledged when the owner has it.
    AckBeforeCopy,
    /// A session that goes on says that it is durable before it has a copy.
    DurableAtOnce,
    /// A keeper takes the streams of owners that nobody obeys any more.
    NoEpochCheck,
    /// A keeper forgets that a session is over.
    TombstoneForgotten,
    /// A node that was asked to obey an epoch forgets it when it has no copy.
    PromiseForgotten,
    /// The longest copy is gone on from, whoever was obeyed.
    LongestCopyWins,
    /// A node that stood still goes on as if nothing had happened.
    PauseUnnoticed,
    /// An owner that hears of the next one lets go of all that it had.
    FencedOwnerForgets,
}

impl Mistake {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeCopy,
        Self::DurableAtOnce,
        Self::NoEpochCheck,
        Self::TombstoneForgotten,
        Self::PromiseForgotten,
        Self::LongestCopyWins,
        Self::PauseUnnoticed,
        Self::FencedOwnerForgets,
    ];
}

/// That the client is told everything, in some run.
pub(crate) const CAN_END: &str = "all is told";

/// A client, three nodes, a copy of each session.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cluster {
    /// How much may go wrong.
    pub faults: Faults,
    /// What is done wrong.
    pub mistake: Option<Mistake>,
    /// How many steps are looked ahead; all when nothing is said.
    pub most_steps: Option<usize>,
}

/// Something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The client says a piece.
    Speaks,
    /// The client reads one message.
    ClientReads(ConnId),
    /// The client notices that its connection is gone.
    ClientLoses,
    /// A node reads one message of the client's.
    ServerReads(ConnId),
    /// A session's decoder does one piece of work.
    Decodes(Node, SessionId),
    /// A keeper reads one message of an owner's.
    KeeperReads(LinkId),
    /// An owner reads one message of a keeper's.
    OwnerReads(LinkId),
    /// A question or its answer arrives.
    Arrives(AskId),
    /// The client has waited long enough.
    ClientWaited,
    /// A session's copies were waited for long enough.
    CopiesWaited(Node, SessionId),
    /// An answer was waited for long enough.
    AnswerWaited(AskId),
    /// A session was without its client for long enough.
    SessionWaited(Node, SessionId),
    /// What a keeper remembers was remembered for long enough.
    KeeperWaited(Node),
    /// A client's connection breaks.
    ConnBreaks(ConnId),
    /// A stream between nodes breaks.
    LinkBreaks(LinkId),
    /// A question or its answer is lost.
    Lost(AskId),
    /// A question comes twice.
    Twice(AskId),
    /// A node is gone.
    Crashes(Node),
    /// A node stands still.
    Pauses(Node),
    /// It goes on.
    Wakes,
}

pub(crate) fn peer() -> Peer {
    let config = KeeperConfig { max_bytes: 1 << 20, max_sessions: 8, remember: Duration::from_secs(60) };
    Peer {
        up: true,
        now: Duration::ZERO,
        keeper: KeeperMachine::new(config),
        copies: BTreeMap::new(),
        streams: BTreeMap::new(),
        last_stream: 0,
        owners: BTreeMap::new(),
        takeovers: BTreeMap::new(),
        offered: None,
    }
}

fn client() -> Client {
    let settings = Settings {
        servers: servers(),
        ring_frames: ALL,
        open_deadline: Duration::from_secs(1_000_000),
        wait_when_busy: true,
        give_up: Duration::from_secs(1_000_000),
        attempt_timeout: Duration::from_secs(5),
        liveness: Duration::from_secs(10),
        backoff_first: Duration::from_millis(100),
        backoff_most: Duration::from_secs(3),
    };
    let mut hello = Hello::new(SessionId(Uuid::from_u128(1)));
    hello.format.sample_rate = RATE;
    Client {
        machine: Machine::new(settings, hello),
        now: Duration::ZERO,
        pieces: 0,
        ledger: FinalsLedger::default(),
        done: false,
        failed: None,
        fresh: 1,
        conn: None,
        durable: false,
        acked: 0,
    }
}

impl Cluster {
    /// The client has been welcomed by the first node; copies are still to be made.
    fn start(&self) -> State {
        let mut state = State {
            client: Arc::new(client()),
            nodes: [(); NODES].map(|()| Arc::new(peer())),
            net: Arc::new(Net::default()),
            paused: None,
            faults: self.faults,
            mistake: self.mistake,
            seen: Arc::new(Seen::default()),
        };
        state.client_input(Input::Start);
        if let Some(conn) = state.client.conn {
            state.server_reads(conn);
            state.client_reads(conn);
        }
        state
    }
}

fn holds(cluster: &Cluster, state: &State, invariant: Invariant) -> bool {
    let broken = state.broken().or_else(|| {
        let at_the_end = matches!(invariant, Invariant::I7 | Invariant::I10);
        if !at_the_end {
            return None;
        }
        let mut steps = Vec::new();
        cluster.actions(state, &mut steps);
        steps.is_empty().then(|| state.broken_at_the_end()).flatten()
    });
    broken.is_none_or(|(broken, _)| broken != invariant)
}

impl Model for Cluster {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.start()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        // What comes after the first thing that should not be says nothing.
        if state.seen.broken.is_none() {
            state.steps(steps);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        let mut ordinary = Vec::new();
        before.ordinary(&mut ordinary);
        let timer = matches!(step, Step::ClientWaited | Step::CopiesWaited(..) | Step::AnswerWaited(_));
        // One that runs out because nothing else can happen is no fault.
        if !(timer && ordinary.is_empty()) {
            state.spend(step);
        }
        let done = catch_unwind(AssertUnwindSafe(|| state.happen(step)));
        if let Err(panic) = done {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            state.breaks(Invariant::I7, format!("panicked: {}", text.unwrap_or_default()));
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1", |model, state| holds(model, state, Invariant::I1)),
            Property::always("I2", |model, state| holds(model, state, Invariant::I2)),
            Property::always("I4", |model, state| holds(model, state, Invariant::I4)),
            Property::always("I5", |model, state| holds(model, state, Invariant::I5)),
            Property::always("I7", |model, state| holds(model, state, Invariant::I7)),
            Property::always("I10", |model, state| holds(model, state, Invariant::I10)),
            Property::sometimes(CAN_END, |_, state: &State| state.client.done),
        ]
    }
}

impl Cluster {
    /// What does not hold in this state, and cannot be put right any more.
    #[must_use]
    pub fn verdict(&self, state: &State) -> Option<(Invariant, String)> {
        let mut steps = Vec::new();
        self.actions(state, &mut steps);
        let at_the_end = || steps.is_empty().then(|| state.broken_at_the_end()).flatten();
        state.broken().or_else(at_the_end)
    }
}
