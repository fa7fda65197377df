//! One request to a node, with nothing kept open.
//!
//! A node without keys takes those who look after it from its own machine alone (`docs/page.md`), which for a node in a network
//! namespace is that namespace.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// A node that is paused takes connections and never answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// An operator's key, for clusters that ask for one.
const KEY: &str = "STARLING_API_KEY";

/// The key that there is to be shown.
pub(crate) fn key() -> Option<String> {
    std::env::var(KEY).ok().filter(|key| !key.is_empty())
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

impl Door {
    async fn connect(&self) -> Result<TcpStream> {
        Ok(match self {
            Self::Address(address) => TcpStream::connect(address).await?,
            Self::Within { namespace, address } => socket_within(namespace)?.connect(*address).await?,
        })
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

/// What `/v1/cluster` says, as far as it is asked here.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Seen>,
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

/// Status and body.
pub(crate) async fn ask(door: &Door, method: &str, path: &str) -> Result<(u16, String)> {
    let answer = timeout(PATIENCE, exchange(door, method, path)).await;
    answer.with_context(|| format!("{door} does not answer within {PATIENCE:?}"))?
}

pub(crate) async fn cluster(door: &Door) -> Result<Cluster> {
    let (status, body) = ask(door, "GET", "/v1/cluster").await?;
    anyhow::ensure!(status == 200, "/v1/cluster of {door} answered {status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("/v1/cluster of {door}"))
}

async fn exchange(door: &Door, method: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = door.connect().await?;
    let host = stream.peer_addr()?;
    let key = key().map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"));
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
