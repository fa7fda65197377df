//! Sessions as a collector hears of them: real processes that are killed, and a real receiver of OTLP.

mod program;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use program::cluster::{ended, lasted, status};
use program::traces::{Collector, Spans, attribute, text_of};
use program::*;
use rustix::process::Signal;
use serde_json::Value;
use starling_engine::scripted::{encode, encode_from, silence};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// What the caller says of its own trace.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Words of a tenth of a second, with a pause after every twentieth: speech for as long as two nodes take to be lost.
const WORDS: usize = 160;

/// A node that tells a collector.
async fn node(collector: &Collector, name: &str, role: &str, seed: &str, sampler: &str) -> Program {
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let tracing = "[tracing]\nviewer_url = \"https://traces.example/{trace_id}\"\n";
    let model = "[[model]]\nname = \"scripted\"\nhosts = 1\n";
    let log = "[log]\nlevel = \"info,starling_actors=debug\"\n";
    let text = format!("[cluster]\nroles = [\"{role}\"]\n{log}{tracing}{model}");
    std::fs::write(settings.path(), text).expect("written");
    let path = settings.path().display().to_string();
    let cluster = ["--cluster-listen", "127.0.0.1:0", "--seeds", seed];
    let arguments = [&["--config", &path, "--node-id", name][..], &cluster].concat();
    Program::start_with(&arguments, &collector.variables(sampler)).await
}

/// Two nodes for callers and two that decode.
struct Cluster {
    fronts: Vec<Program>,
    decoders: Vec<Program>,
}

impl Cluster {
    async fn start(collector: &Collector, sampler: &str) -> Self {
        let front = node(collector, "front-0", "gateway", "", sampler).await;
        let seed = front.gossip().expect("gossips").to_string();
        let mut cluster = Self { fronts: vec![front], decoders: Vec::new() };
        cluster.fronts.push(node(collector, "front-1", "gateway", &seed, sampler).await);
        for index in 0..2 {
            let name = format!("decoder-{index}");
            cluster.decoders.push(node(collector, &name, "decoder", &seed, sampler).await);
        }
        for front in &cluster.fronts {
            poll("idle decoders", async || {
                let status = status(front).await?;
                let nodes = status["nodes"].as_array()?.iter();
                let idle = |node: &&Value| {
                    node["state"] == "alive" && node["models"][0]["slots"]["idle"].as_u64() > Some(0)
                };
                (nodes.filter(idle).count() >= 2).then_some(())
            })
            .await;
        }
        cluster
    }

    /// Speaks to the first front, and goes on at the other.
    fn speak(&self, folder: &TempDir) -> JoinHandle<std::process::Output> {
        let words: Vec<String> = (0..WORDS).map(|number| format!("w{number}")).collect();
        let sentences = words.chunks(20).zip((0..).step_by(20));
        let speech: Vec<i16> =
            sentences.flat_map(|(words, first)| [encode_from(first, words), silence(8)].concat()).collect();
        let wav = scripted_wav(folder.path(), "speech.wav", &speech);
        let mut command = starling();
        command.args(["transcribe", "--realtime", "--format", "json"]);
        for front in &self.fronts {
            command.args(["--server", &front.url()]);
        }
        command.arg(wav).stdin(Stdio::null()).env("TRACEPARENT", format!("00-{TRACE}-{CALLER}-01"));
        tokio::task::spawn_blocking(move || command.output().expect("runs"))
    }

    /// The session, once it is durable, has caught up and has decoded for a while.
    async fn session(&self, observer: usize, wanted: impl Fn(&Value) -> bool) -> Value {
        poll("the session", async || {
            let status = status(&self.fronts[observer]).await?;
            let mut sessions = status["sessions"].as_array()?.iter();
            let calm = |session: &&Value| {
                let placed = session["durable"] == true && session["decoder"].is_string();
                placed && session["connected"] == true && session["lag_ms"].as_u64() < Some(1_000)
            };
            sessions.find(|session| calm(session) && wanted(session)).cloned()
        })
        .await
    }

    /// Lines of any node's log.
    fn lines(&self) -> Vec<Value> {
        let logs = self.fronts.iter().chain(&self.decoders).map(Program::log);
        let lines: Vec<String> =
            logs.flat_map(|log| log.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn end(self) {
        for mut program in self.fronts.into_iter().chain(self.decoders) {
            program.signal(Signal::TERM);
            // Those that were killed have ended before.
            let _ = program.end().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_loses_its_decoder_and_its_owner_is_one_tree() {
    let (collector, folder) = (Collector::start().await, TempDir::new().expect("a folder"));
    let cluster = Cluster::start(&collector, "parentbased_always_on").await;
    let speaking = cluster.speak(&folder);
    let session = cluster.session(0, |_| true).await;
    assert_eq!(session["owner"], "front-0");
    let decoder = text_of(&session["decoder"]);
    // Whoever is killed has told before what is asked for below.
    let decoded_at = |spans: &Spans, node: &str| {
        spans.named("decode").iter().any(|span| text_of(attribute(span, "node.id")) == node)
    };
    collector
        .tells("what all have told", |spans| {
            spans.named("node_start").len() == 4 && decoded_at(spans, decoder)
        })
        .await;
    cluster.decoders[index_of(decoder)].signal(Signal::KILL);
    let next = cluster.session(0, |now| now["attempt"].as_u64() > session["attempt"].as_u64()).await;
    collector
        .tells("what the first owner has told", |spans| {
            let told = ["admission", "failover"].iter().all(|name| !spans.named(name).is_empty());
            told && decoded_at(spans, text_of(&next["decoder"]))
        })
        .await;
    cluster.fronts[0].signal(Signal::KILL);
    // At the other front, or at whichever node has the copy.
    let session = cluster.session(1, |session| session["owner"] != "front-0").await;

    let output = tokio::time::timeout(PATIENCE, speaking).await.expect("ends in time").expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(text_of(&said["text"]).split(' ').count(), WORDS, "{said}");
    // It began where it began, and not with its last owner: audio of 22 s came at the pace of speech.
    let ended = &ended(&cluster.fronts[1], 1).await[0];
    assert!(lasted(ended) > Some(Duration::from_secs(20)), "{ended}");
    assert!(
        ended["attempt"].as_u64() >= Some(3),
        "two decoders of the first owner, one of the next: {ended}"
    );
    // The owner, who decodes for it, and who has a copy: all name the trace in what they log of it.
    let lines = cluster.lines();
    for message in ["a session goes on here", "a peer asks for a lease", "a copy is whole"] {
        let mut found = lines.iter().filter(|line| line["message"] == message).peekable();
        assert!(found.peek().is_some(), "{message}");
        found.for_each(|line| assert_eq!(line["span"]["trace_id"], TRACE, "{line}"));
    }
    cluster.end().await;
    let mut told = collector.spans(1).await;
    let spans = told.take(TRACE);
    assert!(told.are_of_no_session(), "all is in the caller's trace");
    let starts = told.named("node_start");
    assert_eq!(starts.len(), 4, "{starts:?}");
    let root = spans.root();
    assert_eq!((&root["parentSpanId"], attribute(root, "node.id")), (&CALLER.into(), &session["owner"]));
    assert_eq!(attribute(root, "model"), "scripted");
    spans.tell_of_losses(["node_lost", "owner_lost"]);
    let decodes = spans.named("decode");
    let places: BTreeSet<&str> = decodes.iter().map(|span| text_of(attribute(span, "node.id"))).collect();
    assert_eq!(places, BTreeSet::from(["decoder-0", "decoder-1"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sessions_that_are_not_sampled_those_with_a_fault_are_kept() {
    let (collector, folder) = (Collector::start().await, TempDir::new().expect("a folder"));
    let cluster = Cluster::start(&collector, "traceidratio").await;
    let undisturbed = run(&["transcribe", "--server", &cluster.fronts[0].url(), &short(&folder)]).await;
    assert!(undisturbed.status.success(), "{}", stderr(&undisturbed));
    let speaking = cluster.speak(&folder);
    let session = cluster.session(0, |now| now["audio_ms"].as_u64() > Some(1_000)).await;
    let decoder = index_of(text_of(&session["decoder"]));
    cluster.decoders[decoder].hosts().into_iter().for_each(|host| signal(host, Signal::KILL));
    // Now that it is kept: it leaves the node that decodes, which is drained.
    let again = cluster.session(0, |now| now["attempt"].as_u64() > session["attempt"].as_u64()).await;
    let left = text_of(&again["decoder"]).to_owned();
    let drained = run(&["drain", &left, "--server", &cluster.fronts[0].url()]).await;
    assert!(drained.status.success(), "{}", stderr(&drained));
    let output = tokio::time::timeout(PATIENCE, speaking).await.expect("ends in time").expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let ended = ended(&cluster.fronts[1], 2).await;
    let links: Vec<&str> = ended.iter().filter_map(|one| one["trace_url"].as_str()).collect();
    assert_eq!(links, [format!("https://traces.example/{TRACE}")]);
    cluster.end().await;
    let mut told = collector.spans(1).await;
    let spans = told.take(TRACE);
    assert_eq!(told.all().count(), 0, "the undisturbed one is not kept, nor what nodes do by themselves");
    let failovers = spans.named("failover");
    assert_eq!(failovers.len(), 1, "{failovers:?}");
    assert_eq!(attribute(failovers[0], "cause"), "killed");
    let moved = spans.only("move");
    let attributes = ["what", "from_node"].map(|name| text_of(attribute(moved, name)));
    assert_eq!(attributes, ["decoder", &left], "{moved}");
    assert_ne!(attribute(moved, "to_node"), left.as_str(), "{moved}");
    // What came before the fault, as far as its owner tells it.
    assert_eq!((spans.named("session").len(), spans.named("admission").len()), (1, 1));
    // The loss itself, and all after it, as the node tells that decodes.
    let mut lost = spans.named("decode");
    lost.retain(|span| span["status"]["code"] == 2);
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(attribute(lost[0], "error.type"), "killed");
}

/// What a node alone does by itself, from its start to its end, and a request that comes to nothing, over each protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_does_by_itself_is_told_over_each_protocol() {
    for protocol in ["http/protobuf", "grpc", "http/json"] {
        let (collector, folder) = (Collector::of(protocol).await, TempDir::new().expect("a folder"));
        let variables = collector.variables("parentbased_always_on");
        let settings = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(settings.path(), "[[model]]\nname = \"scripted\"\nhosts = 1\n").expect("written");
        let config = settings.path().display().to_string();
        let mut node = Program::serve_with("127.0.0.1:0", &["--config", &config], &variables, 1).await;
        let caller = format!("traceparent: 00-{TRACE}-{CALLER}-01\r\n");
        let asked = "POST /v1/transcriptions?model=secret";
        let recording = std::fs::read(short(&folder)).expect("readable");
        let answer = exchange_with(node.http, asked, &caller, &recording).await.expect("is answered");
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let host = node.hosts()[0];
        signal(host, Signal::KILL);
        poll("another host", async || node.hosts().iter().any(|other| *other != host).then_some(())).await;
        node.ready(1).await;
        let heard = run(&["transcribe", "--server", &node.url(), &short(&folder)]).await;
        assert!(heard.status.success(), "{}", stderr(&heard));
        node.signal(Signal::HUP);
        poll("settings that are read again", async || node.log().contains("as before").then_some(())).await;
        node.signal(Signal::TERM);
        assert!(node.end().await.success(), "{}", node.log());

        let mut told = collector.spans(1).await;
        // The caller's request had no session; its name has nothing of what the caller says.
        let refused = told.take(TRACE);
        let refused = refused.only("POST /v1/transcriptions");
        assert_eq!((&refused["parentSpanId"], &refused["kind"]), (&CALLER.into(), &2.into()), "{refused}");
        assert_eq!(attribute(refused, "http.response.status_code"), "404", "{refused}");
        assert_eq!(attribute(refused, "error.type"), "unknown_model", "{refused}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
        let start = told.only("node_start");
        assert!(attribute(start, "ready_s").as_f64() > Some(0.0), "{start}");
        for stage in ["configure", "bind", "verify", "launch", "load", "join"] {
            assert_eq!(told.parent(told.only(stage)), Some(start), "{stage}");
        }
        let hosts = told.named("host_start");
        let cause = |cause: &str| {
            let mut found = hosts.iter().filter(|host| attribute(host, "cause") == cause);
            *found.next().unwrap_or_else(|| panic!("{cause}: {hosts:?}"))
        };
        let (first, second) = (cause("start"), cause("respawn"));
        assert_eq!(attribute(first, "pid"), host.to_string().as_str(), "{first}");
        assert_eq!(told.parent(first), Some(told.only("load")));
        assert_eq!((told.parent(second), attribute(second, "model")), (None, &"scripted".into()));
        assert_eq!(attribute(told.only("reload"), "models_changed"), "0");
        assert_eq!(attribute(told.only("drain"), "cause"), "signal");
        for own in told.all() {
            assert!(!text_of(attribute(own, "node.id")).is_empty(), "{own}");
        }
        // What goes between nodes and collectors is nobody's span, nor is what tests look at.
        assert_eq!(told.all().filter(|span| span["kind"] == 2).count(), 1, "the session alone");
    }
}

/// A decoder's place in the list.
fn index_of(decoder: &str) -> usize {
    decoder.strip_prefix("decoder-").and_then(|index| index.parse().ok()).expect("a decoder")
}

fn short(folder: &TempDir) -> String {
    let words = ["one".to_owned(), "two".to_owned()];
    scripted_wav(folder.path(), "short.wav", &encode(&words)).display().to_string()
}
