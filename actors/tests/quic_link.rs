//! Nodes in one process that reach each other over real QUIC on loopback, in real time. What needs no network is in
//! `peers.rs`.

mod support;

use std::sync::Arc;
use std::time::Duration;

use starling_actors::{
    Attachment, IncomingStreams, LinkError, LinkedPeers, NodeHandle, PeerLink, Peers, ProcessEnd, QuinnLink,
    SessionLimits,
};
use starling_core::placement::Candidate;
use support::client::{
    Heard, bytes, listen, request, scripted_model, send, speak, speech, start, start_among,
};
use support::fake_host::FakeLauncher;
use support::memory_link::{candidate, name};
use support::quic::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Five times as fast as speech: the tests are real time.
const PACE: Duration = Duration::from_millis(20);

/// Far more than anything here takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Pieces of 100 ms up to the middle of the second utterance of twelve words.
const STEPS_BEFORE: usize = 24;

fn peers(link: &QuinnLink, candidates: Vec<Candidate>) -> Option<Arc<dyn Peers>> {
    let link: Arc<dyn PeerLink> = Arc::new(link.clone());
    let directory = move |_: &str, _: &str| candidates.clone();
    Some(Arc::new(LinkedPeers { link, directory, reservations: None }))
}

async fn decoder(streams: IncomingStreams, launcher: &FakeLauncher) -> NodeHandle {
    let node = start(launcher.clone(), scripted_model(2, 4), SessionLimits::default()).await;
    let serving = node.clone();
    tokio::spawn(async move { serving.serve_peers(streams).await });
    node
}

async fn gateway(link: &QuinnLink, candidates: Vec<Candidate>) -> NodeHandle {
    let peers = peers(link, candidates);
    start_among(FakeLauncher::default(), scripted_model(0, 4), SessionLimits::default(), peers).await
}

async fn calm(utterances: u32, words: u32) -> Heard {
    let node = start(FakeLauncher::default(), scripted_model(1, 4), SessionLimits::default()).await;
    speak(&node, &speech(utterances, words), Duration::ZERO).await
}

/// Speaks as far as the middle of an utterance, and the rest once it is told to, however long that takes.
fn speak_in_two(node: NodeHandle, audio: Vec<i16>) -> (oneshot::Sender<()>, JoinHandle<Heard>) {
    let (go_on, word) = oneshot::channel();
    let heard = tokio::spawn(async move {
        let Attachment { mut input, output, .. } = node.open(request()).await.expect("is admitted");
        let sending = tokio::spawn(async move {
            let (begin, rest) = audio.split_at(STEPS_BEFORE * 1_600);
            for step in bytes(begin).chunks(3_200) {
                input.audio(step).await.expect("is taken");
                sleep(PACE).await;
            }
            word.await.expect("the test goes on");
            send(input, bytes(rest), PACE).await;
        });
        let heard = listen(output, Heard::default()).await;
        sending.abort();
        heard
    });
    (go_on, heard)
}

async fn busy(node: &NodeHandle) -> usize {
    node.status().await.models[0].slots_busy
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_session_is_decoded_over_quic_and_survives_its_hosts() {
    let cluster = Cluster::new();
    let launcher = FakeLauncher::default();
    let other = decoder(cluster.link("other").1, &launcher).await;
    let (link, _streams) = cluster.link("own");
    let node = gateway(&link, vec![candidate("other", 8)]).await;
    let hosts = launcher.clone();
    let killer = tokio::spawn(async move {
        // Few enough that no host is made to wait for long before it is started again.
        for _ in 0..4 {
            sleep(Duration::from_millis(330)).await;
            if let Some(host) = hosts.alive().first() {
                host.die(ProcessEnd::Signal(9));
            }
        }
    });
    let heard = speak(&node, &speech(4, 6), PACE).await;
    killer.abort();
    assert!(heard.done);
    assert_eq!(heard.finals, calm(4, 6).await.finals);
    assert!(launcher.hosts.lock().expect("no panic").len() > 3, "hosts were killed");
    until("the slot comes back", async || busy(&other).await == 0 && other.status().await.relayed == 0).await;
}

#[tokio::test]
async fn a_way_that_is_cut_is_noticed_by_its_silence_and_found_again() {
    let cluster = Cluster::new();
    let lost = decoder(cluster.link("lost").1, &FakeLauncher::default()).await;
    let other = decoder(cluster.link("other").1, &FakeLauncher::default()).await;
    let wire = cluster.wire("own", "lost").await;
    let (link, _streams) = cluster.link("own");
    let node = gateway(&link, vec![candidate("lost", 9), candidate("other", 4)]).await;
    let (go_on, speaking) = speak_in_two(node, speech(6, 12));
    until("it is decoded on the first", async || busy(&lost).await == 1).await;
    wire.cut(true);
    let noticed = until("it goes on on the other", async || busy(&other).await == 1).await;
    // 700 ms of silence, told in the round after; the rest is for a machine under load. QUIC itself would take 5 s.
    assert!(noticed > Duration::from_millis(300), "lost after {noticed:?}");
    assert!(noticed < Duration::from_millis(4_500), "noticed after {noticed:?}");
    until("the lost node notices too", async || busy(&lost).await == 0).await;
    go_on.send(()).expect("it waits");
    let heard = speaking.await.expect("no panic");
    assert_eq!(heard.finals, calm(6, 12).await.finals);
    wire.cut(false);
    until("the way is found again", async || link.connect(&name("lost")).await.is_ok()).await;
}

#[tokio::test]
async fn a_peer_that_is_told_lost_loses_its_leases_at_once() {
    let cluster = Cluster::new();
    let lost = decoder(cluster.link("lost").1, &FakeLauncher::default()).await;
    let other = decoder(cluster.link("other").1, &FakeLauncher::default()).await;
    let (link, _streams) = cluster.link("own");
    let node = gateway(&link, vec![candidate("lost", 9), candidate("other", 4)]).await;
    let (go_on, speaking) = speak_in_two(node, speech(6, 12));
    until("it is decoded on the first", async || busy(&lost).await == 1).await;
    // It lives and is heard: no silence would be noticed, however long that were waited for.
    link.peer_lost(&name("lost"));
    until("it goes on on the other", async || busy(&other).await == 1).await;
    go_on.send(()).expect("it waits");
    let heard = speaking.await.expect("no panic");
    assert_eq!(heard.finals, calm(6, 12).await.finals);
}

#[tokio::test]
async fn only_the_node_that_is_meant_is_spoken_to() {
    let (cluster, strangers) = (Cluster::new(), Cluster::new());
    let (own, _streams) = cluster.link("own");
    let (_other, mut at_other) = cluster.link("other");

    let (stranger, _streams) = strangers.link("stranger");
    let other = _other.local_addr().expect("is bound");
    strangers.found_at("stranger", "other", other);
    // In TLS 1.3 who dials is done before the other side has looked at its certificate.
    if let Ok(mut stream) = stranger.open(&name("other")).await {
        let _ = stream.writer.write_all(b"x").await;
        let mut answer = [0];
        assert!(!matches!(stream.reader.read(&mut answer).await, Ok(1..)), "nobody answers");
    }
    assert!(timeout(Duration::from_millis(200), at_other.recv()).await.is_err(), "nobody is served");

    cluster.found_at("own", "third", other);
    let refused = own.open(&name("third")).await.err().expect("it is another node");
    assert!(matches!(refused, LinkError::Unreachable { .. }), "{refused}");
    let unknown = own.open(&name("nobody")).await.err().expect("it has no address");
    assert!(matches!(unknown, LinkError::Unknown { .. }), "{unknown}");
    let mut stream = own.open(&name("other")).await.expect("it is who it says");
    stream.writer.write_all(b"x").await.expect("is taken");
    assert_eq!(at_other.recv().await.expect("comes").from, name("own"));
}

#[tokio::test]
async fn two_that_dial_at_once_keep_one_connection() {
    let cluster = Cluster::new();
    for round in 0..5 {
        let (low, high) = (format!("a{round}"), format!("b{round}"));
        let (a, mut at_a) = cluster.link(&low);
        let (b, mut at_b) = cluster.link(&high);
        let (to_b, to_a) = (name(&high), name(&low));
        let (first, second) = tokio::join!(a.connect(&to_b), b.connect(&to_a));
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        for (from, to, incoming) in [(&a, &to_b, &mut at_b), (&b, &to_a, &mut at_a)] {
            let mut arrived = false;
            until("streams go both ways", async || {
                let Ok(mut stream) = from.open(to).await else { return false };
                arrived |= stream.writer.write_all(b"x").await.is_ok()
                    && timeout(Duration::from_millis(300), incoming.recv()).await.is_ok();
                arrived
            })
            .await;
        }
        until("one is left", async || a.connections() == 1 && b.connections() == 1).await;
    }
}

#[tokio::test]
async fn a_node_that_was_started_again_is_let_in() {
    let cluster = Cluster::new();
    for (own, peer) in [("a", "b"), ("d", "c")] {
        let (first, _streams) = cluster.link(peer);
        let wire = cluster.wire(own, peer).await;
        let (link, mut streams) = cluster.link(own);
        link.connect(&name(peer)).await.expect("is there");
        // As a killed process: it says nothing, and its successor knows nothing of it.
        wire.cut(true);
        let (again, _streams) = cluster.link(peer);
        let to = name(own);
        until("its streams are served", async || {
            let Ok(mut stream) = again.open(&to).await else { return false };
            let written = stream.writer.write_all(b"x").await.is_ok();
            written && matches!(timeout(Duration::from_millis(200), streams.recv()).await, Ok(Some(_)))
        })
        .await;
        drop(first);
    }
}

#[tokio::test]
async fn who_does_not_read_stops_the_writer_of_that_stream_alone() {
    let cluster = Cluster::new();
    let (own, _streams) = cluster.link("own");
    let (_other, mut at_other) = cluster.link("other");
    let mut stream = own.open(&name("other")).await.expect("is there");
    let piece = [0; 4_096];
    let mut written = 0;
    // A session's window fits, however long a busy machine takes; what is taken beyond it is taken soon.
    let patience = |written| if written < 192 * 1024 { PATIENCE } else { Duration::from_millis(500) };
    while timeout(patience(written), stream.writer.write_all(&piece)).await.is_ok() {
        written += piece.len();
        assert!(written <= 256 * 1024, "{written} bytes lie unread");
    }
    assert!(written >= 192 * 1024, "a session's window fits: {written}");
    let mut second = own.open(&name("other")).await.expect("is there");
    second.writer.write_all(b"x").await.expect("is taken");
    let _unread = at_other.recv().await.expect("comes");
    let mut stream = at_other.recv().await.expect("comes").stream;
    let mut heard = [0];
    stream.reader.read_exact(&mut heard).await.expect("it is not held up");
}

#[tokio::test]
async fn a_peer_that_cannot_be_reached_costs_one_handshake_and_then_nothing() {
    let cluster = Cluster::new();
    let (own, _streams) = cluster.link("own");
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    cluster.found_at("own", "dead", nobody.local_addr().expect("is bound"));
    let refused = async || own.open(&name("dead")).await.err().expect("nobody is there").to_string();
    assert!(refused().await.contains("no answer"), "it is tried");
    // For 100 ms, and longer each time: on a busy machine that may be over.
    until("it was tried a moment ago", async || refused().await.contains("a moment ago")).await;
}
