//! Somebody on the network who belongs to no cluster, has heard what nodes say, and has their addresses.

use std::net::SocketAddr;
use std::time::Duration;

use starling_protocol::gossip::packet::{self, PacketKey, Payload};
use starling_protocol::{Generation, NodeId, NodeName};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use turmoil::net::{TcpStream, UdpSocket};

use super::air::Sent;
use crate::rng::Rng;

/// Between two of its datagrams.
const PACE: Duration = Duration::from_millis(2);

/// What it is to do.
#[derive(Debug)]
pub enum Order {
    /// Send these datagrams there.
    Send(SocketAddr, Vec<Vec<u8>>),
    /// Connect there so many times and stay for so long. Every second one says this.
    Knock(SocketAddr, u64, Duration, Vec<u8>),
}

/// Does as it is told.
///
/// # Errors
/// It has no socket.
pub async fn run(mut orders: mpsc::UnboundedReceiver<Order>) -> turmoil::Result {
    let socket = UdpSocket::bind("0.0.0.0:9").await?;
    while let Some(order) = orders.recv().await {
        match order {
            Order::Send(to, packets) => {
                for bytes in packets {
                    // Whoever sends in the dark does not look whether it arrives.
                    let _ = socket.try_send_to(&bytes, to);
                    sleep(PACE).await;
                }
            }
            Order::Knock(to, times, stays, says) => {
                for turn in 0..times {
                    let says = if turn % 2 == 0 { Vec::new() } else { says.clone() };
                    tokio::spawn(knock(to, stays, says));
                }
            }
        }
    }
    Ok(())
}

async fn knock(to: SocketAddr, stays: Duration, says: Vec<u8>) {
    let Ok(Ok(mut stream)) = timeout(stays, TcpStream::connect(to)).await else { return };
    // It may be thrown out at once.
    let _ = stream.write_all(&says).await;
    sleep(stays).await;
}

/// Datagrams that were sent lately, mostly those to this node.
#[must_use]
pub fn echoes(rng: &mut Rng, sent: &[Sent], to: SocketAddr, count: u64) -> Vec<Vec<u8>> {
    let here: Vec<&Sent> = sent.iter().filter(|sent| sent.to == to).collect();
    let all: Vec<&Sent> = sent.iter().collect();
    let mut echo = |_| {
        let among = if rng.chance(80) { &here } else { &all };
        (!among.is_empty()).then(|| among[rng.below(among.len() as u64) as usize].bytes.clone())
    };
    (0..count).filter_map(&mut echo).collect()
}

/// Datagrams that no node has sent.
#[must_use]
pub fn forgeries(rng: &mut Rng, sent: &[Sent], key: &PacketKey, count: u64) -> Vec<Vec<u8>> {
    let mut forge = |_| {
        let mut bytes = match sent.len() {
            0 => Vec::new(),
            sent_lately => sent[rng.below(sent_lately as u64) as usize].bytes.clone(),
        };
        match rng.below(5) {
            0 if !bytes.is_empty() => {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            1 => bytes.truncate(rng.below(bytes.len() as u64 + 1) as usize),
            2 => bytes.extend((0..rng.between(1, 400)).map(|_| rng.next() as u8)),
            3 => bytes = (0..rng.below(1_500)).map(|_| rng.next() as u8).collect(),
            // Sealed with a key of its own, in the name of a node's latest run of all.
            _ => bytes = sealed_by_another(rng, key).unwrap_or(bytes),
        }
        bytes
    };
    (0..count).map(&mut forge).collect()
}

fn sealed_by_another(rng: &mut Rng, key: &PacketKey) -> Option<Vec<u8>> {
    let mut own = PacketKey { id: key.id, bytes: [rng.next() as u8; 32] };
    if rng.chance(50) {
        own.id = own.id.wrapping_add(1);
    }
    let name = NodeName::parse(&format!("n{}", rng.below(5))).ok()?;
    let sender = NodeId { name, generation: Generation(u64::MAX) };
    packet::seal(&own, &sender, &[0; 16], u64::MAX, &Payload::Gossip(b"nothing").encode()).ok()
}
