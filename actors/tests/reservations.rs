//! Slots that nodes keep for each other's sessions, and for each other's streams, on paused time.

mod support;

use std::time::Duration;

use starling_actors::{Attachment, NoAnswer, NodeHandle, PeerLink, ProcessEnd, SessionLimits};
use starling_core::placement::Candidate;
use starling_protocol::SessionId;
use starling_protocol::control::{PoolReply, PoolRequest, ReservationId};
use starling_protocol::data::{HeaderReply, LeaseHeader, LeaseReply, StreamHeader, StreamRefusal};
use starling_protocol::native::{ErrorBody, ErrorCode};
use support::client::{request, scripted_model, speak, speech, start_among};
use support::cluster::{Raw, busy, decoder, gateway, header, member, until};
use support::fake_host::FakeLauncher;
use support::memory_link::{Asked, MemoryLink, Net, candidate, name};
use tokio::time::{Instant, sleep};

const REAL_TIME: Duration = Duration::from_millis(100);
const AT_ONCE: Duration = Duration::from_millis(100);

/// A node with one slot, which is free.
async fn small(net: &Net) -> NodeHandle {
    let node = member(net, "small", &FakeLauncher::default(), 1, 1).await.1;
    until("its host is ready", async || idle(&node).await == 1).await;
    node
}

async fn idle(node: &NodeHandle) -> usize {
    node.status().await.models[0].slots_idle
}

fn reserve(session: SessionId, ttl_ms: u32, failover: bool) -> PoolRequest {
    let (model, digest) = ("scripted".to_owned(), "scripted".to_owned());
    PoolRequest::Reserve { model, digest, session, ttl_ms, failover, trace: None }
}

async fn reserved(node: &NodeHandle, session: SessionId) -> ReservationId {
    match node.ask_pool(reserve(session, 2_000, false)).await {
        PoolReply::Reserved { reservation, ttl_ms: 2_000 } => reservation,
        other => panic!("{other:?}"),
    }
}

async fn is_refused(node: &NodeHandle, request: PoolRequest) -> bool {
    matches!(node.ask_pool(request).await, PoolReply::Refused { retry_after_ms: 1.. })
}

/// What a peer is told on a stream that opens with `header`.
async fn answer(link: &MemoryLink, header: LeaseHeader) -> (Raw, Option<HeaderReply>) {
    let mut raw = Raw::open(link, "small").await;
    raw.say(&StreamHeader::Lease(header)).await;
    let said = raw.hear().await;
    (raw, said)
}

fn is_busy(said: Option<&HeaderReply>) -> bool {
    matches!(said, Some(HeaderReply::Refused { reason: StreamRefusal::BusyFor { retry_after_ms: 1.. } }))
}

async fn opened(node: &NodeHandle) -> Result<Attachment, ErrorBody> {
    node.open(request()).await
}

fn outcomes(net: &Net) -> Vec<&'static str> {
    let outcome = |asked: &Asked| match (&asked.request, &asked.reply) {
        (PoolRequest::Release { .. }, _) => "released",
        (_, Ok(PoolReply::Reserved { .. })) => "kept",
        (_, Ok(PoolReply::Refused { .. })) => "refused",
        (_, Ok(_)) => "not understood",
        (_, Err(NoAnswer::NotAsked)) => "not asked",
        (_, Err(NoAnswer::Silent)) => "silent",
    };
    net.asked().iter().map(outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_ask_for_the_last_slot_get_one_yes_and_one_no() {
    let net = Net::default();
    let decodes = small(&net).await;
    let (_, one) = gateway(&net).await;
    let (_, two) = member(&net, "gateway-2", &FakeLauncher::default(), 0, 4).await;
    net.gossip(vec![candidate("small", 1)]);
    let asked = Instant::now();
    let opening = [one, two].map(|node| {
        tokio::spawn(async move {
            let opened = opened(&node).await;
            (opened, asked.elapsed())
        })
    });
    until("both were answered", async || net.asked().len() == 2).await;
    let mut first = outcomes(&net);
    first.sort_unstable();
    assert_eq!(first, ["kept", "refused"]);
    assert!(asked.elapsed() < AT_ONCE, "a refusal comes after {:?}", asked.elapsed());
    let mut answers = Vec::new();
    for opening in opening {
        answers.push(opening.await.expect("no panic"));
    }
    answers.sort_by_key(|(_, took)| *took);
    assert!(answers[0].0.is_ok() && answers[0].1 < AT_ONCE, "one is admitted at once");
    let refused = answers[1].0.as_ref().err().expect("the other is not");
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(refused.retry_after_ms.is_some_and(|ms| ms >= 1_000), "{refused:?}");
    assert_eq!(busy(&decodes).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reservation_is_a_slot_that_is_not_idle_and_dies_with_its_time() {
    let net = Net::default();
    let node = small(&net).await;
    let kept = Instant::now();
    reserved(&node, SessionId::random()).await;
    assert_eq!((busy(&node).await, idle(&node).await), (1, 0), "as it is gossiped");
    assert!(is_refused(&node, reserve(SessionId::random(), 2_000, false)).await);
    sleep(Duration::from_secs(1)).await;
    let _waited = opened(&node).await.expect("is admitted");
    let waited = kept.elapsed();
    assert!(waited >= Duration::from_millis(1_990) && waited < Duration::from_millis(2_100), "{waited:?}");
    assert_eq!(busy(&node).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_asks_twice_has_one_reservation_and_can_give_it_back() {
    let net = Net::default();
    let node = decoder(&net, "other", &FakeLauncher::default()).await;
    until("its hosts are ready", async || idle(&node).await == 8).await;
    let session = SessionId::random();
    let reservation = reserved(&node, session).await;
    assert_eq!(reserved(&node, session).await, reservation);
    assert_eq!(busy(&node).await, 1);
    for _ in 0..2 {
        assert_eq!(node.ask_pool(PoolRequest::Release { reservation }).await, PoolReply::Released);
        assert_eq!((busy(&node).await, idle(&node).await), (0, 8));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_a_reservation_has_its_slot() {
    let net = Net::default();
    let node = small(&net).await;
    let (link, _streams) = net.join("asker");
    let wanted = LeaseHeader { patience_ms: 0, ..header() };
    let reservation = Some(reserved(&node, wanted.session).await.0);
    let (_, said) = answer(&link, LeaseHeader { session: SessionId::random(), ..wanted.clone() }).await;
    assert!(is_busy(said.as_ref()), "without one there is no slot: {said:?}");
    let thief = LeaseHeader { session: SessionId::random(), reservation, ..wanted.clone() };
    let (_, said) = answer(&link, thief).await;
    assert!(is_busy(said.as_ref()), "nor with another session's: {said:?}");
    let owner = LeaseHeader { reservation, ..wanted };
    let (mut raw, said) = answer(&link, owner.clone()).await;
    assert_eq!(said, Some(HeaderReply::Accepted));
    assert!(matches!(raw.hear().await, Some(LeaseReply::Granted { .. })));
    let (_, said) = answer(&link, owner).await;
    assert!(is_busy(said.as_ref()), "it is good once: {said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_whose_reservation_is_gone_is_an_ordinary_request() {
    let net = Net::default();
    let node = small(&net).await;
    let (link, _streams) = net.join("asker");
    let late = header();
    let reservation = Some(reserved(&node, late.session).await.0);
    sleep(Duration::from_secs(2)).await;
    let (mut raw, said) = answer(&link, LeaseHeader { reservation, ..late }).await;
    assert_eq!(said, Some(HeaderReply::Accepted));
    assert!(matches!(raw.hear().await, Some(LeaseReply::Granted { .. })));
    assert_eq!(busy(&node).await, 1);
}

#[tokio::test(start_paused = true)]
async fn the_reserve_is_there_for_sessions_that_lost_a_decoder() {
    let net = Net::default();
    let node = small(&net).await;
    let _held = opened(&node).await.expect("is admitted");
    assert!(is_refused(&node, reserve(SessionId::random(), 2_000, false)).await);
    let reply = node.ask_pool(reserve(SessionId::random(), 2_000, true)).await;
    assert!(matches!(reply, PoolReply::Reserved { .. }), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_is_not_kept() {
    let net = Net::default();
    let node = small(&net).await;
    let (_, takes_clients) = gateway(&net).await;
    let (model, session) = ("scripted".to_owned(), SessionId::random());
    let other = |digest: &str| PoolRequest::Reserve {
        model: model.clone(),
        digest: digest.to_owned(),
        session,
        ttl_ms: 2_000,
        failover: false,
        trace: None,
    };
    assert_eq!(node.ask_pool(other("older")).await, PoolReply::NoSuchModel);
    assert_eq!(takes_clients.ask_pool(other("scripted")).await, PoolReply::NoSuchModel);
    let draining = node.clone();
    let draining = tokio::spawn(async move { draining.drain(Duration::from_secs(1)).await });
    draining.await.expect("no panic");
    assert!(is_refused(&node, reserve(session, 2_000, true)).await);
}

#[tokio::test(start_paused = true)]
async fn a_new_session_reserves_and_one_that_goes_on_asks_on_the_stream() {
    let net = Net::default();
    let launcher = FakeLauncher::default();
    let node = decoder(&net, "other", &launcher).await;
    let (_, takes_clients) = gateway(&net).await;
    until("its hosts are ready", async || idle(&node).await == 8).await;
    net.gossip(vec![candidate("other", 8)]);
    let hosts = launcher.clone();
    let killing = tokio::spawn(async move {
        for _ in 0..2 {
            sleep(Duration::from_secs(2)).await;
            hosts.alive().iter().for_each(|host| host.die(ProcessEnd::Signal(9)));
        }
    });
    let heard = speak(&takes_clients, &speech(4, 12), REAL_TIME).await;
    killing.await.expect("no panic");
    assert!(heard.done);
    assert_eq!(outcomes(&net), ["kept"], "once, and it was used");
    until("the slot comes back", async || busy(&node).await == 0).await;
}

#[tokio::test(start_paused = true)]
async fn who_keeps_no_slots_is_asked_on_the_stream() {
    let net = Net::default();
    let node = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, takes_clients) = gateway(&net).await;
    net.gossip(vec![candidate("other", 8)]);
    net.is_older("other");
    let _first = opened(&takes_clients).await.expect("is admitted");
    net.has_no_link("other");
    let _second = opened(&takes_clients).await.expect("is admitted");
    assert_eq!(busy(&node).await, 2);
    assert_eq!(outcomes(&net), ["not understood", "not asked"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_passed_over() {
    let net = Net::default();
    let _silent = decoder(&net, "silent", &FakeLauncher::default()).await;
    let node = decoder(&net, "other", &FakeLauncher::default()).await;
    let (_, takes_clients) = gateway(&net).await;
    net.silence("gateway", "silent");
    net.gossip(vec![candidate("silent", 9), candidate("other", 8)]);
    let asked = Instant::now();
    let _session = opened(&takes_clients).await.expect("is admitted");
    assert!(asked.elapsed() < Duration::from_millis(600), "after {:?}", asked.elapsed());
    assert_eq!(busy(&node).await, 1);
    assert_eq!(outcomes(&net), ["silent", "kept"]);
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_was_kept_in_vain_is_given_back() {
    let net = Net::default();
    // It keeps slots, and what comes on its streams it does not hear.
    let (_link, _streams) = net.join("deaf");
    let model = scripted_model(1, 1);
    let deaf = start_among(FakeLauncher::default(), model, SessionLimits::default(), None).await;
    until("its host is ready", async || idle(&deaf).await == 1).await;
    net.answers("deaf", deaf.clone());
    let (_, takes_clients) = gateway(&net).await;
    net.gossip(vec![candidate("deaf", 1)]);
    let opening = tokio::spawn(async move { opened(&takes_clients).await });
    until("a slot is kept", async || busy(&deaf).await == 1).await;
    let kept = Instant::now();
    until("it is given back", async || outcomes(&net).ends_with(&["released"])).await;
    assert!(kept.elapsed() < Duration::from_secs(1), "after {:?}", kept.elapsed());
    // The client goes while the next is kept.
    until("a slot is kept again", async || busy(&deaf).await == 1).await;
    opening.abort();
    until("it is free", async || idle(&deaf).await == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_is_told_what_the_pool_expects() {
    let net = Net::default();
    let node = small(&net).await;
    let (_, takes_clients) = gateway(&net).await;
    net.gossip(vec![candidate("small", 1)]);
    // A slot comes free every three seconds.
    for _ in 0..4 {
        let held = opened(&takes_clients).await.expect("is admitted");
        sleep(Duration::from_secs(3)).await;
        held.input.abandon().await;
        until("the slot is back", async || idle(&node).await == 1).await;
    }
    let _held = opened(&takes_clients).await.expect("is admitted");
    for gossiped in [1, 0] {
        net.gossip(vec![candidate("small", gossiped)]);
        let refused = opened(&takes_clients).await.err().expect("there is no slot");
        let told = refused.retry_after_ms.expect("is told");
        assert!((2_500..10_000).contains(&told), "{told} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn sessions_are_admitted_while_any_node_can_be_lost() {
    let net = Net::default();
    // Four slots here; the other could take over two streams.
    let (_, node) = member(&net, "large", &FakeLauncher::default(), 1, 4).await;
    let other = |busy| Candidate { slots: 1, busy, ..candidate("other", 0) };
    net.gossip(vec![other(0)]);
    until("its host is ready", async || node.status().await.models[0].slots_total == 4).await;
    assert_eq!(idle(&node).await, 2, "as it is gossiped");
    let _held = [opened(&node).await.expect("is admitted"), opened(&node).await.expect("is admitted")];
    assert!(is_refused(&node, reserve(SessionId::random(), 2_000, false)).await);
    let reply = node.ask_pool(reserve(SessionId::random(), 1, true)).await;
    assert!(matches!(reply, PoolReply::Reserved { .. }), "that is what it is kept for: {reply:?}");
    let refused = opened(&node).await.err().expect("two slots are kept");
    assert_eq!(refused.code, ErrorCode::Busy);

    let waiting = tokio::spawn({
        let node = node.clone();
        async move { opened(&node).await }
    });
    sleep(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    net.gossip(vec![Candidate { slots: 4, ..other(1) }]);
    let changed = Instant::now();
    let _third = waiting.await.expect("no panic").expect("there is room now");
    assert!(changed.elapsed() < Duration::from_millis(250), "after {:?}", changed.elapsed());

    net.gossip(vec![]);
    let _fourth = opened(&node).await.expect("on its own it keeps nothing for others");
    assert_eq!(busy(&node).await, 4, "nobody was evicted meanwhile");
}

#[tokio::test(start_paused = true)]
async fn a_lost_nodes_streams_find_room_on_the_others() {
    let net = Net::default();
    let launchers = ["one", "two", "three"].map(|node| (node, FakeLauncher::default()));
    let mut nodes = Vec::new();
    for (node, launcher) in &launchers {
        nodes.push(member(&net, node, launcher, 1, 2).await.1);
    }
    let (link, takes_clients) = gateway(&net).await;
    let gossip = async |lost: &str| {
        let mut candidates = Vec::new();
        for ((node, _), handle) in launchers.iter().zip(&nodes).filter(|((node, _), _)| *node != lost) {
            let status = handle.status().await;
            let count = |number: usize| u32::try_from(number).expect("small");
            let (slots, busy) = (count(status.models[0].slots_total), count(status.models[0].slots_busy));
            candidates.push(Candidate { slots, busy, ..candidate(node, count(status.models[0].slots_idle)) });
        }
        net.gossip(candidates);
    };
    until("all hosts are ready", async || {
        gossip("none").await;
        let mut idle_slots = 0;
        for node in &nodes {
            idle_slots += idle(node).await;
        }
        idle_slots == 6
    })
    .await;
    let mut speaking = Vec::new();
    for _ in 0..6 {
        let node = takes_clients.clone();
        speaking.push(tokio::spawn(async move { speak(&node, &speech(2, 20), REAL_TIME).await }));
        sleep(Duration::from_millis(50)).await;
        gossip("none").await;
    }
    assert_eq!(busy(&nodes[0]).await, 2, "every slot is taken: nodes of one size need not keep any back");
    gossip("one").await;
    link.peer_lost(&name("one"));
    let lost = Instant::now();
    until("they go on", async || busy(&nodes[1]).await + busy(&nodes[2]).await == 6).await;
    assert!(lost.elapsed() < AT_ONCE, "after {:?}", lost.elapsed());
    for heard in speaking {
        assert!(heard.await.expect("no panic").done);
    }
}
