//! Sessions as a collector hears of them: real processes that are killed, and a real receiver of OTLP.

mod program;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use program::clients::Language;
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

/// `oteltap`, which prints each span as a line of JSON.
struct Collector {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Collector {
    async fn start() -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let folder = TempDir::new().expect("a folder");
        let out = File::create(folder.path().join("spans")).expect("a file");
        let mut command = Language::Python.interpreter();
        command.args(["-u", "-m", "oteltap", "--port", &port.to_string()]).stdout(out).stderr(Stdio::null());
        let child = command.spawn().expect("starts");
        let collector = Self { child, port, folder };
        poll("the collector", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        collector
    }

    /// Spans by their ids: one that was told again is the same one.
    fn spans(&self) -> BTreeMap<String, Value> {
        let text = std::fs::read_to_string(self.folder.path().join("spans")).expect("readable");
        let spans = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        spans.map(|span| (text_of(&span["spanId"]).to_owned(), span)).collect()
    }

    /// A node that tells this collector, more often than it would by itself.
    async fn node(&self, name: &str, role: &str, seed: &str, sampler: &str) -> Program {
        let settings = tempfile::NamedTempFile::new().expect("a file");
        let text = format!("[cluster]\nroles = [\"{role}\"]\n[[model]]\nname = \"scripted\"\nhosts = 1\n");
        std::fs::write(settings.path(), text).expect("written");
        let path = settings.path().display().to_string();
        let cluster = ["--cluster-listen", "127.0.0.1:0", "--seeds", seed];
        let arguments = [&["--config", &path, "--node-id", name][..], &cluster].concat();
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ];
        Program::start_with(&arguments, &variables).await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two nodes for callers and two that decode.
struct Cluster {
    fronts: Vec<Program>,
    decoders: Vec<Program>,
}

impl Cluster {
    async fn start(collector: &Collector, sampler: &str) -> Self {
        let front = collector.node("front-0", "gateway", "", sampler).await;
        let seed = front.gossip().expect("gossips").to_string();
        let mut cluster = Self { fronts: vec![front], decoders: Vec::new() };
        cluster.fronts.push(collector.node("front-1", "gateway", &seed, sampler).await);
        for index in 0..2 {
            let name = format!("decoder-{index}");
            cluster.decoders.push(collector.node(&name, "decoder", &seed, sampler).await);
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

    async fn end(self) {
        for mut program in self.fronts.into_iter().chain(self.decoders) {
            program.signal(Signal::TERM);
            // Those that were killed have ended before.
            let _ = program.end().await;
        }
    }
}

async fn status(program: &Program) -> Option<Value> {
    let server = format!("http://{}", program.http);
    let output = run(&["status", "--json", "--server", &server]).await;
    serde_json::from_slice(&output.stdout).ok()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().expect("a list");
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.and_then(|found| found["value"].as_object()?.values().next()).unwrap_or(&Value::Null)
}

fn named<'a>(spans: &'a BTreeMap<String, Value>, name: &str) -> Vec<&'a Value> {
    spans.values().filter(|span| span["name"] == name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_loses_its_decoder_and_its_owner_is_one_tree() {
    let (collector, folder) = (Collector::start().await, TempDir::new().expect("a folder"));
    let cluster = Cluster::start(&collector, "parentbased_always_on").await;
    let speaking = cluster.speak(&folder);
    let session = cluster.session(0, |_| true).await;
    assert_eq!(session["owner"], "front-0");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let decoder: usize = text_of(&session["decoder"])
        .strip_prefix("decoder-")
        .and_then(|index| index.parse().ok())
        .expect("a decoder");
    cluster.decoders[decoder].signal(Signal::KILL);
    cluster.session(0, |now| now["attempt"].as_u64() > session["attempt"].as_u64()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.fronts[0].signal(Signal::KILL);
    // At the other front, or at whichever node has the copy.
    let session = cluster.session(1, |session| session["owner"] != "front-0").await;

    let output = tokio::time::timeout(PATIENCE, speaking).await.expect("ends in time").expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(text_of(&said["text"]).split(' ').count(), WORDS, "{said}");
    cluster.end().await;
    let spans = poll("the session's own span", async || {
        let spans = collector.spans();
        (!named(&spans, "session").is_empty()).then_some(spans)
    })
    .await;

    // One tree, below the caller's span.
    for span in spans.values() {
        assert_eq!(span["traceId"], TRACE, "{span}");
        let parent = text_of(&span["parentSpanId"]);
        assert!(spans.contains_key(parent) || span["name"] == "session", "{span} is nobody's");
        assert!(!text_of(attribute(span, "session.id")).is_empty(), "{span}");
        assert!(!text_of(attribute(span, "node.id")).is_empty(), "{span}");
        assert!(!text_of(attribute(span, "node.generation")).is_empty(), "{span}");
        assert!(!attribute(span, "epoch").is_null(), "{span}");
    }
    let roots = named(&spans, "session");
    let [root] = roots[..] else { panic!("{roots:?}") };
    assert_eq!((&root["parentSpanId"], attribute(root, "node.id")), (&CALLER.into(), &session["owner"]));
    assert_eq!((attribute(root, "outcome"), attribute(root, "model")), (&"done".into(), &"scripted".into()));
    assert_eq!(root["kind"], 2, "a server's");

    // Both losses, with what they cost.
    let failovers = named(&spans, "failover");
    let causes: BTreeSet<&str> = failovers.iter().map(|span| text_of(attribute(span, "cause"))).collect();
    assert_eq!(causes, BTreeSet::from(["node_lost", "owner_lost"]), "{failovers:?}");
    for failover in failovers {
        assert!(attribute(failover, "buffered_s").is_number(), "{failover}");
        assert!(attribute(failover, "attempt").is_string(), "{failover}");
        assert!(!failover["events"].as_array().expect("a list").is_empty(), "{failover}");
    }
    let resumes = named(&spans, "resume");
    assert!(resumes.iter().any(|span| attribute(span, "taken_over") == true), "{resumes:?}");

    for name in ["admission", "replication", "copy", "commit"] {
        assert!(!named(&spans, name).is_empty(), "{name} is missing");
    }
    // Each segment has decoding below it, told of by the node that did it.
    let segments = named(&spans, "segment");
    let numbers: BTreeSet<&str> = segments.iter().map(|span| text_of(attribute(span, "segment"))).collect();
    assert_eq!(numbers.len(), segments.len(), "each once: {segments:?}");
    let decodes = named(&spans, "decode");
    let places: BTreeSet<&str> = decodes.iter().map(|span| text_of(attribute(span, "node.id"))).collect();
    assert_eq!(places, BTreeSet::from(["decoder-0", "decoder-1"]));
    for decode in &decodes {
        assert_eq!(spans[text_of(&decode["parentSpanId"])]["name"], "segment", "{decode}");
    }
    assert!(decodes.iter().any(|span| attribute(span, "rtf").as_f64() > Some(0.0)), "{decodes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sessions_that_are_not_sampled_those_with_a_fault_are_kept() {
    let (collector, folder) = (Collector::start().await, TempDir::new().expect("a folder"));
    let cluster = Cluster::start(&collector, "traceidratio").await;
    let undisturbed = run(&["transcribe", "--server", &cluster.fronts[0].url(), &short(&folder)]).await;
    assert!(undisturbed.status.success(), "{}", stderr(&undisturbed));
    let speaking = cluster.speak(&folder);
    let session = cluster.session(0, |_| true).await;
    let decoder = text_of(&session["decoder"]).to_owned();
    let decoder: usize =
        decoder.strip_prefix("decoder-").and_then(|index| index.parse().ok()).expect("a decoder");
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.decoders[decoder].hosts().into_iter().for_each(|host| signal(host, Signal::KILL));
    let output = tokio::time::timeout(PATIENCE, speaking).await.expect("ends in time").expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    cluster.end().await;
    let spans = poll("the session's own span", async || {
        let spans = collector.spans();
        (!named(&spans, "session").is_empty()).then_some(spans)
    })
    .await;
    assert_eq!(named(&spans, "session").len(), 1, "the undisturbed one is not kept");
    assert!(spans.values().all(|span| span["traceId"] == TRACE));
    let failovers = named(&spans, "failover");
    assert_eq!(failovers.len(), 1, "{failovers:?}");
    assert_eq!(attribute(failovers[0], "cause"), "killed");
    // What came before the fault, as far as its owner tells it.
    assert_eq!(named(&spans, "admission").len(), 1);
    // The loss itself, and all after it, as the node tells that decodes.
    let lost: Vec<_> =
        named(&spans, "decode").into_iter().filter(|span| span["status"]["code"] == 2).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(attribute(lost[0], "error.type"), "killed");
}

fn short(folder: &TempDir) -> String {
    let words = ["one".to_owned(), "two".to_owned()];
    scripted_wav(folder.path(), "short.wav", &encode(&words)).display().to_string()
}
