//! One request to a node, with nothing kept open.
//!
//! A node without keys takes those who look after it from its own machine alone (`docs/page.md`), which for a node in a network
//! namespace is that namespace.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;
use starling_client::tls::Trust;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// A node that is paused takes connections and never answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `/v1/cluster` says, as far as it is asked here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Seen>,
    #[serde(default)]
    pub(crate) sessions: Vec<Session>,
}

/// How a node is seen.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) generation: u64,
    pub(crate) state: String,
    pub(crate) models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Model {
    pub(crate) slots: Slots,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Slots {
    pub(crate) busy: u64,
    pub(crate) idle: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Session {
    pub(crate) session: String,
    pub(crate) owner: String,
    pub(crate) copies: Vec<String>,
    pub(crate) durable: bool,
    pub(crate) connected: bool,
    pub(crate) decoder: Option<String>,
}

/// Where a node is asked and told what an operator may.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// At an address that this process reaches.
    Address(String),
    /// Within a network namespace.
    Within { namespace: String, address: SocketAddr },
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::Within { namespace, address } => write!(f, "{address} of {namespace}"),
        }
    }
}

/// A socket is of the namespace that its thread is in when it is made, and stays so wherever it is used.
fn socket_within(namespace: &str) -> Result<TcpSocket> {
    let make = || -> Result<TcpSocket> {
        let space = File::open(format!("/run/netns/{namespace}"))?;
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(TcpSocket::new_v4()?)
    };
    let made = thread::scope(|scope| scope.spawn(make).join());
    let made = made.map_err(|_| anyhow::anyhow!("the thread for a socket has panicked"))?;
    made.with_context(|| format!("making a socket in {namespace}"))
}

/// What nodes want to see of whoever asks.
#[derive(Clone, Default)]
pub(crate) struct Access {
    key: Option<String>,
    /// Whom to trust, at addresses that begin with `https://`.
    tls: Option<TlsConnector>,
}

impl Access {
    /// `trust_file` has the certificates to trust, and no others; without it those that this machine trusts are.
    pub(crate) fn new(key: Option<String>, tls: bool, trust_file: Option<&Path>) -> Result<Self> {
        let connector = || {
            let trust = trust_file.map_or_else(Trust::platform, Trust::file);
            let config = trust.context("no node can be trusted over TLS")?.for_http()?;
            anyhow::Ok(TlsConnector::from(Arc::new(config)))
        };
        Ok(Self { key, tls: tls.then(connector).transpose()? })
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Status and body.
    pub(crate) async fn ask(&self, door: &Door, method: &str, path: &str) -> Result<(u16, String)> {
        let answer = timeout(PATIENCE, self.exchange(door, method, path)).await;
        answer.with_context(|| format!("{door} does not answer within {PATIENCE:?}"))?
    }

    pub(crate) async fn cluster(&self, door: &Door) -> Result<Cluster> {
        let (status, body) = self.ask(door, "GET", "/v1/cluster").await?;
        let hint = if matches!(status, 401 | 403) { "; it takes an operator's key" } else { "" };
        anyhow::ensure!(status == 200, "/v1/cluster of {door} answered {status}{hint}");
        serde_json::from_str(&body).with_context(|| format!("/v1/cluster of {door}"))
    }

    async fn exchange(&self, door: &Door, method: &str, path: &str) -> Result<(u16, String)> {
        let address = match door {
            Door::Address(address) => address,
            Door::Within { namespace, address } => {
                let stream = socket_within(namespace)?.connect(*address).await?;
                return self.over(stream, &address.to_string(), method, path).await;
            }
        };
        let Some(authority) = address.strip_prefix("https://") else {
            let authority = address.strip_prefix("http://").unwrap_or(address);
            return self.over(TcpStream::connect(authority).await?, authority, method, path).await;
        };
        let connector = self.tls.as_ref().context("nothing is trusted over TLS")?;
        let (host, _) = authority.rsplit_once(':').context("an address is HOST:PORT")?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = connector.connect(name, TcpStream::connect(authority).await?).await?;
        self.over(stream, authority, method, path).await
    }

    async fn over<S>(&self, mut stream: S, host: &str, method: &str, path: &str) -> Result<(u16, String)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let key =
            self.key.as_ref().map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{key}Connection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.context("no HTTP status")?, body.to_owned()))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key is for nobody's eyes.
        f.debug_struct("Access").field("key", &self.key.is_some()).finish_non_exhaustive()
    }
}

/// Asks a node that was started here, which wants to see nothing.
pub(crate) async fn ask(address: &str, method: &str, path: &str) -> Result<(u16, String)> {
    Access::default().ask(&Door::Address(address.to_owned()), method, path).await
}
