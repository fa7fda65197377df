//! What runs on a connection: streams that the peer opens, and beats in both directions.
//!
//! QUIC itself notices a dead peer at its idle timeout only. A beat each round, as a datagram that is never sent twice, makes
//! silence on the path show as fast as a host's, by the same rule: see `starling_core::host_watch`.

use quinn::Connection;
use starling_core::host_watch::{HostWatch, ROUND};
use starling_protocol::NodeName;
use starling_protocol::data::ConnectionClose;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::{IncomingStream, PeerStream, close};
use crate::clock::Clock;

/// A beat says nothing but that it came.
const BEAT: &[u8] = b"b";

/// Hands on streams that the peer opens until the connection ends. Those that nobody takes yet wait at the peer.
pub(super) async fn take_streams(
    node: NodeName,
    connection: Connection,
    incoming: mpsc::Sender<IncomingStream>,
) {
    loop {
        match connection.accept_bi().await {
            Ok((writer, reader)) => {
                let stream = PeerStream { reader: Box::new(reader), writer: Box::new(writer) };
                if incoming.send(IncomingStream { from: node.clone(), stream }).await.is_err() {
                    // Nothing here serves peers: their streams end as they come.
                    return close(&connection, ConnectionClose::Stopping);
                }
            }
            Err(reason) => {
                debug!(%node, %reason, "the data plane's connection is over");
                return;
            }
        }
    }
}

/// Beats, and closes the connection when the peer's beats stop. All streams on it fail with that.
pub(super) async fn watch(node: NodeName, connection: Connection, clock: Clock) {
    let mut watch = HostWatch::new(clock.now());
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // A beat that lies unread comes before the round that would miss it.
            biased;
            beat = connection.read_datagram() => match beat {
                Ok(_) => watch.heartbeat(clock.now(), Vec::new()),
                Err(_) => return,
            },
            _ = rounds.tick() => {
                if watch.round(clock.now()).is_some() {
                    warn!(%node, "a peer is silent on the data plane; its leases are lost");
                    return close(&connection, ConnectionClose::Silent);
                }
                // One that does not fit now is not missed: the next comes in a round.
                let _ = connection.send_datagram(BEAT.into());
            }
        }
    }
}
