//! How a command asks something of a running node, over HTTP.
//!
//! Owns: the connection, whom it trusts, and its deadline. Must never: understand an answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use starling_client::tls::Trust;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::exit::{Exit, Failure};
use crate::keys::KeyArguments;
use crate::terminal::shortened;

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
        Err(anyhow!("it answered {}: {}", self.status, shortened(&String::from_utf8_lossy(&self.body))))
    }
}

/// Whom to trust, for servers over TLS.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArguments {
    /// PEM file with the certificates to trust over TLS and QUIC, and no others [default: those that this machine trusts]
    #[arg(long, value_name = "FILE", env = "STARLING_CA")]
    pub ca: Option<PathBuf>,
}

/// A node that is asked.
#[derive(Clone)]
pub(crate) struct Remote {
    authority: String,
    key: Option<String>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Remote {
    /// The server at this address, in any form that other commands take.
    pub(crate) fn new(server: &str, key: &KeyArguments, trust: &TrustArguments) -> anyhow::Result<Self> {
        let (authority, host) = authority(server)?;
        let tls = match host {
            Some(host) => {
                let trust = trust.ca.as_deref().map_or_else(Trust::platform, Trust::file);
                let config = trust.context("no server can be trusted over TLS")?.for_http()?;
                Some((TlsConnector::from(Arc::new(config)), ServerName::try_from(host)?))
            }
            None => None,
        };
        Ok(Self { authority, key: key.api_key.clone(), tls })
    }

    /// Its host and port.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Asks once.
    pub(crate) async fn ask(&self, method: Method, path: &str, patience: Duration) -> anyhow::Result<Answer> {
        let answer = timeout(patience, self.exchange(method, path)).await;
        answer.unwrap_or_else(|_| Err(anyhow!("no answer within {patience:?}")))
    }

    async fn exchange(&self, method: Method, path: &str) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(&self.authority).await?;
        match &self.tls {
            Some((connector, name)) => {
                self.over(connector.connect(name.clone(), stream).await?, method, path).await
            }
            None => self.over(stream, method, path).await,
        }
    }

    async fn over<S>(&self, stream: S, method: Method, path: &str) -> anyhow::Result<Answer>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.authority);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let request = request.body(Body::empty())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = to_bytes(Body::new(response.into_body()), MOST_BYTES).await?;
        connection.abort();
        Ok(Answer { status, body: body.to_vec() })
    }
}

/// Host and port of a server's address, and the host's name if it is asked over TLS.
fn authority(server: &str) -> anyhow::Result<(String, Option<String>)> {
    let allowed = || anyhow!("--server {server:?} is no address; it must be such as http://127.0.0.1:8080");
    let uri: Uri = server.parse().map_err(|_| allowed())?;
    let tls = match uri.scheme_str() {
        None | Some("http" | "ws") => false,
        Some("https" | "wss") => true,
        Some(scheme) => {
            return Err(anyhow!(
                "--server {server:?}: this is asked over HTTP and not over {scheme}; it must begin with http:// or https://"
            ));
        }
    };
    let authority = uri.authority().ok_or_else(allowed)?;
    let host = authority.host();
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let name = host.trim_start_matches('[').trim_end_matches(']');
    Ok((format!("{host}:{port}"), tls.then(|| name.to_owned())))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    // Whoever read it may have gone: `status --watch | head`.
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| Failure::new(Exit::Os, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_refusal_as_much_is_shown_as_can_be_read() {
        let refused = |body: String| {
            let answer = Answer { status: StatusCode::BAD_GATEWAY, body: body.into_bytes() };
            Failure::new(Exit::Unavailable, answer.fine().expect_err("no yes")).to_string()
        };
        assert_eq!(refused("no\nway".into()), "it answered 502 Bad Gateway: no\nway");
        assert_eq!(refused("\x1b[2J".into()), "it answered 502 Bad Gateway: \u{fffd}[2J");
        assert!(refused("한".repeat(100_000)).len() < 7_000);
    }

    #[test]
    fn a_server_is_written_as_for_other_commands() {
        for (server, expected) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("ws://node-1:9000/", "node-1:9000"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("node-1:8080", "node-1:8080"),
            ("http://node-1", "node-1:80"),
        ] {
            assert_eq!(authority(server).expect(server), (expected.to_owned(), None));
        }
        for (server, expected, name) in
            [("https://node-1", "node-1:443", "node-1"), ("wss://[::1]:8443/", "[::1]:8443", "::1")]
        {
            let (authority, host) = authority(server).expect(server);
            assert_eq!((authority.as_str(), host.as_deref()), (expected, Some(name)));
        }
        for server in ["quic://node-1:8443", "", "/v1/cluster", "http://"] {
            assert!(authority(server).expect_err(server).to_string().contains("must be"), "{server}");
        }
    }
}
