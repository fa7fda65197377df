//! Callers whose own node is killed, stopped or told to go: real processes and models, and the SDK that goes on elsewhere.

mod program;

use std::path::PathBuf;

use program::*;
use rustix::process::Signal;
use serde_json::Value;
use tokio::task::JoinHandle;

/// A reading of ten seconds.
const RECORDING: &str = "audio/beckett.wav";

/// A longer one, of 44 s, for what takes its time.
const LONG_RECORDING: &str = "audio/two_cities.wav";

/// Three nodes that each take callers, decode, and keep copies.
struct Cluster {
    nodes: Vec<Option<Program>>,
    seed: String,
}

/// A node in a zone of its own. Started again it has to have the address that callers know it by.
async fn node(index: usize, seed: &str, http: &str) -> Program {
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let text =
        format!("[cluster]\nzone = \"zone-{index}\"\n[[model]]\nname = \"moonshine-tiny-en\"\nhosts = 1\n");
    std::fs::write(settings.path(), text).expect("written");
    let path = settings.path().display().to_string();
    let name = format!("node-{index}");
    let listen = if index == 0 { seed } else { "127.0.0.1:0" };
    let cluster = ["--cluster-listen", listen, "--seeds", seed];
    let arguments = [&["--config", &path, "--node-id", &name][..], &cluster].concat();
    Program::serve_at(http, &arguments, 1).await
}

impl Cluster {
    async fn start() -> Self {
        let free = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let seed = free.local_addr().expect("bound").to_string();
        drop(free);
        let mut cluster = Self { nodes: Vec::new(), seed };
        for index in 0..3 {
            cluster.nodes.push(Some(node(index, &cluster.seed, "127.0.0.1:0").await));
        }
        cluster.know_each_other().await;
        cluster
    }

    fn alive(&self) -> impl Iterator<Item = &Program> {
        self.nodes.iter().flatten()
    }

    /// Waits until each node knows that all others decode and have room for copies.
    async fn know_each_other(&self) {
        let count = self.alive().count();
        for program in self.alive() {
            poll("nodes that know each other", async || {
                let status = status(program).await?;
                let nodes = status["nodes"].as_array()?.iter();
                let ready = |node: &&Value| {
                    node["state"] == "alive" && node["models"][0]["slots"]["idle"].as_u64() > Some(0)
                };
                (nodes.filter(ready).count() == count).then_some(())
            })
            .await;
        }
    }

    /// The node that a caller's session lives on and where its copies are, once there is one such session, that is durable.
    async fn owner(&self) -> usize {
        let observer = self.alive().next().expect("a node");
        poll("a durable session", async || {
            let status = status(observer).await?;
            let sessions = status["sessions"].as_array()?;
            let session =
                sessions.iter().find(|session| session["durable"] == true && session["connected"] == true)?;
            // Some text is open, and some audio is on its way.
            session["owner"].as_str()?.strip_prefix("node-")?.parse().ok()
        })
        .await
    }

    fn kill(&mut self, index: usize) {
        let program = self.nodes[index].take().expect("is there");
        program.signal(Signal::KILL);
    }

    fn urls(&self) -> Vec<String> {
        self.alive().map(Program::url).collect()
    }

    fn speak(&self, recording: &'static str, first: usize) -> JoinHandle<String> {
        let mut urls = self.urls();
        urls.rotate_left(first);
        tokio::spawn(async move { said(&urls, recording, &["--realtime"]).await })
    }
}

async fn status(program: &Program) -> Option<Value> {
    let server = format!("http://{}", program.http);
    let output = run(&["status", "--json", "--server", &server]).await;
    serde_json::from_slice(&output.stdout).ok()
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
    let speaking = cluster.speak(RECORDING, 0);
    let first = cluster.owner().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    cluster.kill(first);
    let second = cluster.owner().await;
    assert_ne!(first, second);
    cluster.kill(second);
    assert_eq!(speaking.await.expect("is transcribed"), undisturbed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_disturbs_nobody_when_it_runs_again() {
    let cluster = Cluster::start().await;
    let undisturbed = said(&cluster.urls(), LONG_RECORDING, &[]).await;
    let speaking = cluster.speak(LONG_RECORDING, 1);
    let first = cluster.owner().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let stopped = cluster.nodes[first].as_ref().expect("is there");
    // Its sockets stay open: the caller notices by its silence, and goes on elsewhere.
    stopped.signal(Signal::STOP);
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    stopped.signal(Signal::CONT);
    assert_eq!(speaking.await.expect("is transcribed"), undisturbed);
    poll("the stopped node's session ends", async || {
        let metrics = get(stopped.http, "/metrics").await?;
        metrics
            .lines()
            .any(|line| line.starts_with("starling_sessions") && line.ends_with(" 0"))
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_are_restarted_under_load_and_no_caller_notices() {
    let mut cluster = Cluster::start().await;
    let undisturbed = said(&cluster.urls(), LONG_RECORDING, &[]).await;
    let speaking: Vec<_> = (0..3).map(|first| cluster.speak(LONG_RECORDING, first)).collect();
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
