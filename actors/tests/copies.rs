//! Nodes in one process that keep copies of each other's sessions, on paused time: owners that die, are cut off, or hand over.

mod support;

use std::time::Duration;

use starling_actors::{Attachment, ModelArguments, NodeHandle, OpenRequest, ProcessEnd};
use starling_protocol::native::ErrorCode;
use starling_protocol::{Epoch, SourceOffset};
use support::caller::{Caller, STEP, STEP_BYTES, calm, until};
use support::client::{Heard, bytes, request, scripted_model, speech};
use support::fake_host::FakeLauncher;
use support::keepers::Cluster;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_when_its_node_is_gone() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    for (step, to) in [(0, "b"), (700, "c"), (1_500, "b"), (2_300, "c"), (3_900, "b")] {
        let cluster = Cluster::start(&["a", "b", "c"]).await;
        let mut caller = Caller::open(&cluster.node("a"), &audio).await;
        caller.speak(Duration::from_millis(1_000 + step)).await;
        assert_eq!(caller.durable.last(), Some(&true), "there is a copy");
        assert_eq!(caller.resume_at.len(), 1);
        let acked = caller.acked;
        assert!(acked > 0, "audio is acknowledged");
        cluster.kill("a");
        caller.resume_on(&cluster.node(to)).await.expect("goes on");
        assert!(caller.sent as u64 / 2 >= acked, "I4: what was acknowledged is there");
        let caller = caller.finish().await;
        assert_eq!(caller.heard.finals, wanted.finals, "after {step} ms, on {to}");
        assert_eq!(caller.durable.last(), Some(&true), "there is a new copy");
        until("I10: copies go with their session", async || cluster.copies().await == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_with_its_files_though_all_nodes_have_others_by_then() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &audio).await;
    caller.speak(Duration::from_millis(2_500)).await;
    for node in ["a", "b"] {
        let node = cluster.node(node);
        let replaced = ModelArguments { digest: "newer".into(), ..scripted_model(2, 4) };
        node.serve_models(vec![replaced]).await.expect("is taken");
        until("it is replaced", async || node.status().await.models[0].digest == "newer").await;
    }
    // Nobody on the other node has a session of the old one, but it keeps a copy of one.
    caller.listen(Duration::from_secs(200)).await;
    cluster.kill("a");
    let heir = cluster.node("b");
    caller.resume_on(&heir).await.expect("goes on");
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
    until("the copy goes", async || cluster.copies().await == 0).await;
    until("then its pool ends", async || heir.status().await.models.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_was_asked_to_obey_keeps_the_next_copy_at_once() {
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &speech(4, 12)).await;
    caller.speak(Duration::from_millis(1_500)).await;
    let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
    let other = if keeper == "b" { "c" } else { "b" };
    cluster.kill("a");
    // The one node that is left beside the new owner is the keeper.
    caller.resume_on(&cluster.node(other)).await.expect("goes on");
    caller.speak(Duration::from_millis(500)).await;
    assert_eq!(caller.durable.last(), Some(&true), "before nodes are looked for again");
}

#[tokio::test(start_paused = true)]
async fn owners_die_one_after_the_other() {
    let audio = speech(6, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &audio).await;
    for (round, at) in ["b", "c", "a", "b", "c"].into_iter().enumerate() {
        caller.speak(Duration::from_millis(1_800)).await;
        let dead = ["a", "b", "c"][round % 3];
        cluster.kill(dead);
        caller.resume_on(&cluster.node(at)).await.expect("goes on");
        // It comes back as a new node: empty.
        ["a", "b", "c"]
            .iter()
            .filter(|other| **other != dead)
            .for_each(|other| cluster.net.mend(dead, other));
        cluster.join(dead, 1, FakeLauncher::default()).await;
    }
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_is_fenced_when_it_is_back() {
    let audio = speech(5, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let old = cluster.node("a");
    let mut caller = Caller::open(&old, &audio).await;
    caller.speak(Duration::from_millis(1_500)).await;
    let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
    let other = if keeper == "b" { "c" } else { "b" };
    // Nothing passes any more, and nobody is told.
    ["b", "c"].iter().for_each(|node| cluster.net.silence("a", node));
    let (acked, finals) = (caller.acked, caller.heard.finals.len());
    // Its client speaks on, and is told nothing: what would count on a copy has none.
    caller.speak(Duration::from_millis(700)).await;
    assert!(caller.acked <= acked + 1_600 && caller.heard.finals.len() <= finals + 1);
    caller.resume_on(&cluster.node(other)).await.expect("goes on");
    caller.speak(Duration::from_millis(500)).await;
    ["b", "c"].iter().for_each(|node| cluster.net.mend("a", node));
    until("the zombie ends", async || old.status().await.sessions == 0).await;
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_began_a_session_the_one_that_was_asked_last_speaks() {
    let audio = speech(5, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    // Both can have their copies on the third alone.
    cluster.net.cut("a", "b");
    let (first, opening) = (cluster.node("a"), request());
    let unheard = Caller::open_with(&first, &audio, opening.clone()).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.copies().await, 1);
    drop(unheard);
    let again = OpenRequest { epoch: Epoch(2), ..opening };
    let mut caller = Caller::open_with(&cluster.node("b"), &audio, again).await;
    assert_eq!(caller.epoch, Epoch(2));
    caller.speak(Duration::from_millis(1_500)).await;
    assert_eq!(
        first.status().await.sessions,
        0,
        "its copy was refused, long before it would have been let go"
    );
    assert!(caller.acked > 0);
    cluster.kill("b");
    caller.resume_on(&cluster.node("c")).await.expect("goes on");
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn who_goes_on_counts_the_attempts_on() {
    let audio = speech(6, 12);
    let wanted = calm(&audio).await;
    let (cluster, launcher) = (Cluster::start(&[]).await, FakeLauncher::default());
    cluster.join("a", 1, launcher.clone()).await;
    for node in ["b", "c"] {
        cluster.join(node, 1, FakeLauncher::default()).await;
    }
    let attempt =
        async |node: &NodeHandle| node.session_reports(1).await.first().map(|report| report.attempt);
    let (owner, mut caller) = (cluster.node("a"), Caller::open(&cluster.node("a"), &audio).await);
    caller.speak(Duration::from_millis(700)).await;
    assert_eq!(attempt(&owner).await, Some(1));
    // Within the segment that is open, so that no commit follows.
    launcher.alive().iter().for_each(|host| host.die(ProcessEnd::Signal(9)));
    until("it has another", async || attempt(&owner).await == Some(2)).await;
    caller.speak(Duration::from_millis(500)).await;
    assert!(caller.heard.finals.is_empty());
    let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
    cluster.kill("a");
    caller.resume_on(&cluster.node(&keeper)).await.expect("goes on");
    assert_eq!(attempt(&cluster.node(&keeper)).await, Some(3));
    // Given away, it is counted on too.
    let other = if keeper == "b" { "c" } else { "b" };
    caller.speak(Duration::from_millis(500)).await;
    caller.resume_on(&cluster.node(other)).await.expect("goes on");
    assert_eq!(attempt(&cluster.node(other)).await, Some(4));
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn a_living_owner_hands_over() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b"]).await;
    // Without copies elsewhere all depends on the owner.
    cluster.join("c", 0, FakeLauncher::default()).await;
    let old = cluster.node("c");
    let mut caller = Caller::open(&old, &audio).await;
    caller.speak(Duration::from_millis(2_500)).await;
    assert_eq!(caller.durable, [false], "it has no copy, and said so");
    assert!(caller.acked > 0, "it publishes on its own copy");
    let before = (caller.sent, caller.acked);
    caller.resume_on(&cluster.node("a")).await.expect("goes on");
    assert!(caller.sent >= before.0, "nothing has to be sent again");
    until("the old one ends", async || old.status().await.sessions == 0).await;
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn what_the_last_owner_had_outlives_the_next_one() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    for back_at_first in [true, false] {
        let cluster = Cluster::start(&["a", "b", "c"]).await;
        let old = cluster.node("a");
        let mut caller = Caller::open(&old, &audio).await;
        caller.speak(Duration::from_millis(2_500)).await;
        let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
        let other = if keeper == "b" { "c" } else { "b" };
        let acked = caller.acked;
        // The client lost its connection, and its owner lives. The next one finds nobody for a copy of its own.
        cluster.net.cut(&keeper, other);
        cluster.hide("a");
        caller.resume_on(&cluster.node(&keeper)).await.expect("goes on");
        until("the owner hears of the next one", async || old.status().await.sessions == 0).await;
        cluster.show("a", old.clone());
        cluster.kill(&keeper);
        let heir = if back_at_first { old } else { cluster.node(other) };
        caller.resume_on(&heir).await.expect("goes on");
        assert!(caller.sent as u64 / 2 >= acked, "I4: what was acknowledged is there");
        assert_eq!(caller.finish().await.heard.finals, wanted.finals);
        until("I10: copies go with their session", async || cluster.copies().await == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_lost_is_made_anew_and_one_that_cannot_be_is_said() {
    let audio = speech(8, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &audio).await;
    caller.speak(Duration::from_millis(1_000)).await;
    let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
    cluster.kill(&keeper);
    caller.speak(Duration::from_millis(1_000)).await;
    assert_eq!(caller.durable, [false, true, true], "another view, without a break");
    assert_ne!(caller.resume_at, [format!("{keeper}:1")]);
    let acked = caller.acked;
    let last = caller.resume_at[0].trim_end_matches(":1").to_owned();
    cluster.kill(&last);
    caller.speak(Duration::from_millis(1_500)).await;
    assert!(caller.acked <= acked + 1_600, "nothing is told while another copy is sought");
    caller.speak(Duration::from_millis(1_500)).await;
    assert_eq!(caller.durable.last(), Some(&false));
    assert!(caller.acked > acked + 1_600, "then it goes on alone, and says so");
    cluster.join("d", 1, FakeLauncher::default()).await;
    caller.speak(Duration::from_millis(2_000)).await;
    assert_eq!(caller.durable.last(), Some(&true), "and it says when there is a copy again");
    assert_eq!(caller.resume_at, ["d:1"]);
    cluster.kill("a");
    caller.resume_on(&cluster.node("d")).await.expect("goes on");
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn with_both_copies_gone_or_a_forged_token_the_session_is_nowhere() {
    let audio = speech(2, 8);
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &audio).await;
    caller.speak(Duration::from_millis(1_000)).await;
    let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
    let other = if keeper == "b" { "c" } else { "b" };
    let token = std::mem::replace(&mut caller.token, "no token".into());
    let refused = caller.resume_on(&cluster.node(other)).await.map(|()| String::new());
    assert_eq!(refused.map_err(|body| body.code), Err(ErrorCode::BadToken));
    caller.token = token;
    cluster.kill("a");
    cluster.kill(&keeper);
    let refused = caller.resume_on(&cluster.node(other)).await.map(|()| String::new());
    assert_eq!(refused.map_err(|body| body.code), Err(ErrorCode::UnknownSession));
}

/// The client is at the node with no copy, and holds less than all since its last final.
#[tokio::test(start_paused = true)]
async fn audio_that_a_silent_node_may_have_is_not_given_up_before_it_was_waited_for() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    for comes_back in [true, false] {
        let cluster = Cluster::start(&["a", "b", "c"]).await;
        let mut caller = Caller::open(&cluster.node("a"), &audio).await;
        caller.speak(Duration::from_millis(900)).await;
        assert!(caller.durable.last() == Some(&true) && caller.heard.finals.is_empty() && caller.acked > 0);
        let keeper = caller.resume_at[0].trim_end_matches(":1").to_owned();
        let other = if keeper == "b" { "c" } else { "b" };
        cluster.kill("a");
        cluster.net.cut(&keeper, other);

        let since = Instant::now();
        let mut refused = Vec::new();
        let found = loop {
            let mut request = caller.resume();
            request.resume.have_from = SourceOffset(caller.acked);
            match cluster.node(other).resume(request).await {
                Ok(attachment) => break Some(attachment),
                Err(body) if body.code == ErrorCode::Busy => {
                    sleep(Duration::from_millis(body.retry_after_ms.expect("it says when"))).await;
                    refused.push(body);
                }
                Err(body) => {
                    assert!(!comes_back && body.code == ErrorCode::UnknownSession, "{body:?}");
                    let waited = since.elapsed();
                    assert!((10.0..11.0).contains(&waited.as_secs_f64()), "{waited:?}");
                    break None;
                }
            }
            if comes_back && refused.len() == 4 {
                cluster.net.mend(&keeper, other);
            }
        };
        let Some(Attachment { ready, input, output }) = found else { continue };
        assert_eq!(refused.len(), 4);
        assert!(ready.resumed && ready.have_until.0 >= caller.acked);
        (caller.input, caller.output, caller.acked) = (input, output, 0);
        caller.sent = ready.have_until.0 as usize * 2;
        assert_eq!(caller.finish().await.heard.finals, wanted.finals);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_with_more_than_the_copy_has_goes_on_from_there() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &audio).await;
    caller.speak(Duration::from_millis(900)).await;
    assert_eq!(caller.durable.last(), Some(&true));
    let token = caller.token.clone();
    // Cut off, the owner goes on alone after a while, and its client gets finals that no copy has.
    cluster.net.cut("a", "b");
    caller.speak(Duration::from_millis(4_500)).await;
    assert_eq!(caller.durable.last(), Some(&false));
    assert!(!caller.heard.finals.is_empty(), "finals went out");
    cluster.kill("a");
    caller.token = token;
    caller.resume_on(&cluster.node("b")).await.expect("goes on after the client's last final");
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn attempts_that_were_given_up_do_not_stand_in_the_way() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    let cluster = Cluster::start(&["a", "b", "c"]).await;
    let mut caller = Caller::open(&cluster.node("a"), &audio).await;
    caller.speak(Duration::from_millis(1_800)).await;
    cluster.kill("a");
    // Both are asked, and nobody waits for the first answers.
    for node in ["b", "c", "b"] {
        let (node, request) = (cluster.node(node), caller.resume());
        drop(timeout(Duration::from_nanos(1), node.resume(request)).await);
    }
    let mut tries = 0;
    while caller.resume_on(&cluster.node("c")).await.is_err() {
        tries += 1;
        assert!(tries < 5, "a higher epoch wins");
    }
    assert_eq!(caller.finish().await.heard.finals, wanted.finals);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_nothing_but_its_id_comes_back_to_any_node() {
    let audio = speech(4, 12);
    let wanted = calm(&audio).await;
    for gone in [true, false] {
        let cluster = Cluster::start(&["a", "b", "c"]).await;
        let opening = OpenRequest { by_id: true, ..request() };
        let nowhere =
            cluster.node("a").go_on(opening.clone()).await.map(|_| ()).expect_err("there is none yet");
        assert_eq!(nowhere.code, ErrorCode::UnknownSession);
        assert_eq!(cluster.node("a").status().await.sessions, 0, "none was begun");
        let Attachment { ready, mut input, mut output } =
            cluster.node("a").open(opening.clone()).await.expect("opens");
        assert!(!ready.resumed);
        let mut heard = Heard::default();
        let pcm = bytes(&audio);
        let half = pcm.len() / 2 / STEP_BYTES * STEP_BYTES;
        for piece in pcm[..half].chunks(STEP_BYTES) {
            input.audio(piece).await.expect("is taken");
            sleep(STEP).await;
        }
        // It reads the first final, and is gone before it reads the others.
        while heard.finals.is_empty() {
            heard.take(output.next().await.expect("goes on"));
        }
        input.confirm(heard.finals[0].segment).await.expect("is taken");
        sleep(STEP).await;
        drop((input, output));
        if gone {
            cluster.kill("a");
        }
        let node = cluster.node("b");
        let back = if gone { node.go_on(opening).await } else { node.open(opening).await };
        let Attachment { ready, mut input, mut output } = back.expect("goes on");
        assert!(ready.resumed);
        assert_eq!(ready.have_until.0 as usize * 2, half, "all that was sent is there");
        for piece in pcm[half..].chunks(STEP_BYTES) {
            input.audio(piece).await.expect("is taken");
            sleep(STEP).await;
        }
        input.end().await.expect("is taken");
        while !heard.take(output.next().await.expect("goes on")) {}
        assert_eq!(heard.finals, wanted.finals, "the first node gone: {gone}");
    }
}
