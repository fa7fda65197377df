//! The control port.
//!
//! Owns: the listener and the sockets that have not proved who they are. Must never: let one of them keep another waiting,
//! or hold more than [`MAX_UNAUTHENTICATED`].

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use starling_core::peer_links::Side;
use starling_core::sabotage::{Bug, is};
use starling_protocol::NodeName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tracing::{debug, warn};

use super::actor::ControlMessage;
use super::stream::LinkStream;
use super::{ALPN, HANDSHAKE_DEADLINE, MAX_UNAUTHENTICATED};
use crate::network::Streams;
use crate::trust::{PeerNameError, peer_name};

/// Pause after the system refused a socket, most likely for want of descriptors: it will again at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is dropped.
pub(super) async fn accept<N: Streams>(network: Arc<N>, tls: TlsAcceptor, control: ActorRef<ControlMessage>) {
    let places = Arc::new(Semaphore::new(MAX_UNAUTHENTICATED));
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let (socket, from) = match network.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "can't accept on the control port");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            debug!(%from, "closed a connection to the control port: too many have not proved who they are");
            continue;
        };
        let (tls, control) = (tls.clone(), control.clone());
        handshakes.spawn(async move {
            let within = if is(Bug::SilentSocketKept) { Duration::MAX } else { HANDSHAKE_DEADLINE };
            match tokio::time::timeout(within, greet::<N>(socket, tls)).await {
                Ok(Ok((peer, stream))) => hand_over(&control, peer, stream, place),
                Ok(Err(error)) => debug!(%from, %error, "refused a connection to the control port"),
                Err(_) => debug!(%from, "a connection to the control port said nothing"),
            }
        });
    }
}

fn hand_over(
    control: &ActorRef<ControlMessage>,
    peer: NodeName,
    stream: LinkStream,
    place: OwnedSemaphorePermit,
) {
    let stream = Box::new(stream);
    let message = ControlMessage::Connected { peer, stream, side: Side::Accepted, place: Some(place) };
    let _ = control.cast(message);
}

async fn greet<N: Streams>(
    socket: N::Stream,
    tls: TlsAcceptor,
) -> Result<(NodeName, LinkStream), GreetError> {
    N::send_at_once(&socket)?;
    identify(tls.accept(socket).await?.into())
}

/// Who is at the other end of a connection.
pub(super) fn identify<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: TlsStream<S>,
) -> Result<(NodeName, LinkStream), GreetError> {
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err(GreetError::Protocol);
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first).ok_or(GreetError::Protocol)?;
    let peer = peer_name(certificate)?;
    Ok((peer, LinkStream::new(stream)))
}

/// Why a connection came to nothing. It is closed.
#[derive(Debug, Error)]
pub(super) enum GreetError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("it doesn't speak the control protocol")]
    Protocol,
    #[error("{0}")]
    Name(#[from] PeerNameError),
    #[error("no answer within {within:?}")]
    Overdue { within: Duration },
}
