//! Callers of one node whose audio is decoded on others: real processes and models, killed, stopped and cut off.

mod program;

use program::clients::Speaker;
use program::*;
use rustix::process::Signal;
use serde_json::Value;

/// A caller's node, which decodes nothing, and others that do.
struct Cluster {
    gateway: Program,
    decoders: Vec<Program>,
}

/// A node of the cluster, on ports of the system's choice.
async fn node(name: &str, role: &str, seeds: &str, sessions: &str) -> Program {
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "[cluster]\nroles = [\"{role}\"]\n[sessions]\n{sessions}\n[[model]]\nname = \"moonshine-tiny-en\"\nhosts = 1\n"
    );
    std::fs::write(settings.path(), text).expect("written");
    let path = settings.path().display().to_string();
    let cluster = ["--cluster-listen", "127.0.0.1:0", "--seeds", seeds];
    let log = ["--log-level", "info,starling_actors::decoders=debug"];
    let arguments = [&["--config", &path, "--node-id", name][..], &cluster, &log].concat();
    Program::start(&arguments).await
}

impl Cluster {
    async fn start(decoders: usize) -> Self {
        Self::start_with(decoders, "").await
    }

    /// With lines of the nodes' `[sessions]`.
    async fn start_with(decoders: usize, sessions: &str) -> Self {
        let gateway = node("gateway", "gateway", "", sessions).await;
        let seed = gateway.gossip().expect("gossips").to_string();
        let mut cluster = Self { gateway, decoders: Vec::new() };
        for index in 0..decoders {
            cluster.decoders.push(node(&format!("decoder-{index}"), "decoder", &seed, sessions).await);
        }
        cluster.all_idle().await;
        cluster
    }

    /// Waits until the gateway knows that every decoder has its slots free.
    async fn all_idle(&self) {
        poll("idle decoders", async || {
            let idle = self.slots().await?.iter().filter(|(_, busy, idle)| *busy == 0 && *idle > 0).count();
            (idle == self.decoders.len()).then_some(())
        })
        .await;
        assert!(get(self.gateway.http, "/readyz").await.expect("answers").starts_with("HTTP/1.1 200"));
    }

    async fn status(&self) -> Option<Value> {
        let server = format!("http://{}", self.gateway.http);
        let output = run(&["status", "--json", "--server", &server]).await;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Each living decoder's place in the list, and its busy and idle slots.
    async fn slots(&self) -> Option<Vec<(usize, u64, u64)>> {
        let status = self.status().await?;
        let nodes = status["nodes"].as_array()?.iter().filter(|node| node["state"] == "alive");
        let slots = nodes.filter_map(|node| {
            let index = index_of(&node["name"])?;
            let slots = &node["models"][0]["slots"];
            Some((index, slots["busy"].as_u64()?, slots["idle"].as_u64()?))
        });
        Some(slots.collect())
    }

    /// The decoder that has the caller now, but none of `but`.
    async fn busy(&self, but: &[usize]) -> usize {
        poll("a decoder at work", async || {
            let slots = self.slots().await?;
            slots.iter().find(|(index, busy, _)| *busy > 0 && !but.contains(index)).map(|(index, ..)| *index)
        })
        .await
    }

    /// The decoder that has the caller, but none of `but`, once another stands by.
    async fn guarded(&self, but: &[usize]) -> usize {
        poll("a decoder and its standby", async || {
            let status = self.status().await?;
            let session = status["sessions"].as_array()?.first()?;
            let places = [index_of(&session["decoder"])?, index_of(&session["standby"])?];
            (!places.iter().any(|place| but.contains(place))).then_some(places[0])
        })
        .await
    }

    /// Of each lease that the gateway was given by a decoder, whether it was reserved before.
    fn leases(&self) -> Vec<bool> {
        let log = self.gateway.log();
        let lines = log.lines().filter(|line| line.contains("a peer gives a decoder"));
        lines.map(|line| line.contains("\"reserved\":true")).collect()
    }

    fn speak(&self, how: &[&str]) -> Speaker {
        let mut command = starling();
        command.args(["transcribe", "--format", "json", "--server", &self.gateway.url(), "-"]).args(how);
        Speaker::begin(command)
    }

    async fn undisturbed(&self) -> String {
        let said = stdout(&self.speak(&[]).rest().await);
        assert!(said.contains("try again"), "{said}");
        said
    }
}

/// A decoder's place in the list.
fn index_of(name: &Value) -> Option<usize> {
    name.as_str()?.strip_prefix("decoder-")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_hear_nothing_of_decoder_nodes_that_die() {
    let cluster = Cluster::start(3).await;
    let undisturbed = cluster.undisturbed().await;
    let before = cluster.leases();
    assert_eq!(before.first(), Some(&true), "a slot was reserved over the control plane");

    cluster.all_idle().await;
    let speaker = cluster.speak(&["--realtime"]);
    let first = cluster.busy(&[]).await;
    cluster.decoders[first].signal(Signal::KILL);
    // Stopped, its sockets stay open: only its silence tells.
    let second = cluster.busy(&[first]).await;
    cluster.decoders[second].signal(Signal::STOP);
    cluster.busy(&[first, second]).await;
    assert_eq!(stdout(&speaker.rest().await), undisturbed);
    assert!(
        cluster.gateway.log().matches("a replacement decoder has caught up").count() >= 2,
        "{}",
        cluster.gateway.log()
    );
    let leases = cluster.leases();
    assert_eq!(leases[before.len()..][..2], [true, false], "who goes on asks on the stream");
    cluster.decoders[second].signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_standby_no_other_decoder_is_sought() {
    let cluster = Cluster::start_with(3, "standby = \"warm\"").await;
    let undisturbed = cluster.undisturbed().await;
    cluster.all_idle().await;
    let speaker = cluster.speak(&["--realtime"]);
    let first = cluster.guarded(&[]).await;
    cluster.decoders[first].signal(Signal::KILL);
    let second = cluster.guarded(&[first]).await;
    cluster.decoders[second].signal(Signal::STOP);
    let gone_on = || cluster.gateway.log().matches("a session goes on with its standby").count();
    poll("the second standby's turn", async || (gone_on() == 2).then_some(())).await;
    assert_eq!(stdout(&speaker.rest().await), undisturbed);
    cluster.decoders[second].signal(Signal::CONT);
    let log = cluster.gateway.log();
    assert_eq!(gone_on(), 2, "{log}");
    assert_eq!(log.matches("decoding goes on at a peer").count(), 2, "once for each session: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoder_node_that_stops_hands_its_callers_over() {
    let mut cluster = Cluster::start(2).await;
    let undisturbed = cluster.undisturbed().await;
    cluster.all_idle().await;
    let speaker = cluster.speak(&["--realtime"]);
    let first = cluster.busy(&[]).await;
    cluster.decoders[first].signal(Signal::TERM);
    // It leaves at the next cut, which comes as the caller goes on.
    let said = tokio::spawn(speaker.rest());
    assert!(cluster.decoders[first].end().await.success());
    assert_eq!(stdout(&said.await.expect("is transcribed")), undisturbed);
}
