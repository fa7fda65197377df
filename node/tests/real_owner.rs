//! Callers whose own node is killed, stopped or told to go: real processes and models, and the SDK that goes on elsewhere.

mod program;

use std::time::Duration;

use program::clients::Speaker;
use program::cluster::{Cluster, ended, lasted, node};
use program::*;
use rustix::process::Signal;
use tokio::task::JoinHandle;

/// A reading of 44 s, for what takes its time.
const LONG_RECORDING: &str = "audio/two_cities.wav";

fn speak(cluster: &Cluster, first: usize) -> JoinHandle<String> {
    let mut urls = cluster.urls();
    urls.rotate_left(first);
    tokio::spawn(async move { said(&urls, &["--realtime"]).await })
}

async fn said(servers: &[String], how: &[&str]) -> String {
    let recording = home().root().join(LONG_RECORDING).display().to_string();
    let servers: Vec<&str> = servers.iter().flat_map(|server| ["--server", server.as_str()]).collect();
    let arguments = [&["transcribe", "--format", "json"][..], how, &servers, &[&recording]].concat();
    let output = run(&arguments).await;
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_goes_on_when_its_own_node_is_killed() {
    let mut cluster = Cluster::start().await;
    let begin = |how: &[&str]| {
        let mut command = starling();
        command.args(["transcribe", "--format", "json", "-"]).args(how);
        command.args(cluster.urls().iter().flat_map(|server| ["--server", server]));
        Speaker::begin(command)
    };
    let undisturbed = stdout(&begin(&[]).rest().await);
    assert!(undisturbed.contains("try again"), "{undisturbed}");
    let speaker = begin(&["--realtime"]);
    let first = cluster.owner().await;
    cluster.kill(first);
    let second = cluster.owner_after(first).await;
    cluster.kill(second);
    cluster.owner_after(second).await;
    assert_eq!(stdout(&speaker.rest().await), undisturbed);
    // Whoever is left says of the session what no node that lives has seen of it.
    let last = cluster.alive().next().expect("a node");
    let ended = ended(last, 1).await;
    assert!(ended[0]["attempt"].as_u64() >= Some(3), "one decoder with each owner: {}", ended[0]);
    // The recording's ten seconds came at the pace of speech; its last owner had not the first two of them.
    assert!(lasted(&ended[0]) > Some(Duration::from_secs(9)), "{}", ended[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_disturbs_nobody_when_it_runs_again() {
    let cluster = Cluster::start().await;
    let undisturbed = said(&cluster.urls(), &[]).await;
    let speaking = speak(&cluster, 1);
    let first = cluster.owner().await;
    let stopped = cluster.nodes[first].as_ref().expect("is there");
    // Its sockets stay open: the caller notices by its silence, and goes on elsewhere.
    stopped.signal(Signal::STOP);
    cluster.owner_after(first).await;
    stopped.signal(Signal::CONT);
    assert_eq!(speaking.await.expect("is transcribed"), undisturbed);
    poll("the stopped node's session ends", async || {
        let metrics = get(stopped.http, "/metrics").await?;
        let mut sessions = metrics.lines().filter(|line| line.starts_with("starling_sessions{"));
        sessions.all(|line| line.ends_with(" 0")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_restarted_under_load_and_no_caller_notices() {
    let mut cluster = Cluster::start().await;
    let undisturbed = said(&cluster.urls(), &[]).await;
    let speaking: Vec<_> = (0..3).map(|first| speak(&cluster, first)).collect();
    cluster.owner().await;
    for index in 0..3 {
        let other = cluster.nodes[(index + 1) % 3].as_ref().expect("is there");
        cluster.drain(&format!("node-{index}"), other).await;
        let mut program = cluster.nodes[index].take().expect("is there");
        assert!(program.end().await.success(), "{}", program.log());
        cluster.nodes[index] = Some(node(index, &cluster.seed, &program.http.to_string()).await);
        cluster.know_each_other().await;
    }
    for speaking in speaking {
        assert_eq!(speaking.await.expect("is transcribed"), undisturbed);
    }
}
