//! Several nodes in one process on paused time: sessions on one, decoders on others, memory between them.

mod support;

use std::time::Duration;

use starling_actors::{Attachment, PeerLink, SessionLimits};
use starling_core::placement::Candidate;
use starling_protocol::data::{
    DATA_PROTOCOL, HeaderReply, LeaseHeader, LeaseLost, LeaseReply, MAX_HEADER_BYTES, StreamHeader,
    StreamRefusal,
};
use starling_protocol::lease::{DecodeOptions, FromHost, Priority, ToHost};
use starling_protocol::native::{ErrorCode, WarningCode};
use starling_protocol::{Attempt, CutCause, DecodeOffset, LeaseId, Segment};
use support::client::{
    Heard, bytes, listen, request, scripted_model, send, speak, speech, start, start_among,
};
use support::cluster::{LEASE, Raw, busy, decoder, gateway, header, member, until};
use support::fake_host::FakeLauncher;
use support::memory_link::{MemoryLink, Net, candidate, name};
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);

async fn calm(utterances: u32, words: u32) -> Heard {
    let node = start(FakeLauncher::default(), scripted_model(2, 4), SessionLimits::default()).await;
    speak(&node, &speech(utterances, words), REAL_TIME).await
}

#[tokio::test(start_paused = true)]
async fn a_session_on_one_node_is_decoded_on_another() {
    let net = Net::default();
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, node) = gateway(&net).await;
    net.gossip(vec![candidate("other", 8)]);
    let heard = speak(&node, &speech(3, 5), REAL_TIME).await;
    assert!(heard.done);
    assert!(heard.partials > 5, "{} partials", heard.partials);
    assert_eq!(heard.finals, calm(3, 5).await.finals);
    until("the slot comes back", async || busy(&other).await == 0 && other.status().await.relayed == 0).await;
}

#[tokio::test(start_paused = true)]
async fn hosts_that_are_killed_on_another_node_change_nothing() {
    let wanted = calm(6, 12).await;
    for seed in 0..5u64 {
        let net = Net::default();
        let launcher = FakeLauncher::default();
        let _other = decoder(&net, "other", &launcher).await;
        let (_, node) = gateway(&net).await;
        net.gossip(vec![candidate("other", 8)]);
        let killer = launcher.kill_hosts(seed);
        let heard = speak(&node, &speech(6, 12), REAL_TIME).await;
        killer.abort();
        assert_eq!(heard.finals, wanted.finals, "seed {seed}");
        assert!(launcher.hosts.lock().expect("no panic").len() > 4, "hosts were killed");
    }
}

#[tokio::test(start_paused = true)]
async fn poison_is_known_across_nodes() {
    let net = Net::default();
    let launcher = FakeLauncher { poison: Some(7_777), ..FakeLauncher::default() };
    let _other = decoder(&net, "other", &launcher).await;
    let (_, node) = gateway(&net).await;
    net.gossip(vec![candidate("other", 8)]);
    let mut poisoned = starling_engine::scripted::encode(&["before"]);
    poisoned.extend(starling_engine::scripted::encode_from(7_777, &["poison"]));
    poisoned.extend(starling_engine::scripted::encode_from(1, &["after"]));
    let audio = speech(3, 5);
    let (bad, good) = tokio::join!(speak(&node, &poisoned, REAL_TIME), speak(&node, &audio, REAL_TIME));
    assert_eq!(good.finals, calm(3, 5).await.finals);
    assert_eq!(bad.finals[0].cause, CutCause::GivenUp);
    assert!(bad.done && bad.finals[0].error.is_some());
    assert_eq!(bad.text(), "1:after", "the session goes on after it");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_lost_is_replaced_by_another() {
    let wanted = calm(4, 12).await;
    let net = Net::default();
    let lost = decoder(&net, "lost", &FakeLauncher { class: "avx2", ..FakeLauncher::default() }).await;
    let other = decoder(&net, "other", &FakeLauncher { class: "neon", ..FakeLauncher::default() }).await;
    let (link, node) = gateway(&net).await;
    net.gossip(vec![
        Candidate { class: "avx2".into(), ..candidate("lost", 9) },
        Candidate { class: "neon".into(), ..candidate("other", 4) },
    ]);
    let audio = speech(4, 12);
    let speaking = {
        let node = node.clone();
        tokio::spawn(async move { speak(&node, &audio, REAL_TIME).await })
    };
    until("it is decoded on the first", async || busy(&lost).await == 1).await;
    sleep(Duration::from_secs(2)).await;
    net.silence("gateway", "lost");
    sleep(Duration::from_millis(700)).await;
    link.peer_lost(&name("lost"));
    let told = Instant::now();
    until("it goes on on the other", async || busy(&other).await == 1).await;
    assert!(told.elapsed() < Duration::from_millis(100), "after {:?}", told.elapsed());
    until("the lost node notices too", async || busy(&lost).await == 0).await;
    let heard = speaking.await.expect("no panic");
    assert_eq!(heard.finals, wanted.finals);
    assert_eq!(heard.warnings, [WarningCode::Determinism], "it may hear other words there");
}

#[tokio::test(start_paused = true)]
async fn a_reserve_in_the_class_comes_before_an_idle_slot_outside_of_it() {
    let net = Net::default();
    let of_class = |class| FakeLauncher { class, ..FakeLauncher::default() };
    let lost = decoder(&net, "lost", &of_class("avx2")).await;
    let (_, alike) = member(&net, "alike", &of_class("avx2"), 1, 1).await;
    let _other = decoder(&net, "other", &of_class("neon")).await;
    let (link, node) = gateway(&net).await;
    let told = |class: &str, node: &str, idle| Candidate { class: class.into(), ..candidate(node, idle) };
    net.gossip(vec![told("avx2", "alike", 1)]);
    let _held = node.open(request()).await.expect("is admitted");
    net.gossip(vec![told("avx2", "alike", 0), told("avx2", "lost", 8)]);
    let speaking = {
        let node = node.clone();
        tokio::spawn(async move { speak(&node, &speech(4, 12), REAL_TIME).await })
    };
    until("it is decoded on the first", async || busy(&lost).await == 1).await;
    sleep(Duration::from_secs(2)).await;
    net.gossip(vec![told("avx2", "alike", 0), told("neon", "other", 8)]);
    net.cut("gateway", "lost");
    link.peer_lost(&name("lost"));
    until("it goes on in the reserve", async || busy(&alike).await == 2).await;
    let heard = speaking.await.expect("no panic");
    assert!(heard.done && heard.warnings.is_empty(), "{:?}", heard.warnings);
}

#[tokio::test(start_paused = true)]
async fn who_is_full_asks_others_and_who_is_not_does_not() {
    let net = Net::default();
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, node) = member(&net, "own", &FakeLauncher::default(), 1, 1).await;
    net.gossip(vec![candidate("other", 8)]);
    until("its host is ready", async || node.status().await.models[0].slots_idle == 1).await;
    let _first = node.open(request()).await.expect("is admitted");
    assert_eq!((busy(&node).await, busy(&other).await), (1, 0));
    let second = node.open(request()).await.expect("is admitted");
    assert_eq!((busy(&node).await, busy(&other).await), (1, 1));
    second.input.abandon().await;
    until("the slot comes back", async || busy(&other).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn stale_gossip_costs_a_refusal_and_no_session() {
    let net = Net::default();
    let full = member(&net, "full", &FakeLauncher::default(), 1, 1).await.1;
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, node) = gateway(&net).await;
    net.gossip(vec![candidate("full", 9)]);
    let _held = node.open(request()).await.expect("is admitted");
    assert_eq!(busy(&full).await, 1);
    net.gossip(vec![candidate("full", 9), candidate("other", 1)]);
    let asked = Instant::now();
    let _second = node.open(request()).await.expect("is admitted");
    assert_eq!(busy(&other).await, 1);
    assert!(asked.elapsed() < Duration::from_millis(100), "after {:?}", asked.elapsed());
    net.gossip(vec![candidate("full", 9)]);
    let asked = Instant::now();
    let refused = node.open(request()).await.err().expect("nobody has a slot");
    assert_eq!(refused.code, ErrorCode::Busy);
    let waited = asked.elapsed();
    assert!((2..4).contains(&waited.as_secs()), "the queue's deadline, not {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gateways_queue_has_an_end() {
    let net = Net::default();
    let _full = member(&net, "full", &FakeLauncher::default(), 1, 1).await.1;
    let (link, _streams) = net.join("gateway");
    let limits = SessionLimits { queue_length: 2, ..SessionLimits::default() };
    let model = scripted_model(0, 4);
    let node = start_among(FakeLauncher::default(), model, limits, Some(net.peers(&link))).await;
    net.gossip(vec![candidate("full", 1)]);
    let held = node.open(request()).await.expect("is admitted");
    net.gossip(vec![candidate("full", 0)]);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.open(request()).await })
        })
        .collect();
    sleep(Duration::from_millis(100)).await;
    let asked = Instant::now();
    let refused = node.open(request()).await.err().expect("too many wait");
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(asked.elapsed() < Duration::from_millis(100), "at once, not after {:?}", asked.elapsed());
    held.input.abandon().await;
    let mut admitted = 0;
    for waiter in waiting {
        admitted += usize::from(waiter.await.expect("no panic").is_ok());
    }
    assert_eq!(admitted, 1, "the slot goes to one that waited");
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_lets_its_peers_leave_at_a_cut() {
    let wanted = calm(4, 6).await;
    let net = Net::default();
    let leaving = decoder(&net, "leaving", &FakeLauncher::default()).await;
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, node) = gateway(&net).await;
    net.gossip(vec![candidate("leaving", 9), candidate("other", 4)]);
    let speaking = tokio::spawn(async move { speak(&node, &speech(4, 6), REAL_TIME).await });
    until("it is decoded there", async || busy(&leaving).await == 1).await;
    let began = Instant::now();
    leaving.drain(Duration::from_secs(20)).await;
    assert!(began.elapsed() < Duration::from_secs(10), "after {:?}", began.elapsed());
    assert_eq!(busy(&other).await, 1);
    leaving.stop().await;
    let heard = speaking.await.expect("no panic");
    assert_eq!(heard.finals, wanted.finals);
}

fn open_lease(window: u16) -> ToHost {
    ToHost::Open {
        lease: LEASE,
        attempt: Attempt(1),
        options: DecodeOptions::default(),
        segment: Segment(0),
        from: DecodeOffset(0),
        priority: Priority::Live,
        window,
        partial_interval_ms: 0,
        trace: None,
        decoded_interval_ms: 0,
    }
}

fn feed(step: u64) -> ToHost {
    ToHost::Feed { lease: LEASE, at: DecodeOffset(step * 1_600), pcm: vec![0; 3_200] }
}

async fn granted(link: &MemoryLink) -> Raw {
    let mut raw = Raw::open(link, "other").await;
    raw.say(&StreamHeader::Lease(header())).await;
    assert_eq!(raw.hear().await, Some(HeaderReply::Accepted));
    assert!(matches!(raw.hear().await, Some(LeaseReply::Granted { .. })));
    raw
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_keeps_a_lease_until_it_is_given_back() {
    let net = Net::default();
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (link, _streams) = net.join("asker");
    let mut raw = granted(&link).await;
    let draining = other.clone();
    let draining = tokio::spawn(async move { draining.drain(Duration::from_secs(20)).await });
    assert_eq!(raw.hear().await, Some(LeaseReply::Retiring));
    raw.say(&open_lease(4)).await;
    raw.say(&feed(0)).await;
    assert!(
        matches!(raw.hear().await, Some(LeaseReply::Host(FromHost::Opened { .. }))),
        "it goes on meanwhile"
    );
    assert_eq!(busy(&other).await, 1);
    drop(raw);
    draining.await.expect("no panic");
    until("the slot is back", async || busy(&other).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_asks_for_what_is_not_served_is_told_why() {
    let net = Net::default();
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (link, _streams) = net.join("asker");
    let wrong = [
        LeaseHeader { version: 9, ..header() },
        LeaseHeader { model: "none".into(), ..header() },
        LeaseHeader { digest: "older".into(), ..header() },
    ];
    let mut reasons = Vec::new();
    for header in wrong {
        let mut raw = Raw::open(&link, "other").await;
        raw.say(&StreamHeader::Lease(header)).await;
        let Some(HeaderReply::Refused { reason }) = raw.hear().await else { panic!("is refused") };
        reasons.push(reason);
        assert_eq!(raw.hear::<LeaseReply>().await, None, "the stream is closed");
    }
    let (offered, served) = ("older".to_owned(), "scripted".to_owned());
    let wanted = [
        StreamRefusal::Version { offered: 9, spoken: DATA_PROTOCOL },
        StreamRefusal::UnknownModel { model: "none".into() },
        StreamRefusal::WrongDigest { model: "scripted".into(), offered, served },
    ];
    assert_eq!(reasons, wanted);

    let mut newer = Raw::open(&link, "other").await;
    newer.say(&"of another kind").await;
    assert!(matches!(
        newer.hear().await,
        Some(HeaderReply::Refused { reason: StreamRefusal::Unreadable { .. } })
    ));
    let mut large = Raw::open(&link, "other").await;
    let model = "x".repeat(MAX_HEADER_BYTES);
    large.say(&StreamHeader::Lease(LeaseHeader { model, ..header() })).await;
    assert!(matches!(
        large.hear().await,
        Some(HeaderReply::Refused { reason: StreamRefusal::Unreadable { .. } })
    ));
    let mut mute = Raw::open(&link, "other").await;
    assert_eq!(mute.hear::<HeaderReply>().await, None, "a stream without a header is closed");
    assert_eq!(busy(&other).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slot_comes_back_however_its_stream_ends() {
    let net = Net::default();
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (link, _streams) = net.join("asker");
    drop(granted(&link).await);
    let mut opened = granted(&link).await;
    opened.say(&open_lease(20)).await;
    opened.say(&feed(0)).await;
    assert!(matches!(opened.hear().await, Some(LeaseReply::Host(FromHost::Opened { lease: LEASE, .. }))));
    let mut closed = granted(&link).await;
    closed.say(&open_lease(20)).await;
    closed.say(&ToHost::Close { lease: LEASE }).await;
    assert_eq!(busy(&other).await, 2);
    drop(opened);
    until("all slots are back", async || busy(&other).await == 0 && other.status().await.relayed == 0).await;
    assert_eq!(other.status().await.models[0].slots_idle, 8);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_breaks_the_rules_loses_its_lease_and_nobody_else_does() {
    let net = Net::default();
    let other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (link, _streams) = net.join("asker");
    let overdrawn = || (0..5).map(feed).collect::<Vec<_>>();
    let breaches = [
        vec![feed(0)],
        vec![open_lease(u16::MAX)],
        vec![open_lease(4), open_lease(4)],
        vec![open_lease(4), ToHost::Shutdown],
        vec![open_lease(4), ToHost::Close { lease: LeaseId(1) }],
        [vec![open_lease(4)], overdrawn()].concat(),
    ];
    for breach in breaches {
        let mut raw = granted(&link).await;
        for command in &breach {
            raw.say(command).await;
        }
        let mut last = None;
        while let Some(reply) = raw.hear::<LeaseReply>().await {
            last = Some(reply);
        }
        assert_eq!(last, Some(LeaseReply::Lost { cause: LeaseLost::Protocol }), "{breach:?}");
    }
    until("all slots are back", async || busy(&other).await == 0).await;
    assert_eq!(other.status().await.models[0].restarts, 0, "no host was told of it");
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_answers_nothing_is_sent_one_window_and_the_client_waits() {
    let net = Net::default();
    let (_, mut streams) = net.join("other");
    let (link, _own) = net.join("gateway");
    let limits = SessionLimits { journal_bytes: 64_000, ..SessionLimits::default() };
    let model = scripted_model(0, 4);
    let node = start_among(FakeLauncher::default(), model, limits, Some(net.peers(&link))).await;
    net.gossip(vec![candidate("other", 8)]);
    let opening = tokio::spawn(async move { node.open(request()).await });
    let stream = streams.recv().await.expect("the session asks").stream;
    let mut relay = Raw::of(stream);
    assert!(matches!(relay.hear().await, Some(StreamHeader::Lease(_))));
    relay.say(&HeaderReply::Accepted).await;
    relay.say(&LeaseReply::Granted { waited_ms: 0, determinism: String::new() }).await;
    let attachment = opening.await.expect("no panic").expect("is admitted");
    let Attachment { mut input, output: _output, .. } = attachment;
    let flood = tokio::spawn(async move { while input.audio(&[0; 3_200]).await.is_ok() {} });
    let mut steps = 0;
    let counting = async {
        while let Some(command) = relay.hear::<ToHost>().await {
            steps += usize::from(matches!(command, ToHost::Feed { .. }));
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), counting).await.is_err(), "the stream stays");
    assert_eq!(steps, 20, "the session's window");
    assert!(!flood.is_finished(), "the client waits");
}

#[tokio::test(start_paused = true)]
async fn a_recording_that_comes_at_once_gives_the_same_finals() {
    let net = Net::default();
    let _other = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, node) = gateway(&net).await;
    net.gossip(vec![candidate("other", 8)]);
    let wanted = calm(4, 6).await;
    let Attachment { input, output, .. } = node.open(request()).await.expect("is admitted");
    tokio::spawn(send(input, bytes(&speech(4, 6)), Duration::ZERO));
    let heard = listen(output, Heard::default()).await;
    assert_eq!(heard.finals, wanted.finals);
}
