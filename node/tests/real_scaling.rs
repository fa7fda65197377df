//! Decoder hosts that become more and fewer with the callers, in the built program.

mod program;

use std::time::Duration;

use program::cluster::status;
use program::scripted::{heard, pcm, transcript, try_open};
use program::*;
use serde_json::Value;
use starling_client::{AudioSender, Events};
use starling_engine::catalogue::Home;
use tokio::time::Instant;

async fn open(program: &Program, model: &str) -> (AudioSender, Events) {
    let opened = try_open(program.url(), Some(model)).await;
    opened.unwrap_or_else(|error| panic!("{error}\n{}", program.log()))
}

/// What `GET /v1/scaling` says of a model.
async fn scaling(program: &Program, model: &str) -> Option<Value> {
    let report = json(program.http, "/v1/scaling").await?;
    report["models"].as_array()?.iter().find(|entry| entry["name"] == model).cloned()
}

async fn wait_for_hosts(program: &Program, wanted: usize) {
    poll(&format!("{wanted} hosts"), async || (program.hosts().len() == wanted).then_some(())).await;
}

/// Times that a test need not wait for; the policy is the same.
const QUICK: &str = "cooldown = \"0s\"\ncheck_interval = \"1s\"\nidle_ttl = \"1s\"\nunused_ttl = \"1s\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_come_with_callers_and_go_with_them_and_nobody_is_lost() {
    let settings = Settings::new(&format!(
        "[sessions]\nqueue_wait = \"60s\"\n[[model]]\nname = \"scripted\"\nhosts = 1\nslots = 2\n\
         [model.scaling]\nenabled = true\nmax = 8\nidle_target = 1\n{QUICK}"
    ));
    let program = Program::serve(&["--config", settings.path()], 1).await;
    assert_eq!(program.hosts().len(), 1, "one idle decoder is there already");

    let opening = futures_util::future::join_all((0..6).map(|_| open(&program, "scripted")));
    let mut sessions = tokio::time::timeout(PATIENCE, opening).await.expect("nobody waits for ever");
    wait_for_hosts(&program, 4).await;
    // What the pool itself says comes first; the cluster's view of it is up to a second old.
    poll("four ready hosts, for six callers and one to come", async || {
        let model = scaling(&program, "scripted").await?;
        let own = (&model["own"]["hosts"], &model["own"]["desired"]) == (&4.into(), &8.into());
        let all = (&model["busy"], &model["desired"]) == (&6.into(), &7.into());
        (own && all && model["reason"] == "demand").then_some(())
    })
    .await;

    let pcm = pcm();
    let (first, rest) = pcm.split_at(pcm.len() / 2);
    for (sender, _) in &mut sessions {
        sender.send(first).await.expect("sent");
    }
    let staying = sessions.split_off(4);
    for (mut sender, events) in sessions {
        sender.send(rest).await.expect("sent");
        sender.end().await.expect("ended");
        assert_eq!(heard(events).await, transcript());
    }
    // Three decoders are needed still. Whoever has one keeps it, wherever that is.
    wait_for_hosts(&program, 2).await;
    for (mut sender, events) in staying {
        sender.send(rest).await.expect("sent");
        sender.end().await.expect("ended");
        assert_eq!(heard(events).await, transcript());
    }
    wait_for_hosts(&program, 1).await;
    poll("rest", async || {
        let own = scaling(&program, "scripted").await?["own"].clone();
        let [parked, hosts, desired] = ["parked", "hosts", "desired"].map(|name| own[name].as_u64());
        ((parked, hosts, desired) == (Some(0), Some(1), Some(2))).then_some(())
    })
    .await;
    let metrics = get(program.http, "/metrics").await.expect("answers");
    let refused = metrics.lines().filter(|line| line.starts_with("starling_sessions_refused_total{"));
    assert!(refused.clone().all(|line| line.ends_with(" 0")), "{:?}", refused.collect::<Vec<_>>());
    let lost = metrics.lines().filter(|line| line.starts_with("starling_decoders_lost_total{"));
    assert!(lost.clone().all(|line| line.ends_with(" 0")), "{:?}", lost.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_caller_waits_for_the_model_and_the_last_takes_it_along() {
    let settings = Settings::new(&format!(
        "[sessions]\nqueue_length = 0\nqueue_wait = \"0s\"\n[[model]]\nname = \"scripted\"\nhosts = 0\nslots = 2\n\
         [model.scaling]\nenabled = true\nidle_target = 0\n{QUICK}"
    ));
    let program = Program::serve(&["--config", settings.path()], 0).await;
    assert_eq!(program.hosts().len(), 0);
    let began = Instant::now();
    let (mut sender, events) = open(&program, "scripted").await;
    println!("the first caller waited {:?}", began.elapsed());
    sender.send(&pcm()).await.expect("sent");
    sender.end().await.expect("ended");
    assert_eq!(heard(events).await, transcript());
    wait_for_hosts(&program, 0).await;
    let ready = get(program.http, "/readyz").await.expect("answers");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    poll("no need", async || (scaling(&program, "scripted").await?["desired"] == 0).then_some(())).await;
}

/// The node that callers come to decodes nothing, and the one that would has nothing loaded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_of_a_gateway_wakes_the_model_on_another_node() {
    let node = async |name: &str, role: &str, seeds: &str, model: &str| {
        let settings = Settings::new(&format!(
            "[cluster]\nroles = [\"{role}\"]\n[sessions]\nqueue_length = 4\nqueue_wait = \"0s\"\n\
             [[model]]\nname = \"scripted\"\nslots = 4\n{model}"
        ));
        let cluster = ["--node-id", name, "--cluster-listen", "127.0.0.1:0", "--seeds", seeds];
        Program::start(&[&["--config", settings.path()][..], &cluster].concat()).await
    };
    let mut gateway = node("gateway", "gateway", "", "[model.scaling]\nload_wait = \"60s\"\n").await;
    let seed = gateway.gossip().expect("gossips").to_string();
    let unready = get(gateway.http, "/readyz").await.expect("answers");
    assert!(unready.starts_with("HTTP/1.1 503"), "nobody could serve it: {unready}");
    let asleep =
        format!("hosts = 0\n[model.scaling]\nenabled = true\nidle_target = 0\nload_wait = \"60s\"\n{QUICK}");
    let decoders =
        [node("one", "decoder", &seed, &asleep).await, node("two", "decoder", &seed, &asleep).await];
    gateway.ready(0).await;
    poll("both decoders' loads in the gateway's view", async || {
        let nodes = status(&gateway).await?["nodes"].as_array()?.clone();
        let told = nodes.iter().filter(|node| node["models"][0]["name"] == "scripted").count();
        (told == 3).then_some(())
    })
    .await;
    assert!(decoders.iter().all(|decoder| decoder.hosts().is_empty()), "nobody has asked for it");

    let began = Instant::now();
    let opening = futures_util::future::join_all((0..3).map(|_| open(&gateway, "scripted")));
    let sessions = tokio::time::timeout(PATIENCE, opening).await.expect("nobody waits for ever");
    println!("three callers waited {:?}", began.elapsed());
    let hosts: Vec<usize> = decoders.iter().map(|decoder| decoder.hosts().len()).collect();
    assert!(hosts == [1, 0] || hosts == [0, 1], "one node has one host loaded for all three: {hosts:?}");
    for (mut sender, events) in sessions {
        sender.send(&pcm()).await.expect("sent");
        sender.end().await.expect("ended");
        assert_eq!(heard(events).await, transcript());
    }
    for decoder in &decoders {
        wait_for_hosts(decoder, 0).await;
    }
    let ready = get(gateway.http, "/readyz").await.expect("answers");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
}

/// With a real model: its files are read, and the engine loads it, while the caller waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_nobody_listed_is_loaded_for_whoever_asks() {
    let settings = Settings::new(
        "[scaling]\non_demand = true\n[[model]]\nname = \"scripted\"\nhosts = 1\nslots = 1\nprewarm = 1\n",
    );
    let program = Program::serve(&["--config", settings.path()], 1).await;
    let Err(unknown) = try_open(program.url(), Some("no-such-model")).await else {
        panic!("there is no such model")
    };
    assert!(unknown.contains("scripted"), "it names what there is: {unknown}");
    assert_eq!(program.hosts().len(), 1);

    let home = Home::discover(None).expect("a home folder");
    let clip = std::fs::read(home.root().join("audio/ko/ko-1.wav")).expect("run `cargo xtask setup` first");
    let began = Instant::now();
    // Two at once have it loaded once.
    let both = tokio::join!(open(&program, "vosk-ko-small"), open(&program, "vosk-ko-small"));
    println!("two callers of a model that was not there waited {:?}", began.elapsed());
    assert!(began.elapsed() < PATIENCE + Duration::from_secs(20));
    let ((mut sender, events), other) = both;
    // Behind the head of the file is PCM at the model's rate.
    sender.send(&clip[44..]).await.expect("sent");
    sender.end().await.expect("ended");
    assert!(!heard(events).await.is_empty());
    drop(other);
    assert_eq!(program.hosts().len(), 2);
    let own = scaling(&program, "vosk-ko-small").await.expect("is told")["own"].clone();
    assert_eq!(own["hosts"], 1, "{own}");
}
