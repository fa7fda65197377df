//! What all clients have in common: who they are, what they say, and how fast.

use std::sync::Arc;
use std::time::Duration;

use starling_protocol::SessionId;
use starling_protocol::native::{Hello, SessionOptions};
use tokio::sync::watch;

use crate::lines::Lines;
use crate::net::HostId;
use crate::oracle::SharedOracle;
use crate::plan::Plan;
use crate::rng::Rng;
use crate::speech::Speech;

/// Frames in one piece of audio.
pub const PIECE: u64 = 1_600;

/// Time between pieces: speech as it is spoken.
pub const PACE: Duration = Duration::from_millis(100);

/// A client, whatever it speaks.
pub struct Client {
    /// Which one.
    pub index: usize,
    /// Its place on the network.
    pub host: HostId,
    /// How many nodes there are, and which one it asks first.
    pub nodes: usize,
    /// See `nodes`.
    pub home: usize,
    /// What it says.
    pub speech: Speech,
    /// Its randomness.
    pub rng: Rng,
    /// Its way to the nodes.
    pub lines: Arc<dyn Lines>,
    /// Who watches.
    pub oracle: SharedOracle,
    /// Whether it reads nothing now.
    pub stalled: watch::Receiver<bool>,
}

impl Client {
    /// A client of a plan, and what keeps it from reading.
    #[must_use]
    pub fn of(
        index: usize,
        speech: Speech,
        plan: &Plan,
        lines: &Arc<dyn Lines>,
        oracle: &SharedOracle,
    ) -> (Self, watch::Sender<bool>) {
        let (stall, stalled) = watch::channel(false);
        let nodes = plan.nodes.len();
        let client = Self {
            index,
            host: nodes + index,
            nodes,
            home: plan.clients[index].home,
            speech,
            rng: Rng::new(plan.seed, 100 + index as u64),
            lines: Arc::clone(lines),
            oracle: oracle.clone(),
            stalled,
        };
        (client, stall)
    }

    /// What it says first, for a session with a new id.
    pub fn hello(&mut self) -> Hello {
        let mut hello = Hello::new(self.session_id());
        hello.options = SessionOptions { words: true, ..SessionOptions::default() };
        hello
    }

    /// A random id.
    pub fn session_id(&mut self) -> SessionId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.rng.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.rng.next().to_le_bytes());
        SessionId(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }

    /// So much of its audio, as it is sent.
    #[must_use]
    pub fn bytes(&self, from: u64, to: u64) -> Vec<u8> {
        let samples = &self.speech.samples[from as usize..to as usize];
        samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
    }

    /// How many frames it says in all.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.speech.samples.len() as u64
    }
}
