//! The link to peers over QUIC: one mutually authenticated connection for each pair of nodes.
//!
//! Owns: the endpoint, the connections, who dials when. Must never: serve a peer whose certificate names no node, or keep
//! two connections with one.
//!
//! Either side dials when it needs a stream and there is no connection. When both do at once, the connection that the node
//! with the lower name dialled stays; a node that dials again has lost its old one, and the new one stays.

mod connection;
mod settings;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use quinn::crypto::rustls::NoInitialCipherSuite;
use quinn::{AsyncUdpSocket, Connection, ConnectionError, Endpoint, EndpointConfig, Runtime, TokioRuntime};
use rustls::pki_types::CertificateDer;
use starling_core::Timestamp;
use starling_protocol::NodeName;
use starling_protocol::data::{ConnectionClose, DATA_ALPN};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tracing::{debug, info};

use super::{IncomingStream, IncomingStreams, LinkError, PeerLink, PeerStream};
use crate::clock::Clock;
use crate::trust::{self, NAME_SUFFIX, Trust, TrustError};

/// A handshake takes one round trip and a signature on each side. Nodes that need so much longer are no use to a caller.
const HANDSHAKE: Duration = Duration::from_secs(1);

/// Handshakes of peers at once. More than a cluster has nodes, and few enough to cost no memory.
const HANDSHAKES_AT_ONCE: usize = 64;

/// Streams of peers that wait to be looked at. Past it their connections wait.
const WAITING_STREAMS: usize = 64;

/// After a dial that failed the next waits so long, doubling up to the longest: a dead peer costs a caller nothing
/// meanwhile, and one that comes back is found within two seconds, or at once if it dials itself.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);

/// See [`FIRST_BACKOFF`].
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Opening a stream is tried again when the connection was given up for another one meanwhile.
const TRIES: usize = 3;

/// Reads who a certificate was made for; `None` when it names no node.
pub type PeerName = dyn Fn(&CertificateDer<'_>) -> Option<NodeName> + Send + Sync;

/// Says where a peer listens, as last heard.
pub type AddressOf = dyn Fn(&NodeName) -> Option<SocketAddr> + Send + Sync;

/// How nodes prove who they are.
pub struct QuinnTrust {
    /// For those who dial this node. Must ask for their certificates.
    pub server: rustls::ServerConfig,
    /// For those whom this node dials. Must show this node's certificate.
    pub client: rustls::ClientConfig,
    /// The name that a node's certificate carries.
    pub certificate_name: fn(&NodeName) -> String,
    /// Reads it back.
    pub peer_name: Box<PeerName>,
}

impl QuinnTrust {
    /// With a node's certificates.
    ///
    /// # Errors
    /// They can't be used.
    pub fn of(trust: &Trust) -> Result<Self, TrustError> {
        Ok(Self {
            server: trust.server_config(DATA_ALPN)?,
            client: trust.client_config(DATA_ALPN)?,
            certificate_name: |name| format!("{name}{NAME_SUFFIX}"),
            peer_name: Box::new(|certificate| trust::peer_name(certificate).ok()),
        })
    }
}

/// A socket as quinn uses one.
pub struct QuinnSocket(pub Arc<dyn AsyncUdpSocket>);

impl QuinnSocket {
    /// One of the system's.
    ///
    /// # Errors
    /// It can't be used without being waited for.
    pub fn of(socket: UdpSocket) -> io::Result<Self> {
        Ok(Self(TokioRuntime.wrap_udp_socket(socket)?))
    }
}

/// What a link is started with.
pub struct QuinnLinkArguments {
    /// This node.
    pub name: NodeName,
    /// Where it listens, and dials from.
    pub socket: QuinnSocket,
    /// How nodes prove who they are.
    pub trust: QuinnTrust,
    /// Where peers listen.
    pub address_of: Box<AddressOf>,
}

/// The link can't be started. Nothing runs.
#[derive(Debug, Error)]
pub enum QuinnLinkError {
    /// The TLS settings are not good for QUIC.
    #[error("the TLS settings have no cipher suite that QUIC can begin with")]
    Tls(#[from] NoInitialCipherSuite),
    /// The socket can't be used.
    #[error("the data plane's socket cannot be used: {0}")]
    Socket(#[from] io::Error),
}

/// Connections to peers over QUIC. Runs until it is stopped.
#[derive(Clone)]
pub struct QuinnLink {
    inner: Arc<Inner>,
}

struct Inner {
    name: NodeName,
    endpoint: Endpoint,
    client: quinn::ClientConfig,
    certificate_name: fn(&NodeName) -> String,
    peer_name: Box<PeerName>,
    address_of: Box<AddressOf>,
    peers: Mutex<HashMap<NodeName, Peer>>,
    incoming: mpsc::Sender<IncomingStream>,
    clock: Clock,
}

#[derive(Default)]
struct Peer {
    connection: Option<Registered>,
    /// Held by whoever dials.
    dialling: Arc<tokio::sync::Mutex<()>>,
    failures: u32,
    not_before: Timestamp,
}

struct Registered {
    connection: Connection,
    /// Whether this node dialled.
    ours: bool,
}

impl QuinnLink {
    /// Starts listening. Streams that peers open come out of the receiver; those that this node opens, by [`PeerLink::open`].
    ///
    /// # Errors
    /// See [`QuinnLinkError`].
    pub fn start(arguments: QuinnLinkArguments) -> Result<(Self, IncomingStreams), QuinnLinkError> {
        let QuinnLinkArguments { name, socket, trust, address_of } = arguments;
        let server = settings::server(trust.server)?;
        let client = settings::client(trust.client)?;
        let QuinnSocket(socket) = socket;
        let config = EndpointConfig::default();
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime)?;
        let (incoming, streams) = mpsc::channel(WAITING_STREAMS);
        let inner = Inner {
            name,
            endpoint: endpoint.clone(),
            client,
            certificate_name: trust.certificate_name,
            peer_name: trust.peer_name,
            address_of,
            peers: Mutex::default(),
            incoming,
            clock: Clock::start(),
        };
        let link = Self { inner: Arc::new(inner) };
        tokio::spawn(accept(endpoint, link.clone()));
        Ok((link, streams))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// Connections there are, those that are being closed counted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.endpoint.open_connections()
    }

    /// Sees to it that there is a connection, so that the first who needs one does not wait for it.
    ///
    /// # Errors
    /// The peer has no address, or can't be reached.
    pub async fn connect(&self, node: &NodeName) -> Result<(), LinkError> {
        self.inner.connected(node).await.map(drop)
    }

    /// Closes every connection and stops listening.
    pub async fn stop(&self) {
        let close = ConnectionClose::Stopping;
        self.inner.endpoint.close(close.code().into(), close.reason().as_bytes());
        // Peers that don't hear it notice the silence.
        let _ = tokio::time::timeout(HANDSHAKE, self.inner.endpoint.wait_idle()).await;
    }
}

impl PeerLink for QuinnLink {
    fn open(&self, node: &NodeName) -> BoxFuture<'static, Result<PeerStream, LinkError>> {
        let (inner, node) = (Arc::clone(&self.inner), node.clone());
        Box::pin(async move {
            let mut last = None;
            for _ in 0..TRIES {
                let connection = inner.connected(&node).await?;
                match connection.open_bi().await {
                    Ok((writer, reader)) => {
                        return Ok(PeerStream { reader: Box::new(reader), writer: Box::new(writer) });
                    }
                    Err(error) => last = Some(error),
                }
            }
            Err(unreachable(&node, last.map_or_else(String::new, |error| error.to_string())))
        })
    }

    fn peer_lost(&self, node: &NodeName) {
        let found = self.inner.peers().get_mut(node).and_then(|peer| peer.connection.take());
        if let Some(Registered { connection, .. }) = found {
            info!(%node, "the data plane drops a peer that is lost");
            close(&connection, ConnectionClose::PeerLost);
        }
    }
}

impl Inner {
    fn peers(&self) -> MutexGuard<'_, HashMap<NodeName, Peer>> {
        // Nothing in here panics half way through a change.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection with a peer; dials when there is none.
    async fn connected(self: &Arc<Self>, node: &NodeName) -> Result<Connection, LinkError> {
        if let Some(connection) = self.live(node) {
            return Ok(connection);
        }
        // A dial goes on when whoever asked for it has given up: the next one needs it too.
        let (inner, name) = (Arc::clone(self), node.clone());
        let dialling = tokio::spawn(async move { inner.dial(&name).await });
        dialling.await.unwrap_or_else(|_| Err(unreachable(node, "the dial was ended".into())))
    }

    async fn dial(self: &Arc<Self>, node: &NodeName) -> Result<Connection, LinkError> {
        let dialling = Arc::clone(&self.peers().entry(node.clone()).or_default().dialling);
        let _turn = dialling.lock().await;
        if let Some(connection) = self.live(node) {
            return Ok(connection);
        }
        let not_before = self.peers().get(node).map(|peer| peer.not_before).unwrap_or_default();
        if self.clock.now() < not_before {
            return Err(unreachable(node, "it could not be reached a moment ago".into()));
        }
        let address = (self.address_of)(node).ok_or_else(|| LinkError::Unknown { node: node.clone() })?;
        match self.handshake(node, address).await {
            Ok(connection) => {
                if let Some(peer) = self.peers().get_mut(node) {
                    (peer.failures, peer.not_before) = (0, Timestamp::default());
                }
                self.register(node, connection, true);
                self.live(node).ok_or_else(|| unreachable(node, "the connection ended at once".into()))
            }
            Err(message) => {
                if let Some(peer) = self.peers().get_mut(node) {
                    let backoff =
                        FIRST_BACKOFF.saturating_mul(1 << peer.failures.min(10)).min(LONGEST_BACKOFF);
                    peer.failures = peer.failures.saturating_add(1);
                    peer.not_before = self.clock.now().plus(backoff);
                }
                Err(unreachable(node, message))
            }
        }
    }

    async fn handshake(&self, node: &NodeName, address: SocketAddr) -> Result<Connection, String> {
        let name = (self.certificate_name)(node);
        let connecting = self.endpoint.connect_with(self.client.clone(), address, &name);
        let connecting = connecting.map_err(|error| error.to_string())?;
        let connected = tokio::time::timeout(HANDSHAKE, connecting).await;
        let connection = connected.map_err(|_| "no answer".to_owned())?.map_err(|error| error.to_string())?;
        // TLS has checked the name; a certificate that carries others too is nobody's.
        if self.peer_of(&connection).as_ref() != Some(node) {
            close(&connection, ConnectionClose::WrongPeer);
            return Err(ConnectionClose::WrongPeer.reason().into());
        }
        Ok(connection)
    }

    fn peer_of(&self, connection: &Connection) -> Option<NodeName> {
        let identity = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        (self.peer_name)(identity.first()?)
    }

    fn live(&self, node: &NodeName) -> Option<Connection> {
        let peers = self.peers();
        let connection = &peers.get(node)?.connection.as_ref()?.connection;
        connection.close_reason().is_none().then(|| connection.clone())
    }

    /// Takes a new connection in place of an older one, or closes it for that.
    fn register(self: &Arc<Self>, node: &NodeName, connection: Connection, ours: bool) {
        let mut peers = self.peers();
        let peer = peers.entry(node.clone()).or_default();
        let rival = peer.connection.as_ref().filter(|old| old.connection.close_reason().is_none());
        if let Some(old) = rival {
            let lower_is_ours = self.name < *node;
            if old.ours != ours && old.ours == lower_is_ours {
                debug!(%node, ours, "a second connection with a peer is closed");
                return close(&connection, ConnectionClose::Superseded);
            }
            close(&old.connection, ConnectionClose::Superseded);
        }
        debug!(%node, ours, "the data plane has a connection");
        peer.connection = Some(Registered { connection: connection.clone(), ours });
        drop(peers);
        tokio::spawn(connection::take_streams(node.clone(), connection.clone(), self.incoming.clone()));
        tokio::spawn(connection::watch(node.clone(), connection, self.clock));
    }
}

/// Takes connections that peers dial, until the endpoint is closed.
async fn accept(endpoint: Endpoint, link: QuinnLink) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_AT_ONCE));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let link = link.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let address = incoming.remote_address();
            let accepting = async { incoming.accept()?.await };
            let problem = match tokio::time::timeout(HANDSHAKE, accepting).await {
                Ok(Ok(connection)) => match link.inner.peer_of(&connection) {
                    Some(node) if node != link.inner.name => {
                        return link.inner.register(&node, connection, false);
                    }
                    _ => {
                        close(&connection, ConnectionClose::WrongPeer);
                        ConnectionClose::WrongPeer.reason().to_owned()
                    }
                },
                Ok(Err(error)) => ConnectionError::to_string(&error),
                Err(_) => "the handshake took too long".to_owned(),
            };
            debug!(%address, problem, "a connection is refused");
        });
    }
}

fn close(connection: &Connection, why: ConnectionClose) {
    connection.close(why.code().into(), why.reason().as_bytes());
}

fn unreachable(node: &NodeName, message: String) -> LinkError {
    LinkError::Unreachable { node: node.clone(), message }
}
