//! Nodes that reach each other through memory, and a peer that is nothing but its words.

use std::sync::Arc;
use std::time::Duration;

use starling_actors::{NodeHandle, PeerLink, PeerStream, SessionLimits};
use starling_protocol::data::{DATA_PROTOCOL, LeaseHeader, LeasePurpose};
use starling_protocol::frame::{FrameReader, encode};
use starling_protocol::limits::MAX_LEASE_FRAME_BYTES;
use starling_protocol::{Attempt, DecodeOffset, Epoch, LeaseId, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::client::{scripted_model, start_among};
use super::fake_host::FakeLauncher;
use super::memory_link::{MemoryLink, Net, name};

pub const LEASE: LeaseId = LeaseId(77);

/// A node that decodes.
pub async fn decoder(net: &Net, node: &str, launcher: &FakeLauncher) -> NodeHandle {
    member(net, node, launcher, 2, 4).await.1
}

/// A node that has sessions and no hosts.
pub async fn gateway(net: &Net) -> (Arc<MemoryLink>, NodeHandle) {
    member(net, "gateway", &FakeLauncher::default(), 0, 4).await
}

pub async fn member(
    net: &Net,
    node: &str,
    launcher: &FakeLauncher,
    hosts: u16,
    slots: u16,
) -> (Arc<MemoryLink>, NodeHandle) {
    let (link, streams) = net.join(node);
    let peers = Some(net.peers(&link));
    let limits = SessionLimits::default();
    let handle = start_among(launcher.clone(), scripted_model(hosts, slots), limits, peers).await;
    net.answers(node, handle.clone());
    let serving = handle.clone();
    tokio::spawn(async move { serving.serve_peers(streams).await });
    (link, handle)
}

pub async fn busy(node: &NodeHandle) -> usize {
    node.status().await.models[0].slots_busy
}

pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A peer's own words on a stream.
pub struct Raw {
    stream: PeerStream,
    frames: FrameReader,
}

impl Raw {
    /// What a peer has opened.
    pub fn of(stream: PeerStream) -> Self {
        Self { stream, frames: FrameReader::new(MAX_LEASE_FRAME_BYTES) }
    }

    pub async fn open(link: &MemoryLink, to: &str) -> Self {
        Self::of(link.open(&name(to)).await.expect("is reached"))
    }

    pub async fn say<M: serde::Serialize>(&mut self, message: &M) {
        let mut out = Vec::new();
        encode(message, MAX_LEASE_FRAME_BYTES, &mut out).expect("fits");
        self.stream.writer.write_all(&out).await.expect("is taken");
    }

    pub async fn hear<M: serde::de::DeserializeOwned>(&mut self) -> Option<M> {
        let mut buffer = [0; 4_096];
        loop {
            if let Some(message) = self.frames.next().expect("is a frame") {
                return Some(message);
            }
            let count = self.stream.reader.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
            self.frames.push(&buffer[..count]);
        }
    }
}

pub fn header() -> LeaseHeader {
    LeaseHeader {
        version: DATA_PROTOCOL,
        lease: LEASE,
        session: SessionId::random(),
        epoch: Epoch(1),
        attempt: Attempt(1),
        model: "scripted".into(),
        digest: "scripted".into(),
        purpose: LeasePurpose::New,
        start: DecodeOffset(0),
        patience_ms: 1_000,
        reservation: None,
        trace: None,
    }
}
