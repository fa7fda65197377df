//! What a client is told: servers, deadlines, and what a session is to be.

use std::path::PathBuf;
use std::time::Duration;

use starling_protocol::SessionId;
use starling_protocol::lease::TraceContext;
use starling_protocol::native::{ApiKey, AudioFormat, Hello, SessionOptions};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::driver;
use crate::error::{ConfigError, OpenError};
use crate::machine::Settings;
use crate::session::Session;
use crate::target::Target;
use crate::tls::Trust;

/// Where the servers are and how long to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Servers, tried in this order: `ws://HOST:PORT` or `wss://HOST:PORT`, with `/v1/stream` as the path when none is given,
    /// or `quic://HOST:PORT` (with the feature `quic`). Nodes that a server names over `ws://` are asked besides to go on with a
    /// session; as that is in clear, over TLS and QUIC only these are asked: name several nodes, or a name that leads to them.
    pub servers: Vec<String>,
    /// PEM file with the authorities or certificates to trust with `wss://` and `quic://`, and no others; `None` for those that
    /// the machine trusts. Read when the client is made.
    pub ca_file: Option<PathBuf>,
    /// Shown to each server, and to the nodes that they name; `None` where none is asked for.
    pub api_key: Option<ApiKey>,
    /// How long [`Client::open`] tries before it says that no server answers. Zero: each server once.
    pub open_deadline: Duration,
    /// Whether [`Client::open`] waits, within its deadline, when every server is busy.
    pub wait_when_busy: bool,
    /// How long a lost connection is tried to be replaced before the session is given up.
    pub give_up: Duration,
    /// How long one attempt may take, from the first packet to `ready`.
    pub attempt_timeout: Duration,
    /// A connection on which nothing was heard for this long is lost; over QUIC, which hears more, one of 3 s at most. Half of it
    /// in silence sends a ping.
    pub liveness: Duration,
    /// Upper end of the first delay between attempts; doubles each time. Delays are drawn from zero to the upper end.
    pub backoff_first: Duration,
    /// What the upper end grows to.
    pub backoff_most: Duration,
    /// Audio that is kept to be sent again: what servers may lose without loss of text.
    pub ring: Duration,
}

impl ClientConfig {
    /// A configuration with these servers and everything else at its default.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            ca_file: None,
            api_key: None,
            // A node that is being restarted is back within this.
            open_deadline: Duration::from_secs(5),
            wait_when_busy: false,
            // As long as a server keeps a session for a client that has gone.
            give_up: Duration::from_secs(60),
            attempt_timeout: Duration::from_secs(5),
            // A server that takes no audio for want of a decoder answers no pings either: longer than a decoder takes to
            // be replaced, short enough that the ring is not full before the next attempt.
            liveness: Duration::from_secs(15),
            // A local restart is met at once, a crowd of clients spreads over the second and third attempts.
            backoff_first: Duration::from_millis(100),
            backoff_most: Duration::from_secs(3),
            // Four times the longest segment: the audio since the last final fits with room for a slow server.
            ring: Duration::from_secs(60),
        }
    }
}

/// What a session is to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SessionConfig {
    /// A model by name; `None` for the server's default.
    pub model: Option<String>,
    /// The language that is spoken, by its tag, for which the server chooses a model; `None` for the model's own.
    pub language: Option<String>,
    /// How the audio is encoded.
    pub format: AudioFormat,
    /// What is wanted.
    pub options: SessionOptions,
    /// The session's id; `None` for a random one.
    pub session: Option<SessionId>,
    /// The trace that the session is a part of, as W3C Trace Context writes it.
    pub trace: Option<TraceContext>,
}

/// Opens sessions. Cheap to clone; holds no connection.
#[derive(Debug, Clone)]
pub struct Client {
    config: ClientConfig,
    targets: Vec<Target>,
    trust: Option<Trust>,
}

impl Client {
    /// A client for these servers. Nothing is connected yet.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        if config.servers.is_empty() {
            return Err(ConfigError::NoServers);
        }
        if config.api_key.as_ref().is_some_and(|key| HeaderValue::from_str(key.expose()).is_err()) {
            return Err(ConfigError::ApiKey);
        }
        for (field, value) in [
            ("attempt_timeout", config.attempt_timeout),
            ("liveness", config.liveness),
            ("backoff_first", config.backoff_first),
            ("backoff_most", config.backoff_most),
            ("ring", config.ring),
        ] {
            if value.is_zero() {
                return Err(ConfigError::Zero { field });
            }
        }
        let targets = config.servers.iter().enumerate().map(|(index, value)| {
            let bad = || ConfigError::Server { index, value: value.clone() };
            Target::parse(value).ok_or_else(bad)
        });
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let trust = match &config.ca_file {
            Some(path) => Some(Trust::file(path)?),
            None if targets.iter().any(Target::needs_trust) => Some(Trust::platform()?),
            None => None,
        };
        Ok(Self { config, targets, trust })
    }

    /// Opens a session and waits for the server's `ready`. Must be called within a Tokio runtime, which also runs the
    /// session's connection from then on.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, session: SessionConfig) -> Result<Session, OpenError> {
        let mut hello = Hello::new(session.session.unwrap_or_else(SessionId::random));
        hello.model = session.model;
        hello.language = session.language;
        hello.format = session.format;
        hello.options = session.options;
        if let Some(TraceContext { traceparent, tracestate }) = session.trace {
            hello.traceparent = Some(traceparent);
            hello.tracestate = Some(tracestate).filter(|state| !state.is_empty());
        }
        let settings = Settings {
            servers: self.targets.iter().map(|target| target.place().to_string()).collect(),
            ring_frames: frames(self.config.ring, hello.format.sample_rate),
            open_deadline: self.config.open_deadline,
            wait_when_busy: self.config.wait_when_busy,
            give_up: self.config.give_up,
            attempt_timeout: self.config.attempt_timeout,
            liveness: self.config.liveness,
            backoff_first: self.config.backoff_first,
            backoff_most: self.config.backoff_most,
        };
        let (key, trust) = (self.config.api_key.clone(), self.trust.clone());
        driver::open(self.targets.clone(), key, trust, settings, hello).await
    }
}

fn frames(duration: Duration, sample_rate: u32) -> u64 {
    let frames = duration.as_millis() * u128::from(sample_rate) / 1_000;
    u64::try_from(frames).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        for server in ["", "localhost:2800", "https://a", "http://a", "ws://"] {
            let error = Client::new(ClientConfig::new([server])).expect_err("must be refused");
            assert_eq!(error, ConfigError::Server { index: 0, value: server.to_owned() });
        }
        let error = Client::new(ClientConfig::new(Vec::<String>::new())).expect_err("must be refused");
        assert_eq!(error, ConfigError::NoServers);
    }

    #[test]
    fn a_minute_is_kept_at_any_rate() {
        let ring = ClientConfig::new(["ws://a"]).ring;
        for rate in [8_000, 44_100, 48_000] {
            assert_eq!(frames(ring, rate), 60 * u64::from(rate));
        }
    }

    #[test]
    fn zero_durations_are_named() {
        let mut config = ClientConfig::new(["ws://a"]);
        config.liveness = Duration::ZERO;
        let error = Client::new(config).expect_err("must be refused");
        assert_eq!(error, ConfigError::Zero { field: "liveness" });
    }
}
