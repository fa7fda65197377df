//! Real decoder processes that are killed, stopped and aborted in mid-utterance. What callers hear must not change.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use starling_actors::{Attachment, ModelArguments, NodeHandle, SessionEvent, SessionLimits};
use starling_engine::scripted::{self, Harm};
use starling_protocol::CutCause;
use support::client::{Heard, bytes, request, scripted_model, send, speak, speech, start};
use support::models::{model, recording};
use support::real::{host_pids, launcher, signal, wait_for_hosts};
use tokio::time::Instant;

const FAST: Duration = Duration::from_millis(5);

async fn node(model: ModelArguments) -> NodeHandle {
    let hosts = usize::from(model.hosts);
    let node = start(launcher(), model, SessionLimits::default()).await;
    wait_for_hosts(&node, hosts).await;
    node
}

/// Speaks, and does something to the node's hosts each time another `every` seconds of audio were decoded.
async fn speak_disturbed(node: &NodeHandle, audio: &[i16], every: u64, mut disturb: impl FnMut()) -> Heard {
    let Attachment { input, mut output, .. } = node.open(request()).await.expect("is admitted");
    let sending = tokio::spawn(send(input, bytes(audio), Duration::ZERO));
    let mut heard = Heard::default();
    let mut next = every * 16_000;
    while let Some(event) = output.next().await {
        if let SessionEvent::Progress { until, .. } = event
            && until.0 >= next
        {
            next = until.0 + every * 16_000;
            disturb();
        }
        if heard.take(event) {
            break;
        }
    }
    sending.abort();
    heard
}

fn all_hosts(with: Signal) -> impl Fn() {
    move || host_pids().into_iter().for_each(|pid| signal(pid, with))
}

/// Undisturbed, then with every host killed, stopped, and aborted, again and again.
async fn survives_everything(model: ModelArguments, audio: &[i16], every: u64) {
    let node = node(model).await;
    let calm = speak(&node, audio, Duration::ZERO).await;
    assert!(calm.done && !calm.text().is_empty(), "{calm:?}");
    for (name, with) in [("SIGKILL", Signal::KILL), ("SIGSTOP", Signal::STOP), ("SIGABRT", Signal::ABORT)] {
        let disturbances = AtomicBool::new(false);
        let faulty = speak_disturbed(&node, audio, every, || {
            disturbances.store(true, Ordering::Relaxed);
            all_hosts(with)();
        })
        .await;
        assert!(disturbances.load(Ordering::Relaxed), "nothing was disturbed");
        let given_up = faulty.finals.iter().filter(|last| last.cause == CutCause::GivenUp).count();
        assert_eq!(given_up, 0, "{name}: a signal from outside is no poison");
        assert_eq!(faulty.finals, calm.finals, "{name}");
    }
    node.stop().await;
    assert_eq!(host_pids(), Vec::<u32>::new(), "I10: no host outlives its node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vosk_survives_its_hosts() {
    let audio = recording("ko/ko-long.wav");
    survives_everything(model("vosk-ko-small", 2, 1), &audio[..20 * 16_000], 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moonshine_survives_its_hosts() {
    survives_everything(model("moonshine-tiny-en", 2, 1), &recording("two_cities.wav"), 9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_survive_the_death_of_each_host() {
    let node = node(scripted_model(2, 8)).await;
    let audio = speech(12, 20);
    let calm = speak(&node, &audio, FAST).await;
    let talks: Vec<_> = (0..16)
        .map(|_| {
            let (node, audio) = (node.clone(), audio.clone());
            tokio::spawn(async move { speak(&node, &audio, FAST).await })
        })
        .collect();
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let pids = host_pids();
        if let Some(pid) = pids.get(round % pids.len().max(1)) {
            signal(*pid, if round % 2 == 0 { Signal::KILL } else { Signal::STOP });
        }
    }
    for talk in talks {
        assert_eq!(talk.await.expect("no panic").finals, calm.finals);
    }
    // One that was stopped is found out by its silence, which may be after the last talk.
    let deadline = Instant::now() + Duration::from_secs(60);
    while node.status().await.models[0].restarts < 3 {
        assert!(Instant::now() < deadline, "{:?}", node.status().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_costs_itself_alone() {
    let node = node(scripted_model(2, 4)).await;
    let audio = speech(6, 10);
    let calm = speak(&node, &audio, FAST).await;
    for harm in [Harm::Abort, Harm::Segfault, Harm::Exit(3)] {
        let mut poisoned = scripted::encode(&["before"]);
        poisoned.extend(scripted::harm(1, harm, None));
        poisoned.extend(scripted::encode_from(2, &["after"]));
        let (bad, good, other) = tokio::join!(
            speak(&node, &poisoned, FAST),
            speak(&node, &audio, FAST),
            speak(&node, &audio, FAST)
        );
        assert_eq!((&good.finals, &other.finals), (&calm.finals, &calm.finals), "{harm:?}");
        assert_eq!(bad.finals[0].cause, CutCause::GivenUp, "{harm:?}");
        assert_eq!(bad.finals[0].to.0, 3_200, "{harm:?}: up to the end of the step that died");
        assert_eq!(bad.text(), "2:after", "{harm:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_never_returns_is_noticed_and_its_neighbours_lose_nothing() {
    let node = node(scripted_model(2, 4)).await;
    let audio = speech(6, 10);
    let calm = speak(&node, &audio, FAST).await;
    let folder = std::env::temp_dir().join(format!("starling-hang-{}", std::process::id()));
    let once = folder.to_str().expect("is UTF-8").to_owned();
    let mut hanging = scripted::encode(&["before"]);
    // Hangs the first time it is heard; the marker makes it harmless after that.
    hanging.extend(scripted::harm(1, Harm::Hang, Some(&once)));
    hanging.extend(scripted::encode_from(2, &["after"]));
    let (hung, good) = tokio::join!(speak(&node, &hanging, FAST), speak(&node, &audio, FAST));
    let _ = std::fs::remove_file(&folder);
    assert_eq!(good.finals, calm.finals);
    assert!(
        hung.done && hung.text().contains("0:before") && hung.text().contains("2:after"),
        "{}",
        hung.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_killed_again_and_again_for_a_minute_stops_nobody() {
    // Slots enough on the other host for everybody who begins while one is away.
    let node = node(scripted_model(2, 8)).await;
    let audio = speech(4, 10);
    let calm = speak(&node, &audio, FAST).await;
    let stop = Arc::new(AtomicBool::new(false));
    let talks: Vec<_> = (0..4)
        .map(|_| {
            let (node, audio, stop, wanted) =
                (node.clone(), audio.clone(), Arc::clone(&stop), calm.finals.clone());
            tokio::spawn(async move {
                let mut talks = 0;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(speak(&node, &audio, FAST).await.finals, wanted);
                    talks += 1;
                }
                talks
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(60);
    let mut kills = 0;
    while Instant::now() < end {
        if let Some(pid) = host_pids().iter().max() {
            signal(*pid, Signal::KILL);
            kills += 1;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for talk in talks {
        total += talk.await.expect("every talk was whole");
    }
    assert!(kills >= 10 && total >= 20, "{kills} kills, {total} talks");
}
