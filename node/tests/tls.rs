//! TLS for clients, over real sockets: the same behind it as without, and no harm from those who don't speak it.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use futures_util::StreamExt;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use starling_node::tls::{Certificate, CertificateFiles, self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;

fn made(folder: &Path) -> CertificateFiles {
    self_signed(vec!["localhost".to_owned()], 14, folder).expect("made").files
}

/// Trusts this certificate and no other.
fn connector(cert: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).expect("a certificate")).expect("is taken");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("there are");
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

async fn connected(address: SocketAddr, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    in_time(connector.connect(ServerName::try_from("localhost").expect("a name"), stream)).await
}

async fn asked(mut stream: TlsStream<TcpStream>, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    // Without a goodbye of TLS's own the end would be an error.
    in_time(stream.read_to_end(&mut answer)).await.expect("answered");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn behind_tls_is_what_is_there_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = made(folder.path());
    let certificate = Certificate::load(files.clone()).expect("fine");
    let mut node = FakeNode::over_tls(certificate.acceptor().expect("fine")).await;
    let connector = connector(&files.cert);
    let stream = connected(node.http, &connector).await.expect("greeted");
    assert!(asked(stream, "/v1/models").await.starts_with("HTTP/1.1 200"));
    let stream = connected(node.http, &connector).await.expect("greeted");
    let url = "wss://localhost/v1/stream";
    let (mut socket, _) = in_time(tokio_tungstenite::client_async(url, stream)).await.expect("upgraded");
    futures_util::SinkExt::send(&mut socket, Message::text(r#"{"type":"hello"}"#)).await.expect("sent");
    let ready =
        in_time(socket.next()).await.expect("an answer").expect("a message").into_text().expect("text");
    assert!(ready.contains(r#""type":"ready""#), "{ready}");
    node.session().await;
}

#[tokio::test]
async fn protocols_over_bare_tcp_are_behind_it_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = made(folder.path());
    let certificate = Certificate::load(files.clone()).expect("fine");
    let node = FakeNode::over_tls(certificate.acceptor().expect("fine")).await;
    let connector = connector(&files.cert);
    let mut wyoming = connected(node.wyoming, &connector).await.expect("greeted");
    wyoming.write_all(b"{\"type\":\"ping\"}\n").await.expect("sent");
    let mut answer = [0; 13];
    in_time(wyoming.read_exact(&mut answer)).await.expect("answered");
    assert_eq!(answer, *b"{\"data_length");
    let mut audiosocket = connected(node.audiosocket, &connector).await.expect("greeted");
    audiosocket.write_all(&[0x10, 0, 0]).await.expect("sent");
    let mut answer = Vec::new();
    // Without a goodbye of TLS's own the end would be an error.
    in_time(audiosocket.read_to_end(&mut answer)).await.expect("answered");
    assert_eq!(answer, [0, 0, 0], "no call begins so");
}

#[tokio::test]
async fn who_does_not_speak_it_or_says_nothing_harms_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = made(folder.path());
    let certificate = Certificate::load(files.clone()).expect("fine");
    let node = FakeNode::over_tls(certificate.acceptor().expect("fine")).await;
    let mut plain = TcpStream::connect(node.http).await.expect("connected");
    plain.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    // An alert and the end, or a reset: no answer of the node's in either.
    let _ = in_time(plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let silent = TcpStream::connect(node.http).await.expect("connected");
    let stranger = connector(&made(&folder.path().join("other")).cert);
    assert!(connected(node.http, &stranger).await.is_err(), "another certificate is trusted");
    let stream = connected(node.http, &connector(&files.cert)).await.expect("greeted");
    assert!(asked(stream, "/healthz").await.starts_with("HTTP/1.1 200"));
    drop(silent);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_who_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = made(folder.path());
    let certificate = Certificate::load(files.clone()).expect("fine");
    let node = FakeNode::over_tls(certificate.acceptor().expect("fine")).await;
    let old = connector(&files.cert);
    let open = connected(node.http, &old).await.expect("greeted");
    made(folder.path());
    let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let file = std::fs::OpenOptions::new().append(true).open(&files.cert).expect("opens");
    file.set_modified(later).expect("is set");
    assert!(certificate.refresh().expect("fine"));
    assert!(connected(node.http, &old).await.is_err());
    let new = connected(node.http, &connector(&files.cert)).await.expect("greeted");
    assert!(asked(new, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(asked(open, "/healthz").await.starts_with("HTTP/1.1 200"), "who was there stays");
}
