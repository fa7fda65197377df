//! A whole node on paused time: real actors, hosts as tasks, the scripted engine.

mod support;

use std::time::Duration;

use starling_actors::{Attachment, NodeHandle, ProcessEnd, ResumeRequest, SessionLimits};
use starling_protocol::native::{ErrorCode, Resume};
use starling_protocol::{CutCause, Epoch, SourceOffset};
use support::client::{Heard, bytes, listen, request, scripted_model, send, speak, speech, start};
use support::fake_host::FakeLauncher;
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);

async fn node(launcher: &FakeLauncher) -> NodeHandle {
    start(launcher.clone(), scripted_model(2, 4), SessionLimits::default()).await
}

#[tokio::test(start_paused = true)]
async fn an_undisturbed_session_hears_every_word_once() {
    let launcher = FakeLauncher::default();
    let heard = speak(&node(&launcher).await, &speech(3, 5), REAL_TIME).await;
    assert!(heard.done);
    let wanted: Vec<String> = (0..15).map(|n| format!("{n}:u{}w{}", n / 5, n % 5)).collect();
    assert_eq!(heard.text(), wanted.join(" "));
    assert!(heard.partials > 5, "{} partials", heard.partials);
    assert!(heard.finals.iter().all(|last| last.words.len() == last.text.split_whitespace().count()));
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_leaves_no_task() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let node = node(&FakeLauncher::default()).await;
    let audio = speech(2, 5);
    // Beyond what a session is given to end, and far below the 10 minutes that one may be idle.
    let settle = Duration::from_secs(60);
    speak(&node, &audio, REAL_TIME).await;
    sleep(settle).await;
    let before = tasks();
    for _ in 0..5 {
        assert!(speak(&node, &audio, REAL_TIME).await.done);
    }
    sleep(settle).await;
    assert!(tasks() <= before, "{} tasks, {before} before five sessions more", tasks());
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_killed_again_and_again_change_nothing() {
    let calm = speak(&node(&FakeLauncher::default()).await, &speech(6, 12), REAL_TIME).await;
    for seed in 0..10u64 {
        let launcher = FakeLauncher::default();
        let node = node(&launcher).await;
        let killer = launcher.kill_hosts(seed);
        let faulty = speak(&node, &speech(6, 12), REAL_TIME).await;
        killer.abort();
        assert_eq!(faulty.finals, calm.finals, "seed {seed}");
        assert!(launcher.hosts.lock().expect("no panic").len() > 4, "hosts were killed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_host_is_noticed_by_its_silence() {
    let calm = speak(&node(&FakeLauncher::default()).await, &speech(4, 12), REAL_TIME).await;
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let hosts = launcher.clone();
    let watching = tokio::spawn(async move {
        sleep(Duration::from_secs(2)).await;
        hosts.alive().iter().for_each(|host| host.freeze());
        let frozen = Instant::now();
        while hosts.alive().len() == 2 && hosts.hosts.lock().expect("no panic").len() == 2 {
            sleep(Duration::from_millis(10)).await;
        }
        let noticed = frozen.elapsed();
        assert!(noticed < Duration::from_millis(1_000), "noticed after {noticed:?}");
    });
    let heard = speak(&node, &speech(4, 12), REAL_TIME).await;
    watching.await.expect("noticed in time");
    assert_eq!(heard.finals, calm.finals);
}

#[tokio::test(start_paused = true)]
async fn poison_costs_its_own_step_and_its_neighbours_nothing() {
    let calm = speak(&node(&FakeLauncher::default()).await, &speech(3, 5), REAL_TIME).await;
    let launcher = FakeLauncher { poison: Some(7_777), ..FakeLauncher::default() };
    let node = node(&launcher).await;
    let mut poisoned = starling_engine::scripted::encode(&["before"]);
    poisoned.extend(starling_engine::scripted::encode_from(7_777, &["poison"]));
    poisoned.extend(starling_engine::scripted::encode_from(1, &["after"]));
    let audio = speech(3, 5);
    let (bad, good, other) = tokio::join!(
        speak(&node, &poisoned, REAL_TIME),
        speak(&node, &audio, REAL_TIME),
        speak(&node, &audio, REAL_TIME)
    );
    assert_eq!(good.finals, calm.finals);
    assert_eq!(other.finals, calm.finals);
    assert!(bad.done);
    assert_eq!(bad.finals[0].cause, CutCause::GivenUp);
    assert_eq!((bad.finals[0].from, bad.finals[0].to), (SourceOffset(0), SourceOffset(3_200)));
    assert!(bad.finals[0].error.is_some());
    assert_eq!(bad.text(), "1:after", "the session goes on after it");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_gets_what_it_lacks_once() {
    let launcher = FakeLauncher::default();
    let node = node(&launcher).await;
    let audio = bytes(&speech(4, 6));
    let first = request();
    let session = first.session;
    let calm = speak(&node, &speech(4, 6), REAL_TIME).await;

    let Attachment { ready, mut input, mut output } = node.open(first).await.expect("is admitted");
    let mut heard = Heard::default();
    input.audio(&audio[..audio.len() / 2 + 1]).await.expect("is taken");
    while heard.finals.is_empty() {
        heard.take(output.next().await.expect("goes on"));
    }
    drop((input, output));
    sleep(Duration::from_secs(30)).await;

    let resume = Resume {
        token: ready.token.clone(),
        epoch: Epoch(2),
        last_final: heard.finals.last().map(|last| last.segment),
        final_to: None,
        have_from: SourceOffset(0),
    };
    let again = ResumeRequest { session, tenant: String::new(), resume: resume.clone(), trace: None };
    let Attachment { ready, input, output } = node.resume(again.clone()).await.expect("goes on");
    assert!(ready.resumed);
    let rest = audio[ready.have_until.0 as usize * 2..].to_vec();
    tokio::spawn(send(input, rest, REAL_TIME));
    let heard = listen(output, heard).await;
    assert_eq!(heard.finals, calm.finals);

    let refused = |request| async { node.resume(request).await.err().map(|body| body.code) };
    assert_eq!(refused(again.clone()).await, Some(ErrorCode::Superseded));
    let forged = ResumeRequest {
        tenant: String::new(),
        session,
        resume: Resume { token: "x".into(), epoch: Epoch(9), ..resume },
        trace: None,
    };
    assert_eq!(refused(forged).await, Some(ErrorCode::BadToken));
    let foreign = ResumeRequest { session: starling_protocol::SessionId::random(), ..again.clone() };
    assert_eq!(refused(foreign).await, Some(ErrorCode::BadToken), "a token is one session's");
    sleep(Duration::from_secs(120)).await;
    let late = ResumeRequest { resume: Resume { epoch: Epoch(9), ..again.resume.clone() }, ..again };
    assert_eq!(refused(late).await, Some(ErrorCode::UnknownSession));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_hello_takes_the_session_over() {
    let node = node(&FakeLauncher::default()).await;
    let hello = request();
    let mut first = node.open(hello.clone()).await.expect("is admitted");
    let second = node.open(hello).await.expect("is the same session");
    assert_eq!(second.ready.session, first.ready.session);
    let mut last = None;
    while let Some(event) = first.output.next().await {
        last = Some(event);
    }
    assert!(
        matches!(last, Some(starling_actors::SessionEvent::Failed(body)) if body.code == ErrorCode::Superseded)
    );
    assert!(first.input.end().await.is_ok(), "an old connection's words are dropped, not answered");
    assert_eq!(node.status().await.sessions, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_node_refuses_in_time_and_slots_come_back() {
    let node = node(&FakeLauncher::default()).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(node.open(request()).await.expect("a slot is free"));
    }
    let asked = Instant::now();
    let refused = node.open(request()).await.err().expect("no slot is free");
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(refused.retry_after_ms.is_some());
    assert_eq!(asked.elapsed().as_secs(), 2, "the queue's deadline");
    held.pop().expect("held").input.abandon().await;
    node.open(request()).await.expect("the slot came back");
}

#[tokio::test(start_paused = true)]
async fn without_a_decoder_audio_waits_with_the_client_and_memory_is_bounded() {
    let launcher = FakeLauncher::default();
    let limits = SessionLimits { journal_bytes: 64_000, ..SessionLimits::default() };
    let node = start(launcher.clone(), scripted_model(1, 1), limits).await;
    let Attachment { mut input, .. } = node.open(request()).await.expect("is admitted");
    launcher.alive().iter().for_each(|host| host.freeze());
    let flood = async {
        for piece in 0u32.. {
            if input.audio(&[0; 3_200]).await.is_err() {
                return piece;
            }
        }
        unreachable!("audio is endless")
    };
    let taken = tokio::time::timeout(Duration::from_millis(500), flood).await;
    assert!(taken.is_err(), "sending waits: {taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_finishes_what_it_has_and_tells_the_rest() {
    let node = node(&FakeLauncher::default()).await;
    let calm = speech(2, 5);
    let (finishing, stuck) = (node.clone(), node.open(request()).await.expect("is admitted"));
    let speaking = tokio::spawn(async move { speak(&finishing, &calm, REAL_TIME).await });
    sleep(Duration::from_millis(200)).await;
    let listening = tokio::spawn(listen(stuck.output, Heard::default()));
    let draining = node.clone();
    let drained = tokio::spawn(async move { draining.drain(Duration::from_secs(20)).await });
    sleep(Duration::from_millis(10)).await;
    let refused = node.open(request()).await.err().map(|body| body.code);
    assert_eq!(refused, Some(ErrorCode::ShuttingDown));
    drained.await.expect("no panic");
    assert!(speaking.await.expect("no panic").done);
    let told = listening.await.expect("no panic").failed.map(|body| body.code);
    assert_eq!(told, Some(ErrorCode::ShuttingDown));
    assert_eq!(node.status().await.sessions, 0);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_has_stopped_when_nothing_is_left_of_its_hosts() {
    let lingers = Duration::from_secs(3);
    let launcher = FakeLauncher { lingers, ..FakeLauncher::default() };
    let node = node(&launcher).await;
    launcher.alive()[0].die(ProcessEnd::Signal(9));
    let killed = Instant::now();
    // Long enough for the death to be known and reported, and for a successor to be started.
    sleep(Duration::from_secs(1)).await;
    let last_started = launcher.alive().last().cloned().expect("there is a successor");
    last_started.die(ProcessEnd::Signal(9));
    node.stop().await;
    assert!(killed.elapsed() >= Duration::from_secs(1) + lingers, "{:?}", killed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_model_that_never_loads_keeps_nobody_waiting_for_ever() {
    let launcher = FakeLauncher { never_ready: true, ..FakeLauncher::default() };
    let node = node(&launcher).await;
    let refused = node.open(request()).await.err().map(|body| body.code);
    assert_eq!(refused, Some(ErrorCode::Busy));
    sleep(Duration::from_secs(40)).await;
    let started = launcher.hosts.lock().expect("no panic").len();
    assert!((3..=8).contains(&started), "hosts that don't load are replaced, not hammered: {started}");
}
