//! Clients in other languages on real nodes with a real model: our own, whose decoder and whose node are killed while they
//! speak, and other people's libraries as they are.

mod program;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use program::cluster::Cluster;
use program::*;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_blocking};

/// A reading of ten seconds, the first sentence of which lasts six.
const RECORDING: &str = "beckett.wav";

/// Seconds of speech between one kill and the next: the first sentence has both.
const BETWEEN: Duration = Duration::from_millis(1_500);

/// What a client is written in.
#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    JavaScript,
}

use Language::{JavaScript, Python};

impl Language {
    /// A program of the checkout's `clients/`, with the packages that `cargo xtask setup` has fetched.
    fn program(self, path: &str) -> Command {
        let packages = home().root().join("clients").join(match self {
            Python => "python",
            JavaScript => "node",
        });
        let stamp = packages.join("installed");
        assert!(stamp.exists(), "{} is missing: run `cargo xtask setup` first", stamp.display());
        let mut command = Command::new(match self {
            Python => "python3",
            JavaScript => "node",
        });
        command.arg(clients().join(path)).stdin(Stdio::null()).env("PYTHONPATH", packages);
        // What is beside the programs is the checkout's, not for caches.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Our own client.
    fn ours(self) -> Command {
        self.program(match self {
            Python => "python/starling_client.py",
            JavaScript => "javascript/transcribe.mjs",
        })
    }
}

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients")
}

fn recording() -> PathBuf {
    home().audio_dir().join(RECORDING)
}

fn began(mut command: Command) -> JoinHandle<Output> {
    spawn_blocking(move || command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// The end of a program that has to succeed.
async fn ended(output: JoinHandle<Output>) -> Output {
    let output = tokio::time::timeout(PATIENCE, output).await.expect("ends in time").expect("runs");
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    output
}

/// Our own client on a recording, at the pace of speech or as fast as it goes.
fn speaks(language: Language, servers: &[String], more: &[&str]) -> JoinHandle<Output> {
    let mut command = language.ours();
    command.args(servers.iter().flat_map(|server| ["--url", server])).args(more).arg(recording());
    began(command)
}

/// What a check of somebody's library found.
async fn found(language: Language, path: &str, address: &str) -> Value {
    let mut command = language.program(path);
    command.arg(address).arg(recording());
    let output = ended(began(command)).await;
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_go_on_when_their_decoder_and_their_node_are_killed() {
    let mut cluster = Cluster::start().await;
    let path = recording().display().to_string();
    let undisturbed = run(&["transcribe", "--server", &cluster.urls()[0], &path]).await;
    let undisturbed = stdout(&undisturbed);
    assert!(undisturbed.contains("try again"), "{undisturbed}");
    for language in [Python, JavaScript] {
        let calm = ended(speaks(language, &cluster.urls(), &[])).await;
        assert_eq!(stdout(&calm), undisturbed, "{language:?}");

        cluster.quiet().await;
        let speaking = speaks(language, &cluster.urls(), &["--realtime"]);
        let owner = cluster.owner().await;
        let decoder = cluster.decoder().await;
        tokio::time::sleep(BETWEEN).await;
        let hosts = cluster.nodes[decoder].as_ref().expect("is there").hosts();
        hosts.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        let own = cluster.nodes[owner].as_ref().expect("is there");
        poll("word of the lost decoder", async || {
            own.log().contains("a session lost its decoder").then_some(())
        })
        .await;
        tokio::time::sleep(BETWEEN).await;
        cluster.kill(cluster.owner().await);
        let told = ended(speaking).await;
        assert_eq!(stdout(&told), undisturbed, "{language:?}: {}", stderr(&told));
        assert!(stderr(&told).contains("was lost and replaced"), "{language:?}: {}", stderr(&told));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_survive_servers_that_drop_forget_and_send_them_away() {
    let mut python = Language::Python.program("python/test_starling_client.py");
    python.arg("--quiet");
    let javascript = Language::JavaScript.program("javascript/starling-client.test.mjs");
    let (python, javascript) = (began(python), began(javascript));
    let javascript = ended(javascript).await;
    assert!(stdout(&javascript).contains("# fail 0"), "{}", stdout(&javascript));
    let python = ended(python).await;
    assert!(stderr(&python).contains("OK"), "{}", stderr(&python));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_clients_show_their_key() {
    let keys = stdout(&run(&["keys", "new"]).await);
    let line = |name: &str| keys.lines().find_map(|line| line.strip_prefix(name)).expect("is told").trim();
    let (key, hash) = (line("key:"), line("hash:"));
    let settings = tempfile::NamedTempFile::new().expect("a file");
    let text = format!(
        "[[tenant]]\nname = \"acme\"\nkeys = [\"{hash}\"]\n[[model]]\nname = \"moonshine-tiny-en\"\nhosts = 1\n"
    );
    std::fs::write(settings.path(), text).expect("written");
    let program = Program::start(&["--config", &settings.path().display().to_string()]).await;
    poll("readiness", async || get(program.http, "/readyz").await?.starts_with("HTTP/1.1 200").then_some(()))
        .await;
    for language in [Python, JavaScript] {
        let told = ended(speaks(language, &[program.url()], &["--key", key])).await;
        assert!(stdout(&told).contains("try again"), "{language:?}: {}", stdout(&told));
        let refused = speaks(language, &[program.url()], &["--key", "nobody's"]).await.expect("runs");
        assert_eq!(refused.status.code(), Some(1), "{language:?}");
        let said = stderr(&refused);
        assert!(said.contains("the server refused the session: the key is"), "{language:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn libraries_of_others_work_as_they_are() {
    let program = Program::serve(&["--model", "moonshine-tiny-en"], 2).await;
    let path = recording().display().to_string();
    let undisturbed = run(&["transcribe", "--server", &program.url(), &path]).await;
    let undisturbed = stdout(&undisturbed);
    let segments: Vec<&str> = undisturbed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = segments.join(" ");
    assert!(text.contains("try again"), "{text}");

    let http = format!("http://{}", program.http);
    for (language, path) in [
        (Python, "checks/python/openai_recordings.py"),
        (JavaScript, "checks/javascript/openai-recordings.mjs"),
    ] {
        let openai = found(language, path, &http).await;
        for way in ["json", "verbose_json", "stream", "deltas"] {
            assert_eq!(openai[way], text, "{language:?}, {way}: {openai}");
        }
        assert_eq!(openai["models"], json!(["moonshine-tiny-en"]), "{language:?}");
        assert_eq!(openai["segments"], json!(segments), "{language:?}");
        assert_eq!(openai["duration"].as_f64().map(f64::round), Some(10.0), "{language:?}");
    }

    let address = program.http.to_string();
    for (language, path) in
        [(Python, "checks/python/deepgram_listen.py"), (JavaScript, "checks/javascript/deepgram-listen.mjs")]
    {
        let deepgram = found(language, path, &address).await;
        assert_eq!(deepgram["recording"], text, "{language:?}");
        assert_eq!(deepgram["live"], text, "{language:?}");
        assert_eq!(deepgram["last"], json!(["Metadata"]), "{language:?}");
    }

    let vosk = found(Python, "checks/python/vosk_lockstep.py", &format!("ws://{}", program.vosk)).await;
    assert_eq!(vosk["text"], text);
    // The recording has 49.8 times 200 ms; one reply for each message, and one for `eof`.
    assert_eq!(vosk["replies"], 51);
}
