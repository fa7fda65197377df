//! One request to a node, with nothing kept open.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

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

/// Status and body.
pub(crate) async fn ask(address: &str, method: &str, path: &str) -> Result<(u16, String)> {
    let answer = timeout(PATIENCE, exchange(address, method, path)).await;
    answer.with_context(|| format!("{address} does not answer within {PATIENCE:?}"))?
}

pub(crate) async fn cluster(address: &str) -> Result<Cluster> {
    let (status, body) = ask(address, "GET", "/v1/cluster").await?;
    anyhow::ensure!(status == 200, "/v1/cluster of {address} answered {status}");
    serde_json::from_str(&body).with_context(|| format!("/v1/cluster of {address}"))
}

async fn exchange(address: &str, method: &str, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}
