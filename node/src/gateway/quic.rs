//! QUIC for clients: the native protocol on streams, many of them on a connection, and WebTransport beside it on the same port.
//!
//! Owns: the endpoint, connections and how many there may be, the streams' halves. Must never: read what is said on a stream.

use std::io;
use std::net::UdpSocket;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, NoInitialCipherSuite};
use quinn::{
    Connecting, Connection, ConnectionError, Endpoint, EndpointConfig, Incoming, TokioRuntime, VarInt,
};
use starling_protocol::native::stream::NATIVE_ALPN;
use starling_protocol::native::{Close, ErrorCode};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{GatewayState, native};
use crate::config::GatewaySettings;
use crate::net::{Place, Places};
use crate::tls::Certificate;

mod halves;
mod settings;
#[cfg(feature = "webtransport")]
mod webtransport;

pub(super) use halves::{ReceivingHalf, SendingHalf};

/// Handshakes that may be under way at once. Each costs a signature and some memory, and nothing is known of who asks; further
/// ones are refused.
const HANDSHAKES: usize = 256;

/// From so many on, newcomers have to show first that they get what is sent to their address: one more round trip for them, and
/// no work for packets with made-up senders.
const HANDSHAKES_UNPROVEN: usize = 32;

/// How long the clients' side of a connection that goes down may take.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// QUIC can't be served. Nothing runs.
#[derive(Debug, Error)]
pub enum QuicError {
    /// The TLS settings are not good for QUIC.
    #[error("the TLS settings are not good for QUIC: {0}")]
    Tls(#[from] rustls::Error),
    /// The same.
    #[error("the TLS settings have no cipher suite that QUIC can begin with")]
    Cipher(#[from] NoInitialCipherSuite),
    /// The socket can't be used.
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
}

/// What is spoken here, as handshakes name it, the likeliest first.
const PROTOCOLS: &[&[u8]] = &[
    NATIVE_ALPN,
    #[cfg(feature = "webtransport")]
    webtransport::ALPN,
];

/// Begins to listen. Must be called within the runtime.
///
/// # Errors
/// See [`QuicError`].
pub fn listen(
    socket: UdpSocket,
    certificate: &Arc<Certificate>,
    gateway: &GatewaySettings,
) -> Result<Endpoint, QuicError> {
    let config = settings::server(certificate.for_quic(PROTOCOLS)?, gateway)?;
    socket.set_nonblocking(true)?;
    let runtime = Arc::new(TokioRuntime);
    Ok(Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)?)
}

/// Takes connections until told to stop, and serves those that there are until they are to be dropped. Each takes one of the
/// places that all listeners share; when there is none left for an address, newcomers are refused.
pub async fn accept(
    endpoint: Endpoint,
    state: GatewayState,
    places: Arc<Places>,
    accepting: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let incoming = tokio::select! {
            () = accepting.cancelled() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        let under_way = HANDSHAKES - handshakes.available_permits();
        if must_prove_its_address(under_way, incoming.remote_address_validated()) {
            // It is no error for one that has been asked before: then it was validated.
            let _ = incoming.retry();
            continue;
        }
        let peer = incoming.remote_address();
        let place = places.try_next().map(|free| free.taken_by(peer)).filter(|place| !place.is_crowded());
        let (Ok(handshake), Some(place)) = (Arc::clone(&handshakes).try_acquire_owned(), place) else {
            tracing::debug!(%peer, "no room for a connection");
            incoming.refuse();
            continue;
        };
        state.connections.spawn(begin(incoming, state.clone(), handshake, place));
    }
    endpoint.set_server_config(None);
    state.closing.cancelled().await;
    let close = Close::Error(ErrorCode::ShuttingDown);
    endpoint.close(close.stream().into(), close.reason().as_bytes());
    let _ = timeout(LAST_PACKETS, endpoint.wait_idle()).await;
}

const fn must_prove_its_address(handshakes: usize, proven: bool) -> bool {
    handshakes >= HANDSHAKES_UNPROVEN && !proven
}

async fn begin(incoming: Incoming, state: GatewayState, handshake: OwnedSemaphorePermit, _place: Place) {
    let peer = incoming.remote_address();
    let most = state.settings.handshake_timeout;
    let greeted = tokio::select! {
        greeted = timeout(most, greet(incoming, &state)) => greeted,
        () = state.closing.cancelled() => return,
    };
    drop(handshake);
    match greeted {
        Ok(Ok((carrier, state))) => {
            let closing = state.closing.clone();
            tokio::select! {
                () = serve(&carrier, state) => {}
                () = closing.cancelled() => {}
            }
        }
        Ok(Err(problem)) => tracing::debug!(%peer, problem, "no connection came of a handshake"),
        Err(_) => tracing::debug!(%peer, "a handshake took too long"),
    }
}

/// A connection on which streams are opened.
enum Carrier {
    Quic(Connection),
    #[cfg(feature = "webtransport")]
    WebTransport(wtransport::Connection),
}

impl Carrier {
    async fn stream(&self) -> Result<(SendingHalf, ReceivingHalf), String> {
        match self {
            Self::Quic(connection) => {
                let opened = connection.accept_bi().await.map_err(|reason| reason.to_string())?;
                Ok((SendingHalf::Quic(opened.0), ReceivingHalf::Quic(opened.1)))
            }
            #[cfg(feature = "webtransport")]
            Self::WebTransport(connection) => {
                let opened = connection.accept_bi().await.map_err(|reason| reason.to_string())?;
                Ok((SendingHalf::WebTransport(opened.0), ReceivingHalf::WebTransport(opened.1)))
            }
        }
    }

    fn close(&self, why: Close) {
        let (code, reason) = (why.stream(), why.reason().as_bytes());
        match self {
            Self::Quic(connection) => connection.close(VarInt::from_u32(code), reason),
            #[cfg(feature = "webtransport")]
            Self::WebTransport(connection) => connection.close(wtransport::VarInt::from_u32(code), reason),
        }
    }
}

/// The handshake, up to the connection and what is known of whoever made it.
async fn greet(incoming: Incoming, state: &GatewayState) -> Result<(Carrier, GatewayState), String> {
    let told = |error: ConnectionError| error.to_string();
    let mut connecting = incoming.accept().map_err(told)?;
    let protocol = protocol(&mut connecting).await.map_err(told)?;
    match protocol.as_deref() {
        Some(NATIVE_ALPN) => Ok((Carrier::Quic(connecting.await.map_err(told)?), state.clone())),
        #[cfg(feature = "webtransport")]
        Some(webtransport::ALPN) => {
            let (connection, state) = webtransport::greet(connecting, state).await?;
            Ok((Carrier::WebTransport(connection), state))
        }
        // TLS has refused those that name another; this one named none.
        _ => Err("it names no protocol that is spoken here".to_owned()),
    }
}

async fn protocol(connecting: &mut Connecting) -> Result<Option<Vec<u8>>, ConnectionError> {
    let data = connecting.handshake_data().await?;
    Ok(data.downcast::<HandshakeData>().ok().and_then(|data| data.protocol))
}

/// Serves streams until the connection is over. One that carries no session for as long as a peer may be silent is closed.
async fn serve(carrier: &Carrier, state: GatewayState) {
    let patience = state.settings.peer_timeout;
    let mut sessions = JoinSet::new();
    let mut idle = pin!(sleep(patience));
    loop {
        tokio::select! {
            stream = carrier.stream() => match stream {
                Ok((sending, receiving)) => {
                    sessions.spawn(native::serve_stream(sending, receiving, state.clone()));
                }
                Err(reason) => {
                    tracing::debug!(reason, "a client's connection is over");
                    break;
                }
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {
                idle.as_mut().reset(Instant::now() + patience);
            }
            () = &mut idle, if sessions.is_empty() => {
                carrier.close(Close::Error(ErrorCode::IdleTimeout));
                return;
            }
        }
    }
    // Each notices by itself, and lets its session linger.
    while sessions.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_load_an_address_has_to_be_proven_once() {
        assert!(!must_prove_its_address(HANDSHAKES_UNPROVEN - 1, false));
        assert!(must_prove_its_address(HANDSHAKES_UNPROVEN, false));
        assert!(!must_prove_its_address(HANDSHAKES, true));
    }
}
