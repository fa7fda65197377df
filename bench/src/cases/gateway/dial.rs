//! Connections to a node, cheap enough to have ten thousand of: small buffers, and an address on loopback for every few, since
//! one address has too few ports for those that are open and those that were just closed.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use starling_protocol::native::stream::NATIVE_ALPN;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// A node that has a core for itself answers in milliseconds; this is far beyond.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The library's own 128 KiB for each connection would be more than a gigabyte.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Source addresses.
const ADDRESSES: u32 = 200;

/// QUIC's sockets, each with as many connections.
const ENDPOINTS: usize = 4;

/// Beyond what any case takes.
const QUIC_IDLE: Duration = Duration::from_secs(600);

/// A QUIC connection with one stream.
pub(super) struct QuicStream {
    pub(super) connection: quinn::Connection,
    pub(super) sending: SendStream,
    pub(super) receiving: RecvStream,
}

/// Whoever calls a node.
pub(super) struct Dial {
    pub(super) http: SocketAddr,
    pub(super) vosk: SocketAddr,
    quic: SocketAddr,
    endpoints: Vec<Endpoint>,
    dialled: AtomicU32,
}

impl Dial {
    /// Of the node with these addresses, whose certificate is in this file.
    pub(super) fn new(http: SocketAddr, vosk: SocketAddr, quic: SocketAddr, cert: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(cert).context("reading the certificate")? {
            roots.add(certificate?)?;
        }
        let mut tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])?
                .with_root_certificates(roots)
                .with_no_client_auth();
        tls.alpn_protocols = vec![NATIVE_ALPN.to_vec()];
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(IdleTimeout::try_from(QUIC_IDLE)?));
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::new(transport));
        let endpoints = (0..ENDPOINTS).map(|_| {
            let mut endpoint = Endpoint::client((Ipv4Addr::LOCALHOST, 0).into())?;
            endpoint.set_default_client_config(config.clone());
            anyhow::Ok(endpoint)
        });
        let endpoints = endpoints.collect::<Result<_>>().context("opening a socket for QUIC")?;
        Ok(Self { http, vosk, quic, endpoints, dialled: AtomicU32::new(0) })
    }

    pub(super) async fn tcp(&self, to: SocketAddr) -> Result<TcpStream> {
        let number = self.dialled.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
        let from = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number);
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into()).with_context(|| format!("binding to {from}"))?;
        let stream = timeout(PATIENCE, socket.connect(to)).await.context("no connection in time")??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    pub(super) async fn websocket(&self, to: SocketAddr, path: &str) -> Result<WebSocketStream<TcpStream>> {
        let stream = self.tcp(to).await?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let upgraded = client_async_with_config(format!("ws://{to}{path}"), stream, Some(config));
        let (socket, _) = timeout(PATIENCE, upgraded).await.context("no upgrade in time")??;
        Ok(socket)
    }

    pub(super) async fn quic(&self) -> Result<QuicStream> {
        let number = self.dialled.fetch_add(1, Ordering::Relaxed) as usize % self.endpoints.len();
        let connecting = self.endpoints[number].connect(self.quic, "127.0.0.1")?;
        let connection = timeout(PATIENCE, connecting).await.context("no handshake in time")??;
        let (sending, receiving) = connection.open_bi().await?;
        Ok(QuicStream { connection, sending, receiving })
    }
}
