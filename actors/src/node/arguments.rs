//! What a node is started with.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use starling_core::lineup::Offer;
use starling_core::pool::PoolConfig;
use starling_core::restart::RestartLimits;
use starling_protocol::lease::{CutOptions, EngineKind, HostSpec, LEASE_PROTOCOL};

use super::scaling::ModelScaling;
use crate::data::Peers;
use crate::host::{HostLauncher, ProcessLauncher};
use crate::observe::Observer;
use crate::replica::CopyArguments;
use crate::trace::Tracing;

/// Quarantine hosts that a pool may have at once: one suspect is rare, two at once are an attack.
const QUARANTINE_HOSTS: u16 = 2;

/// A host that lived for so long did not die of its start.
const PROVED_AFTER: Duration = Duration::from_secs(30);

/// What a node is.
pub struct NodeArguments {
    /// Models to serve; the first is the default.
    pub models: Vec<ModelArguments>,
    /// Starts decoder hosts.
    pub launcher: Arc<dyn HostLauncher>,
    /// Bounds on sessions.
    pub limits: SessionLimits,
    /// Who counts.
    pub observer: Arc<dyn Observer>,
    /// Who is told of sessions, as spans.
    pub tracing: Tracing,
    /// Who else may decode for its sessions; `None` for a node on its own.
    pub peers: Option<Arc<dyn Peers>>,
    /// Copies of sessions, its own and others'.
    pub copies: CopyArguments,
}

impl NodeArguments {
    /// A node whose hosts are processes of `decoder_program`.
    #[must_use]
    pub fn new(
        models: Vec<ModelArguments>,
        decoder_program: PathBuf,
        limits: SessionLimits,
        observer: Arc<dyn Observer>,
        copies: CopyArguments,
    ) -> Self {
        let launcher = Arc::new(ProcessLauncher { program: decoder_program });
        Self { models, launcher, limits, observer, tracing: None, peers: None, copies }
    }
}

/// What a model's engine can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Words with times.
    pub words: bool,
    /// How sure it is of each word, or of the whole.
    pub confidences: bool,
    /// Several readings.
    pub alternatives: bool,
    /// Listening for given phrases.
    pub phrases: bool,
    /// Punctuation and capital letters.
    pub punctuation: bool,
}

/// One model and the hosts it gets. Two that are equal are served by one pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelArguments {
    /// Its name, as clients give it.
    pub name: String,
    /// SHA-256 of its files' table, in hex: a session's decoders all have the same.
    pub digest: String,
    /// Its language (BCP 47).
    pub language: String,
    /// Its engine.
    pub engine: EngineKind,
    /// Folder of the prepared model.
    pub model_dir: PathBuf,
    /// Folder of the engine's libraries.
    pub library_dir: PathBuf,
    /// The rate it hears, in Hz.
    pub sample_rate: u32,
    /// What its engine can give.
    pub capabilities: Capabilities,
    /// Hosts to keep; 0 where peers alone decode, or with `scaling` where the first caller has one loaded.
    pub hosts: u16,
    /// How there are more and fewer.
    pub scaling: ModelScaling,
    /// Sessions that each takes.
    pub slots_per_host: u16,
    /// Decode threads in each.
    pub threads_per_host: u16,
    /// Recognizers that each keeps warm.
    pub prewarm_per_host: u16,
    /// Audio after which a recognizer is replaced; zero for never.
    pub recognizer_audio_budget: Duration,
    /// Memory after which a host is replaced; 0 for never.
    pub memory_budget_bytes: u64,
    /// Longest time to load.
    pub load_deadline: Duration,
    /// Niceness of its hosts.
    pub nice: i8,
    /// Environment of its hosts.
    pub environment: Vec<(String, String)>,
    /// What has to stay for as long as it is served.
    pub keep: Keep,
}

/// Something that is kept for as long as a pool may start hosts: a hold on the model's files, say. Makes no difference to what
/// the model is.
#[derive(Clone, Default)]
pub struct Keep(pub Option<Arc<dyn Any + Send + Sync>>);

impl PartialEq for Keep {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Keep {}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keep").field(&self.0.is_some()).finish()
    }
}

impl Offer for ModelArguments {
    fn name(&self) -> &str {
        &self.name
    }

    fn digest(&self) -> &str {
        &self.digest
    }
}

impl ModelArguments {
    pub(super) fn spec(&self) -> HostSpec {
        HostSpec {
            protocol: LEASE_PROTOCOL,
            engine: self.engine,
            model: self.name.clone(),
            model_dir: self.model_dir.to_string_lossy().into_owned(),
            library_dir: self.library_dir.to_string_lossy().into_owned(),
            sample_rate: self.sample_rate,
            threads: self.threads_per_host,
            // As many again in reserve, for sessions that lost their decoder elsewhere.
            slots: self.slots_per_host.saturating_mul(2),
            prewarm: self.prewarm_per_host,
            recognizer_audio_budget_s: u32::try_from(self.recognizer_audio_budget.as_secs())
                .unwrap_or(u32::MAX),
            memory_budget_bytes: self.memory_budget_bytes,
            nice: self.nice,
            digest: self.digest.clone(),
        }
    }

    /// Whether this node ever has hosts for it.
    pub(super) const fn is_decoded_here(&self) -> bool {
        self.hosts > 0 || self.scaling.enabled
    }

    /// Whether its hosts are started for the first caller, and it can be served at once in that sense.
    pub(super) const fn is_on_demand(&self) -> bool {
        self.hosts == 0 && self.scaling.enabled
    }

    pub(super) fn pool_config(&self, limits: &SessionLimits) -> PoolConfig {
        PoolConfig {
            hosts: self.hosts,
            slots_per_host: self.slots_per_host,
            queue_length: limits.queue_length,
            queue_wait: limits.queue_wait,
            cold_wait: if self.scaling.enabled { self.scaling.load_wait } else { limits.queue_wait },
            idle_ttl: self.scaling.idle_ttl,
            unused_ttl: self.scaling.unused_ttl,
            retry_after: limits.retry_after,
            load_deadline: self.load_deadline,
            quarantine_hosts: QUARANTINE_HOSTS,
            restarts: RestartLimits::default(),
            proved_after: PROVED_AFTER,
        }
    }
}

/// Whether sessions have a second decoder that hears what the first hears, so that the loss of the first costs no replay.
/// Recordings never do: nobody listens to them as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StandbyPolicy {
    /// None has.
    #[default]
    Off,
    /// Each has, where a slot is idle.
    Warm,
    /// Each has, while the cluster has more idle slots for the model.
    Idle {
        /// Than this many, which are left to new sessions.
        keep: u32,
    },
}

/// Bounds on every session of a node.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Audio that a session may hold undecoded; past it the client's sending waits.
    pub journal_bytes: usize,
    /// Longest time a session waits for its client to come back.
    pub linger_max: Duration,
    /// Longest time a new session waits for a slot.
    pub queue_wait: Duration,
    /// Most new sessions that wait, per model.
    pub queue_length: usize,
    /// The least that a refused client is told to wait.
    pub retry_after: Duration,
    /// How long a client may leave too many finals unread.
    pub slow_reader: Duration,
    /// How long a connected client may send nothing; zero for ever.
    pub idle: Duration,
    /// Where segments are cut.
    pub cuts: CutOptions,
    /// Whether sessions have a second decoder.
    pub standby: StandbyPolicy,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            // The longest segment at 48 kHz takes 1.4 MB; the rest is room to catch up after a fault.
            journal_bytes: 4 * 1024 * 1024,
            linger_max: Duration::from_secs(60),
            queue_wait: Duration::from_secs(2),
            queue_length: 64,
            retry_after: Duration::from_secs(1),
            slow_reader: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            cuts: CutOptions::default(),
            standby: StandbyPolicy::Off,
        }
    }
}
