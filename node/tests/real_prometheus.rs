//! Debian's Prometheus, as an operator runs it, over nodes that are real processes (of the scripted engine): the files in
//! `deploy/prometheus` are good, what goes wrong fires its alert, and every expression of the dashboard has an answer.
//!
//! What differs from an operator's: it scrapes each second, and no alert waits before it fires.

mod program;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use program::*;
use rustix::process::Signal;
use serde_json::Value;
use starling_engine::scripted;
use tempfile::TempDir;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// One of the programs that come with Prometheus.
fn installed(name: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    assert!(found, "{name} is missing: run `cargo xtask setup` first");
    Command::new(name)
}

async fn succeeds(mut command: Command) -> String {
    let shown = format!("{command:?}");
    let ran = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    let output = tokio::time::timeout(PATIENCE, ran).await.expect("ends in time").expect("not cancelled");
    let output = output.expect("runs");
    assert!(output.status.success(), "{shown}\n{}{}", stdout(&output), stderr(&output));
    stdout(&output)
}

#[tokio::test]
async fn the_rules_are_good_and_say_what_they_should_of_made_up_figures() {
    let folder = deploy().join("prometheus");
    let promtool = |arguments: &[&str]| {
        let mut command = installed("promtool");
        command.args(arguments).current_dir(&folder);
        command
    };
    succeeds(promtool(&["check", "config", "prometheus.yml"])).await;
    succeeds(promtool(&["test", "rules", "tests.yml", "tests-day.yml"])).await;
}

/// Ends it, whichever way the test ends.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// One that scrapes these nodes with this key, by the rules in `deploy` and in a hurry.
    async fn start(nodes: &[&Program], key: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let rules = deploy().join("prometheus");
        for name in ["recording.yml", "alerts.yml"] {
            let text = std::fs::read_to_string(rules.join(name)).expect("the rules");
            let in_a_hurry = text.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
                Some(_) => "        for: 0s\n".to_owned(),
                None => format!("{line}\n"),
            });
            std::fs::write(folder.path().join(name), in_a_hurry.collect::<String>()).expect("written");
        }
        let targets: Vec<String> = nodes.iter().map(|node| format!("\"{}\"", node.http)).collect();
        let example = std::fs::read_to_string(rules.join("prometheus.yml")).expect("the example");
        let config = example
            .replace("_interval: 10s", "_interval: 1s")
            .replace(
                "# authorization:\n    #   credentials_file: /etc/prometheus/starling.key",
                "authorization:\n      credentials_file: key",
            )
            .replace("\"127.0.0.1:8080\"", &targets.join(", "));
        assert!(config.contains("\n    authorization:") && config.contains(&targets[0]), "{config}");
        std::fs::write(folder.path().join("prometheus.yml"), config).expect("written");
        std::fs::write(folder.path().join("key"), key).expect("written");
        let address = free_address();
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = installed("prometheus");
        command
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=warn"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("starts");
        let mut this = Self { child, address, folder };
        poll("Prometheus", async || {
            if let Some(status) = this.child.try_wait().expect("can be asked") {
                let log = std::fs::read_to_string(this.folder.path().join("log")).unwrap_or_default();
                panic!("Prometheus ended with {status}:\n{log}");
            }
            get(this.address, "/-/ready").await.filter(|answer| answer.starts_with("HTTP/1.1 200"))
        })
        .await;
        this
    }

    /// What an expression says now, as Prometheus' API has it.
    async fn query(&self, expression: &str) -> Vec<Value> {
        let query: String = form_urlencoded::byte_serialize(expression.as_bytes()).collect();
        let answer = self.get(&format!("/api/v1/query?query={query}")).await;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"]["result"].as_array().expect("a vector").clone()
    }

    /// One GET by HTTP/1.0, whose answers come in one piece.
    async fn get(&self, path: &str) -> Value {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(self.address).await.expect("connected");
            stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            answer
        };
        let answer = tokio::time::timeout(PATIENCE, asked).await.expect("answers in time");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}\n{answer}"))
    }

    /// Waits until an alert fires, with this in its labels.
    async fn fires(&self, alert: &str, label: &str, value: &str) {
        let expression =
            format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", {label}=\"{value}\"}}");
        poll(&expression, async || (!self.query(&expression).await.is_empty()).then_some(())).await;
    }

    /// Waits until these are the sums: one scrape that came too late on a busy machine leaves a node out of them.
    async fn says<const N: usize>(&self, sums: [(&str, f64); N]) {
        for (expression, wanted) in sums {
            let what = format!("sum({expression}) == {wanted}");
            poll(&what, async || (self.sum(expression).await == wanted).then_some(())).await;
        }
    }

    async fn sum(&self, expression: &str) -> f64 {
        number(self.query(&format!("sum({expression})")).await.first())
    }
}

fn number(sample: Option<&Value>) -> f64 {
    sample.and_then(|sample| sample["value"][1].as_str()?.parse().ok()).unwrap_or(f64::NAN)
}

/// A node with TLS, tenants and two hosts, in a cluster by `seed`.
async fn node(name: &str, seed: &str, folder: &Path, hashes: [&str; 2]) -> Program {
    let certificate = Certificate::in_folder(&folder.join(name)).await;
    let [operator, caller] = hashes;
    let settings = format!(
        "{}[metrics]\nlegacy_names = true\n[sessions]\nlinger = \"20s\"\n[[model]]\nname = \"scripted\"\nhosts = 2\nslots = 4\n\
         [[tenant]]\nname = \"operator\"\nkeys = [\"{operator}\"]\noperator = true\n\
         [[tenant]]\nname = \"caller\"\nkeys = [\"{caller}\"]\nsessions = 1\n",
        certificate.settings()
    );
    let path = folder.join(format!("{name}.toml"));
    std::fs::write(&path, settings).expect("written");
    let path = path.display().to_string();
    let cluster = ["--cluster-listen", "127.0.0.1:0", "--seeds", seed];
    Program::start(&[&["--config", &path, "--node-id", name][..], &cluster].concat()).await
}

/// A key and what stands for it in the settings.
async fn key() -> (String, String) {
    let made = run(&["keys", "new"]).await;
    let told = stdout(&made);
    let after =
        |what: &str| told.lines().find_map(|line| line.strip_prefix(what)).expect(what).trim().to_owned();
    (after("key:"), after("hash:"))
}

/// A caller at the pace of speech who knows these nodes.
fn caller(nodes: &[&Program], key: &str, recording: &Path) -> tokio::task::JoinHandle<Output> {
    let mut command = starling();
    command.args(["transcribe", "--realtime", "--words", "--api-key", key]);
    for node in nodes {
        command.args(["--server", &node.url()]);
    }
    command.arg(recording).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().expect("runs"))
}

/// Every expression of the dashboard with its panel's title, its variables filled in.
fn expressions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(deploy().join("grafana/starling.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let of = |panel: &Value| {
        let title = panel["title"].as_str().expect("a title").to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        let filled = move |target: Value| {
            let expression = target["expr"].as_str().expect("an expression").to_owned();
            let filled = expression
                // Longer than all of this takes on a busy machine.
                .replace("$__rate_interval", "5m")
                .replace("$__range", "5m")
                .replace("$instance", ".*")
                .replace("$model", ".*");
            assert!(!filled.contains('$'), "{filled}");
            (title.clone(), filled)
        };
        targets.into_iter().map(filled).collect::<Vec<_>>()
    };
    panels.flat_map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_fire_their_alerts_and_the_dashboard_has_an_answer_to_everything() {
    let folder = TempDir::new().expect("a folder");
    let ((operator, operators), (caller_key, callers)) = (key().await, key().await);
    let hashes = [operators.as_str(), callers.as_str()];
    let a = node("a", "", folder.path(), hashes).await;
    let seed = a.gossip().expect("gossips").to_string();
    let mut b = node("b", &seed, folder.path(), hashes).await;
    let c = node("c", &seed, folder.path(), hashes).await;
    let prometheus = Prometheus::start(&[&a, &b, &c], &operator).await;
    poll("three nodes with their decoders", async || {
        let idle = prometheus.sum("starling_slots_idle").await;
        let ready = prometheus.sum("starling_ready").await;
        let known = prometheus.query("min(starling_cluster_members{state=\"alive\"}) == 3").await;
        ((idle, ready, known.len()) == (24.0, 3.0, 1)).then_some(())
    })
    .await;
    poll("quiet", async || {
        // The machine that this runs on may be short of anything itself.
        let alerts = prometheus.query("ALERTS{alertname!~\"Starling(ClockStall|DiskFull|MemoryLow)\"}").await;
        alerts.is_empty().then_some(())
    })
    .await;
    prometheus.says([("number_of_worker_available", 24.0)]).await;

    // Eight utterances, of which each takes some three seconds and ends with silence.
    let words: Vec<String> = (0..20).map(|word| format!("w{word}")).collect();
    let mut audio = Vec::new();
    for utterance in 0..8 {
        audio.extend(scripted::encode_from(utterance * 20, &words));
        audio.extend(scripted::silence(7));
    }
    let recording = scripted_wav(folder.path(), "speech.wav", &audio);
    let undisturbed = caller(&[&a], &caller_key, &recording);
    let moving = caller(&[&b, &c], &caller_key, &recording);
    poll("two callers who are heard", async || {
        let cluster = json(b.http, &format!("/v1/cluster?token={operator}")).await?;
        let durable = cluster["sessions"].as_array()?.iter().filter(|session| session["durable"] == true);
        (durable.count() == 2).then_some(())
    })
    .await;
    // One session more than its tenant may have, and a key that is nobody's.
    for (key, status) in [(caller_key.as_str(), "429"), ("nobody", "401")] {
        let refused = exchange(a.http, &format!("POST /v1/transcriptions?token={key}"), b"").await;
        assert_eq!(refused.expect("answered").split(' ').nth(1), Some(status));
    }

    // Each is counted by one node.
    let counted = [
        ("starling_sessions_refused_total{reason=\"over_quota\"}", 1.0),
        ("starling_keys_refused_total{reason=\"unknown_key\"}", 1.0),
        ("starling_sessions_requested_total", 3.0),
        ("number_of_request_receive_by_master_total", 3.0),
        ("number_of_request_reject_total", 1.0),
    ];
    prometheus.says(counted).await;

    // The node that a caller speaks to is killed while it speaks; it goes on at another.
    b.signal(Signal::KILL);
    b.end().await;
    // What decodes on one node is killed again and again: its hosts are in a crash loop.
    poll("an alert on a crash loop", async || {
        a.hosts().into_iter().for_each(|host| signal(host, Signal::KILL));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let looping = "ALERTS{alertname=\"StarlingHostsCrashLoop\", alertstate=\"firing\"}";
        (!prometheus.query(looping).await.is_empty()).then_some(())
    })
    .await;
    prometheus.fires("StarlingNodeDown", "instance", &b.http.to_string()).await;
    for heard in [undisturbed, moving] {
        let output = tokio::time::timeout(PATIENCE, heard).await.expect("ends in time").expect("no panic");
        assert!(output.status.success(), "{}", stderr(&output));
        let heard = stdout(&output).split_whitespace().filter(|word| word.contains(":w")).count();
        assert_eq!(heard, 160, "{}\n{}", stdout(&output), stderr(&output));
    }
    poll("the caller who moved", async || {
        (prometheus.sum("starling_sessions_taken_over_total").await >= 1.0).then_some(())
    })
    .await;
    let nothing_lost =
        [("starling_words_lost_total", 0.0), ("starling_resumes_refused_total{reason=\"gap\"}", 0.0)];
    prometheus.says(nothing_lost).await;

    // Only what has not happened may have nothing to show: its series are there, and without a number.
    let mut without = BTreeSet::new();
    let all = expressions();
    assert!(all.len() > 80, "{}", all.len());
    for (title, expression) in all {
        let samples = poll(&format!("{title}: {expression}"), async || {
            let samples = prometheus.query(&expression).await;
            (!samples.is_empty()).then_some(samples)
        })
        .await;
        if samples.iter().all(|sample| number(Some(sample)).is_nan()) {
            without.insert(title);
        }
    }
    assert_eq!(without, BTreeSet::new());
}
