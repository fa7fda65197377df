//! A real receiver of OTLP, and what it was told.

use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::clients::Language;
use super::{free_address, poll};

/// A collector that prints nothing for so long has printed all that it has taken: it takes less than a millisecond for a span.
const QUIET: Duration = Duration::from_millis(500);

/// `oteltap`, or for other protocols than its own a program beside it, which prints each span as a line of JSON.
pub struct Collector {
    child: Child,
    protocol: &'static str,
    port: u16,
    folder: TempDir,
}

impl Collector {
    pub async fn start() -> Self {
        Self::of("http/protobuf").await
    }

    /// One that speaks this protocol alone.
    pub async fn of(protocol: &'static str) -> Self {
        let port = free_address().port();
        let folder = TempDir::new().expect("a folder");
        let out = File::create(folder.path().join("spans")).expect("a file");
        let port_text = port.to_string();
        let mut command = if protocol == "http/protobuf" {
            let mut command = Language::Python.interpreter();
            command.args(["-u", "-m", "oteltap", "--port", &port_text]);
            command
        } else {
            let mut command = Language::Python.program("checks/python/otlp_receiver.py");
            command.args([protocol, &port_text]);
            command
        };
        let child = command.stdout(out).stderr(Stdio::null()).spawn().expect("starts");
        let collector = Self { child, protocol, port, folder };
        poll("the collector", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        collector
    }

    /// What a node is to be started with that tells this collector, more often than it would by itself.
    pub fn variables(&self, sampler: &str) -> Vec<(&'static str, String)> {
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{}", self.port)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", self.protocol.to_owned()),
            ("OTEL_TRACES_SAMPLER", sampler.to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG", "0".to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "200".to_owned()),
        ]
    }

    /// What it was told, once a session's own span is there for each of so many.
    pub async fn spans(&self, sessions: usize) -> Spans {
        self.tells("the sessions' own spans", |spans| spans.named("session").len() >= sessions).await
    }

    /// What it was told, once there is this in it.
    pub async fn tells(&self, what: &str, is_there: impl Fn(&Spans) -> bool) -> Spans {
        poll(what, async || {
            let text = self.printed();
            let spans = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            // One that was told again is the same one.
            let spans = Spans(spans.map(|span| (text_of(&span["spanId"]).to_owned(), span)).collect());
            if !is_there(&spans) {
                return None;
            }
            // What it has taken it prints a moment later.
            tokio::time::sleep(QUIET).await;
            (self.printed() == text).then_some(spans)
        })
        .await
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("spans")).expect("readable")
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Spans by their ids.
pub struct Spans(BTreeMap<String, Value>);

impl Spans {
    /// Takes out those of one trace.
    pub fn take(&mut self, trace: &str) -> Self {
        Self(self.0.extract_if(.., |_, span| span["traceId"] == trace).collect())
    }

    /// Whether none is of any session, but of what nodes do by themselves.
    pub fn are_of_no_session(&self) -> bool {
        self.all().all(|span| attribute(span, "session.id").is_null())
    }

    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.0.values()
    }

    pub fn named(&self, name: &str) -> Vec<&Value> {
        self.all().filter(|span| span["name"] == name).collect()
    }

    /// The one with this name.
    pub fn only(&self, name: &str) -> &Value {
        let named = self.named(name);
        let [one] = named[..] else { panic!("one {name}: {named:?}") };
        one
    }

    pub fn parent(&self, span: &Value) -> Option<&Value> {
        self.0.get(text_of(&span["parentSpanId"]))
    }

    /// The session's own span, below which all others are: each with whose it is and who tells of it.
    pub fn root(&self) -> &Value {
        for span in self.all() {
            assert!(self.parent(span).is_some() || span["name"] == "session", "{span} is nobody's");
            assert!(!text_of(attribute(span, "session.id")).is_empty(), "{span}");
            assert!(!text_of(attribute(span, "node.id")).is_empty(), "{span}");
            assert!(!text_of(attribute(span, "node.generation")).is_empty(), "{span}");
            assert!(!attribute(span, "epoch").is_null(), "{span}");
        }
        let roots = self.named("session");
        let [root] = roots[..] else { panic!("{roots:?}") };
        assert_eq!(root["kind"], 2, "a server's: {root}");
        assert_eq!(attribute(root, "outcome"), "done", "{root}");
        root
    }

    /// A session that lost its decoder, then its owner: all that happened to it, and what it cost.
    pub fn tell_of_losses(&self, causes: [&str; 2]) {
        let failovers = self.named("failover");
        let told: Vec<&str> = failovers.iter().map(|span| text_of(attribute(span, "cause"))).collect();
        // A machine that stands still may cost one more.
        assert!(causes.iter().all(|cause| told.contains(cause)), "{failovers:?}");
        for failover in failovers {
            assert!(attribute(failover, "buffered_s").is_number(), "{failover}");
            assert!(attribute(failover, "attempt").is_string(), "{failover}");
            assert!(!failover["events"].as_array().expect("a list").is_empty(), "{failover}");
        }
        let resumes = self.named("resume");
        assert!(resumes.iter().any(|span| attribute(span, "taken_over") == true), "{resumes:?}");
        for name in ["admission", "replication", "copy", "commit"] {
            assert!(!self.named(name).is_empty(), "{name} is missing");
        }
        // Each segment has decoding below it.
        let segments = self.named("segment");
        let mut numbers: Vec<&str> =
            segments.iter().map(|span| text_of(attribute(span, "segment"))).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), segments.len(), "each once: {segments:?}");
        let decodes = self.named("decode");
        for decode in &decodes {
            let parent = self.parent(decode).expect("is somebody's");
            assert_eq!(parent["name"], "segment", "{decode}");
        }
        assert!(decodes.iter().any(|span| attribute(span, "rtf").as_f64() > Some(0.0)), "{decodes:?}");
    }
}

pub fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn attribute<'a>(span: &'a Value, key: &str) -> &'a Value {
    let attributes = span["attributes"].as_array().expect("a list");
    let found = attributes.iter().find(|attribute| attribute["key"] == key);
    found.and_then(|found| found["value"].as_object()?.values().next()).unwrap_or(&Value::Null)
}
