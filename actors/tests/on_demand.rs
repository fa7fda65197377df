//! Callers of a node without decoders, where peers have none either but would load some, on paused time.

mod support;

use std::time::Duration;

use starling_actors::{ModelArguments, ModelScaling, NodeHandle, PeerLink, SessionLimits};
use starling_core::placement::Candidate;
use starling_core::scaling::ScalingConfig;
use starling_protocol::native::ErrorCode;
use support::client::{request, scripted_model, speak, speech, start, start_among};
use support::cluster::{busy, decoder, until};
use support::fake_host::FakeLauncher;
use support::memory_link::{Net, candidate, name};
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);

const LOAD_WAIT: Duration = Duration::from_secs(10);

/// Two slots in each host, and no host before somebody asks.
fn asleep() -> ModelArguments {
    let policy = ScalingConfig { idle_target: 0, max: 8, ..ScalingConfig::default() };
    let scaling = ModelScaling { enabled: true, policy, load_wait: LOAD_WAIT, ..ModelScaling::default() };
    ModelArguments { scaling, ..scripted_model(0, 2) }
}

async fn serve(net: &Net, node: &str, launcher: &FakeLauncher, model: ModelArguments) -> NodeHandle {
    let (link, streams) = net.join(node);
    let limits = SessionLimits { queue_wait: Duration::from_secs(1), ..SessionLimits::default() };
    let handle = start_among(launcher.clone(), model, limits, Some(net.peers(&link))).await;
    net.answers(node, handle.clone());
    let serving = handle.clone();
    tokio::spawn(async move { serving.serve_peers(streams).await });
    handle
}

/// A node that decodes nothing, and does not know `load_wait` from the others.
async fn gateway(net: &Net) -> NodeHandle {
    let scaling = ModelScaling { load_wait: LOAD_WAIT, ..ModelScaling::default() };
    serve(net, "gateway", &FakeLauncher::default(), ModelArguments { scaling, ..scripted_model(0, 2) }).await
}

/// A node whose hosts have loaded.
async fn ready(net: &Net, node: &str) -> NodeHandle {
    let handle = decoder(net, node, &FakeLauncher::default()).await;
    until("its hosts are ready", async || handle.status().await.models[0].slots_idle == 8).await;
    handle
}

fn cold(node: &str) -> Candidate {
    Candidate { on_demand: true, ..candidate(node, 0) }
}

fn started(launcher: &FakeLauncher) -> usize {
    launcher.hosts.lock().expect("no panic").len()
}

#[tokio::test(start_paused = true)]
async fn callers_who_come_together_have_one_host_loaded_and_are_all_heard() {
    let wanted = {
        let node = start(FakeLauncher::default(), scripted_model(1, 4), SessionLimits::default()).await;
        speak(&node, &speech(2, 5), REAL_TIME).await
    };
    let (net, one, two) = (Net::default(), FakeLauncher::default(), FakeLauncher::default());
    let _nodes = (serve(&net, "one", &one, asleep()).await, serve(&net, "two", &two, asleep()).await);
    let node = gateway(&net).await;
    net.gossip(vec![cold("one"), cold("two")]);
    let audio = speech(2, 5);
    let (first, second) = tokio::join!(speak(&node, &audio, REAL_TIME), speak(&node, &audio, REAL_TIME));
    assert!(first.done && second.done);
    assert_eq!((&first.finals, &second.finals), (&wanted.finals, &wanted.finals));
    let hosts = [started(&one), started(&two)];
    assert!(hosts == [1, 0] || hosts == [0, 1], "{hosts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_is_idle_is_taken_and_nothing_is_loaded() {
    let (net, launcher) = (Net::default(), FakeLauncher::default());
    let ready = ready(&net, "ready").await;
    let _asleep = serve(&net, "asleep", &launcher, asleep()).await;
    let node = gateway(&net).await;
    net.gossip(vec![cold("asleep"), candidate("ready", 8)]);
    let held = node.open(request()).await.expect("is admitted");
    assert_eq!((busy(&ready).await, started(&launcher)), (1, 0));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_in_time() {
    let net = Net::default();
    let broken = FakeLauncher { never_ready: true, ..FakeLauncher::default() };
    let peer = serve(&net, "broken", &broken, asleep()).await;
    let node = gateway(&net).await;
    net.gossip(vec![cold("broken")]);
    let asked = Instant::now();
    let refused = node.open(request()).await.err().expect("nothing loads");
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(asked.elapsed() >= LOAD_WAIT && asked.elapsed() < LOAD_WAIT + Duration::from_secs(1));
    assert!(refused.retry_after_ms.is_some(), "{refused:?}");
    assert_eq!(peer.status().await.models[0].waiting, 0, "nobody waits over there any more");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_lost_the_last_decoder_has_another_loaded() {
    let net = Net::default();
    let lost = ready(&net, "lost").await;
    let launcher = FakeLauncher::default();
    let asleep = serve(&net, "asleep", &launcher, asleep()).await;
    let (link, streams) = net.join("gateway");
    let node = start_among(
        FakeLauncher::default(),
        scripted_model(0, 2),
        SessionLimits::default(),
        Some(net.peers(&link)),
    )
    .await;
    drop(streams);
    net.gossip(vec![candidate("lost", 8), cold("asleep")]);
    let audio = speech(4, 12);
    let speaking = {
        let node = node.clone();
        let audio = audio.clone();
        tokio::spawn(async move { speak(&node, &audio, REAL_TIME).await })
    };
    until("it is decoded on the first", async || busy(&lost).await == 1).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(started(&launcher), 0);
    net.gossip(vec![cold("asleep")]);
    net.cut("gateway", "lost");
    link.peer_lost(&name("lost"));
    until("it goes on on the other", async || busy(&asleep).await == 1).await;
    let heard = speaking.await.expect("no panic");
    assert!(heard.done);
    let calm = start(FakeLauncher::default(), scripted_model(1, 4), SessionLimits::default()).await;
    assert_eq!(heard.finals, speak(&calm, &audio, REAL_TIME).await.finals);
}
