//! The page in a real browser, with a real model: what a microphone hears, while a decoder and the node itself are killed, and
//! where that can be looked up.

mod program;

use std::path::Path;
use std::process::Command;

use program::clients::*;
use program::cluster::{Cluster, More};
use program::traces::{Collector, attribute, text_of};
use program::*;
use serde_json::Value;
use starling_node::tenants::KeyHash;
use tempfile::TempDir;

/// Of nodes of which a page may kill decoders, and which say where traces are shown.
const SETTINGS: &str =
    "[chaos]\nenabled = true\n[tracing]\nviewer_url = \"https://traces.example/{trace_id}\"\n";

#[tokio::test]
async fn the_pages_own_modules_do_what_they_say() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../web/test");
    let mut command = Command::new("node");
    command.arg("--test");
    for test in std::fs::read_dir(tests).expect("is there") {
        command.arg(test.expect("reads").path());
    }
    let ran = ended(began(command)).await;
    assert!(stdout(&ran).contains("# fail 0"), "{}", stdout(&ran));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_read_along_while_a_decoder_and_its_node_are_killed() {
    let collector = Collector::start().await;
    let more = More { settings: SETTINGS, collector: Some(&collector) };
    let mut cluster = Cluster::with(3, &more).await;
    let folder = TempDir::new().expect("a folder");
    let audio = folder.path().join("audio.wav");
    let mut command = Language::JavaScript.program("checks/browser/the-page.mjs");
    command.args(["--kill", "--audio"]).arg(&audio);
    if let Some(pictures) = std::env::var_os("STARLING_TEST_PICTURES") {
        command.arg("--pictures").arg(pictures);
    }
    command.arg(cluster.urls()[0].replacen("ws://", "http://", 1)).arg(recording());
    let log = folder.path().join("page.log");
    let mut page = began_logging(command, &log);
    let killed = async {
        let owner = cluster.owner().await;
        // The page's own button comes first, and what the page has to see of that.
        poll("the killed decoder", async || {
            let said = std::fs::read_to_string(&log).expect("readable");
            said.contains("killed a decoder").then_some(())
        })
        .await;
        owner
    };
    let owner = tokio::select! {
        owner = killed => owner,
        output = &mut page => panic!("the page was over too soon: {}", stderr(&output.expect("runs"))),
    };
    cluster.kill(owner);
    let told = told(page).await;

    let undisturbed = segments(&cluster.urls()[0], &audio).await.join(" ");
    assert!(undisturbed.contains("try again"), "{undisturbed}");
    let text = |name: &str| told[name].as_str().unwrap_or_else(|| panic!("{name}: {told}")).to_owned();
    let lines: Vec<String> = text("text").lines().map(str::to_owned).collect();
    assert_eq!(lines.join(" "), undisturbed, "{told}");
    assert_eq!(told["json"]["text"], undisturbed, "{told}");
    assert_eq!(told["json"]["gaps"], Value::Array(Vec::new()), "{told}");
    assert_eq!(
        told["announced"],
        serde_json::json!(lines),
        "finals are told to screen readers, once: {told}"
    );

    let banner = text("banner");
    assert!(banner.starts_with(&format!("node-{owner} lost, continuing on node-")), "{banner}");
    assert!(banner.ends_with(", nothing missing"), "{banner}");
    assert!(text("killed").starts_with("Killed process "), "{told}");
    assert!(text("caughtUp").contains("nothing missing"), "{told}");
    assert!(text("summary").contains("1 failure survived, nothing missing"), "{told}");
    assert!(text("srt").starts_with("1\n00:00:0"), "{told}");
    assert!(text("vtt").starts_with("WEBVTT\n\n00:00:0"), "{told}");
    assert!(!text("played").is_empty(), "{told}");
    assert_eq!(
        (&told["violations"], &told["errors"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{told}"
    );

    // Where the page's list leads to, all of it is told: whoever owned it, and whoever decoded it.
    let listed = told["sessions"].as_array().expect("a list");
    let [session] = &listed[..] else { panic!("{told}") };
    let link = text_of(&session["trace"]).strip_prefix("https://traces.example/");
    let trace = link.unwrap_or_else(|| panic!("no link: {told}"));
    cluster.end().await;
    let spans = collector.spans(2).await.take(trace);
    let root = spans.root();
    assert_eq!(attribute(root, "session.id"), &session["session"]);
    assert_eq!(attribute(root, "model"), "moonshine-tiny-en");
    assert_ne!(text_of(attribute(root, "node.id")), format!("node-{owner}"), "{root}");
    spans.tell_of_losses(["killed", "owner_lost"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_over_tls_speaks_webtransport_and_goes_on_when_its_decoder_is_killed() {
    let folder = TempDir::new().expect("a folder");
    let certificate = Certificate::in_folder(folder.path()).await;
    let settings = format!(
        "[chaos]\nenabled = true\n{}[[model]]\nname = \"moonshine-tiny-en\"\nhosts = 2\n",
        certificate.settings()
    );
    let program = Program::serve(&["--config", &written(folder.path(), &settings)], 2).await;
    let audio = folder.path().join("audio.wav");
    let mut command = Language::JavaScript.program("checks/browser/the-page.mjs");
    command.args(["--kill", "--calm", "--audio"]).arg(&audio).arg(over_tls(&program)).arg(recording());
    let told = told(began(command)).await;
    let undisturbed = segments(&program.url(), &audio).await.join(" ");
    assert_eq!(told["json"]["text"], undisturbed, "{told}");
    assert!(told["where"].as_str().expect("a text").contains("WebTransport"), "{told}");
    assert!(told["caughtUp"].as_str().expect("a text").contains("nothing missing"), "{told}");
    assert_eq!(told["errors"], serde_json::json!([]), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_fit_to_be_seen_by_whoever_comes_and_while_things_go_wrong() {
    let folder = TempDir::new().expect("a folder");
    let Certificate { cert, key, .. } = Certificate::in_folder(folder.path()).await;
    let [caller, operator] = ["key-of-a-caller", "key-of-an-operator"];
    let tenant = |name: &str, key: &str, operator: bool| {
        let hash = KeyHash::of(key);
        format!("[[tenant]]\nname = \"{name}\"\nkeys = [\"{hash}\"]\noperator = {operator}\n")
    };
    let settings = format!(
        "[chaos]\nenabled = true\n[listen]\nhttps = \"127.0.0.1:0\"\n\
         [tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n{}{}\
         [[model]]\nname = \"moonshine-tiny-en\"\nhosts = 1\n",
        tenant("acme", caller, false),
        tenant("operator", operator, true),
    );
    // What it measures is its operators' to know.
    let program = Program::serve(&["--config", &written(folder.path(), &settings)], 0).await;
    let mut command = Language::JavaScript.program("checks/browser/page-states.mjs");
    command.args(["--key", caller, "--operator-key", operator]);
    if let Some(pictures) = std::env::var_os("STARLING_TEST_PICTURES") {
        command.arg("--pictures").arg(pictures);
    }
    command.arg(over_tls(&program)).arg(recording());
    let told = told(began(command)).await;
    let policy = text_of(&told["policy"]);
    assert!(policy.contains("connect-src 'self' wss://127.0.0.1:"), "{policy}");
    assert_eq!(
        (&told["violations"], &told["errors"]),
        (&serde_json::json!([]), &serde_json::json!([])),
        "{told}"
    );
    assert_eq!((&told["drained"], &told["languages"]), (&false.into(), &serde_json::json!(["en"])), "{told}");
    assert_eq!(told["failed"], "The file notes.txt is no audio that this browser can read.");
    assert!(text_of(&told["lost"]).ends_with(" lost, looking for another…"), "{told}");
    assert!(text_of(&told["word"]).starts_with("0:00."), "{told}");
    assert!(get(program.http, "/readyz").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")));
}

fn written(folder: &Path, settings: &str) -> String {
    let path = folder.join("cluster.toml");
    std::fs::write(&path, settings).expect("written");
    path.display().to_string()
}

fn over_tls(program: &Program) -> String {
    format!("https://{}", program.listening("https").expect("listens"))
}
