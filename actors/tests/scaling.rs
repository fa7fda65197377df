//! Hosts that follow the callers, on paused time: real actors, hosts as tasks, the scripted engine.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use starling_actors::{
    Attachment, MemoryKnown, ModelArguments, ModelScaling, ModelStatus, NodeHandle, SessionLimits,
};
use starling_core::scaling::{ScalingConfig, ScalingReason};
use starling_protocol::native::ErrorCode;
use support::client::{request, scripted_model, speak, speech, start};
use support::fake_host::FakeLauncher;
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);

fn scaled(hosts: u16, change: impl FnOnce(&mut ModelScaling)) -> ModelArguments {
    let policy = ScalingConfig { idle_target: 3, max: 16, ..ScalingConfig::default() };
    let mut scaling = ModelScaling { enabled: true, policy, ..ModelScaling::default() };
    change(&mut scaling);
    ModelArguments { scaling, ..scripted_model(hosts, 2) }
}

async fn node(launcher: &FakeLauncher, model: ModelArguments) -> NodeHandle {
    start(launcher.clone(), model, SessionLimits::default()).await
}

async fn model(node: &NodeHandle) -> ModelStatus {
    node.status().await.models.into_iter().next().expect("one model")
}

#[tokio::test(start_paused = true)]
async fn everybody_is_served_and_hosts_go_when_the_callers_have() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher, scaled(1, |_| {})).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(launcher.alive().len(), 2, "for three idle decoders");
    let audio = speech(6, 8);
    let calm = speak(&node, &audio, REAL_TIME).await;
    // Its decoder has to be given back, or it counts as one in use.
    sleep(Duration::from_secs(5)).await;
    let heard = join_all((0..9).map(|_| speak(&node, &audio, REAL_TIME)));
    let watching = async {
        sleep(Duration::from_secs(2)).await;
        assert_eq!(launcher.alive().len(), 6);
        let now = model(&node).await;
        assert_eq!((now.slots_busy, now.slots_desired), (9, 12));
        assert_eq!(now.scaling.map(|scaling| scaling.scale.reason), Some(ScalingReason::Demand));
    };
    let (heard, ()) = tokio::join!(heard, watching);
    assert!(heard.iter().all(|heard| heard.done && heard.finals == calm.finals));
    // Until the last decoder is given back; the cooldown, a check, and what a host that has worked may stay.
    sleep(Duration::from_secs(30 + 100 + 60 + 100)).await;
    assert!(launcher.alive().len() <= 3, "all but the two, and one that may have been started for nothing");
    // What one that has not worked may stay.
    sleep(Duration::from_secs(15 * 60)).await;
    assert_eq!(launcher.alive().len(), 2);
    assert_eq!((model(&node).await.hosts_parked, model(&node).await.restarts), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_stays_is_left_alone() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher, scaled(1, |scaling| scaling.policy.idle_target = 0)).await;
    let audio = speech(200, 8);
    let calm = speak(&node, &audio, REAL_TIME);
    let calls = async {
        sleep(Duration::from_secs(1)).await;
        let short = speech(1, 4);
        join_all((0..5).map(|_| speak(&node, &short, REAL_TIME))).await;
        sleep(Duration::from_secs(300)).await;
        launcher.alive().len()
    };
    let (heard, alive) = tokio::join!(calm, calls);
    assert!(heard.done && alive == 1, "{alive} hosts");
    assert_eq!(heard.text().split(' ').count(), 1_600);
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_of_a_model_without_hosts_waits_for_one() {
    let launcher = FakeLauncher::default();
    let on_demand = scaled(0, |scaling| scaling.policy.idle_target = 0);
    let node = node(&launcher, on_demand).await;
    assert_eq!(launcher.alive().len(), 0);
    assert!(model(&node).await.scaling.is_some_and(|scaling| scaling.on_demand));
    assert!(speak(&node, &speech(1, 4), REAL_TIME).await.done);
    sleep(Duration::from_secs(300)).await;
    assert_eq!(launcher.alive().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_host_is_started_that_there_is_no_memory_for() {
    let launcher = FakeLauncher::default();
    let available = Arc::new(AtomicU64::new(0));
    let known = Arc::clone(&available);
    let memory = MemoryKnown(Arc::new(move || Some(known.load(Ordering::Relaxed))));
    let node = node(&launcher, scaled(1, |scaling| scaling.memory = memory)).await;
    // What a host takes is known once one has told of it.
    sleep(Duration::from_secs(5)).await;
    let there = launcher.alive().len();
    let held: Vec<Attachment> = join_all((0..2 * there).map(|_| node.open(request())))
        .await
        .into_iter()
        .map(|open| open.expect("room"))
        .collect();
    let began = Instant::now();
    let refused = node.open(request()).await.err().map(|body| body.code);
    assert_eq!(refused, Some(ErrorCode::Busy));
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(launcher.alive().len(), there);
    assert_eq!(model(&node).await.scaling.map(|scaling| scaling.scale.reason), Some(ScalingReason::Maximum));
    available.store(u64::MAX / 2, Ordering::Relaxed);
    sleep(Duration::from_secs(3)).await;
    assert!(launcher.alive().len() > there);
    drop(held);
}
