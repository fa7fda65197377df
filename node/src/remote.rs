//! How a command asks something of a running node, over HTTP.
//!
//! Owns: the connection and its deadline. Must never: understand an answer.

use std::time::Duration;

use anyhow::anyhow;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::exit::{Exit, Failure};
use crate::keys::KeyArguments;

/// Thousands of nodes have room in it.
const MOST_BYTES: usize = 8 << 20;

/// What a node said.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Its body, if it is what was wanted.
    pub(crate) fn fine(self) -> anyhow::Result<Vec<u8>> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        Err(anyhow!("it answered {}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }
}

/// Host and port of a server's address, in any form that other commands take.
pub(crate) fn authority(server: &str) -> anyhow::Result<String> {
    let allowed = || anyhow!("--server {server:?} is no address; it must be such as http://127.0.0.1:8080");
    let uri: Uri = server.parse().map_err(|_| allowed())?;
    match uri.scheme_str() {
        None | Some("http" | "ws") => {}
        Some(scheme) => {
            return Err(anyhow!("--server {server:?}: {scheme} is not spoken; it must begin with http://"));
        }
    }
    let authority = uri.authority().ok_or_else(allowed)?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

/// Asks once.
pub(crate) async fn ask(
    authority: &str,
    key: &KeyArguments,
    method: Method,
    path: &str,
    patience: Duration,
) -> anyhow::Result<Answer> {
    let answer = timeout(patience, exchange(authority, key, method, path)).await;
    answer.unwrap_or_else(|_| Err(anyhow!("no answer within {patience:?}")))
}

async fn exchange(authority: &str, key: &KeyArguments, method: Method, path: &str) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    if let Some(key) = &key.api_key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let request = request.body(Body::empty())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = to_bytes(Body::new(response.into_body()), MOST_BYTES).await?;
    connection.abort();
    Ok(Answer { status, body: body.to_vec() })
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    // Whoever read it may have gone: `status --watch | head`.
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::new(Exit::Os, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_as_for_other_commands() {
        for (server, expected) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("ws://node-1:9000/", "node-1:9000"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("node-1:8080", "node-1:8080"),
            ("http://node-1", "node-1:80"),
        ] {
            assert_eq!(authority(server).expect(server), expected);
        }
        for server in ["https://node-1", "", "/v1/cluster", "http://"] {
            assert!(authority(server).expect_err(server).to_string().contains("must be"), "{server}");
        }
    }
}
