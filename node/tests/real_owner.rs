//! Callers whose own node is killed, stopped or told to go: real processes and models, and the SDK that goes on elsewhere.

mod program;

use std::path::PathBuf;
use std::time::Duration;

use program::cluster::{Cluster, ended, lasted, node};
use program::*;
use rustix::process::Signal;
use tokio::task::JoinHandle;

/// A reading of ten seconds.
const RECORDING: &str = "audio/beckett.wav";

/// A longer one, of 44 s, for what takes its time.
const LONG_RECORDING: &str = "audio/two_cities.wav";

fn speak(cluster: &Cluster, recording: &'static str, first: usize) -> JoinHandle<String> {
    let mut urls = cluster.urls();
    urls.rotate_left(first);
    tokio::spawn(async move { said(&urls, recording, &["--realtime"]).await })
}

async fn said(servers: &[String], recording: &str, how: &[&str]) -> String {
    let recording: PathBuf = home().root().join(recording);
    let recording = recording.display().to_string();
    let servers: Vec<&str> = servers.iter().flat_map(|server| ["--server", server.as_str()]).collect();
    let arguments = [&["transcribe", "--format", "json"][..], how, &servers, &[&recording]].concat();
    let output = run(&arguments).await;
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_goes_on_when_its_own_node_is_killed() {
    let mut cluster = Cluster::start().await;
    let undisturbed = said(&cluster.urls(), RECORDING, &[]).await;
    assert!(undisturbed.contains("try again"), "{undisturbed}");
    let speaking = speak(&cluster, RECORDING, 0);
    let first = cluster.owner().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.kill(first);
    let second = cluster.owner().await;
    assert_ne!(first, second);
    cluster.kill(second);
    assert_eq!(speaking.await.expect("is transcribed"), undisturbed);
    // Whoever is left says of the session what no node that lives has seen of it.
    let last = cluster.alive().next().expect("a node");
    let ended = ended(last, 1).await;
    assert!(ended[0]["attempt"].as_u64() >= Some(3), "one decoder with each owner: {}", ended[0]);
    // The recording came at the pace of speech; its last owner had it for half of that at most.
    assert!(lasted(&ended[0]) > Some(Duration::from_secs(8)), "{}", ended[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_disturbs_nobody_when_it_runs_again() {
    let cluster = Cluster::start().await;
    let undisturbed = said(&cluster.urls(), LONG_RECORDING, &[]).await;
    let speaking = speak(&cluster, LONG_RECORDING, 1);
    let first = cluster.owner().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let stopped = cluster.nodes[first].as_ref().expect("is there");
    // Its sockets stay open: the caller notices by its silence, and goes on elsewhere.
    stopped.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(20)).await;
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
    let undisturbed = said(&cluster.urls(), LONG_RECORDING, &[]).await;
    let speaking: Vec<_> = (0..3).map(|first| speak(&cluster, LONG_RECORDING, first)).collect();
    cluster.owner().await;
    for index in 0..3 {
        let server = {
            let other = cluster.nodes[(index + 1) % 3].as_ref().expect("is there");
            format!("http://{}", other.http)
        };
        let name = format!("node-{index}");
        let drained = run(&["drain", &name, "--server", &server]).await;
        assert!(drained.status.success(), "{}", stderr(&drained));
        let mut program = cluster.nodes[index].take().expect("is there");
        assert!(program.end().await.success(), "{}", program.log());
        cluster.nodes[index] = Some(node(index, &cluster.seed, &program.http.to_string()).await);
        cluster.know_each_other().await;
    }
    for speaking in speaking {
        assert_eq!(speaking.await.expect("is transcribed"), undisturbed);
    }
}
