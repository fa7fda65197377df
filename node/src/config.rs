//! The node's settings: what they are and what they default to. Loading is in [`load`], the ranges in [`check`].
//!
//! Owns: the shape of `cluster.toml`. Must never: read a clock, open a socket, or look at a model's files.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod audiosocket;
pub mod check;
mod cluster;
pub mod error;
mod jwt;
pub mod keys;
mod kubernetes;
pub mod load;
mod locate;
mod page;
mod scaling;
pub mod secret;
mod tenant;
mod units;

pub use audiosocket::{AudioSocketSettings, WyomingSettings};
pub use cluster::{ClusterSettings, Role};
pub use error::ConfigError;
pub use jwt::JwtSettings;
pub use kubernetes::{KubernetesSettings, is_object_name};
pub use load::{Flag, Loaded, load};
pub use page::{ChaosSettings, TRACE_ID, TracingSettings};
pub use scaling::{ModelScalingSettings, ScalingSettings};
pub use secret::Secret;
pub use tenant::TenantSettings;
pub(crate) use tenant::{keys_in, keys_of_variable};

/// Everything an operator can set. Each table is one of `cluster.toml`'s.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where clients come in.
    pub listen: ListenSettings,
    /// The certificate that clients are shown.
    pub tls: TlsSettings,
    /// The nodes it works with.
    pub cluster: ClusterSettings,
    /// How connections are treated.
    pub gateway: GatewaySettings,
    /// Whose tokens are taken for keys.
    pub jwt: JwtSettings,
    /// Calls over Asterisk's `AudioSocket`.
    pub audiosocket: AudioSocketSettings,
    /// Clients of Wyoming.
    pub wyoming: WyomingSettings,
    /// What a session may take.
    pub sessions: SessionSettings,
    /// Models that are loaded when they are asked for.
    pub scaling: ScalingSettings,
    /// The pods that the nodes are.
    pub kubernetes: KubernetesSettings,
    /// The program that decodes.
    pub decoder: DecoderSettings,
    /// What is logged.
    pub log: LogSettings,
    /// What is counted.
    pub metrics: MetricsSettings,
    /// Where traces are shown.
    pub tracing: TracingSettings,
    /// What may be broken on purpose.
    pub chaos: ChaosSettings,
    /// How the node stops.
    pub shutdown: ShutdownSettings,
    /// What is served; empty for the default models that are prepared.
    #[serde(rename = "model")]
    pub models: Vec<ModelSettings>,
    /// Who may use the node; empty for everybody who reaches it.
    #[serde(rename = "tenant")]
    pub tenants: Vec<TenantSettings>,
}

/// `[listen]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSettings {
    /// The native protocol, HTTP, health and metrics.
    #[serde(with = "units::address")]
    pub http: Option<SocketAddr>,
    /// vosk-server's protocol.
    #[serde(with = "units::address")]
    pub vosk: Option<SocketAddr>,
    /// Asterisk's `AudioSocket`.
    #[serde(with = "units::address")]
    pub audiosocket: Option<SocketAddr>,
    /// Wyoming, of Home Assistant.
    #[serde(with = "units::address")]
    pub wyoming: Option<SocketAddr>,
    /// As `http`, over TLS.
    #[serde(with = "units::address")]
    pub https: Option<SocketAddr>,
    /// As `vosk`, over TLS.
    #[serde(with = "units::address")]
    pub vosk_tls: Option<SocketAddr>,
    /// As `audiosocket`, over TLS.
    #[serde(with = "units::address")]
    pub audiosocket_tls: Option<SocketAddr>,
    /// As `wyoming`, over TLS.
    #[serde(with = "units::address")]
    pub wyoming_tls: Option<SocketAddr>,
    /// The native protocol over QUIC, and WebTransport. UDP.
    #[serde(with = "units::address")]
    pub quic: Option<SocketAddr>,
    /// Connections of all kinds at once; more wait in the system's queue, and those over QUIC are refused.
    pub max_connections: u32,
    /// Of those, how many one address may have; 0 for all.
    pub max_connections_per_address: u32,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            http: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8_080))),
            // The port vosk-server's clients expect.
            vosk: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 2_700))),
            audiosocket: None,
            wyoming: None,
            https: None,
            vosk_tls: None,
            audiosocket_tls: None,
            wyoming_tls: None,
            // It takes a certificate, and there is none to begin with.
            quic: None,
            // Half of the usual limit of 1,024 descriptors; hosts and files take some too.
            max_connections: 512,
            // Behind a proxy all clients have one address.
            max_connections_per_address: 0,
        }
    }
}

impl ListenSettings {
    /// Each listener for clients, by its key.
    #[must_use]
    pub const fn all(&self) -> [(&'static str, Option<SocketAddr>); 9] {
        [
            ("listen.http", self.http),
            ("listen.vosk", self.vosk),
            ("listen.audiosocket", self.audiosocket),
            ("listen.wyoming", self.wyoming),
            ("listen.https", self.https),
            ("listen.vosk_tls", self.vosk_tls),
            ("listen.audiosocket_tls", self.audiosocket_tls),
            ("listen.wyoming_tls", self.wyoming_tls),
            ("listen.quic", self.quic),
        ]
    }

    /// Whether calls over `AudioSocket` are taken.
    #[must_use]
    pub const fn takes_calls(&self) -> bool {
        self.audiosocket.is_some() || self.audiosocket_tls.is_some()
    }
}

/// `[tls]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM file with the certificate and its chain; empty for none.
    pub cert_file: PathBuf,
    /// PEM file with its key; empty for none.
    pub key_file: PathBuf,
}

/// `[gateway]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewaySettings {
    /// How long a connection may take to say what it wants.
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    /// How often a silent peer is asked for a sign of life.
    #[serde(with = "units::duration")]
    pub ping_interval: Duration,
    /// How long a peer may be silent before it counts as gone.
    #[serde(with = "units::duration")]
    pub peer_timeout: Duration,
    /// How long one message may take to be written to a peer that doesn't read.
    #[serde(with = "units::duration")]
    pub write_timeout: Duration,
    /// The longest a vosk-server client waits for a reply before it gets the last partial.
    #[serde(with = "units::duration")]
    pub vosk_reply_timeout: Duration,
    /// The largest recording that is taken over HTTP.
    #[serde(with = "units::bytes")]
    pub max_recording: u64,
    /// How kaldi-gstreamer-server's clients are told of free decoders.
    pub gstreamer_workers: WorkersShown,
    /// How many hypotheses with their likelihood those clients get of a final; 0 for the best alone, without it.
    pub gstreamer_hypotheses: u8,
    /// Where reference texts of that protocol are kept; empty for nowhere.
    pub reference_dir: PathBuf,
    /// Origins of pages that may use the node, beside its own; `*` for any.
    pub allowed_origins: Vec<String>,
}

/// How kaldi-gstreamer-server's clients are told of free decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkersShown {
    /// One number, as the original does.
    Number,
    /// A list with one number for each model, as a fork of it does.
    Models,
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(20),
            peer_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            // Long enough for a decoder that is behind, short enough for a client in lock-step to keep its line alive.
            vosk_reply_timeout: Duration::from_secs(5),
            // Over two hours of 16 kHz speech.
            max_recording: 256 << 20,
            gstreamer_workers: WorkersShown::Number,
            gstreamer_hypotheses: 0,
            reference_dir: PathBuf::new(),
            allowed_origins: Vec::new(),
        }
    }
}

/// `[sessions]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// Source audio kept for a session that can't be trimmed yet.
    #[serde(with = "units::bytes")]
    pub journal: u64,
    /// How long a session outlives its connection.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// How long a new session may wait for a slot.
    #[serde(with = "units::duration")]
    pub queue_wait: Duration,
    /// How many may wait at once for one model.
    pub queue_length: u32,
    /// The least that a refused client is told to stay away.
    #[serde(with = "units::duration")]
    pub retry_after: Duration,
    /// How long a client may leave its finals unread once the journal is full.
    #[serde(with = "units::duration")]
    pub slow_reader: Duration,
    /// How long a session may go without audio; 0s for ever.
    #[serde(with = "units::duration")]
    pub idle: Duration,
    /// The most audio that a session may have; 0s for any.
    #[serde(with = "units::duration")]
    pub max_audio: Duration,
    /// Whether a session has a second decoder beside its first.
    pub standby: Standby,
    /// With `Idle`, slots of the cluster that are left to new sessions, for each model.
    pub standby_idle_slots: u32,
    /// Where segments are cut.
    pub cuts: CutSettings,
}

/// Whether a session has a second decoder beside its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standby {
    /// None has.
    Off,
    /// Each has, where a slot is idle.
    Warm,
    /// Each has, while more than some slots are idle.
    Idle,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            // Two minutes at 16 kHz: the longest segment and a linger's worth of audio behind it.
            journal: 4 << 20,
            linger: Duration::from_secs(60),
            queue_wait: Duration::from_secs(2),
            queue_length: 64,
            retry_after: Duration::from_secs(2),
            slow_reader: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            max_audio: Duration::ZERO,
            standby: Standby::Off,
            standby_idle_slots: 5,
            cuts: CutSettings::default(),
        }
    }
}

/// `[sessions.cuts]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CutSettings {
    /// From this length on a short pause ends a segment.
    #[serde(with = "units::duration")]
    pub pause_after: Duration,
    /// How long that pause is.
    #[serde(with = "units::duration")]
    pub pause: Duration,
    /// No segment is longer.
    #[serde(with = "units::duration")]
    pub max: Duration,
    /// A segment in which nothing was said for this long ends empty.
    #[serde(with = "units::duration")]
    pub no_speech: Duration,
}

impl Default for CutSettings {
    fn default() -> Self {
        let cuts = starling_protocol::lease::CutOptions::default();
        let of = |milliseconds: u32| Duration::from_millis(milliseconds.into());
        Self {
            pause_after: of(cuts.pause_after_ms),
            pause: of(cuts.pause_ms),
            max: of(cuts.max_ms),
            no_speech: of(cuts.no_speech_ms),
        }
    }
}

/// `[decoder]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderSettings {
    /// The program that hosts recognizers; empty for `starling-decoder` beside the running binary.
    pub program: PathBuf,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How a line looks.
    pub format: LogFormat,
    /// What is logged, as a level or as directives such as `info,starling_node=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Human, level: "info".to_owned() }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[metrics]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Also under the names that the older systems had.
    pub legacy_names: bool,
}

/// `[shutdown]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownSettings {
    /// How long open sessions may go on after the first signal.
    #[serde(with = "units::duration")]
    pub drain_deadline: Duration,
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self {
            // Below the 30 s after which orchestrators kill, with time left for the hosts to end.
            drain_deadline: Duration::from_secs(25),
        }
    }
}

/// One `[[model]]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The model's name in the catalogue.
    pub name: String,
    /// Decoder hosts: processes that share nothing. With two, one's death costs no waiting.
    #[serde(default = "ModelSettings::default_hosts")]
    pub hosts: u16,
    /// Streams that one host takes at once.
    #[serde(default = "ModelSettings::default_slots")]
    pub slots: u16,
    /// Decode threads of one host; 0 shares the machine's cores out among the model's hosts.
    #[serde(default)]
    pub threads: u16,
    /// Recognizers of one host that are opened and warmed before it counts as ready.
    #[serde(default = "ModelSettings::default_prewarm")]
    pub prewarm: u16,
    /// Audio after which a pooled recognizer is closed.
    #[serde(default = "ModelSettings::default_audio_budget", with = "units::duration")]
    pub recognizer_audio_budget: Duration,
    /// Resident memory past which a host is replaced.
    #[serde(default = "ModelSettings::default_memory_budget", with = "units::bytes")]
    pub memory_budget: u64,
    /// How long a host may take to load the model.
    #[serde(default = "ModelSettings::default_load_deadline", with = "units::duration")]
    pub load_deadline: Duration,
    /// Niceness of the hosts.
    #[serde(default = "ModelSettings::default_nice")]
    pub nice: i8,
    /// How its hosts become more and fewer.
    #[serde(default)]
    pub scaling: ModelScalingSettings,
}

impl ModelSettings {
    /// A model with every other setting at its default.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            hosts: Self::default_hosts(),
            slots: Self::default_slots(),
            threads: 0,
            prewarm: Self::default_prewarm(),
            recognizer_audio_budget: Self::default_audio_budget(),
            memory_budget: Self::default_memory_budget(),
            load_deadline: Self::default_load_deadline(),
            nice: Self::default_nice(),
            scaling: ModelScalingSettings::default(),
        }
    }

    /// One that nobody listed: loaded for whoever asks for it, and gone when nobody does.
    #[must_use]
    pub fn on_demand(name: &str) -> Self {
        let scaling =
            ModelScalingSettings { enabled: true, idle_target: 0, ..ModelScalingSettings::default() };
        Self { hosts: 0, scaling, ..Self::named(name) }
    }

    const fn default_hosts() -> u16 {
        2
    }

    const fn default_slots() -> u16 {
        4
    }

    /// A recognizer's first use costs about a second of CPU; two are warm soon after a crash, the rest follow as they
    /// are used.
    const fn default_prewarm() -> u16 {
        2
    }

    /// A Vosk recognizer's composition cache has grown by some 300 MB by then.
    const fn default_audio_budget() -> Duration {
        Duration::from_secs(600)
    }

    /// The Korean model with four well-used recognizers stays under it.
    const fn default_memory_budget() -> u64 {
        2 << 30
    }

    /// Thirty times what the small models take, for larger ones on slow disks.
    const fn default_load_deadline() -> Duration {
        Duration::from_secs(60)
    }

    const fn default_nice() -> i8 {
        5
    }
}

#[cfg(test)]
mod tests;
