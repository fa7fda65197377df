//! Making connections to peers.

use std::net::SocketAddr;
use std::time::Duration;

use starling_protocol::NodeName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::HANDSHAKE_DEADLINE;
use super::acceptor::{GreetError, identify};
use super::stream::LinkStream;
use crate::network::Streams;
use crate::trust::server_name;

/// How long a TCP connection may take to come about. A machine that is there answers within a round trip; one retransmission
/// of a lost packet comes after a second.
const CONNECT_DEADLINE: Duration = Duration::from_millis(1_500);

/// Connects to `peer` at `address`. TLS fails unless it is `peer` that answers.
pub(super) async fn dial<N: Streams>(
    network: &N,
    peer: &NodeName,
    address: SocketAddr,
    tls: TlsConnector,
) -> Result<LinkStream, GreetError> {
    let name = server_name(peer).map_err(|_| GreetError::Protocol)?;
    let socket = timeout(CONNECT_DEADLINE, network.connect(address))
        .await
        .map_err(|_| GreetError::Overdue { within: CONNECT_DEADLINE })??;
    N::send_at_once(&socket)?;
    let stream = timeout(HANDSHAKE_DEADLINE, tls.connect(name, socket))
        .await
        .map_err(|_| GreetError::Overdue { within: HANDSHAKE_DEADLINE })??;
    identify(stream.into()).map(|(_, stream)| stream)
}

/// A number for jitter. An id of version 4 is random but for six bits, which these are not among.
pub(super) fn random() -> u32 {
    let (high, _) = uuid::Uuid::new_v4().as_u64_pair();
    (high >> 32) as u32
}
