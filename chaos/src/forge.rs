//! Packets and tokens that are forged, or were heard before.
//!
//! Owns: what is shown to nodes, and that they refuse it and count it. Must never: know the cluster's secret: what is whole here was
//! heard, as anybody on the way could hear it.

mod tokens;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::http;

pub(crate) use self::tokens::show_tokens;

/// Of each kind, to each node.
const PACKETS: u64 = 100;

/// A node takes so many at once; with more its socket's buffer could run over, and what is lost there is not counted.
const AT_ONCE: u64 = 20;

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

/// Counting what was refused takes no longer, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes before a packet's name; see `protocol/src/gossip/packet.rs`, as for the other places.
const NAME_LENGTH_AT: usize = 37;
const SEQUENCE_AT: usize = 13;
const KEY_AT: usize = 1;

/// Where nodes believe another node to be: they send sealed packets there, to find out.
pub(crate) struct Ear {
    socket: UdpSocket,
    heard: Vec<Vec<u8>>,
}

impl Ear {
    pub(crate) fn open() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a socket that listens")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, heard: Vec::new() })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// All that came so far.
    fn heard(&mut self) -> &[Vec<u8>] {
        let mut packet = [0; 2_048];
        while let Ok((bytes, _)) = self.socket.recv_from(&mut packet) {
            self.heard.push(packet[..bytes].to_vec());
        }
        &self.heard
    }
}

/// A node as an attacker knows it.
pub(crate) struct Mark {
    pub(crate) name: String,
    pub(crate) http: String,
    pub(crate) gossip: SocketAddr,
}

const HEARD_BEFORE: &str = "of another node's, heard before";

/// A kind of packet, and what a node has to count it as.
struct Kind {
    what: &'static str,
    reasons: &'static [&'static str],
    packets: Vec<Vec<u8>>,
}

/// Sends each node what it must not believe. How many packets were sent, and how many counted as refused.
pub(crate) async fn send_packets(ear: &mut Ear, marks: &[Mark]) -> Result<(u64, u64)> {
    let heard = ear.heard().to_vec();
    let mut random = StdRng::seed_from_u64(1);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("opening a socket that sends")?;
    let (mut sent, mut refused) = (0, 0);
    for mark in marks {
        for kind in kinds(&heard, &mark.name, &mut random)? {
            let before = count(&mark.http, "gossip_packets", kind.reasons).await?;
            for (number, packet) in (1..).zip(&kind.packets) {
                socket.send_to(packet, mark.gossip).context("sending a forged packet")?;
                if number % AT_ONCE == 0 {
                    sleep(PAUSE).await;
                }
            }
            // The first time, what another node said may be news.
            let news = u64::from(kind.what == HEARD_BEFORE);
            let due = kind.packets.len() as u64 - news;
            let deadline = Instant::now() + PATIENCE;
            let counted = loop {
                let counted = count(&mark.http, "gossip_packets", kind.reasons).await? - before;
                if counted >= due || Instant::now() > deadline {
                    break counted;
                }
                sleep(PAUSE).await;
            };
            ensure!(
                counted >= due,
                "{} was sent {due} packets, {}, and counted {counted} of them as {}",
                mark.name,
                kind.what,
                kind.reasons.join(" or ")
            );
            sent += due;
            refused += counted;
        }
    }
    Ok((sent, refused))
}

fn kinds(heard: &[Vec<u8>], node: &str, random: &mut StdRng) -> Result<Vec<Kind>> {
    let own = heard.iter().find(|packet| sender(packet) == Some(node));
    let own = own.with_context(|| format!("nothing was heard of {node}"))?;
    let other = heard.iter().find(|packet| sender(packet).is_some_and(|sender| sender != node));
    let other = other.with_context(|| format!("nothing was heard of others than {node}"))?;
    let many = |packet: &[u8]| vec![packet.to_vec(); PACKETS as usize];
    let mut noise = || {
        let length: usize = random.random_range(1..1_400);
        (0..length).map(|_| random.random()).collect::<Vec<u8>>()
    };
    let noise: Vec<Vec<u8>> = (0..PACKETS).map(|_| noise()).collect();
    let last = other.len() - 1;
    let touched = |at: usize| {
        let mut packet = other.clone();
        packet[at] ^= 0x40;
        many(&packet)
    };
    let kind = |what, reasons, packets| Kind { what, reasons, packets };
    Ok(vec![
        kind("of random bytes", &["malformed", "unknown_key"][..], noise),
        kind("of another key", &["unknown_key"], touched(KEY_AT)),
        kind("with a seal that was touched", &["forged"], touched(last)),
        kind("with a number that was touched", &["forged"], touched(SEQUENCE_AT)),
        kind(HEARD_BEFORE, &["replayed", "too_old"], many(other)),
        kind("of its own", &["own"], many(own)),
    ])
}

/// Who says to have sent a packet.
fn sender(packet: &[u8]) -> Option<&str> {
    let length = usize::from(*packet.get(NAME_LENGTH_AT)?);
    std::str::from_utf8(packet.get(NAME_LENGTH_AT + 1..)?.get(..length)?).ok()
}

/// What a node has counted so far as refused for one of these reasons.
async fn count(http: &str, what: &str, reasons: &[&str]) -> Result<u64> {
    let (status, body) = http::ask(http, "GET", "/metrics").await?;
    ensure!(status == 200, "/metrics of {http} answered {status}");
    Ok(reasons.iter().map(|reason| value(&body, what, reason)).sum())
}

fn value(metrics: &str, what: &str, reason: &str) -> u64 {
    let name = format!("starling_{what}_refused_total{{reason=\"{reason}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(name: &str) -> Vec<u8> {
        let mut packet = vec![1; NAME_LENGTH_AT];
        packet.push(name.len() as u8);
        packet.extend(name.bytes());
        packet.extend([9; 40]);
        packet
    }

    #[test]
    fn each_node_is_shown_what_is_its_own_and_what_is_anothers() {
        let heard = [packet("a"), packet("b")];
        let kinds = kinds(&heard, "b", &mut StdRng::seed_from_u64(1)).expect("both were heard");
        let of = |what: &str| kinds.iter().find(|kind| kind.what == what).expect(what);
        assert_eq!(sender(&of("of its own").packets[0]), Some("b"));
        assert_eq!(sender(&of(HEARD_BEFORE).packets[0]), Some("a"));
        for touched in ["of another key", "with a seal that was touched", "with a number that was touched"] {
            assert_ne!(of(touched).packets[0], heard[0], "{touched}");
        }
        assert!(super::kinds(&heard[..1], "b", &mut StdRng::seed_from_u64(1)).is_err());
    }

    #[test]
    fn counts_are_read_off_the_metrics() {
        let text = "# TYPE x counter\nstarling_gossip_packets_refused_total{reason=\"own\"} 12\n";
        assert_eq!((value(text, "gossip_packets", "own"), value(text, "gossip_packets", "forged")), (12, 0));
    }
}
