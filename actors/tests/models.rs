//! Models that are added, replaced and taken away under a running node, on paused time.

mod support;

use std::sync::Arc;
use std::time::Duration;

use starling_actors::{
    Attachment, ModelArguments, NodeHandle, OpenRequest, ProcessEnd, ServeError, SessionLimits,
};
use starling_core::lineup::{Change, Stage};
use starling_protocol::native::ErrorCode;
use support::client::{
    Heard, bytes, listen, request, scripted_model, send, speak, speech, start, start_among,
};
use support::fake_host::FakeLauncher;
use support::memory_link::{Net, candidate};
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);

/// How long a pool is kept that nobody has a claim to.
const KEEP: Duration = Duration::from_secs(60);

fn model(name: &str, digest: &str, slots: u16) -> ModelArguments {
    ModelArguments { name: name.into(), digest: digest.into(), ..scripted_model(2, slots) }
}

async fn node(launcher: &FakeLauncher) -> NodeHandle {
    start(launcher.clone(), model("m", "old", 4), SessionLimits::default()).await
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Each pool: its model's name and digest, what it is there for, its leases.
async fn pools(node: &NodeHandle) -> Vec<(String, String, Stage, usize)> {
    let pools = node.status().await.models;
    pools.into_iter().map(|pool| (pool.name, pool.digest, pool.stage, pool.slots_busy)).collect()
}

fn pool(name: &str, digest: &str, stage: Stage, busy: usize) -> (String, String, Stage, usize) {
    (name.to_owned(), digest.to_owned(), stage, busy)
}

/// The digests of the hosts that live, sorted.
fn hosts(launcher: &FakeLauncher) -> Vec<String> {
    let mut digests: Vec<String> = launcher.alive().iter().map(|host| host.digest()).collect();
    digests.sort();
    digests
}

async fn changes(node: &NodeHandle, models: Vec<ModelArguments>) -> Vec<(String, Change)> {
    let changes = node.serve_models(models).await.expect("is taken");
    changes.into_iter().map(|change| (change.name, change.change)).collect()
}

fn for_model(name: &str) -> OpenRequest {
    OpenRequest { model: Some(name.into()), ..request() }
}

/// A session that has begun and goes on speaking by itself.
async fn speaking(node: &NodeHandle, audio: &[i16]) -> tokio::task::JoinHandle<Heard> {
    let Attachment { input, output, .. } = node.open(request()).await.expect("is admitted");
    tokio::spawn(send(input, bytes(audio), REAL_TIME));
    tokio::spawn(listen(output, Heard::default()))
}

fn is_fine(node: &NodeHandle) -> impl AsyncFn() + use<> {
    let node = node.clone();
    async move || {
        let failed = tokio::time::timeout(Duration::from_millis(1), node.failed()).await;
        assert!(failed.is_err(), "the node can go on");
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_is_replaced_under_load_and_open_sessions_keep_theirs() {
    let audio = speech(8, 12);
    let calm = speak(&node(&FakeLauncher::default()).await, &audio, REAL_TIME).await;
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let old = speaking(&node, &audio).await;
    sleep(Duration::from_secs(1)).await;

    assert_eq!(changes(&node, vec![model("m", "new", 4)]).await, [("m".to_owned(), Change::Replacing)]);
    until("the new one is ready", async || pools(&node).await[0].1 == "new").await;
    let new = speaking(&node, &audio).await;
    let both = [pool("m", "new", Stage::Current, 1), pool("m", "old", Stage::Leaving, 1)];
    assert_eq!(pools(&node).await, both);

    // Its hosts are still replaced by hosts of the same files.
    for _ in 0..3 {
        sleep(Duration::from_secs(1)).await;
        let of_old = launcher.alive().into_iter().filter(|host| host.digest() == "old");
        of_old.for_each(|host| host.die(ProcessEnd::Signal(9)));
    }
    until("hosts are back", async || hosts(&launcher) == ["new", "new", "old", "old"]).await;
    let heard = old.await.expect("no panic");
    assert_eq!(heard.finals, calm.finals);
    assert!(heard.warnings.is_empty());
    until("the old session is over", async || node.status().await.sessions == 1).await;
    let finished = Instant::now();
    assert_eq!(new.await.expect("no panic").finals, calm.finals);

    until("the old hosts end", async || hosts(&launcher) == ["new", "new"]).await;
    let kept = finished.elapsed();
    assert!((KEEP..KEEP + Duration::from_secs(5)).contains(&kept), "kept for {kept:?}");
    until("the old pool is gone", async || pools(&node).await == [pool("m", "new", Stage::Current, 0)]).await;
    is_fine(&node)().await;
    node.stop().await;
    assert!(launcher.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn until_the_new_one_is_ready_new_sessions_get_the_old_one() {
    let launcher = FakeLauncher { broken: Some("broken"), ..FakeLauncher::default() };
    let node = node(&launcher).await;
    assert!(speak(&node, &speech(1, 3), REAL_TIME).await.done);
    changes(&node, vec![model("m", "broken", 4)]).await;
    for _ in 0..20 {
        sleep(Duration::from_secs(10)).await;
        let asked = Instant::now();
        let session = node.open(request()).await.expect("is admitted");
        assert!(asked.elapsed() < Duration::from_millis(10), "nobody waits for it");
        session.input.abandon().await;
    }
    let both = [pool("m", "old", Stage::Current, 0), pool("m", "broken", Stage::Loading, 0)];
    until("slots are back", async || pools(&node).await == both).await;
    assert_eq!(changes(&node, vec![model("m", "old", 4)]).await, [("m".to_owned(), Change::Restored)]);
    until("the broken one is gone", async || hosts(&launcher) == ["old", "old"]).await;
    until("its pool too", async || pools(&node).await.len() == 1).await;
    is_fine(&node)().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_added_serves_and_one_that_is_taken_away_lets_its_sessions_finish() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let mut served = node.served();
    let names = |served: &mut tokio::sync::watch::Receiver<Arc<[ModelArguments]>>| -> Vec<String> {
        served.borrow_and_update().iter().map(|model| model.name.clone()).collect()
    };
    assert_eq!(names(&mut served), ["m"]);
    let unknown = node.open(for_model("n")).await.err().map(|body| body.code);
    assert_eq!(unknown, Some(ErrorCode::UnknownModel));

    let added = node.add_model(model("n", "n1", 4)).await.expect("is taken");
    assert_eq!((added.change, added.pool), (Change::Added, 1));
    let early = node.open(for_model("n")).await.expect("waits for its hosts");
    assert_eq!(early.ready.model, "n");
    assert_eq!(names(&mut served), ["m", "n"]);

    let calm = speech(2, 5);
    let old = speaking(&node, &calm).await;
    assert_eq!(
        changes(&node, vec![model("n", "n1", 4)]).await,
        [("m".to_owned(), Change::Retired), ("n".to_owned(), Change::Unchanged)]
    );
    let unknown = node.open(for_model("m")).await.err().map(|body| body.code);
    assert_eq!(unknown, Some(ErrorCode::UnknownModel));
    assert_eq!(node.open(request()).await.expect("is admitted").ready.model, "n", "it is the default now");
    assert_eq!(names(&mut served), ["n"]);
    assert!(old.await.expect("no panic").done);
    until("its hosts end", async || hosts(&launcher) == ["n1", "n1"]).await;
    is_fine(&node)().await;
}

#[tokio::test(start_paused = true)]
async fn other_settings_make_another_pool_and_a_lingering_session_keeps_the_first() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let Attachment { input, output, .. } = node.open(request()).await.expect("is admitted");
    changes(&node, vec![model("m", "old", 1)]).await;
    until("it is replaced", async || pools(&node).await[1].2 == Stage::Leaving).await;
    let slots = node.status().await.models[0].slots_total;
    assert_eq!(slots, 2, "two hosts of one slot");
    drop((input, output));
    // It waits for its client, and has a claim all the while.
    sleep(Duration::from_secs(59)).await;
    assert_eq!(pools(&node).await.len(), 2);
    until("it lingered out", async || node.status().await.sessions == 0).await;
    sleep(KEEP - Duration::from_secs(1)).await;
    assert_eq!(pools(&node).await.len(), 2);
    until("then its pool ends", async || pools(&node).await.len() == 1).await;
    assert_eq!(hosts(&launcher).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_model_replaced_again_and_again_has_a_bound_and_leaves_nothing() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let mut sessions = vec![node.open(request()).await.expect("is admitted")];
    for digest in ["1", "2", "3"] {
        changes(&node, vec![model("m", digest, 4)]).await;
        until("it is ready", async || pools(&node).await[0].1 == digest).await;
        sessions.push(node.open(request()).await.expect("is admitted"));
    }
    assert_eq!(changes(&node, vec![model("m", "4", 4)]).await, [("m".to_owned(), Change::Refused)]);
    assert_eq!(hosts(&launcher).len(), 8);
    assert_eq!(pools(&node).await[0], pool("m", "3", Stage::Current, 1));
    for session in sessions {
        session.input.abandon().await;
    }
    until("all but the last end", async || hosts(&launcher) == ["3", "3"]).await;
    until("their pools too", async || pools(&node).await == [pool("m", "3", Stage::Current, 0)]).await;
    is_fine(&node)().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_changes_nothing_any_more_and_ends_all_its_pools() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let session = node.open(request()).await.expect("is admitted");
    changes(&node, vec![model("m", "new", 4)]).await;
    until("it is replaced", async || hosts(&launcher).len() == 4).await;
    assert_eq!(node.serve_models(Vec::new()).await, Err(ServeError::Nothing));
    drop(session);
    node.drain(Duration::from_millis(100)).await;
    assert_eq!(node.serve_models(vec![model("m", "old", 4)]).await, Err(ServeError::Draining));
    node.clone().stop().await;
    assert!(launcher.alive().is_empty());
    assert_eq!(node.serve_models(vec![model("m", "old", 4)]).await, Err(ServeError::Gone));
}

async fn member(net: &Net, node: &str, launcher: &FakeLauncher, model: ModelArguments) -> NodeHandle {
    let (link, streams) = net.join(node);
    let peers = Some(net.peers(&link));
    let handle = start_among(launcher.clone(), model, SessionLimits::default(), peers).await;
    let serving = handle.clone();
    tokio::spawn(async move { serving.serve_peers(streams).await });
    handle
}

fn without_hosts(digest: &str) -> ModelArguments {
    ModelArguments { hosts: 0, ..model("m", digest, 4) }
}

#[tokio::test(start_paused = true)]
async fn peers_sessions_keep_the_files_they_began_with() {
    let audio = speech(8, 12);
    let calm = speak(&node(&FakeLauncher::default()).await, &audio, REAL_TIME).await;
    let net = Net::default();
    let launcher = FakeLauncher::default();
    let decoder = member(&net, "decoder", &launcher, model("m", "old", 4)).await;
    let gateway = member(&net, "gateway", &FakeLauncher::default(), without_hosts("old")).await;
    net.gossip_of("old", vec![candidate("decoder", 8)]);
    net.gossip_of("new", Vec::new());
    let old = speaking(&gateway, &audio).await;
    until("it is decoded", async || pools(&decoder).await[0].3 == 1).await;

    // The gateway is told first. It waits for somebody who can.
    changes(&gateway, vec![without_hosts("new")]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(pools(&gateway).await[0].1, "old");
    changes(&decoder, vec![model("m", "new", 4)]).await;
    until("the decoder has the new one", async || pools(&decoder).await[0].1 == "new").await;
    // Meanwhile a new session of the gateway's is one of the old model's.
    let last = gateway.open(request()).await.expect("is admitted");
    let both = [pool("m", "new", Stage::Current, 0), pool("m", "old", Stage::Leaving, 2)];
    assert_eq!(pools(&decoder).await, both);
    last.input.abandon().await;

    net.gossip_of("old", vec![candidate("decoder", 0)]);
    net.gossip_of("new", vec![candidate("decoder", 8)]);
    until("the gateway follows", async || pools(&gateway).await[0].1 == "new").await;
    let new = speaking(&gateway, &audio).await;
    assert_eq!(pools(&decoder).await[0].3, 1);

    // A host that dies sends the session to the hosts of its own files.
    let of_old = launcher.alive().into_iter().filter(|host| host.digest() == "old");
    of_old.for_each(|host| host.die(ProcessEnd::Signal(9)));
    assert_eq!(old.await.expect("no panic").finals, calm.finals);
    assert_eq!(new.await.expect("no panic").finals, calm.finals);
    until("the old hosts end", async || hosts(&launcher) == ["new", "new"]).await;
    until("pools end on both", async || pools(&gateway).await.len() + pools(&decoder).await.len() == 2).await;
    for node in [&gateway, &decoder] {
        is_fine(node)().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_between_two_decoders_finds_its_pool_again() {
    let net = Net::default();
    let launcher = FakeLauncher::default();
    let decoder = member(&net, "decoder", &launcher, model("m", "old", 4)).await;
    let gateway = member(&net, "gateway", &FakeLauncher::default(), without_hosts("old")).await;
    net.gossip_of("old", vec![candidate("decoder", 8)]);
    let old = speaking(&gateway, &speech(4, 12)).await;
    until("it is decoded", async || pools(&decoder).await[0].3 == 1).await;
    changes(&decoder, vec![model("m", "new", 4)]).await;
    until("it is replaced", async || pools(&decoder).await[0].1 == "new").await;

    // Cut off for a while, the session has no claim on the decoder's node; its pool waits for it.
    net.cut("gateway", "decoder");
    until("nobody claims it", async || decoder.status().await.relayed == 0).await;
    sleep(KEEP / 2).await;
    net.mend("gateway", "decoder");
    assert!(old.await.expect("no panic").done);
    until("then it ends", async || pools(&decoder).await.len() == 1).await;
}
